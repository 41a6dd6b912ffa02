"""Measure the program against the plain way.

python -m benchmarks --check
python -m benchmarks tile evaluation --json results.json
"""

import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from src.common.errors import InputError, nearest, run_command
from src.common.files import write_json
from src.config.command import parse
from src.config.flags import option

NETWORK_CASES = ("mask-targets", "training-step", "half-precision", "prediction")
DATA_CASES = ("tile", "whole-image", "loading", "many-images", "results", "stitching", "evaluation")
CASES = (*DATA_CASES, *NETWORK_CASES, "starting")


@dataclass(frozen=True)
class BenchmarkConfig:
    """The measurement."""

    cases: tuple[str, ...] = option((), f"which ones: {', '.join(CASES)}; absent: all", name="case")
    repeats: int = option(5, "measurements of each side, in turn", low=1)
    json: str | None = option(None, "write all samples here", metavar="FILE")
    check: bool = option(False, "exit with 1 where a promise is not kept")


def check_cases(config: BenchmarkConfig) -> None:
    """Refuse a case that does not exist."""
    for name in config.cases:
        if name not in CASES:
            raise InputError(f"unknown case {name}{nearest(name, CASES)}")


def main() -> None:
    """Run the cases and print the table; with ``--check`` exit code 1 where a promise is not kept."""
    flags = parse(BenchmarkConfig, __doc__, check_cases)

    import torch  # after the flags are read, so that --help answers at once

    from benchmarks import data_cases, network_cases
    from benchmarks.measure import table

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in flags.cases or CASES:
            print(f"{name} …", file=sys.stderr)
            cases = network_cases if name in NETWORK_CASES else data_cases
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
    run_command(main)
