"""Crowd annotations of COCO files: cells of a brush tool, or regions in which nothing is scored."""

from collections.abc import Sequence

import numpy as np

CROWDS = ("auto", "cells", "ignore")
REGION_RATIO = 4  # of the median areas of crowds and of other cells, from which crowds are regions of many cells


def crowds_are_cells(crowds: str, crowd_areas: Sequence[int], other_areas: Sequence[int], other_is_rle: bool) -> bool:
    """Whether crowd annotations are cells.

    Brush tools write every cell that is painted as an RLE with ``iscrowd`` 1. In COCO's own sense such a region holds
    many objects that nobody outlined, and it stands beside outlined ones. So with ``auto`` crowds are cells where there
    is nothing else. Beside other RLE they are regions, and beside polygons they are where they are much larger.

    Args:
        crowds: one of :data:`CROWDS`.
        crowd_areas: px of each crowd annotation.
        other_areas: px of each other annotation.
        other_is_rle: whether any of the others is an RLE.
    """
    if crowds != "auto":
        return crowds == "cells"
    if not len(other_areas) or not len(crowd_areas):
        return True
    return not other_is_rle and float(np.median(crowd_areas)) < REGION_RATIO * float(np.median(other_areas))


def crowd_note(count: int, others: int, as_cells: bool) -> str:
    """A line about how crowds were taken; empty without any."""
    if not count:
        return ""
    taken = "cells" if as_cells else "regions to ignore"
    return f"{count} annotations with iscrowd beside {others} without were taken as {taken} (see --crowds)"
