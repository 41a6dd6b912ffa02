"""One page about a run: how it was trained, how good it is, and where it errs. Two runs are compared."""

from collections.abc import Sequence
from pathlib import Path

from src.common.errors import InputError, nearest_path, run
from src.config.command import Parser, score_of
from src.reporting.run_report import Sources, read_story, told_apart, write_report


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ``--help`` describes it."""
    flags = _parser().parse_args(arguments)
    if not flags.run or len(flags.run) > 2:
        raise InputError("--run names one run folder, or is given twice to compare two")
    if flags.pred and len(flags.run) > 1:
        raise InputError("--pred: with two runs each is shown with its own validation")
    sources = Sources(flags.pred, flags.gt, flags.id_map, flags.classes, flags.score_thresh)
    if flags.images and not Path(flags.images).is_dir():
        raise InputError(f"--images {flags.images}: no such folder{nearest_path(flags.images)}")
    stories = told_apart([read_story(Path(folder), sources) for folder in flags.run])
    output = Path(flags.output or Path(flags.run[0]) / "report.html")
    write_report(output, stories, flags.images or flags.gt, flags.score_thresh)
    print(f"wrote {output}: {output.stat().st_size / 1e6:.1f} MB")


def _parser() -> Parser:
    example = "python -m src.report --run logs\n  python -m src.report --run logs --pred val.json --gt data/train"
    parser = Parser(__doc__, example, "python -m src.report")
    parser.add_argument("--run", action="append", metavar="DIR", help="run folder; given twice, two runs are compared")
    parser.add_argument("--pred", metavar="FILE", help="results JSON (default: the run's last best validation)")
    parser.add_argument("--gt", metavar="PATH", help="ground truth (default: the folder that the run was trained on)")
    parser.add_argument("--images", metavar="DIR", help="where the images lie (default: with the ground truth)")
    parser.add_argument("--id-map", metavar="FILE", help="id map of --pred (default: the one beside it)")
    parser.add_argument("--classes", metavar="FILE", help="JSON of class ids, names and colors (default: the run's)")
    parser.add_argument(
        "--score-thresh", type=score_of, default=0.5, metavar="S", help="score from which a cell counts (default: 0.5)"
    )
    parser.add_argument("--output", metavar="FILE", help="page to write (default: report.html in the run folder)")
    return parser


if __name__ == "__main__":
    run(main)
