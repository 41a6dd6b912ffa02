import numpy as np
from pycocotools import mask as coco_mask

from src.geometry.instances import Instance
from src.geometry.polygons import fill, fill_as_coco, outlines


def decode(counts: str, height: int, width: int) -> np.ndarray:
    return coco_mask.decode({"size": [height, width], "counts": counts}).astype(bool)


def test_a_square_in_both_conventions() -> None:
    corners = np.array([[3.0, 2.0], [6.0, 2.0], [6.0, 4.0], [3.0, 4.0]])
    whole = fill(corners, 1, 10, 12)  # the centres of columns 3 to 6 and rows 2 to 4
    assert whole and (whole.top, whole.left, whole.mask.shape, whole.area) == (2, 3, (3, 4), 12)
    wanted = np.zeros((10, 12), bool)
    wanted[2:4, 3:6] = True  # between the corners
    assert np.array_equal(decode(fill_as_coco([corners.ravel().tolist()], 10, 12), 10, 12), wanted)


def test_outlines_are_drawn_back_exactly() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random((9, 11)) < 0.7
        polygons = outlines(Instance(1, 1.0, 4, 5, mask))
        pieces = [[ring.ravel().tolist() for ring in rings] for rings in polygons]
        drawn = np.zeros((20, 20), bool)
        for outer, *holes in pieces:
            piece = decode(fill_as_coco([outer], 20, 20), 20, 20)
            for hole in holes:
                piece &= ~decode(fill_as_coco([hole], 20, 20), 20, 20)
            drawn |= piece
        assert np.array_equal(drawn[4:13, 5:16], mask) and drawn.sum() == mask.sum()
