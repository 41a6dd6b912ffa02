"""Write a page about a training run: how it was trained, how good it is, and where it errs. Two runs are compared.

python -m src.report --run logs
python -m src.report --run logs --pred val.json --gt data/train
python -m src.report --run logs --run logs.1
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.common.errors import InputError, nearest_path, run_command
from src.config.command import parse
from src.config.flags import inherited, option
from src.config.settings import MachineSettings
from src.evaluation.bootstrap import MAX_RESAMPLES, RESAMPLES
from src.evaluation.crowds import CROWDS
from src.reporting.run_report import Sources, groups_of_training, read_run, with_distinct_names, write_report
from src.reporting.score_rows import Resampling


@dataclass(frozen=True)
class ReportConfig:
    """The page."""

    run: tuple[str, ...] = option(
        (), "run folder; given twice, two runs are compared", required=True, repeated=True, metavar="DIR"
    )
    pred: str | None = option(None, "results JSON; absent: the run's best validation", metavar="FILE")
    gt: str | None = option(None, "ground truth; absent: the folder that the run was trained on", metavar="PATH")
    images: str | None = option(None, "where the images lie; absent: with the ground truth", metavar="DIR")
    id_map: str | None = option(None, "id map of --pred; absent: the one beside it", metavar="FILE")
    classes: str | None = option(None, "JSON of classes; absent: the run's", metavar="FILE")
    min_score: float = option(
        0.5, "lowest score that counts, except in AP", low=0, high=1, formerly="--score-thresh", metavar="S"
    )
    bootstrap: int = option(
        RESAMPLES,
        "resamples of the images, for intervals of the figures; 0: none",
        low=0,
        high=MAX_RESAMPLES,
        metavar="N",
    )
    groups: str | None = option(
        None,
        "JSON of name → group that is resampled as a whole; absent: as in the training, else each image by itself",
        metavar="FILE",
    )
    crowds: str = option(
        "auto", "what COCO's crowd annotations are: cells, regions to ignore, or what suits", choices=CROWDS
    )
    output: str | None = option(None, "page to write; absent: report.html in the run folder", metavar="FILE")
    max_pixels: int | None = inherited(
        MachineSettings, "max_pixels", help="images of more px are refused; absent: as in the training"
    )


def check_flags(config: ReportConfig) -> None:
    """Refuse flags that contradict each other."""
    if len(config.run) > 2:
        raise InputError("--run names one run folder, or is given twice to compare two")
    if config.pred and len(config.run) > 1:
        raise InputError("--pred: with two runs each is shown with its own validation")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    flags = parse(ReportConfig, __doc__, check_flags, arguments)
    sources = Sources(
        flags.pred, flags.gt, flags.id_map, flags.classes, flags.min_score, flags.max_pixels, flags.crowds
    )
    if flags.images and not Path(flags.images).is_dir():
        raise InputError(f"--images {flags.images}: no such folder{nearest_path(flags.images)}")
    runs = with_distinct_names([read_run(Path(folder), sources) for folder in flags.run])
    output = Path(flags.output or Path(flags.run[0]) / "report.html")
    resampling = Resampling(flags.bootstrap, flags.groups or (None if flags.pred else groups_of_training(runs[0])))
    write_report(output, runs, flags.images or flags.gt, flags.min_score, resampling)
    print(f"wrote {output}: {output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(main)
