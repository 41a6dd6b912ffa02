"""One page about a run: how it was trained, how good it is, and where it errs. Two runs are compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from src.common.errors import InputError, nearest_path
from src.common.files import companion, id_map_of, read_lines
from src.common.limits import DEFAULT_MAX_PIXELS, set_max_pixels
from src.common.progress import ProgressBar
from src.config.recipe import read_recipe
from src.data.classes import CellClass, classes_of_results
from src.data.images_to_predict import images_by_name
from src.data.names import ImageNames
from src.data.pictures import fitting_orientation, read_rgb
from src.evaluation.average_precision import covered_shares
from src.evaluation.errors_by_cause import NONE, Outcomes, confusion, match_detections
from src.evaluation.ground_truth import TruthSettings
from src.evaluation.image_truth import ImageTruth
from src.evaluation.measured import Measured, ScoreSettings, measure
from src.evaluation.results import cells_by_image
from src.evaluation.scored import ScoredFiles, read_scored
from src.evaluation.scores import format_score, precision, scores_of
from src.reporting import plots
from src.reporting.html import plot, write_page
from src.reporting.score_rows import Resampling, figure_tables, score_rows
from src.reporting.viewers import LAYERS, viewers_of
from src.reporting.worst_errors import Reader, count_causes, draw_worst, false_positives, missed_cells


@dataclass(frozen=True, eq=False)
class ReportedRun:
    """A run as the page shows it: events, configuration and, where there are results, their errors and scores."""

    name: str
    folder: Path
    events: list[dict[str, Any]]
    config: str
    classes: tuple[CellClass, ...]
    truths: list[ImageTruth]
    entries: list[dict[str, Any]]
    images: list[Outcomes]
    measured: Measured | None
    scores: dict[str, Any] | None
    settings: dict[str, Any]
    missing_scores: str = ""  # why there are none


@dataclass(frozen=True)
class Sources:
    """The files that the command line names; absent ones are those of the run folder."""

    pred: str | None
    gt: str | None
    id_map: str | None
    classes: str | None
    threshold: float
    max_pixels: int | None
    crowds: str = "auto"


def read_run(folder: Path, sources: Sources) -> ReportedRun:
    """Read a run folder, with its last validation or with the results that are named."""
    log, recipe = folder / "log.jsonl", folder / "config.toml"
    for path in (log, recipe):
        if not path.is_file():
            raise InputError(f"{path}: no such file; --run takes a folder that main.py made{nearest_path(folder)}")
    settings, config = read_recipe(recipe), recipe.read_text(encoding="utf-8")
    if sources.max_pixels is None:
        set_max_pixels(settings.get("max_pixels", DEFAULT_MAX_PIXELS))
    events = [event for event in read_lines(log) if "event" in event]
    pred, own = Path(sources.pred or folder / "val-results.json"), folder / "classes.json"
    named = sources.classes or (own if own.is_file() and not companion(pred, "classes").is_file() else None)
    classes, name = classes_of_results(named, pred), folder.resolve().name
    gt = Path(sources.gt or settings["data_path"])
    missing_scores = ""
    if not sources.pred and not pred.is_file():
        missing_scores = "No validation was made yet, so there are no scores; show a results file with --pred and --gt."
    elif not sources.gt and not gt.exists():
        missing_scores = f"The data of the run are not in {gt}, so there are no scores; name their folder with --gt."
    if missing_scores:
        return ReportedRun(name, folder, events, config, classes, [], [], [], None, None, settings, missing_scores)
    id_map = id_map_of(pred, sources.id_map)
    if id_map is None and gt.is_dir():
        raise InputError(f"{companion(pred, 'id-map')}: no such file; name an id map with --id-map")
    reading = TruthSettings(classes, bool(settings.get("split_pieces")), sources.crowds)
    files = ScoredFiles(str(pred), str(gt), id_map, str(named) if named else None)
    truths, entries = read_scored(files, classes, reading)
    measured = measure(truths, entries, classes, ScoreSettings(sources.threshold))
    return ReportedRun(
        name, folder, events, config, classes, truths, entries, match_all_images(truths, entries, sources.threshold),
        measured, scores_of(measured), settings,
    )  # fmt: skip


def groups_of_training(run: ReportedRun) -> str | None:
    """The file of groups that the run's images were split by, where there was one and it is still there."""
    groups = run.settings.get("groups")
    return groups if groups and Path(groups).is_file() else None


def with_distinct_names(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """The runs with distinct names: where folders have the same name, as much of the path as distinguishes them."""
    paths = [run.folder.resolve().parts for run in runs]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]
    raise InputError("--run: the same folder is given twice")


def match_all_images(
    truths: Sequence[ImageTruth], entries: Sequence[dict[str, Any]], threshold: float
) -> list[Outcomes]:
    """Match the detections of every image to its true cells, without false ones in regions to ignore."""
    found = cells_by_image(entries)
    outcomes = []
    for truth in ProgressBar(truths, "match"):
        image = match_detections(truth.instances, found[truth.id], threshold)
        covered = covered_shares(found[truth.id], truth.ignored, together=True) > 0.5
        is_lost = covered & (image.truth_of == NONE) & (image.any_truth == NONE)
        if is_lost.any():
            kept = [cell for cell, lost in zip(found[truth.id], is_lost, strict=True) if not lost]
            image = match_detections(truth.instances, kept, threshold)
        outcomes.append(image)
    return outcomes


def write_report(
    path: Path, runs: Sequence[ReportedRun], images: str | None, threshold: float, resampling: Resampling
) -> None:
    """Write the page. The pictures and the plots of results are those of the first run."""
    first = runs[0]
    with_results = [run for run in runs if run.scores]
    read = _reader(first, images)
    viewers = viewers_of(first.truths, first.images, first.classes, read) if first.scores else []
    write_page(
        path,
        "report.html",
        title=" against ".join(run.name for run in runs),
        runs=[_summary(run) for run in runs],
        layers=LAYERS,
        threshold=threshold,
        tables=[(run.name, score_rows(run.scores, run.classes)) for run in with_results],
        figures=figure_tables([(run.name, run.measured, run.classes) for run in runs if run.measured], resampling),
        colors={cell_class.name: cell_class.color for cell_class in first.classes},
        training_plots=_training_plots(runs),
        result_plots=_result_plots(first, threshold) if first.scores else [],
        confusion=_confusion(first) if first.scores else None,
        errors=_errors(first, read) if first.scores else [],
        viewers=viewers,
        missing_scores=[run.missing_scores for run in runs if run.missing_scores],
        configs=[(run.name, run.config) for run in runs],
        differences=_differences(runs),
    )


def _summary(run: ReportedRun) -> dict[str, Any]:
    """The lines below the title."""
    steps = [event for event in run.events if event["event"] == "step"]
    starts = [event for event in run.events if event["event"] == "start"]
    lines = []
    if steps:
        speed = float(np.median([event["images_per_s"] for event in steps]))
        minutes = steps[-1]["time_s"] / 60
        lines.append(f"{steps[-1]['step']} steps in {minutes:.1f} min of training, {speed:.2f} tiles per second")
    if run.scores:
        ap50, at_100 = (run.scores[cap]["AP50"] for cap in ("uncapped", "at_100"))
        lines.append(f"AP50 {format_score(ap50)} uncapped, {format_score(at_100)} at 100, on {len(run.truths)} images")
    versions = ", ".join(f"{key} {value}" for key, value in starts[-1]["versions"].items()) if starts else ""
    return {"name": run.name, "lines": lines, "command": starts[0]["command"] if starts else "", "versions": versions}


def _training_plots(runs: Sequence[ReportedRun]) -> list[tuple[str, Any]]:
    events_by_run = {run.name: run.events for run in runs if any(e["event"] == "step" for e in run.events)}
    if not events_by_run:
        return []
    drawn = {"Losses": plots.losses, "Learning rate": plots.rates}
    if any(event["event"] == "val" for events in events_by_run.values() for event in events):
        drawn["Validation"] = plots.validations
    return [(caption, plot(partial(draw, runs=events_by_run))) for caption, draw in drawn.items()]


def _result_plots(run: ReportedRun, threshold: float) -> list[tuple[str, Any]]:
    images, classes = run.images, run.classes
    curves = precision(run.truths, run.entries, len(classes))[0, :, :, -1]
    drawn = {
        "Precision and recall at IoU 0.5": partial(plots.precision_recall, precision=curves, classes=classes),
        "Scores of right and wrong detections": partial(plots.scores, images=images, threshold=threshold),
        "Calibration": partial(plots.calibration, images=images),
        "Counts of each image": partial(plots.counts, images=images, classes=classes),
        "Size and recall": partial(plots.sizes, images=images, classes=classes),
    }
    return [(caption, plot(draw)) for caption, draw in drawn.items()]


def _confusion(run: ReportedRun) -> list[list[tuple[str, float]]]:
    """Cells of the table: text and, for shading, the share of its row."""
    matrix = confusion(run.images, len(run.classes))
    names = ["nothing", *(cell_class.name for cell_class in run.classes)]
    order = [*range(1, len(names)), 0]
    rows = [[("true ↓ found →", 0.0), *((names[column], 0.0) for column in order)]]
    for row in order:
        total = max(int(matrix[row].sum()), 1)
        cells = [(f"{matrix[row, c]:,}" if row or c else "", float(matrix[row, c]) / total) for c in order]
        rows.append([(names[row], 0.0), *cells])
    return rows


def _errors(run: ReportedRun, read: Reader) -> list[dict[str, Any]]:
    """Missed cells and false positives: how often each cause occurs, and pictures of the worst."""
    kinds = {"missed cells": missed_cells, "false positives": false_positives}
    found = {kind: find(run.truths, run.images) for kind, find in kinds.items()}
    return [
        {"kind": kind, "causes": count_causes(errors), "pictures": draw_worst(errors, run.classes, read)}
        for kind, errors in found.items()
    ]


def _reader(run: ReportedRun, folder: str | None) -> Reader:
    """Reads an image of the ground truth as the run did; ``None`` where it is not there."""
    root, settings = Path(folder or run.settings["data_path"]), run.settings
    try:
        images = images_by_name(root)
    except InputError:  # the data are elsewhere now, or incomplete; then there are no pictures
        images = {}
    paths, names = list(images.values()), ImageNames(images)

    def read(truth: ImageTruth) -> np.ndarray | None:
        place = names.find(PureWindowsPath(truth.file_name).name, root)
        if place is None:
            return None
        orientation = fitting_orientation(paths[place], (truth.height, truth.width))
        return read_rgb(paths[place], settings["intensity"], settings["channel_order"] == "bgr", orientation)

    return read


def _differences(runs: Sequence[ReportedRun]) -> list[tuple[str, str, str]]:
    """The settings in which two runs differ."""
    if len(runs) < 2:
        return []
    one, other = (run.settings for run in runs)
    return [
        (key, str(one.get(key, "not set")), str(other.get(key, "not set")))
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]
