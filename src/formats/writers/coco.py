"""COCO JSON, for COCO's tools."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from src.common.files import write_json
from src.data.classes import CellClass, to_json
from src.data.id_map import ImageId
from src.evaluation.results import result_entries
from src.geometry.instances import Instance


def export_coco(
    path: Path, images: Sequence[ImageId], cells: Mapping[int, Sequence[Instance]], classes: Sequence[CellClass]
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
