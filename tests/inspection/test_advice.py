import numpy as np
import pytest

from src.geometry.anchors import ASPECT_RATIOS, STRIDES, best_anchor_ious
from src.inspection.advice import ImageCells, advise, most_cells


def cells(size: int, places: list[tuple[int, int]], height: int = 600, width: int = 800) -> ImageCells:
    corners = np.array(places)
    return ImageCells(height, width, np.hstack([corners, corners + size]))


def test_cells_of_a_good_size_are_left_so() -> None:
    advice = advise([cells(24, [(x, y) for x in range(0, 700, 100) for y in range(0, 500, 100)])])
    assert (advice.scale, advice.tile_size, advice.overlap) == (1.0, 512, 32)  # 24 px, rounded up
    assert advice.anchors == "12,24,48,96,192" and advice.most_cells == 25 and advice.detections_per_tile == 100
    assert "--scale 1 --tile-size 512 --overlap 32 --predict-overlap 32 --anchors 12,24" in advice.flags()


@pytest.mark.parametrize(("size", "scale"), [(7, 4.0), (280, 0.1), (14, 2.0), (2, 14.0)])
def test_small_and_large_cells_are_scaled_to_one_size(size: int, scale: float) -> None:
    advice = advise([cells(size, [(0, 0), (300, 300)])])
    assert advice.scale == scale and advice.anchors.startswith("14,28,56")


def test_the_scale_is_one_that_training_takes() -> None:
    assert advise([cells(1, [(0, 0), (300, 300)])]).scale == 16


def test_small_images_get_small_tiles_and_dense_ones_many_detections() -> None:
    dense = cells(20, [(x, y) for x in range(0, 240, 8) for y in range(0, 240, 8)], 256, 256)
    advice = advise([dense])
    assert advice.tile_size == 256 and advice.most_cells == 900 and advice.detections_per_tile == 1200
    assert advice.proposals == 4800


def test_the_fullest_tile_counts() -> None:
    image = cells(10, [(5, 5), (15, 5), (790, 590)])
    assert most_cells(image, 1.0, 256, 0) == 2 and most_cells(image, 1.0, 1000, 0) == 3


def test_anchors_that_fit_by_hand() -> None:
    sides = (16.0, 32.0, 64.0, 128.0, 256.0)
    boxes = np.array([[-8, -8, 8, 8], [4, 4, 20, 20], [2, 0, 18, 16], [24, 24, 88, 88], [0, 0, 4, 4]], float)
    expected = [
        1.0,  # on a place of the finest level
        1.0,  # on another
        14 * 16 / (2 * 256 - 14 * 16),  # two px beside one
        56 * 56 / (2 * 64**2 - 56 * 56),  # eight px beside those of the third level, both ways
        16 / 256,  # far smaller than any
    ]
    assert best_anchor_ious(boxes, sides) == pytest.approx(expected)
    assert best_anchor_ious(np.zeros((0, 4)), sides).shape == (0,)


@pytest.mark.torch
def test_anchors_are_those_of_the_network() -> None:
    torch = pytest.importorskip("torch")
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList
    from torchvision.ops import box_iou

    sides, rng = (9.0, 17.0, 34.0, 69.0, 138.0), np.random.default_rng(0)
    low = rng.uniform(60, 180, (200, 2))
    boxes = np.hstack([low, low + rng.uniform(5, 60, (200, 2))])
    generator = AnchorGenerator(tuple((side,) for side in sides), (ASPECT_RATIOS,) * 5)
    maps = [torch.zeros(1, 1, 256 // stride, 256 // stride) for stride in STRIDES]
    (anchors,) = generator(ImageList(torch.zeros(1, 3, 256, 256), [(256, 256)]), maps)
    expected = box_iou(torch.from_numpy(boxes), anchors.double()).max(dim=1).values
    assert best_anchor_ious(boxes, sides) == pytest.approx(expected.numpy(), abs=1e-6)
