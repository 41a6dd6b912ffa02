"""Run-length encoding: pycocotools is the reference, and malformed text is refused before anything decodes it."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from src.evaluation.rle import MAX_PIXELS, RleError, compress, decode_entries, decompress, encode
from src.geometry.instances import Instance, tight


def full_mask(instance: Instance, height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[instance.top : instance.bottom, instance.left : instance.right] = instance.mask
    return mask


def decode(segmentation: dict, class_id: int, score: float) -> Instance | None:
    (instance,) = decode_entries([{"segmentation": segmentation, "category_id": class_id, "score": score}])
    return instance


def reference(instance: Instance, height: int, width: int) -> dict:
    return {
        "size": [height, width],
        "counts": coco_mask.encode(full_mask(instance, height, width))["counts"].decode(),
    }


def random_instances(rng: np.random.Generator, height: int, width: int, number: int) -> list[Instance]:
    instances = []
    while len(instances) < number:
        rows, columns = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
        instance = tight(1, 0.5, top, left, rng.random((rows, columns)) < rng.choice([0.05, 0.5, 0.9, 1.0]))
        if instance is not None:
            instances.append(instance)
    return instances


@pytest.mark.parametrize("seed", range(5))
def test_encode_and_decode_agree_with_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(60):
        height, width = int(rng.integers(1, 14)), int(rng.integers(1, 14))
        instances = random_instances(rng, height, width, number=5)
        encoded = encode(instances, height, width)
        assert encoded == [reference(instance, height, width) for instance in instances]
        for instance, segmentation in zip(instances, encoded, strict=True):
            decoded = decode(segmentation, 1, 0.5)
            assert decoded is not None and (decoded.top, decoded.left) == (instance.top, instance.left)
            assert decoded.mask.dtype == bool and np.array_equal(decoded.mask, instance.mask)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (7, 1), (300, 200), (33, 86)])
def test_the_whole_image_and_single_pixels_in_its_corners(height: int, width: int) -> None:
    instances = [Instance(1, 1.0, 0, 0, np.ones((height, width), bool))]
    instances += [Instance(1, 1.0, y, x, np.ones((1, 1), bool)) for y in (0, height - 1) for x in (0, width - 1)]
    assert encode(instances, height, width) == [reference(instance, height, width) for instance in instances]


def test_a_mask_that_touches_top_and_bottom_is_merged_over_the_columns() -> None:
    mask = np.array([[1, 1], [0, 1], [1, 1]], bool)
    encoded = encode([Instance(1, 1.0, 0, 1, mask)], 3, 4)
    counts, offsets = decompress(encoded)
    assert counts.tolist() == [3, 1, 1, 4, 3] and offsets.tolist() == [0, 5]


def test_large_counts_take_several_characters() -> None:
    instance = Instance(1, 1.0, 20_000, 26_000, np.ones((3, 2), bool))
    encoded = encode([instance], 20_010, 26_500)
    again = decode(encoded[0], 1, 1.0)
    assert again is not None and (again.top, again.left, again.mask.shape) == (20_000, 26_000, (3, 2))


def test_nothing_to_encode_or_decode() -> None:
    assert encode([], 10, 10) == []
    assert decode_entries([]) == []


def test_an_empty_mask_is_encoded_and_decodes_to_none() -> None:
    encoded = encode([Instance(1, 1.0, 2, 2, np.zeros((2, 2), bool))], 5, 5)
    assert decompress(encoded)[0].tolist() == [25]
    assert decode(encoded[0], 1, 1.0) is None


def test_runs_of_length_zero_are_understood() -> None:
    text = compress(np.array([2, 2, 0, 1, 4]), np.array([0, 5]))[0]
    decoded = decode({"size": [3, 3], "counts": text}, 1, 1.0)
    expected = np.zeros(9, bool)
    expected[2:5] = True
    assert decoded is not None and np.array_equal(full_mask(decoded, 3, 3), expected.reshape(3, 3).T)


def test_entries_keep_their_own_category_and_score() -> None:
    instances = [Instance(1, 1.0, 0, 0, np.ones((2, 2), bool)), Instance(1, 1.0, 3, 1, np.ones((1, 3), bool))]
    entries = [
        {"category_id": k, "score": k / 10, "segmentation": segmentation}
        for k, segmentation in enumerate(encode(instances, 6, 6), start=1)
    ]
    decoded = [instance for instance in decode_entries(entries) if instance is not None]
    assert [(item.class_id, item.score, item.top, item.left) for item in decoded] == [(1, 0.1, 0, 0), (2, 0.2, 3, 1)]


@pytest.mark.parametrize("top, left", [(-1, 0), (0, -1), (4, 0), (0, 4)])
def test_a_mask_outside_its_image_is_refused(top: int, left: int) -> None:
    with pytest.raises(ValueError, match="leaves its 5 x 5 image"):
        encode([Instance(1, 1.0, top, left, np.ones((2, 2), bool))], 5, 5)


@pytest.mark.parametrize(
    "segmentation, reason",
    [
        (None, "needs size and counts"),
        ({"size": [4, 4]}, "needs size and counts"),
        ({"size": [4], "counts": "`0"}, "two positive integers"),
        ({"size": [4, 0], "counts": "`0"}, "two positive integers"),
        ({"size": [4.0, 4], "counts": "`0"}, "two positive integers"),
        ({"size": [2**40, 2**40], "counts": "`0"}, "too large"),
        ({"size": [4, 4], "counts": ""}, "not empty"),
        ({"size": [4, 4], "counts": [16]}, "must be a string"),
        ({"size": [4, 4], "counts": "`é"}, "outside 0..o"),
        ({"size": [4, 4], "counts": "`0 "}, "outside 0..o"),
        ({"size": [4, 4], "counts": "`0~"}, "outside 0..o"),
        ({"size": [4, 4], "counts": "`"}, "cut off"),
        ({"size": [4, 4], "counts": "ooooooo0"}, "too large"),
        ({"size": [4, 4], "counts": "8O"}, "negative"),
        ({"size": [4, 4], "counts": "83"}, "do not sum"),
    ],
)
def test_a_malformed_rle_is_refused_with_its_index_and_reason(segmentation: object, reason: str) -> None:
    valid = {"size": [4, 4], "counts": "`0"}
    with pytest.raises(RleError, match=reason) as caught:
        decompress([valid, segmentation, valid])
    assert caught.value.index == 1


def test_an_image_with_too_many_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        encode([], MAX_PIXELS, 2)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with NumPy 2
def test_damaged_text_is_refused_or_decodes_as_pycocotools_does() -> None:
    rng = np.random.default_rng(0)
    segmentation = encode(random_instances(rng, 40, 40, number=1), 40, 40)[0]
    refused = 0
    for _ in range(400):
        text = bytearray(segmentation["counts"].encode())
        for place in rng.integers(0, len(text), 2):
            text[place] ^= 1 << int(rng.integers(0, 7))
        damaged = {"size": [40, 40], "counts": text.decode()}
        try:
            decoded = decode(damaged, 1, 1.0)
        except RleError:
            refused += 1
            continue
        expected = coco_mask.decode(damaged)
        assert np.array_equal(full_mask(decoded, 40, 40) if decoded else np.zeros((40, 40)), expected)
    assert refused > 300
