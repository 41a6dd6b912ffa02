"""Images are found by names that differ in ending, case or Unicode form alone."""

import unicodedata

import pytest

from src.common.errors import InputError
from src.data.names import ImageNames, plain_names

E = "\u00e9"  # in one character, and as two below
E_APART = unicodedata.normalize("NFD", E)


@pytest.mark.parametrize(
    ("name", "known", "place"),
    [
        ("a", ["a"], 0),
        ("a.PNG", ["b", "a"], 1),
        ("a", ["b.png", "a.jpeg"], 1),
        ("a.tif", ["a.webp"], 0),
        ("A", ["b", "a"], 1),
        ("A", ["a", "A"], 1),  # an equal name fits best
        ("a.ome.tif", ["A"], 0),
        ("a", ["a.ome"], 0),
        (E, [E_APART], 0),
        (E_APART.upper(), [E], 0),
        ("a.b", ["a.b", "a"], 0),
        ("a.b", ["a"], None),
        ("c", ["a", "b"], None),
    ],
)
def test_a_name_is_found(name: str, known: list[str], place: int | None) -> None:
    assert ImageNames(known).find(name, "list.json") == place


def test_a_name_that_fits_two_images_and_two_names_of_one_are_refused() -> None:
    with pytest.raises(InputError, match=r"list\.json: aB fits two images, AB and ab"):
        ImageNames(["AB", "ab"]).find("aB", "list.json")
    with pytest.raises(InputError, match=r"list\.json: A and a both name a"):
        ImageNames(["a", "b"]).find_all(["A", "a"], "list.json", "lacks")
    with pytest.raises(InputError, match=r"list\.json: lacks aaab; did you mean aaac\?"):
        ImageNames(["aaac"]).find_all(["aaab"], "list.json", "lacks")
    assert ImageNames(["a", "b"]).find_all([], "list.json", "lacks") == []


def test_folders_become_part_of_a_name_that_is_not_unique() -> None:
    files = ["one/x.png", "two\\x.png", "images/y.jpg", "/z.tif"]
    assert plain_names(files) == ["one_x", "two_x", "y", "z"]
    known = ImageNames(plain_names(files), files)
    places = [known.find(name, "") for name in ("one_x.tif", "two_x", "images/y.jpg", "images_Y", "x")]
    assert places == [0, 1, 2, 2, None]


def test_the_same_name_with_two_endings_is_two_images() -> None:
    files = ["a.png", "a.jpg"]
    known = ImageNames(plain_names(files), files)
    assert [known.find(name, "") for name in files] == [0, 1]
    with pytest.raises(InputError, match="fits two"):
        known.find("a", "list.json")
