"""GeoJSON, for QuPath."""

import gzip
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.common.files import replacing
from src.data.id_map import ImageId
from src.formats.exported import Classes, ExportSettings
from src.formats.writers.columns import in_microns, measures
from src.geometry.instances import Instance
from src.geometry.polygons import outlines

CELLS = uuid.UUID("6c2b7f0e-1f5d-5d0c-9d0e-6a3f1c8b2e47")  # the namespace of the ids of cells, drawn once


def export_geojson(
    folder: Path, image: ImageId, cells: Sequence[Instance], classes: Classes, settings: ExportSettings
) -> int:
    """``<name>.geojson`` for QuPath: one detection per cell, outlined along the edges of its pixels.

    With ``settings.gzip`` it is ``<name>.geojson.gz``. The same cells make the same bytes.
    """
    features = [_feature(image, label, cell, classes, settings.mpp) for label, cell in enumerate(cells, start=1)]
    content = (json.dumps({"type": "FeatureCollection", "features": features}) + "\n").encode()
    with replacing(folder / f"{image.name}.geojson{'.gz' * settings.gzip}") as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if settings.gzip else content)
    return 0


def cell_id(image_name: str, class_name: str, cell: Instance) -> str:
    """The same id for the same cell whenever it is written: from its image, its class and its pixels."""
    pixels = np.packbits(cell.mask).tobytes().hex()
    place = (cell.top, cell.left, *cell.mask.shape)
    return str(uuid.uuid5(CELLS, json.dumps([image_name, class_name, place, pixels])))


def _feature(image: ImageId, label: int, cell: Instance, classes: Classes, mpp: float | None) -> dict[str, Any]:
    cell_class = classes[cell.class_id]
    polygons = [[[*ring.tolist(), ring[0].tolist()] for ring in rings] for rings in outlines(cell)]
    one = len(polygons) == 1
    return {
        "type": "Feature",
        "id": cell_id(image.name, cell_class.name, cell),
        "geometry": {
            "type": "Polygon" if one else "MultiPolygon",
            "coordinates": polygons[0] if one else polygons,
        },
        "properties": {
            "objectType": "detection",
            "name": str(label),
            "classification": {"name": cell_class.name, "color": list(cell_class.rgb)},
            "measurements": {"Score": cell.score, "Area px": cell.area, **_in_microns(cell, mpp),
                             **_probabilities(cell, classes)},
        },
    }  # fmt: skip


def _in_microns(cell: Instance, mpp: float | None) -> dict[str, float]:
    """Measurements under QuPath's names; its own table of measurements has the centroid."""
    if mpp is None:
        return {}
    found = in_microns(measures(cell), mpp)
    return {
        "Area µm^2": found["area_um2"],
        "Perimeter µm": found["perimeter_um"],
        "Major axis µm": found["major_axis_um"],
        "Minor axis µm": found["minor_axis_um"],
    }


def _probabilities(cell: Instance, classes: Classes) -> dict[str, float]:
    """Heading → probability of each class; empty where they are not known."""
    return {f"Probability of {classes[i].name}": value for i, value in enumerate(cell.probabilities, start=1)}
