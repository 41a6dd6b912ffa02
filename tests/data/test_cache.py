import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from src.data.cache import ImageCache, folder_bytes, remove_unused
from src.data.masks import cell_pixels
from src.data.prepared import prepare, stack_layers
from src.data.tiff import write_mask
from tests.helpers import find_records, write_dataset


def test_layers_hold_overlapping_objects_apart() -> None:
    first, second = np.zeros((4, 6), np.int32), np.zeros((4, 6), np.int32)
    first[:2, :2], first[3, 5] = 1, 2
    second[1:3, 1:3], second[0, 5] = 1, 2  # the first overlaps, the second does not
    label_map, categories, layers = stack_layers({1: cell_pixels(first), 3: cell_pixels(second)}, (4, 6))
    assert label_map.shape == (4, 6, 2) and label_map.dtype == np.uint16
    assert categories.tolist() == [0, 1, 1, 3, 3]
    assert layers.tolist() == [0, 0, 0, 1, 0]
    for label, mask in ((1, first == 1), (2, first == 2), (3, second == 1), (4, second == 2)):
        assert ((label_map[..., layers[label]] == label) == mask).all()


def test_no_masks_make_one_empty_layer() -> None:
    label_map, categories, _ = stack_layers({}, (3, 2))
    assert label_map.shape == (3, 2, 1) and not label_map.any() and len(categories) == 1


def test_classes_that_do_not_overlap_share_one_layer() -> None:
    masks = {category: cell_pixels(np.diag(np.arange(5) == category - 1)) for category in range(1, 6)}
    label_map, categories, _ = stack_layers(masks, (5, 5))
    assert label_map.shape[-1] == 1 and sorted(np.unique(label_map)) == list(range(6)) and len(categories) == 6


def test_cached_is_what_was_prepared_and_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = find_records(write_dataset(tmp_path / "data", "a"), 2)[0]
    cache = ImageCache(tmp_path / "cache", 1.0, "full", 1.0)
    fresh, first = prepare(record, "full", 1.0), cache.get(record)
    monkeypatch.setattr("src.data.pictures.read_picture", None)  # a second decoding would fail
    second = cache.get(record)
    for name, array in vars(fresh).items():
        assert np.array_equal(getattr(first, name), array) and np.array_equal(getattr(second, name), array)
    assert isinstance(second.image, np.memmap)


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    record = find_records(write_dataset(tmp_path / "data", "a"), 2)[0]
    cache = ImageCache(tmp_path / "cache", 1.0, "full", 1.0)
    before = cache.get(record).class_counts(2)
    write_mask(record.masks[1], np.zeros((record.height, record.width), np.uint16))
    os.utime(record.masks[1], ns=(1, 1))
    after = cache.get(record).class_counts(2)
    assert before[0] > 0 and after.tolist() == [0, before[1]]


def test_links_lead_to_the_entry_of_their_files(tmp_path: Path) -> None:
    record = find_records(write_dataset(tmp_path / "data", "a"), 2)[0]
    cache = ImageCache(tmp_path / "cache", 1.0, "full", 1.0)
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    files = tmp_path / "files/b"
    files.mkdir(parents=True)
    for path in (record.image, *record.masks.values()):
        (files / path.name).symlink_to(path)
    entries = {cache.entry(one.files) for one in (record, *find_records(tmp_path / "linked", 2))}
    assert entries == {cache.entry(one.files) for one in find_records(tmp_path / "files", 2)}


def test_without_room_the_work_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = find_records(write_dataset(tmp_path / "data", "ab"), 2)
    cache = ImageCache(tmp_path / "cache", 1e-6, "full", 1.0)
    assert [cache.get(record).image.shape for record in records] == [(96, 80, 3)] * 2
    assert capsys.readouterr().err.count("is used up") == 1
    assert not (tmp_path / "cache").exists()


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def one_mb(tmp_path: Path) -> float:
    """GB that an entry of the test images takes."""
    record = find_records(write_dataset(tmp_path / "first", "a"), 2)[0]
    ImageCache(tmp_path / "one", 1.0, "full", 1.0).facts(record)
    return folder_bytes(tmp_path / "one") / 1e9


def test_a_limit_holds_and_a_run_keeps_its_own_entries(tmp_path: Path, one_mb: float) -> None:
    records = find_records(write_dataset(tmp_path / "data", "abcdefgh"), 2)
    cache = ImageCache(tmp_path / "cache", 4.5 * one_mb, "full", 1.0)
    for record in records:
        cache.get(record)
    kept = {cache.entry(record.files).name for record in records[:4]}
    assert entries(tmp_path / "cache") == kept and folder_bytes(tmp_path / "cache") < 4.5e9 * one_mb


def test_entries_that_no_run_uses_make_room(tmp_path: Path, one_mb: float) -> None:
    records = find_records(write_dataset(tmp_path / "data", "abcdefgh"), 2)
    cache = ImageCache(tmp_path / "cache", 4.5 * one_mb, "full", 1.0)
    names = [cache.entry(record.files).name for record in records]
    for hours, record in zip((3, 4, 2), records[:3], strict=True):
        cache.get(record)
        used = time.time() - 3600 * hours
        os.utime(cache.entry(record.files), (used, used))
    other = ImageCache(tmp_path / "cache", 4.5 * one_mb, "full", 1.0)  # another run, which begins now
    other.get(records[2])  # and uses the third
    other.get(records[3])
    other.get(records[4])
    assert entries(tmp_path / "cache") == {names[0], names[2], names[3], names[4]}  # the second was unused the longest
    other.get(records[5])
    assert entries(tmp_path / "cache") == {names[2], names[3], names[4], names[5]}
    other.get(records[6])
    assert names[6] not in entries(tmp_path / "cache") and len(entries(tmp_path / "cache")) == 4


def test_facts_that_no_run_uses_make_room(tmp_path: Path) -> None:
    (tmp_path / "old.npz").write_bytes(bytes(1000))
    (tmp_path / "new.npz").write_bytes(bytes(1000))
    os.utime(tmp_path / "old.npz", (5, 5))
    assert remove_unused(tmp_path, time.time() - 60, 10_000) == 1000
    assert entries(tmp_path) == {"new.npz"}


def test_what_another_run_used_just_now_stays(tmp_path: Path, one_mb: float) -> None:
    records = find_records(write_dataset(tmp_path / "data", "abcd"), 2)
    first = ImageCache(tmp_path / "cache", 2.5 * one_mb, "full", 1.0)
    before = [np.array(first.get(record).image) for record in records[:2]]
    second = ImageCache(tmp_path / "cache", 2.5 * one_mb, "full", 1.0)
    second.opened += 60  # as if it had begun a minute later
    assert second.get(records[2]).image.shape == (96, 80, 3)
    assert all(np.array_equal(first.get(record).image, image) for record, image in zip(records, before, strict=False))
    assert first.decoded == 2 and second.decoded == 1


def test_a_place_that_cannot_be_written_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = find_records(write_dataset(tmp_path / "data", "a"), 2)[0]
    (tmp_path / "file").write_text("")
    cache = ImageCache(tmp_path / "file" / "cache", 1.0, "full", 1.0)
    assert cache.facts(record).sizes.tolist() == [[96, 80]] and cache.get(record).image.shape == (96, 80, 3)
    assert capsys.readouterr().err.count("decoded each time") == 1


def test_a_folder_is_measured_while_others_write_into_it(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "image.npy").write_bytes(bytes(10))
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "image.npy").touch()
            (tmp_path / "new").rename(tmp_path / "entry")
            shutil.rmtree(tmp_path / "entry")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {folder_bytes(tmp_path) for _ in range(2000)} == {10}
    finally:
        done.set()
        writer.join()


def test_scale_enlarges_image_and_cells_alike(tmp_path: Path) -> None:
    record = find_records(write_dataset(tmp_path / "data", "a"), 2)[0]
    plain, double = prepare(record, "full", 1.0), prepare(record, "full", 2.0)
    assert double.image.shape == (192, 160, 3)
    assert (double.areas[1:] == 4 * plain.areas[1:]).all()
    assert (double.label_map[::2, ::2] == plain.label_map).all()
