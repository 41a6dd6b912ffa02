"""Score a results file: mask AP at 100 detections and uncapped, per class, PQ, AJI, Dice, and F1 by IoU and centroids.

python -m src.score --pred test-results.json --gt data/train --split split.json --part val
python -m src.score --pred a.json --against b.json --gt data/train --groups slides.json    # what a difference is worth
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.common.errors import InputError, nearest_path, run_command
from src.common.files import id_map_of, write_json
from src.common.limits import DEFAULT_MAX_PIXELS
from src.config.command import parse
from src.config.flags import inherited, option
from src.config.settings import ImageSettings, MachineSettings
from src.data.classes import CellClass, classes_of_results
from src.data.splits import part_names, read_split
from src.evaluation.bootstrap import (
    LEVEL,
    MAX_RESAMPLES,
    RESAMPLES,
    SEED,
    Resamples,
    Spreads,
    draw,
    order_in,
    spreads_of,
)
from src.evaluation.centroids import RADIUS
from src.evaluation.crowds import CROWDS
from src.evaluation.ground_truth import TruthSettings
from src.evaluation.measured import Measured, ScoreSettings, measure
from src.evaluation.score_tables import aligned, format_table, spread_rows
from src.evaluation.scored import ScoredFiles, read_scored
from src.evaluation.scores import scores_of


@dataclass(frozen=True)
class ScoreConfig:
    """The score."""

    pred: str = option("", "results JSON, as inference.py writes it", required=True, metavar="FILE")
    gt: str = option("", "folder of <name>/classN.tif, or a COCO JSON (RLE or polygons)", required=True, metavar="PATH")
    id_map: str | None = option(None, "id map of --pred; absent: that beside it, else 1..N by name", metavar="FILE")
    split: str | None = option(None, "JSON of part → names; only the images of --part are scored", metavar="FILE")
    part: str | None = option(None, "part of --split that is scored; absent: val", metavar="NAME")
    classes: str | None = option(
        None,
        "JSON of classes; absent: that beside the results, else the homework's",
        metavar="FILE",
    )
    min_score: float = option(
        0.5, "lowest score that counts, except in AP", low=0, high=1, formerly="--pq-threshold", metavar="S"
    )
    radius: float = option(
        RADIUS, "px within which centroids are paired: 12 at 40x, 6 at 20x", low=0.5, high=100, metavar="PX"
    )
    bootstrap: int | None = option(
        None,
        f"resamples of the images, for {LEVEL:.0%} intervals; absent: none, or {RESAMPLES} with --against",
        low=1,
        high=MAX_RESAMPLES,
        metavar="N",
    )
    groups: str | None = option(
        None,
        "JSON of name → group, such as the patient, that is resampled as a whole; absent: each image by itself",
        metavar="FILE",
    )
    against: str | None = option(
        None, "other results JSON of the same images: the difference of each figure, with its interval", metavar="FILE"
    )
    backend: str | None = option(
        None, "has no effect any more: AP agrees with pycocotools to 1e-9", choices=("faster-coco-eval", "pycocotools")
    )
    crowds: str = option(
        "auto", "what COCO's crowd annotations are: cells, regions to ignore, or what suits", choices=CROWDS
    )
    split_pieces: bool = inherited(ImageSettings, "split_pieces", False)
    max_pixels: int = inherited(MachineSettings, "max_pixels", DEFAULT_MAX_PIXELS)
    json: str | None = option(None, "write the scores here, too", metavar="FILE")


def check_flags(config: ScoreConfig) -> None:
    """Refuse flags that contradict each other."""
    if config.part and not config.split:
        raise InputError("--part needs --split")
    if config.groups and not (config.bootstrap or config.against):
        raise InputError("--groups needs --bootstrap or --against")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    flags = parse(ScoreConfig, __doc__, check_flags, arguments)
    classes = classes_of_results(flags.classes, flags.pred)
    measured = [_measure(flags, flags.pred, classes)]
    count = flags.bootstrap or (RESAMPLES if flags.against else 0)
    resamples = draw(measured[0].names, flags.groups, count) if count else None
    if flags.backend:
        print("--backend: has no effect any more; AP agrees with pycocotools to 1e-9", file=sys.stderr)
    if flags.against:
        measured.append(_measure_other(flags, measured[0], classes))
    result = scores_of(measured[0])
    print(format_table(result, classes))
    if id_map_of(flags.pred, flags.id_map) is None and Path(flags.gt).is_dir():
        print("without an id map the ids of the predictions were taken as 1..N in the order of the images' names")
    if resamples:
        spreads = spreads_of(measured, resamples)
        print(f"\n{aligned(spread_rows(spreads, _names(flags), classes))}\n{resamples.said()}")
        result |= _spreads_as_json(spreads, resamples, flags.against)
    if flags.json:
        write_json(flags.json, result, indent=2)
        print(f"wrote {flags.json}")


def _measure(flags: ScoreConfig, pred: str, classes: Sequence[CellClass]) -> Measured:
    """Read a results file with its ground truth, and measure what each image adds to the scores."""
    files = ScoredFiles(pred, flags.gt, id_map_of(pred, flags.id_map), flags.classes)
    settings = TruthSettings(classes, flags.split_pieces, flags.crowds, checks_folder=pred == flags.pred)
    truths, entries = read_scored(files, classes, settings, _part(flags.split, flags.part))
    return measure(truths, entries, classes, ScoreSettings(flags.min_score, flags.radius))


def _measure_other(flags: ScoreConfig, first: Measured, classes: Sequence[CellClass]) -> Measured:
    """As :func:`_measure`, of the results of ``--against``, which must be of the same images and classes."""
    against = str(flags.against)
    if not Path(against).is_file():
        raise InputError(f"--against {against}: no such file{nearest_path(against)}")
    own = [cell_class.name for cell_class in classes_of_results(flags.classes, against)]
    if own != [cell_class.name for cell_class in classes]:
        raise InputError(
            f"--against {against}: its classes ({', '.join(own)}) are not those of {flags.pred}; if the files hold the"
            " same classes, name them with --classes"
        )
    other = _measure(flags, against, classes)
    if order_in(first, other) is None:
        raise InputError(f"--against {against}: its images are not those of {flags.pred}")
    return other


def _names(flags: ScoreConfig) -> list[str]:
    """What the two results are called: their files' names, with the folders where these are alike."""
    paths = [Path(flags.pred), Path(flags.against or flags.pred)]
    stems = [path.stem for path in paths]
    return stems if stems[0] != stems[1] else [str(path) for path in paths]


def _spreads_as_json(spreads: Spreads, resamples: Resamples, against: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "bootstrap": {
            "resamples": len(resamples.weights),
            "groups": resamples.group_count,
            "group_is_image": resamples.by_image,
            "level": LEVEL,
            "seed": SEED,
            "intervals": spreads.each[0].intervals,
        }
    }
    if spreads.difference:
        result["against"] = {
            "pred": against,
            "scores": spreads.each[1].figures,
            "intervals": spreads.each[1].intervals,
            "differences": spreads.difference.figures,
            "intervals_of_differences": spreads.difference.intervals,
        }
    return result


def _part(split: str | None, part: str | None) -> list[str] | None:
    """The names to score; ``None`` where there is no split."""
    return None if split is None else part_names(read_split(split), part or "val")


if __name__ == "__main__":
    run_command(main)
