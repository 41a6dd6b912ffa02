"""Score a results file: mask AP at 100 detections and uncapped, per class, panoptic quality and centroid F1.

python -m src.score --pred test-results.json --gt data/train --split split.json --part val
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.common.errors import InputError, run_command
from src.common.files import id_map_of, write_json
from src.common.limits import DEFAULT_MAX_PIXELS
from src.config.command import parse
from src.config.flags import inherited, option
from src.config.settings import ImageSettings, MachineSettings
from src.data.classes import CellClass, classes_of_results
from src.data.splits import part_names, read_split
from src.evaluation.centroids import RADIUS
from src.evaluation.crowds import CROWDS
from src.evaluation.ground_truth import TruthSettings
from src.evaluation.scored import ScoredFiles, read_scored
from src.evaluation.scores import AP_KEYS, CAPS, PQ_KEYS, score


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
    pq_threshold: float = option(0.5, "lowest score that counts in PQ and F1", low=0, high=1, metavar="S")
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    flags = parse(ScoreConfig, __doc__, check_flags, arguments)
    id_map, classes = id_map_of(flags.pred, flags.id_map), classes_of_results(flags.classes, flags.pred)
    files = ScoredFiles(flags.pred, flags.gt, id_map, flags.classes)
    settings = TruthSettings(classes, flags.split_pieces, flags.crowds, checks_folder=True)
    truths, entries = read_scored(files, classes, settings, _part(flags.split, flags.part))
    if flags.backend:
        print("--backend: has no effect any more; AP agrees with pycocotools to 1e-9", file=sys.stderr)
    result = score(truths, entries, classes, flags.pq_threshold)
    print(format_table(result, classes))
    if id_map is None and Path(flags.gt).is_dir():
        print("without an id map the ids of the predictions were taken as 1..N in the order of the images' names")
    if flags.json:
        write_json(flags.json, result, indent=2)
        print(f"wrote {flags.json}")


def _part(split: str | None, part: str | None) -> list[str] | None:
    """The names to score; ``None`` where there is no split."""
    return None if split is None else part_names(read_split(split), part or "val")


def format_table(result: dict[str, Any], classes: Sequence[CellClass]) -> str:
    """The result of :func:`score` as a table for people; ``-`` stands where there is no ground truth."""
    threshold = result["pq"]["threshold"]
    groups = ("at 100 detections", "uncapped", f"PQ (score >= {threshold:g})")
    rows = [("all", *_row(result, None))]
    rows += [(f"{cell_class.id} {cell_class.name}", *_row(result, str(cell_class.id))) for cell_class in classes]
    first = max(len("class"), *(len(row[0]) for row in rows))
    lines = [" " * first + "".join(f"  {group:^22}" for group in groups) + "  centroids"]
    lines += [f"{'class':{first}}" + "".join(f"  {key:>6}" for key in (*AP_KEYS, *AP_KEYS, *PQ_KEYS, "F1"))]
    lines += [f"{row[0]:{first}}" + "".join(f"  {cell:>6}" for cell in row[1:]) for row in rows]
    images = f"{result['images']} image{'s' if result['images'] != 1 else ''}"
    note = (
        f'{images}. In row "all" AP is the mean over classes with ground truth, PQ the mean over images and F1 that'
        f" of all cells, both with classes ignored. F1 pairs centroids within {RADIUS:g} px."
    )
    return "\n".join([*lines, note])


def _row(result: dict[str, Any], class_id: str | None) -> list[str]:
    """The ten figures of one class, or of all (``None``), as text."""
    families = [result[name] if class_id is None else result[name]["per_class"][class_id] for name, _ in CAPS]
    quality = result["pq"]["agnostic"] if class_id is None else result["pq"]["per_class"][class_id]
    f1 = result["f1"]["detection"] if class_id is None else result["f1"]["per_class"][class_id]
    values = [family[key] for family in families for key in AP_KEYS] + [quality[key] for key in PQ_KEYS] + [f1]
    return ["-" if value is None else f"{value:.4f}" for value in values]


if __name__ == "__main__":
    run_command(main)
