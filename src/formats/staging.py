"""Writing a data folder beside its place, so that it is there whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from src.common.errors import InputError, some
from src.common.files import is_system_file, writing
from src.data.records import is_known

OF_AN_IMPORT = ("groups.json", "split.json")  # an import without rectangles has none


@contextmanager
def whole_or_not(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``out`` at the end, or whose content is moved into ``out`` where that is.

    What fails before the end leaves ``out`` as it was. Of an image folder that is in both, the image and the masks of
    before are removed; other folders and files stay.

    Raises:
        InputError: ``out`` cannot be written, or holds a file where a folder is to be, or the reverse.
    """
    is_new = not out.exists()
    if not is_new and not out.is_dir():
        raise InputError(f"{out}: is not a folder")
    beside = out.parent if is_new else out  # on the same file system
    with writing(out):
        beside.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}.", dir=beside) as folder:
            staged = Path(folder) / "import"
            staged.mkdir()
            yield staged
            if is_new:
                staged.replace(out)
            else:
                _move_into(staged, out)


def other_folders(out: Path, staged: Path) -> list[str]:
    """A line about folders in ``out`` that ``staged`` does not hold; none without such."""
    names = {path.name for path in out.iterdir() if path.is_dir()} if out.is_dir() else set()
    others = [name for name in names if not is_system_file(name) and not (staged / name).exists()]
    return [f"{len(others)} folders in {out} are not of this import: {some(others)}"] if others else []


def _move_into(staged: Path, out: Path) -> None:
    for path in staged.rglob("*"):
        place = out / path.relative_to(staged)
        if place.exists() and place.is_dir() != path.is_dir():
            raise InputError(f"{place}: is {'a folder' if place.is_dir() else 'a file'}; nothing was written")
    for name in OF_AN_IMPORT:
        if not (staged / name).exists():
            (out / name).unlink(missing_ok=True)
    for path in sorted(staged.iterdir()):
        place = out / path.name
        if path.is_dir() and place.is_dir():
            _replace_image(path, place)
        else:
            path.replace(place)


def _replace_image(staged: Path, folder: Path) -> None:
    """Replace the image and the masks in a folder by those that were staged."""
    new = {path.name for path in staged.iterdir()}
    for path in staged.iterdir():
        path.replace(folder / path.name)
    for path in folder.iterdir():
        if is_known(path.name) and path.name not in new and path.is_file():
            path.unlink()
