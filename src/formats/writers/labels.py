"""Label images with the class of each cell, for napari."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from src.common.files import replacing
from src.data.classes import to_json
from src.data.id_map import ImageId
from src.formats.exported import Classes, ExportSettings
from src.geometry.instances import Instance, to_label_map


def export_labels(
    folder: Path, image: ImageId, cells: Sequence[Instance], classes: Classes, settings: ExportSettings
) -> int:
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
    return covered(label_map, cells)


def covered(label_map: np.ndarray, cells: Sequence[Instance]) -> int:
    """The number of cells that are not whole in their label map."""
    left = np.bincount(label_map.ravel(), minlength=len(cells) + 1)[1:]
    return int(np.count_nonzero(left < [cell.area for cell in cells]))
