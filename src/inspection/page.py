"""The output of ``src.check`` as a page, with plots and a contact sheet."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from src.data.classes import CellClass
from src.data.prepared import prepare
from src.data.records import Record
from src.data.stain import decide_channel_order
from src.geometry.instances import from_label_map
from src.inspection.facts import CellFacts, diameters_of
from src.reporting.draw import draw_outlines
from src.reporting.html import INK, legend_name, picture, plot, write_page

SAMPLES, SAMPLE_SIDE = 12, 256  # of the contact sheet


def write_html(
    path: Path,
    folder: Path,
    facts: Sequence[CellFacts],
    classes: Sequence[CellClass],
    content: dict[str, Any],
    intensity: str,
    split_pieces: bool,
) -> None:
    """Write the page."""
    places = np.linspace(0, len(facts) - 1, min(SAMPLES, len(facts))).astype(int)
    chosen = [facts[place].record for place in places.tolist()]
    is_bgr = decide_channel_order(image.contrast for image in facts)[0] == "bgr"
    write_page(
        path,
        "check.html",
        title=f"{folder.resolve().name}: images and cells",
        summary=f"{folder}, checked by python -m src.check",
        colors={row[0]: cell_class.color for row, cell_class in zip(content["rows"][1:], classes, strict=True)},
        plots=plots_of(facts, classes),
        samples=[
            (record.name, picture(sample(record, classes, is_bgr, intensity, split_pieces), 90)) for record in chosen
        ],
        **content,
    )


def plots_of(facts: Sequence[CellFacts], classes: Sequence[CellClass]) -> list[tuple[str, Any]]:
    """Caption and SVG of each distribution."""
    diameters = {cell_class: diameters_of(facts, cell_class.id) for cell_class in classes}
    longest = max((float(np.quantile(values, 0.995)) for values in diameters.values() if len(values)), default=1)
    counts = {c: [int((image.class_ids == c.id).sum()) for image in facts] for c in classes}

    def sizes(axes: Any) -> None:
        for cell_class, values in diameters.items():
            if len(values):
                look = {"label": legend_name(cell_class.name), "color": cell_class.color}
                axes.hist(values, np.linspace(0, longest, 50), density=True, histtype="step", lw=1.6, **look)
        axes.set(xlabel="diameter of equal area, px", ylabel="density")
        axes.legend()

    def areas(axes: Any) -> None:
        edges = np.geomspace(1, max(max(image.areas.max(initial=1) for image in facts), 2), 50)
        for cell_class in classes:
            values = np.concatenate([image.areas[image.class_ids == cell_class.id] for image in facts])
            axes.hist(
                values, edges, histtype="step", lw=1.6, label=legend_name(cell_class.name), color=cell_class.color
            )
        axes.set(xscale="log", xlabel="area, px", ylabel="cells")
        axes.legend()

    def numbers(axes: Any) -> None:
        order = np.argsort([-len(image.class_ids) for image in facts])
        below = np.zeros(len(facts))
        for cell_class, values in counts.items():
            heights = np.array(values)[order]
            axes.bar(range(len(facts)), heights, 1.0, below, label=legend_name(cell_class.name), color=cell_class.color)
            below += heights
        axes.set(xlabel="images, by their number of cells", ylabel="cells")
        axes.legend()

    def shapes(axes: Any) -> None:
        axes.scatter([image.width for image in facts], [image.height for image in facts], s=14, alpha=0.6, color=INK)
        axes.set(xlabel="width, px", ylabel="height, px", xlim=(0, None), ylim=(0, None))

    captions = ("Diameters of the cells", "Areas of the cells", "Cells per image", "Sizes of the images")
    return [(caption, plot(draw)) for caption, draw in zip(captions, (sizes, areas, numbers, shapes), strict=True)]


def sample(
    record: Record, classes: Sequence[CellClass], is_bgr: bool, intensity: str, split_pieces: bool
) -> np.ndarray:
    """The middle of an image with its cells outlined."""
    prepared = prepare(record, intensity, 1.0, split_pieces)
    height, width = prepared.image.shape[:2]
    top, left = max(height - SAMPLE_SIDE, 0) // 2, max(width - SAMPLE_SIDE, 0) // 2
    window = np.s_[top : top + SAMPLE_SIDE, left : left + SAMPLE_SIDE]
    labels = prepared.label_map[window].transpose(2, 0, 1).astype(np.int32)
    of_classes = [np.where((prepared.class_ids == c.id)[labels], labels, 0).max(axis=0) for c in classes]
    cells = [replace(cell, class_id=classes[cell.class_id - 1].id) for cell in from_label_map(np.stack(of_classes))]
    image = prepared.image[window][..., ::-1] if is_bgr else prepared.image[window]
    return draw_outlines(image, cells, classes, zoom=2)
