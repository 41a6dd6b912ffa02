"""Prediction of a folder of slides: each becomes a folder of outputs, and one that fails does not stop the others."""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from src.common.errors import InputError, counted, one_line
from src.common.files import read_json
from src.common.memory import give_back_memory, share_heap
from src.common.progress import ProgressBar, say
from src.data.classes import CellClass
from src.data.data_shift import PredictionStatistics, shift_warnings
from src.data.id_map import ImageId
from src.engine.memory import memory_errors
from src.engine.prediction import Predictor, warnings_on_limits
from src.engine.slide_options import SlideOptions, check_other_files, check_place, scale_of_slide, tissue_of
from src.engine.slide_prediction import SlideTiles, choose_tiles, predict_slide
from src.formats.slide_folder import SUMMARY
from src.slides.claims import claimed, digest_of, identity
from src.slides.finding import open_slide
from src.slides.outputs import SlideInfo, remove_remains, write_outputs
from src.slides.scaled import ScaledSlide
from src.slides.shards import JOB, Shards, other_job
from src.slides.slide import Slide

BYTES_PER_PIXEL = 0.5  # of disk, of predicted tiles: 0.06 in skin (CMU-1), 0.4 in CoNSeP by its cells, of 0.7 kB each
SAMPLED_TILES, SAMPLED_SHARDS = 32, 8  # of a slide, which are compared with the training's images
MEMORY_ADVICE = "lower --predict-batch-size, choose another GPU with --device cuda:N or take --device cpu"


@dataclass(frozen=True)
class _Place:
    """The folder of a slide's outputs, that of its unfinished work, and what its cells depend on, as JSON."""

    folder: Path
    job: Any

    @property
    def unfinished(self) -> Path:
        return _unfinished(self.folder)


def check_unfinished(slides: Sequence[Path], options: SlideOptions) -> None:
    """Refuse to go on where an unfinished prediction of a slide has other settings, another checkpoint or file.

    What cannot be read is left for later, when its slide is predicted.

    Raises:
        InputError: naming its folder.
    """
    for path in slides:
        folder = options.folder_of(path)
        begun = _unfinished_job(folder)
        try:
            is_other = (
                begun is not None and begun != _place_of(path, options).job and begun != _job_of(folder / SUMMARY)
            )
        except (OSError, InputError):
            continue
        if is_other:
            raise other_job(_unfinished(folder))


def _unfinished(folder: Path) -> Path:
    """Where the unfinished work on a slide lies."""
    return folder.with_name(f".{folder.name}.unfinished")


def _unfinished_job(folder: Path) -> Any:
    """What the unfinished work on a slide is made from; ``None`` without any, or where that cannot be read."""
    path = _unfinished(folder) / JOB
    try:
        begun = read_json(path) if path.exists() else None
    except (OSError, InputError):  # OSError: the name is too long
        return None
    return begun.get("of") if isinstance(begun, dict) else None


def _place_of(path: Path, options: SlideOptions) -> _Place:
    job = {"file": identity(path), "tissue": _identity_of_tissue(path, options), "settings": options.job}
    return _Place(options.folder_of(path), json.loads(json.dumps(job)))


def predict_slides(
    predictor: Predictor, classes: Sequence[CellClass], slides: Sequence[Path], options: SlideOptions
) -> dict[Path, str]:
    """Predict slides one after another; those that are finished already are skipped.

    Returns:
        Why each slide failed that did.
    """
    share_heap()
    failed = {}
    for path in slides:
        try:
            with memory_errors(MEMORY_ADVICE):
                say(f"{path}: {_predict(predictor, classes, path, options)}")
        except InputError as error:
            failed[path] = str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
        except Exception as error:  # readers of slides raise anything
            failed[path] = f"{path}: {type(error).__name__}: {one_line(error)}"
        if path in failed:
            say(f"failed: {failed[path]}")
    return failed


def _predict(predictor: Predictor, classes: Sequence[CellClass], path: Path, options: SlideOptions) -> str:
    """Predict a slide and write its folder; a line that sums it up."""
    folder = options.folder_of(path)
    with claimed(folder):
        check_place(folder)
        place = _place_of(path, options)
        finished = _job_of(folder / SUMMARY)
        if finished is not None:
            _remove_remains_of(place, finished)
        if finished == place.job:
            return f"is finished, in {folder}"
        check_other_files(folder)
        with closing(open_slide(path)) as slide:
            found = _find_cells(predictor, classes, slide, options, place)
        return _write(found, place, predictor.settings.min_score)  # without the memory that the reader took


@dataclass(frozen=True)
class _Found:
    """A slide whose cells lie in shards, and what its summary says of the prediction."""

    info: SlideInfo
    shards: Shards
    about: dict[str, Any]


def _find_cells(
    predictor: Predictor, classes: Sequence[CellClass], slide: Slide, options: SlideOptions, place: _Place
) -> _Found:
    """Predict the tiles of a slide."""
    started, full = time.monotonic(), slide.levels[0]
    scaled = ScaledSlide(slide, scale_of_slide(slide, options))
    tissue = tissue_of(slide, options)
    tiles = choose_tiles(scaled, tissue, predictor.tile_size, predictor.settings.predict_overlap)
    _check_disk(place, tiles)
    shards = Shards(place.unfinished, {"of": place.job, "tiles": digest_of(tiles.places)})
    of_slide = replace(predictor, image=replace(predictor.image, scale=scaled.scale))
    of_slide.limits_reached()  # forgets the tiles of a slide that failed
    predict_slide(of_slide, scaled, tiles, shards, partial(ProgressBar, label=slide.path.name, unit="tile"))
    for line in _warnings(of_slide, scaled, tiles, shards, options):
        say(f"{slide.path}: {line}")
    if identity(slide.path) != place.job["file"]:
        shards.remove()  # whose cells are of both
        raise InputError(f"{slide.path}: was changed while it was predicted")
    info = SlideInfo(ImageId(slide.path.name, 1, full.height, full.width), options.mpp or slide.mpp, classes, tissue)
    about = {
        "scale": scaled.scale,
        "tiles": len(tiles.scaled),
        "tiles_without_tissue": tiles.in_grid - len(tiles.scaled),
        "broken_tiles": len(shards.broken()),
        "seconds": round(time.monotonic() - started, 1),
        "job": place.job,
    }
    return _Found(info, shards, about)


def _write(found: _Found, place: _Place, min_score: float) -> str:
    """Write the outputs of a slide; a line that sums it up."""
    give_back_memory()
    cells = sum(write_outputs(place.folder, found.info, found.shards, min_score, found.about).values())
    found.shards.remove()
    tiles, broken = found.about["tiles"], found.about["broken_tiles"]
    in_grid = tiles + found.about["tiles_without_tissue"]
    white = f", {counted(broken, 'broken stored tile')} read as white" if broken else ""
    return f"{counted(cells, 'cell')} in {tiles:,} of {counted(in_grid, 'tile')}{white}, in {place.folder}"


def _warnings(
    predictor: Predictor, scaled: ScaledSlide, tiles: SlideTiles, shards: Shards, options: SlideOptions
) -> list[str]:
    """What is odd about a slide: colours or sizes of cells unlike the training's, tiles that a limit cut off."""
    found = list(warnings_on_limits(predictor.limits_reached()).values())
    if options.statistics is None or not tiles.scaled:
        return found
    some = np.linspace(0, len(tiles.scaled) - 1, min(len(tiles.scaled), SAMPLED_TILES)).astype(int)
    pixels = np.concatenate([scaled.read(tiles.scaled[index]).reshape(-1, 1, 3) for index in some])
    if predictor.image.channel_order == "bgr":
        pixels = pixels[..., ::-1]
    statistics, least = PredictionStatistics(), predictor.settings.min_score
    cells = (cell for part in shards.some_cells(SAMPLED_SHARDS) for cell in part if cell.score >= least)
    statistics.add(pixels, cells)
    return [*shift_warnings(options.statistics, [statistics], scaled.scale), *found]


def _check_disk(place: _Place, tiles: SlideTiles) -> None:
    """Refuse to begin what the disk would hardly hold, with what lies there from before."""
    done = sum(path.stat().st_size for path in place.unfinished.glob("*"))
    needed = BYTES_PER_PIXEL * sum(tile.height * tile.width for tile in tiles.scaled) - done
    free = shutil.disk_usage(place.folder.parent).free
    if needed > free:
        raise InputError(f"{place.folder}: about {needed / 1e9:.2g} GB are needed, and {free / 1e9:.2g} GB are free")


def _job_of(summary: Path) -> Any:
    """What finished outputs were made from; ``None`` without any."""
    found = read_json(summary) if summary.is_file() else None
    return found.get("job") if isinstance(found, dict) else None


def _remove_remains_of(place: _Place, finished: Any) -> None:
    """Delete what the process that finished a slide has left, if it was killed right then."""
    remove_remains(place.folder)
    left = place.unfinished / JOB
    if not left.exists() or read_json(left).get("of") == finished:
        shutil.rmtree(place.unfinished, ignore_errors=True)


def _identity_of_tissue(slide: Path, options: SlideOptions) -> Any:
    path = options.regions_of(slide)
    return options.tissue if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
