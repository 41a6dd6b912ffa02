"""Numbers of cells per image and class, as a table for spreadsheets."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from src.common.files import write_text
from src.data.classes import TOTAL, CellClass


def write_counts(
    path: Path, names: Iterable[tuple[str, int]], counts: Mapping[int, Counter[int]], classes: Sequence[CellClass]
) -> None:
    """Write a CSV file with a row per image: its name, its cells of each class, and all of them.

    Args:
        names: file name and id of each image, in the order of the rows.
        counts: by image id, the number of cells by class id.
        classes: the columns.
    """
    rows = [["image", *(cell_class.name for cell_class in classes), TOTAL]]
    for name, image_id in names:
        of_image = [counts[image_id][cell_class.id] for cell_class in classes]
        rows.append([name, *map(str, of_image), str(sum(of_image))])
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())
