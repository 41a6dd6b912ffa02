"""GeoJSON, for QuPath."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.common.files import write_text
from src.data.classes import CellClass
from src.data.id_map import ImageId
from src.geometry.instances import Instance
from src.geometry.polygons import outlines


def export_geojson(folder: Path, image: ImageId, cells: Sequence[Instance], classes: Mapping[int, CellClass]) -> int:
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
