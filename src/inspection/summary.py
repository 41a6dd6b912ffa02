"""A summary of a data folder as text: a table, notes, and suggested flags."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from src.common.errors import counted, some
from src.config.checks import parse_numbers
from src.data.classes import UNKNOWN, CellClass
from src.data.intensity import small_range_warnings
from src.data.orientation import turned_warnings
from src.data.prepared import pieces_warnings
from src.data.stain import RED_FIRST, decide_channel_order, swapped_images
from src.geometry.anchors import DEFAULT_ANCHORS, best_anchor_ious
from src.inspection.advice import Advice
from src.inspection.facts import CellFacts, diameters_of, near_duplicates

MOST_PAIRS = 20  # near duplicates that are named


def class_rows(facts: Sequence[CellFacts], classes: Sequence[CellClass]) -> list[tuple[str, ...]]:
    """A row of headings, then one row per class; sizes in px are diameters of circles of equal area."""
    rows: list[tuple[str, ...]] = [
        ("class", "cells", "images", "per image", "median px", "10-90 % px", "median px²", "10-90 % px²", "at border")
    ]
    for cell_class in classes:
        diameters = diameters_of(facts, cell_class.id)
        border = sum(int(image.at_border[image.class_ids == cell_class.id].sum()) for image in facts)
        counts = [int((image.class_ids == cell_class.id).sum()) for image in facts]
        spread = (*_median_and_range(diameters), *_median_and_range(np.pi * diameters**2 / 4))
        name = cell_class.name if cell_class == UNKNOWN else f"{cell_class.id} {cell_class.name}"
        images = sum(map(bool, counts))
        rows.append((name, f"{sum(counts):,}", f"{images}", f"{np.mean(counts):.1f}", *spread, f"{border:,}"))
    return rows


def _median_and_range(values: np.ndarray) -> tuple[str, str]:
    """The median, and the 10 % and 90 % quantiles; ``-`` without any."""
    if not len(values):
        return "-", "-"
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    return f"{middle:.0f}", f"{low:.0f}-{high:.0f}"


def notes_on(facts: Sequence[CellFacts], classes: Sequence[CellClass], advice: Advice | None) -> list[str]:
    """Further remarks, one line each."""
    sides = [side for image in facts for side in (image.height, image.width)]
    counts = [len(image.class_ids) for image in facts]
    order, agreeing = decide_channel_order(image.contrast for image in facts)
    has_tiff = any(image.record.is_tiff for image in facts)
    names = {cell_class.id: cell_class.name for cell_class in classes}
    lines = [
        f"{counted(len(facts), 'image')} of {min(sides)} to {max(sides)} px per side,"
        f" {min(counts)} to {max(counts)} cells each",
        f"channel order by the stain: {order} ({agreeing:.0%} of the images agree)" if has_tiff else RED_FIRST,
    ]
    lines += swapped_images((image.contrast for image in facts), order)
    lines += turned_warnings(image.record for image in facts)
    lines += small_range_warnings([image.levels for image in facts])
    lines += pieces_warnings(sum(image.in_pieces for image in facts), sum(counts))
    overlaps = sum((image.overlaps for image in facts), Counter[tuple[int, int]]())
    lines += [
        f"pairs of cells that share pixels, {names[a]} with {names[b]}: {count:,}"
        for (a, b), count in sorted(overlaps.items())
    ] or ["no cells of different classes share pixels"]
    if empty := [image.name for image in facts if not len(image.class_ids)]:
        lines.append(f"{counted(len(empty), 'image')} without cells: {some(empty, 5)}")
    pairs = near_duplicates(facts)
    lines += [f"{a} and {b} are near duplicates; keep them in the same part of a split" for a, b in pairs[:MOST_PAIRS]]
    if len(pairs) > MOST_PAIRS:
        lines.append(f"{len(pairs) - MOST_PAIRS} more images are near duplicates of another")
    if advice:
        lines.append(f"a tile of {advice.tile_size} px at scale {advice.scale:g} holds up to {advice.most_cells} cells")
        lines += notes_on_anchors(np.concatenate([image.boxes for image in facts]) * advice.scale, advice.anchors)
    return lines


def notes_on_anchors(boxes: np.ndarray, advised: str) -> list[str]:
    """How well anchors fit the cells ``boxes`` (N, 4): those advised, twice as large ones, and torchvision's."""
    sides = parse_numbers(advised, "--anchors")
    lines = []
    for choice in (sides, tuple(2 * side for side in sides), DEFAULT_ANCHORS):
        ious = best_anchor_ious(boxes, choice)
        shares = ", ".join(f"{np.mean(ious >= iou):.0%} at {iou}" for iou in (0.5, 0.7))
        lines.append(
            f"share of cells that an anchor of {','.join(f'{side:g}' for side in choice)} meets by IoU: {shares}"
        )
    return lines


def describe(rows: Sequence[tuple[str, ...]], notes: Sequence[str], advice: Advice | None) -> str:
    """The table, the notes and the flags as text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        f"{row[0]:{widths[0]}}" + "".join(f"  {row[column]:>{widths[column]}}" for column in range(1, len(row)))
        for row in rows
    ]
    return "\n".join([*lines, *notes, *([f"suggested flags: {advice.flags()}"] if advice else [])])
