"""Memory of the main process and of each loader worker over many epochs: ``python -m benchmarks.memory_curve``."""

from typing import Any

from src.common.errors import run
from src.config.command import Parser


def parse_flags() -> Any:
    """Read the command line."""
    example = "python -m benchmarks.memory_curve --epochs 50 --workers 2"
    parser = Parser(__doc__, example, "python -m benchmarks.memory_curve")
    parser.add_argument("--epochs", type=int, default=50, help="passes over the tiles (default: 50)")
    parser.add_argument("--workers", type=int, default=2, help="processes that load (default: 2)")
    return parser.parse_args()


if __name__ == "__main__":
    FLAGS = run(parse_flags)  # before torch is imported, so that --help answers at once

import tempfile
from pathlib import Path

from benchmarks.cases import open_dataset
from benchmarks.material import write_record
from src.config.settings import AugmentSettings
from src.engine.loading import EpochSampler, build_loader


def private_megabytes(pid: int | str) -> float:
    """Memory that belongs to a process alone: the cache's memory maps, which all share, are left out. Linux only."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty", "Private_Clean"))) / 1e3


def main(flags: Any) -> None:
    """Print one line every few epochs."""
    with tempfile.TemporaryDirectory() as folder:
        record = write_record(Path(folder) / "image", 1400, 1872, 1000)
        dataset = open_dataset(record, Path(folder) / "cache", AugmentSettings())
        sampler = EpochSampler(len(dataset), seed=0)
        loader = build_loader(dataset, sampler, batch_size=4, workers=flags.workers, cuda=False)
        print("epoch  main MB  worker MB")
        for epoch in range(1, flags.epochs + 1):
            sampler.epoch = epoch
            batches = iter(loader)
            for _ in batches:
                pass
            if epoch == 1 or epoch % 10 == 0:
                workers = [private_megabytes(worker.pid) for worker in getattr(batches, "_workers", [])]
                print(f"{epoch:5d}  {private_megabytes('self'):7.1f}  {'  '.join(f'{mb:.1f}' for mb in workers)}")


if __name__ == "__main__":
    run(lambda: main(FLAGS))
