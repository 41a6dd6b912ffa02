"""The program's own files, wherever in its folders they lie, for the tests that read them all."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "benchmarks")


def python_files(folder: str) -> list[Path]:
    """All Python files below a folder of the repository, with those of its packages; of ``.`` the scripts alone."""
    pattern = "*.py" if folder == "." else "**/*.py"
    return sorted((ROOT / folder).glob(pattern))


def module_name(path: Path) -> str:
    """``src.data.tiff`` for ``src/data/tiff.py``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)
