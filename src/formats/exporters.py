"""Writers of other formats: results for napari, QuPath, spreadsheets and COCO's tools."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from src.common.files import replacing, write_json, write_text
from src.data.classes import CellClass, to_json
from src.data.id_map import ImageId
from src.evaluation.results import result_entries
from src.geometry.instances import Instance, to_label_map
from src.geometry.polygons import outlines

Cells = Sequence[Instance]
COLUMNS = (
    "image", "label", "class_id", "class", "color", "score", "area", "centroid_x", "centroid_y", "major_axis",
    "minor_axis", "eccentricity", "perimeter", "left", "top", "width", "height",
)  # fmt: skip


def export_labels(folder: Path, image: ImageId, cells: Cells, classes: Mapping[int, CellClass]) -> int:
    """``<name>.tif``, uint32: 0 is background, i the i-th cell; the description names each one's class.

    Returns:
        The number of cells of which another cell of a higher score covers a part.
    """
    label_map = to_label_map(cells, image.height, image.width)
    described = {"classes": to_json(tuple(classes.values())), "class_of_label": [cell.class_id for cell in cells]}
    with replacing(folder / f"{image.name}.tif") as temporary:
        tifffile.imwrite(
            temporary, label_map.astype(np.uint32), compression="zlib", description=json.dumps(described), metadata=None
        )
    left = np.bincount(label_map.ravel(), minlength=len(cells) + 1)[1:]
    return int(np.count_nonzero(left < [cell.area for cell in cells]))


def export_geojson(folder: Path, image: ImageId, cells: Cells, classes: Mapping[int, CellClass]) -> int:
    """``<name>.geojson`` for QuPath: one detection per cell, outlined along the edges of its pixels."""
    features = [_feature(label, cell, classes) for label, cell in enumerate(cells, start=1)]
    write_text(folder / f"{image.name}.geojson", json.dumps({"type": "FeatureCollection", "features": features}) + "\n")
    return 0


def _probabilities(cell: Instance, classes: Mapping[int, CellClass]) -> dict[str, float]:
    """Heading → probability of each class; empty where they are not known."""
    return {f"Probability of {classes[i].name}": value for i, value in enumerate(cell.probabilities, start=1)}


def _feature(label: int, cell: Instance, classes: Mapping[int, CellClass]) -> dict[str, Any]:
    cell_class = classes[cell.class_id]
    polygons = [[[*ring.tolist(), ring[0].tolist()] for ring in rings] for rings in outlines(cell)]
    one = len(polygons) == 1
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon" if one else "MultiPolygon",
            "coordinates": polygons[0] if one else polygons,
        },
        "properties": {
            "objectType": "detection",
            "name": str(label),
            "classification": {"name": cell_class.name, "color": list(cell_class.rgb)},
            "measurements": {"Score": cell.score, "Area px": cell.area, **_probabilities(cell, classes)},
        },
    }


def export_csv(folder: Path, image: ImageId, cells: Cells, classes: Mapping[int, CellClass]) -> int:
    """``<name>.csv``: one row per cell, in px from the centre of the first pixel; labels are those of the TIFF.

    The last columns are the probabilities of the classes, empty where they are not known.
    """
    rows = [
        (image.name, label, *_measures(cell, classes[cell.class_id]), *(cell.probabilities or [""] * len(classes)))
        for label, cell in enumerate(cells, start=1)
    ]
    headings = [f"probability_{cell_class.name}" for cell_class in classes.values()]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([(*COLUMNS, *headings), *rows])
    write_text(folder / f"{image.name}.csv", text.getvalue())
    return 0


def _measures(cell: Instance, cell_class: CellClass) -> list[Any]:
    from skimage.measure import regionprops  # slow to import

    (region,) = regionprops(cell.mask.astype(np.uint8))
    row, column = region.centroid
    lengths = (region.axis_major_length, region.axis_minor_length, region.eccentricity, region.perimeter)
    return [
        *(cell_class.id, cell_class.name, cell_class.color, round(cell.score, 6), cell.area),
        *(round(float(value), 3) for value in (column + cell.left, row + cell.top, *lengths)),
        *(cell.left, cell.top, cell.mask.shape[1], cell.mask.shape[0]),
    ]


EXPORTERS: Mapping[str, Callable[[Path, ImageId, Cells, Mapping[int, CellClass]], int]] = {
    "labels": export_labels,
    "geojson": export_geojson,
    "csv": export_csv,
}


def export_coco(
    path: Path, images: Sequence[ImageId], cells: Mapping[int, Cells], classes: Sequence[CellClass]
) -> None:
    """One COCO JSON file of all images; the annotations carry their scores."""
    annotations = [
        {
            **entry,
            "area": cell.area,
            "iscrowd": 0,
            **({"probabilities": cell.probabilities} if cell.probabilities else {}),
        }
        for image in images
        for cell, entry in zip(
            cells[image.id], result_entries(image.id, cells[image.id], image.height, image.width), strict=True
        )
    ]
    write_json(
        path,
        {
            "info": {"description": "cells found by a tiled Mask R-CNN"},
            "categories": [{**entry, "supercategory": "cell"} for entry in to_json(tuple(classes))],
            "images": [vars(image) for image in images],
            "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, start=1)],
        },
    )
