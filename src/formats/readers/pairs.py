"""Pairs of an image and a label image by two patterns of their names."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

from src.common.errors import InputError, counted
from src.common.values import plain
from src.data.classes import name_classes
from src.data.names import ENDINGS
from src.data.pictures import PICTURE_SUFFIXES, TIFF_SUFFIXES
from src.formats.imported import ImportSettings, Source, drop, files_in, say_unread, with_readers
from src.formats.places import LAYOUT, PICTURES, Key, keyed, pair
from src.formats.readers.labels import SEG_NPY, read_labelled, refuse_seg


class Pattern(NamedTuple):
    """A pattern of file names: ``flag`` and ``given`` are for messages, ``glob`` has one ``*``, which is the name."""

    flag: str
    given: str
    glob: str


def import_pairs(folder: Path, settings: ImportSettings) -> Source:
    """Images and label images of one class: those that two patterns match with the same name, in like folders.

    A file that both patterns match is of the narrower one, as ``x_mask.png`` is of ``*_mask.png`` and not of ``*.png``.
    """
    patterns = [
        parse_pattern(flag, given)
        for flag, given in (("--image-pattern", settings.image_pattern), ("--mask-pattern", settings.mask_pattern))
    ]
    everything = files_in(folder)
    found = [_matched(folder, everything, pattern) for pattern in patterns]
    images, masks = _told_apart(found[0], found[1])
    image_files, mask_files = _by_key(images, "image"), _by_key(masks, "mask")
    mask_of = pair(image_files, mask_files, by_stem=False)
    if not mask_of:
        raise InputError(f"{folder}: no image has a mask; {min(images)} and {min(masks)} differ in name or folder")
    source = Source({}, name_classes(["cell"]))
    drop(source, "image without a mask", sorted(path for key, path in image_files.items() if key not in mask_of))
    drop(source, "mask without an image", sorted(set(masks) - set(mask_of.values())))
    say_unread(source, everything, [*images, *masks])
    return with_readers(
        source,
        [
            (PurePath(*key), image_files[key], partial(read_labelled, image_files[key], mask, source, settings))
            for key, mask in mask_of.items()
        ],
    )


def parse_pattern(flag: str, given: str | None) -> Pattern:
    """A pattern as it is typed: a path with one ``*``, or else an ending like ``_img.png``, or a folder.

    A last ``.*`` stands for the ending of any image, also ``.ome.tif``. Any folders may stand before a pattern, so a
    first ``*/`` or ``**/`` says nothing.

    Raises:
        InputError: none, an empty one, one that leads out of the folder, or one with several ``*``.
    """
    if given is None:
        raise InputError(f"{flag} is missing: --from pairs needs it, such as '*_img.png' or 'images/*'")
    text = re.sub(r"^(?:\./)+", "", given.strip().replace("\\", "/"))
    start, ending = text.removesuffix(".*"), ".*" if text.endswith(".*") else ""
    start = re.sub(r"^(?:\*{1,2}/)+(?=.*\*)", "", start)
    *folders, last = start.rstrip("/").split("/")
    if not start or start.startswith("/") or ".." in [*folders, last]:
        raise InputError(f"{flag} {given!r}: must name files below IN, such as '*_img.png' or 'images/*'")
    if "*" not in start:
        is_ending = ending or PICTURES.search(last) or last.lower().endswith(".npy")
        start = "/".join([*folders, f"*{last}" if is_ending else f"{last}/*"])
    if start.count("*") != 1:
        raise InputError(f"{flag} {given}: takes one *, which stands for the name of the image")
    ending = ".*" if start.endswith("*") else ending
    return Pattern(flag, given, start + ending)


def _matched(folder: Path, files: Sequence[Path], pattern: Pattern) -> dict[Path, Key]:
    """The files that a pattern matches, with the folders around it and the name; there is at least one."""
    form = _regular_expression(pattern.glob)
    found: dict[Path, Key] = {}
    for path in files:
        match = form.fullmatch(_form(path.relative_to(folder).as_posix()))
        if match:
            folders = [part for part in (match["folders"] or "").split("/") if part and plain(part) not in LAYOUT]
            found[path] = (*folders, match["name"])
    for path in found or [path for path in files if pattern.flag == "--mask-pattern"]:
        if path.name.endswith(SEG_NPY):
            refuse_seg(path)
    if not found:
        such = f", such as {files[0]}" if files else ""
        raise InputError(
            f"{pattern.flag} {pattern.given}: {pattern.glob} matches none of {counted(len(files), 'file')} below"
            f" {folder}{such}"
        )
    for path in found:
        if path.suffix.lower() not in (*TIFF_SUFFIXES, *PICTURE_SUFFIXES):
            raise InputError(f"{path}: is matched by {pattern.flag}, but is no TIFF, PNG, JPEG, BMP or WebP")
    return found


def _regular_expression(glob: str) -> re.Pattern[str]:
    """What a path below the folder matches: ``folders`` before the pattern, if any, and ``name``."""
    before, after = (re.escape(_form(part)) for part in glob.removesuffix(".*").split("*"))
    ending = rf"(?:\.ome)?\.{ENDINGS}" if glob.endswith(".*") else ""
    return re.compile(rf"(?:(?P<folders>.*)/)?{before}(?P<name>[^/]+?){after}{ending}", re.IGNORECASE)


def _form(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _told_apart(images: dict[Path, Key], masks: dict[Path, Key]) -> tuple[dict[Path, Key], dict[Path, Key]]:
    """Images and masks without the files that the other, narrower pattern matches."""
    both = images.keys() & masks.keys()
    if not both:
        return images, masks
    if images.keys() > masks.keys():
        return {path: key for path, key in images.items() if path not in both}, masks
    if masks.keys() > images.keys():
        return images, {path: key for path, key in masks.items() if path not in both}
    raise InputError(
        f"{min(both)}: is matched by both --image-pattern and --mask-pattern, of which neither is narrower"
    )


def _by_key(files: Mapping[Path, Key], what: str) -> dict[Key, Path]:
    """Files by their keys, of which no two may be alike but for case or Unicode form."""
    keyed((((*map(plain, key),), path) for path, key in files.items()), what)
    return {key: path for path, key in files.items()}
