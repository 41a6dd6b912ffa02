"""Prediction of a folder of slides: each becomes a folder of outputs, and one that fails does not stop the others."""

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from src.common.errors import InputError, counted
from src.common.files import read_json
from src.common.progress import ProgressBar, say
from src.config.settings import ImageSettings
from src.data.classes import CellClass
from src.data.id_map import ImageId
from src.data.tiff import one_line
from src.engine.prediction import Predictor, warnings_on_limits
from src.engine.slide_prediction import SlideTiles, choose_tiles, predict_slide
from src.slides.finding import open_slide
from src.slides.outputs import SUMMARY, SlideInfo, write_outputs
from src.slides.scaled import ScaledSlide
from src.slides.shards import Shards
from src.slides.slide import Slide
from src.slides.tissue import Tissue, all_tissue, find_tissue
from src.slides.tissue_file import read_tissue

BYTES_PER_TILE = 50_000  # of disk, at most, for shards and outputs: some hundred cells of 300 bytes, twice
HEAD = 1 << 20  # bytes at either end of a file by which it is known again


@dataclass(frozen=True)
class SlideOptions:
    """How slides are predicted: ``mpp`` or ``scale`` where a flag gives one, ``trained`` is how training read images.

    ``tissue`` is ``auto``, ``all`` or a GeoJSON file; ``job`` is what else the cells depend on, as JSON.
    """

    output: Path
    tissue: str
    mpp: float | None
    scale: float | None
    trained: ImageSettings
    job: Any


def predict_slides(
    predictor: Predictor, classes: Sequence[CellClass], slides: Sequence[Path], options: SlideOptions
) -> dict[Path, str]:
    """Predict slides one after another; those that are finished already are skipped.

    Returns:
        Why each slide failed that did.
    """
    failed = {}
    for path in slides:
        try:
            say(f"{path}: {_predict(predictor, classes, path, options)}")
        except InputError as error:
            failed[path] = str(error)
        except (OSError, ValueError, RuntimeError) as error:  # readers of slides raise anything
            failed[path] = f"{path}: {type(error).__name__}: {one_line(error)}"
        if path in failed:
            say(f"failed: {failed[path]}")
    return failed


def _predict(predictor: Predictor, classes: Sequence[CellClass], path: Path, options: SlideOptions) -> str:
    """Predict a slide and write its folder; a line that sums it up."""
    folder = options.output / path.stem
    job = {"file": _identity(path), "tissue": _tissue_identity(options.tissue), "settings": options.job}
    summary = folder / SUMMARY
    if summary.is_file() and read_json(summary).get("job") == job:
        return f"is finished, in {folder}"
    slide = open_slide(path)
    try:
        return _predict_open(predictor, classes, slide, options, folder, job)
    finally:
        slide.close()


def _predict_open(
    predictor: Predictor, classes: Sequence[CellClass], slide: Slide, options: SlideOptions, folder: Path, job: Any
) -> str:
    started, full = time.monotonic(), slide.levels[0]
    mpp = options.mpp or slide.mpp
    scaled = ScaledSlide(slide, scale_of_slide(slide, options))
    tissue = _find_tissue(slide, options.tissue)
    tiles = choose_tiles(scaled, tissue, predictor.tile_size, predictor.settings.predict_overlap)
    _check_disk(options.output, tiles)
    shards = Shards(folder.with_name(f".{folder.name}.unfinished"), job)
    of_slide = replace(predictor, image=replace(predictor.image, scale=scaled.scale))
    predict_slide(of_slide, scaled, tiles, shards, partial(ProgressBar, label=slide.path.name, unit="tile"))
    for line in warnings_on_limits(predictor.limits_reached()).values():
        say(line)
    info = SlideInfo(ImageId(slide.path.name, 1, full.height, full.width), mpp, classes, tissue)
    about = {
        "scale": scaled.scale,
        "tiles": len(tiles.scaled),
        "tiles_without_tissue": tiles.in_grid - len(tiles.scaled),
        "broken_tiles": slide.broken,
        "seconds": round(time.monotonic() - started, 1),
        "job": job,
    }
    cells = sum(write_outputs(folder, info, shards, predictor.settings.min_score, about).values())
    shards.remove()
    broken = f", {counted(slide.broken, 'broken stored tile')} read as white" if slide.broken else ""
    return f"{counted(cells, 'cell')} in {len(tiles.scaled):,} of {counted(tiles.in_grid, 'tile')}{broken}, in {folder}"


def scale_of_slide(slide: Slide, options: SlideOptions) -> float:
    """The factor by which a slide is resized, so that cells are as large as in training.

    Raises:
        InputError: the resolution of the slide or of the training is not known; it names the flag that says it.
    """
    if options.scale is not None:
        return options.scale
    mpp, trained = options.mpp or slide.mpp, options.trained
    if mpp is None:
        raise InputError(f"{slide.path}: does not say its resolution; pass --mpp, in µm per px")
    if trained.mpp is None:
        raise InputError(f"{slide.path}: the checkpoint does not say the resolution of its training; pass --scale")
    return trained.scale * mpp / trained.mpp


def _find_tissue(slide: Slide, how: str) -> Tissue:
    if how == "auto":
        return find_tissue(slide)
    return all_tissue(slide) if how == "all" else read_tissue(slide, Path(how))


def _check_disk(output: Path, tiles: SlideTiles) -> None:
    """Refuse to begin what the disk could not hold."""
    place = next(parent for parent in (output, *output.resolve().parents) if parent.exists())
    needed, free = len(tiles.scaled) * BYTES_PER_TILE, shutil.disk_usage(place).free
    if needed > free:
        raise InputError(f"{output}: up to {needed / 1e9:.1f} GB are needed, and {free / 1e9:.1f} GB are free")


def _identity(path: Path) -> list[Any]:
    """A file's name, size and the digest of its two ends: slides are too large to read them for this."""
    with path.open("rb") as file:
        ends = file.read(HEAD)
        file.seek(max(path.stat().st_size - HEAD, 0))
        ends += file.read(HEAD)
    return [path.name, path.stat().st_size, hashlib.sha256(ends).hexdigest()]


def _tissue_identity(how: str) -> Any:
    return how if how in ("auto", "all") else hashlib.sha256(Path(how).read_bytes()).hexdigest()
