"""What a training must know of all images is computed once and kept in one file."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from src.config.settings import DataSettings, ImageSettings
from src.data.cache import ImageCache
from src.data.image_facts import ImageFacts, concatenate_facts, load_facts, save_facts
from src.data.prepared import prepare
from src.data.tiff import write_mask
from src.data.training_data import TrainingData, load_training_data
from tests.helpers import facts_about, find_records, write_dataset


def equal(one: ImageFacts, other: ImageFacts) -> bool:
    return all(
        np.array_equal(value, getattr(other, name), equal_nan=name == "contrasts") for name, value in vars(one).items()
    )


@pytest.fixture
def facts(tmp_path: Path) -> ImageFacts:
    records = find_records(write_dataset(tmp_path / "data", "abcd"), 2)
    return facts_about(records, ImageCache(tmp_path / "cache", 1.0, "full", 1.0))


def test_facts_are_those_of_the_image(tmp_path: Path) -> None:
    (record,) = find_records(write_dataset(tmp_path / "data", "a"), 2)
    facts, prepared = ImageCache(tmp_path / "cache", 1.0, "full", 2.0).facts(record), prepare(record, "full", 2.0)
    assert len(facts) == 1 and facts.sizes.tolist() == [[96, 80]] and facts.prepared_sizes.tolist() == [[192, 160]]
    assert facts.label_bytes.tolist() == [2] and facts.box_counts.tolist() == [len(facts.boxes)]
    assert facts.class_counts.tolist() == [prepared.class_counts(2).tolist()]
    assert np.array_equal(facts.boxes, prepared.boxes[1:])
    assert facts.cell_size() == np.median(np.sqrt(np.prod(prepared.boxes[1:, 2:] - prepared.boxes[1:, :2], axis=1)))


def test_counts_are_as_wide_as_asked(facts: ImageFacts) -> None:
    assert facts.class_counts.shape == (4, 2)
    assert facts.counts_of(4)[:, :2].tolist() == facts.class_counts.tolist() and not facts.counts_of(4)[:, 2:].any()
    assert facts.counts_of(1).tolist() == facts.class_counts[:, :1].tolist()


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [2, 0], [3, 3], []])
def test_rows_are_those_of_single_images(facts: ImageFacts, rows: list[int]) -> None:
    ends = np.cumsum(facts.box_counts)
    wanted = [facts.boxes[end - count : end] for end, count in zip(ends, facts.box_counts, strict=True)]
    chosen = facts.take(rows)
    assert chosen.entries.tolist() == facts.entries[rows].tolist() and len(chosen) == len(rows)
    assert np.array_equal(chosen.boxes, np.concatenate([wanted[row] for row in rows] or [np.zeros((0, 4))]))


def test_joined_parts_are_the_whole(facts: ImageFacts) -> None:
    assert equal(concatenate_facts([facts.take([0]), facts.take([]), facts.take([1, 2, 3])]), facts)


def test_images_without_the_last_class_join_those_with_it(tmp_path: Path) -> None:
    records = find_records(write_dataset(tmp_path / "data", "ab"), 2)
    for class_id in (1, 2):
        write_mask(records[0].masks[class_id], np.zeros((96, 80), np.uint16))
    facts = facts_about(records, ImageCache(tmp_path / "cache", 1.0, "full", 1.0))
    assert facts.class_counts[0].tolist() == [0, 0] and facts.class_counts[1].min() > 0
    assert facts.box_counts[0] == 0


def test_a_file_holds_them_exactly(facts: ImageFacts, tmp_path: Path) -> None:
    save_facts(tmp_path / "facts.npz", facts)
    loaded = load_facts(tmp_path / "facts.npz")
    assert equal(loaded, facts)
    assert all(getattr(loaded, name).dtype == value.dtype for name, value in vars(facts).items())


def test_a_damaged_file_is_as_good_as_none(facts: ImageFacts, tmp_path: Path) -> None:
    path = tmp_path / "facts.npz"
    assert len(load_facts(path)) == 0
    save_facts(path, facts)
    whole = path.read_bytes()
    middle = whole.index(facts.boxes.tobytes()) + 5
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (b"", b"text", whole[:100], whole[:-30], whole[200:], flipped):
        path.write_bytes(damaged)
        assert len(load_facts(path)) == 0
    np.savez(path, entries=facts.entries)
    assert len(load_facts(path)) == 0
    np.save(tmp_path / "facts.npy", facts.boxes)
    (tmp_path / "facts.npy").rename(path)
    assert len(load_facts(path)) == 0


@pytest.fixture
def settings(tmp_path: Path) -> DataSettings:
    write_dataset(tmp_path / "data", "abcdef")
    return DataSettings(str(tmp_path / "data"), num_classes=3, cache_dir=str(tmp_path / "cache"))


def load(settings: DataSettings) -> TrainingData:
    return load_training_data(settings, ImageSettings(), hidden=True)


def test_a_second_start_opens_no_file(settings: DataSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(settings)
    for name in ("src.data.cache.prepare", "src.data.training_data.read_record"):
        monkeypatch.setattr(name, None)  # a call would fail
    second = load(settings)
    assert (first.cache.decoded, second.cache.decoded) == (6, 0)
    assert second.train == first.train and second.checksums == first.checksums and second.split == first.split
    assert equal(second.train_facts, first.train_facts)
    assert second.train_facts.entries.tolist() == [first.cache.entry(record.files).name for record in first.train]


def test_changed_new_and_lost_images_are_noticed(settings: DataSettings, tmp_path: Path) -> None:
    load(settings)
    folder = Path(settings.data_path)
    write_mask(folder / "c" / "class1.tif", np.zeros((96, 80), np.uint16))
    (folder / "b").rename(tmp_path / "b")
    (folder / "a").rename(folder / "z")
    found = load(settings)
    assert found.cache.decoded == 2 and set(found.checksums) == set("cdefz")
    fresh = load_training_data(
        DataSettings(settings.data_path, num_classes=3, cache_dir=str(tmp_path / "other")), ImageSettings(), hidden=True
    )
    assert found.checksums == fresh.checksums and found.split == fresh.split
    rows = [name for name in vars(found.train_facts) if name != "entries"]
    assert all(np.array_equal(getattr(found.train_facts, name), getattr(fresh.train_facts, name)) for name in rows)


def test_what_was_read_before_a_bad_file_stays_known(settings: DataSettings, tmp_path: Path) -> None:
    bad = Path(settings.data_path) / "f" / "image.tif"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:200] + bytes(len(whole) - 400) + whole[-200:])  # its header is whole
    with pytest.raises(Exception, match=r"f/image\.tif"):
        load(settings)
    bad.write_bytes(whole)
    assert load(settings).cache.decoded == 1


def test_facts_stay_known_where_images_have_no_room(settings: DataSettings, capsys: pytest.CaptureFixture[str]) -> None:
    small = DataSettings(settings.data_path, num_classes=3, cache_dir=settings.cache_dir, cache_gb=1e-4)
    assert load(small).cache.decoded == 6 and "is used up" in capsys.readouterr().err
    again = load(small)
    assert again.cache.decoded == 0 and len(again.train_facts) == len(again.train)


def test_without_a_cache_nothing_is_written(settings: DataSettings) -> None:
    load(DataSettings(settings.data_path, num_classes=3, cache_dir=settings.cache_dir, cache_gb=0.0))
    assert not Path(settings.cache_dir).exists()


@pytest.mark.parametrize("name", ["image.tif", "class2.tif"])
def test_a_tag_of_orientation_is_said_by_file_at_every_start(name: str, settings: DataSettings) -> None:
    path = Path(settings.data_path) / "c" / name
    with tifffile.TiffFile(path) as file:
        pixels, photometric = file.asarray(), file.pages[0].photometric
    tifffile.imwrite(path, pixels, photometric=photometric, extratags=[(274, "H", 1, 6, False)], metadata=None)
    for _ in range(2):  # the second start opens no file
        (note,) = [note for note in load(settings).notes if note.startswith("warning: ")]
        assert str(path) in note
