"""Label images as StarDist's examples read them."""

from collections.abc import Sequence
from pathlib import Path

from src.data.id_map import ImageId
from src.data.tiff import write_mask
from src.formats.exported import Classes, ExportSettings
from src.formats.writers.labels import covered
from src.geometry.instances import Instance, to_label_map


def export_stardist(
    folder: Path, image: ImageId, cells: Sequence[Instance], classes: Classes, settings: ExportSettings
) -> int:
    """``masks/<name>.tif``, uint16 or, for over 65,535 cells, uint32; the images belong into ``images`` beside.

    Classes are not written. Returns the number of cells that are :func:`covered` in part.
    """
    label_map = to_label_map(cells, image.height, image.width)
    write_mask(folder / "masks" / f"{image.name}.tif", label_map)
    return covered(label_map, cells)
