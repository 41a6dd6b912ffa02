"""Label images under the names that cellpose gives them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.common.files import replacing
from src.data.id_map import ImageId
from src.data.tiff import write_mask
from src.formats.exported import Classes, ExportSettings
from src.formats.writers.labels import covered
from src.geometry.instances import Instance, to_label_map

MOST_OF_PNG = 65_535  # ids in 16 bits


def export_cellpose(
    folder: Path, image: ImageId, cells: Sequence[Instance], classes: Classes, settings: ExportSettings
) -> int:
    """``<name>_cp_masks.png``, uint16, or for over 65,535 cells ``<name>_cp_masks.tif``, uint32.

    Classes are not written. Returns the number of cells that are :func:`covered` in part.
    """
    from PIL import Image

    label_map = to_label_map(cells, image.height, image.width)
    path = folder / f"{image.name}_cp_masks"
    if len(cells) > MOST_OF_PNG:
        write_mask(path.with_name(f"{path.name}.tif"), label_map)
    else:
        with replacing(path.with_name(f"{path.name}.png")) as temporary:
            Image.fromarray(label_map.astype(np.uint16)).save(temporary)
    return covered(label_map, cells)
