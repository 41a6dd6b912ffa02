"""Make synthetic H&E-like images of cells in the homework's own layout, with the ground truth of the test images.

python -m src.sample --out demo/data --images 24 --seed 0
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.common.errors import run_command
from src.config.command import parse
from src.config.flags import option
from src.synthetic.dataset import write_sample
from src.synthetic.placement import MAX_SIZE, MIN_SIZE


@dataclass(frozen=True)
class SampleConfig:
    """Synthetic data."""

    out: str = option("", "folder to write; it must be absent or empty", required=True, metavar="DIR")
    images: int = option(24, "number of training images; a quarter as many test images (at least 2) come on top", low=2)
    seed: int = option(0, "the same seed gives the same files, byte for byte", low=0)
    size: int | None = option(
        None, "side of every image in px; without it the sides vary from 304 to 432", low=MIN_SIZE, high=MAX_SIZE
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(SampleConfig, __doc__, argv=arguments, recipe=True)
    cells = write_sample(Path(config.out), config.images, config.seed, config.size)
    num_test = max(2, config.images // 4)
    print(f"wrote {config.out}: {config.images} training and {num_test} test images with {cells} cells")


if __name__ == "__main__":
    run_command(main)
