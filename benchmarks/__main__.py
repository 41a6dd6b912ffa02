"""Measure the program against the plain way: python -m benchmarks [case ...] [--json FILE] [--check]."""

import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from src.common.errors import nearest, run
from src.common.files import write_json
from src.config.command import Parser

CASES = (
    "tile", "whole-image", "loading", "mask-targets", "training-step", "half-precision", "results", "stitching",
    "evaluation", "prediction", "starting",
)  # fmt: skip


def parse_flags() -> Any:
    """Read the command line."""
    parser = Parser(__doc__, "python -m benchmarks tile evaluation --json results.json", "python -m benchmarks")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"which ones: {', '.join(CASES)} (default: all)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each side, in turn (default: 5)")
    parser.add_argument("--json", metavar="FILE", help="write all samples here")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a promise is not kept")
    flags = parser.parse_args()
    for name in flags.cases:
        if name not in CASES:
            parser.error(f"unknown case {name}{nearest(name, CASES)}")
    if flags.repeats < 1:
        parser.error("--repeats must be at least 1")
    return flags


def main() -> None:
    """Run the cases and print the table; with ``--check`` exit code 1 where a promise is not kept."""
    flags = parse_flags()

    import torch  # after the flags are read, so that --help answers at once

    from benchmarks import cases
    from benchmarks.measure import table

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in flags.cases or CASES:
            print(f"{name} …", file=sys.stderr)
            rows += getattr(cases, name.replace("-", "_"))(Path(folder), flags.repeats)
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
