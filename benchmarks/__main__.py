"""Measure the program against the plain way: python -m benchmarks [case ...] [--json FILE] [--check]."""

import platform
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.cases import CASES
from benchmarks.measure import table
from src.command import Parser
from src.errors import run
from src.files import write_json


def main() -> None:
    """Run the cases and print the table; with ``--check`` exit code 1 where a promise is not kept."""
    parser = Parser(__doc__, "python -m benchmarks tile score --json results.json", "python -m benchmarks")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"which ones: {', '.join(CASES)} (default: all)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each side, in turn (default: 5)")
    parser.add_argument("--json", metavar="FILE", help="write all samples here")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a promise is not kept")
    flags = parser.parse_args()
    unknown = set(flags.cases) - set(CASES)
    if unknown or flags.repeats < 1:
        parser.error(f"unknown case {', '.join(sorted(unknown))}" if unknown else "--repeats must be at least 1")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in flags.cases or CASES:
            print(f"{name} …", file=sys.stderr)
            rows += CASES[name](Path(folder), flags.repeats)
    print(table(rows))
    if flags.json:
        machine = {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        write_json(flags.json, {**machine, **versions, "rows": [row.to_json() for row in rows]}, indent=1)
        print(f"wrote {flags.json}")
    if flags.check and not all(row.kept for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    run(main)
