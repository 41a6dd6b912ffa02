import numpy as np
import pytest
from pycocotools import mask as coco_mask
from skimage.draw import polygon

from src.geometry.instances import Instance
from src.geometry.outlines import outlines
from src.geometry.polygons import count_inside, ellipse, fill, fill_as_coco, fill_even_odd


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


def test_even_odd_is_exact_and_has_half_open_edges() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random((9, 11)) < 0.7
        drawn = np.zeros((20, 20), bool)
        for rings in outlines(Instance(1, 1.0, 4, 5, mask)):
            piece = fill_even_odd(rings, 1, 20, 20)
            assert piece
            drawn[piece.top : piece.bottom, piece.left : piece.right] |= piece.mask
        assert np.array_equal(drawn[4:13, 5:16], mask) and drawn.sum() == mask.sum()
    half = np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5]])  # through the centres of pixels
    found = fill_even_odd([half], 1, 9, 9)
    assert found and (found.top, found.left, found.mask.shape, found.area) == (0, 0, (2, 2), 4)


def test_even_odd_equals_skimage_on_crossing_polygons() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        corners = rng.uniform(-10, 40, (rng.integers(3, 12), 2))
        wanted = np.zeros((30, 25), bool)
        wanted[polygon(corners[:, 1] - 0.5, corners[:, 0] - 0.5, wanted.shape)] = True
        found = fill_even_odd([corners], 1, 30, 25)
        drawn = np.zeros_like(wanted)
        if found:
            drawn[found.top : found.bottom, found.left : found.right] = found.mask
        assert np.array_equal(drawn, wanted)


def test_even_odd_of_a_hostile_ring_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fill_even_odd([np.array([[1e300, 1e300], [-1e300, 1e300], [0, -1e300]])], 1, 6, 6)
    assert fill_even_odd([np.array([[50.0, 1], [60, 1], [60, 5]])], 1, 6, 6) is None
    assert fill_even_odd([np.zeros((3, 2))], 1, 6, 6) is None
    comb = np.array([[x, y] for x in range(100_000) for y in (-9, 99)], float)
    with pytest.raises(ValueError, match=r"10000000|\d{8}"):
        fill_even_odd([comb], 1, 90, 90)


def test_an_ellipse_is_turned_about_its_centre() -> None:
    corners = ellipse((10, 20), (6, 2), np.pi / 2)
    assert np.allclose(corners.mean(axis=0), (10, 20)) and np.allclose(np.ptp(corners, axis=0), (4, 12))
    found = fill_even_odd([ellipse((30, 30), (20, 10))], 1, 60, 60)
    assert found and abs(found.area - np.pi * 200) < 5


def test_points_inside_are_counted_as_they_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    for pairs in (10, 100_000):
        monkeypatch.setattr("src.geometry.polygons.MOST_PAIRS", pairs)
        for _ in range(20):
            rings = [rng.uniform(-5, 30, (rng.integers(3, 9), 2)) for _ in range(2)]
            found = fill_even_odd(rings, 1, 25, 25)
            centers = np.argwhere(np.ones((25, 25)))[:, ::-1] + 0.5
            assert count_inside(rings, centers, 1000) == (found.area if found else 0)
            assert count_inside(rings, centers, 2) == min(2, found.area if found else 0)
    assert count_inside(rings, np.zeros((0, 2)), 2) == 0
