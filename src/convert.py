"""Import images with their cells from other formats, and export results to other formats.

python -m src.convert --from dsb2018 stage1_train data/train
python -m src.convert --from consep CoNSeP/Train data/train --rectangles 0
python -m src.convert --from pairs mine data/train --image-pattern '*_img.png' --mask-pattern '*_masks.png'
python -m src.convert --from results test-results.json qupath --to geojson
python -m src.convert --from geojson out/slide cells --to csv
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.common.errors import InputError, nearest, run_command
from src.common.files import companion, id_map_of
from src.common.limits import DEFAULT_MAX_PIXELS
from src.config.command import parse
from src.config.flags import inherited, option
from src.config.settings import ImageSettings, MachineSettings
from src.data.classes import classes_of_results
from src.data.id_map import read_id_map
from src.evaluation.crowds import CROWDS
from src.evaluation.result_settings import CONFIDENT, read_min_score
from src.formats.cells_alone import COCO, export_cells
from src.formats.conversion import convert_in, convert_out, open_source, require_path
from src.formats.exported import ExportSettings
from src.formats.exporters import EXPORTERS
from src.formats.imported import ImportSettings
from src.formats.importers import IMPORTERS
from src.formats.staging import other_folders, whole_or_not

RESULTS, GEOJSON = "results", "geojson"
IMPORT_FLAGS = (
    *("images", "image_pattern", "mask_pattern", "types", "rectangles", "intensity", "split_pieces"),
    *("orientation", "crowds", "nuclei", "attribute"),
)
EXPORT_FLAGS = ("to", "id_map", "classes", "min_score", "mpp", "gzip", "image_size")
OF_AN_EXPORT = {  # flags that have no effect, by what is exported
    RESULTS: (*IMPORT_FLAGS, "image_size"),
    GEOJSON: ("rectangles", "intensity", "id_map", "classes"),
}


@dataclass(frozen=True)
class ConvertConfig:
    """The conversion."""

    input: str = option("", "folder or file to read", name="IN", required=True)
    out: str = option("", "folder to write (for --to coco and results a file)", name="OUT", required=True)
    source: str | None = option(
        None, f"format of IN: {', '.join([*IMPORTERS, RESULTS])}", name="--from", metavar="FORMAT"
    )
    images: str | None = option(
        None, "where the images lie (coco, geojson, labelme, via); absent: beside IN or near it", metavar="DIR"
    )
    image_size: str | None = option(
        None, "width and height in px of the images of --from geojson, for a --to that needs them", metavar="WxH"
    )
    image_pattern: str | None = option(
        None,
        "with --from pairs: images, with * for the name, such as 'tissue images/*.png' or '*_img.png'",
        metavar="P",
    )
    mask_pattern: str | None = option(None, "with --from pairs: their label images, in the same way", metavar="P")
    types: str | None = option(
        None, 'with --from mat: JSON of number to class name, such as {"1": "tumour", "2": null}', metavar="FILE"
    )
    rectangles: int | None = option(
        None, "cut each image into four, with a split by source image drawn with this seed", low=0, metavar="SEED"
    )
    intensity: str | None = inherited(
        ImageSettings, "intensity", help="how types wider than 8 bits become 8 bits (see main.py); absent: full"
    )
    split_pieces: bool | None = inherited(ImageSettings, "split_pieces")
    crowds: str | None = option(
        None, "what COCO's crowd annotations are: cells, regions to ignore, or (auto) what suits", choices=CROWDS
    )
    orientation: str | None = option(
        None,
        "turn pictures by their EXIF tag or not; absent: where the size of their masks asks for it, or fits both",
        choices=("raw", "turned"),
    )
    nuclei: bool | None = option(None, "take the nuclei of QuPath's cells, not their outlines (geojson)")
    attribute: str | None = option(None, "the attribute of regions that holds their class (via)", metavar="NAME")
    to: str | None = option(
        None, f"with --from results or geojson: {', '.join(EXPORTERS)}, coco; of geojson also results", metavar="FORMAT"
    )
    id_map: str | None = option(None, "id map of the results; absent: the one beside them", metavar="FILE")
    classes: str | None = option(
        None,
        "JSON of classes; absent: that beside the results, else the homework's",
        metavar="FILE",
    )
    min_score: float | None = option(
        None,
        f"lowest score that is exported; absent: that from which inference.py counted the cells, or {CONFIDENT};"
        " of geojson all",
        formerly="--score-thresh",
        low=0,
        high=1,
        metavar="S",
    )
    mpp: float | None = inherited(
        ImageSettings, "mpp", help="µm per px of the images: adds measurements in µm (geojson, csv, parquet)"
    )
    gzip: bool | None = option(None, "compress the files (geojson)")
    force: bool = option(False, "write over what is in OUT")
    max_pixels: int = inherited(MachineSettings, "max_pixels", DEFAULT_MAX_PIXELS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    flags = parse(ConvertConfig, __doc__, argv=arguments)
    kind = choose("--from", flags.source, [*IMPORTERS, RESULTS])
    is_export = kind == RESULTS or (kind == GEOJSON and flags.to is not None)
    for name in OF_AN_EXPORT[kind] if is_export else EXPORT_FLAGS:
        if getattr(flags, name) is not None:
            without = " without --to" if kind == GEOJSON and not is_export else ""
            raise InputError(f"--{name.replace('_', '-')}: has no effect with --from {kind}{without} (see --help)")
    refuse_overwriting(Path(flags.out), flags.force)
    print((export_results if kind == RESULTS else export_geojson)(flags) if is_export else import_data(flags, kind))


def import_settings(flags: ConvertConfig) -> ImportSettings:
    """How files are read."""
    return ImportSettings(
        intensity=flags.intensity or "full",
        orientation=flags.orientation or "auto",
        split_pieces=bool(flags.split_pieces),
        crowds=flags.crowds or "auto",
        images=Path(flags.images) if flags.images else None,
        nuclei=bool(flags.nuclei),
        attribute=flags.attribute,
        image_pattern=flags.image_pattern,
        mask_pattern=flags.mask_pattern,
        types=Path(flags.types) if flags.types else None,
        image_size=parse_size(flags.image_size) if flags.image_size else None,
    )


def parse_size(given: str) -> tuple[int, int]:
    """The (H, W) of a flag that says width and height."""
    found = re.fullmatch(r"([1-9]\d{0,6})x([1-9]\d{0,6})", given)
    if not found:
        raise InputError(f"--image-size {given}: expected WIDTHxHEIGHT in px, like 46000x32914")
    return int(found[2]), int(found[1])


def import_data(flags: ConvertConfig, kind: str) -> str:
    """Import a data set in the format ``kind``; lines that sum it up."""
    path, out = Path(flags.input), Path(flags.out)
    source = open_source(kind, path, import_settings(flags))
    with whole_or_not(out) as folder:
        *lines, last = convert_in(path, source, folder, flags.rectangles)
        lines = [*other_folders(out, folder), *lines]
    return "\n".join([*lines, f"wrote {out}: {last}"])


def export_results(flags: ConvertConfig) -> str:
    """Export a results file; lines that sum it up."""
    path = Path(flags.input)
    target = choose("--to", flags.to, [*EXPORTERS, COCO])
    require_path(path)
    id_map = id_map_of(path, flags.id_map)
    if id_map is None:
        raise InputError(f"{companion(path, 'id-map')}: no such file; name an id map with --id-map")
    classes = classes_of_results(flags.classes, path)
    min_score, said = (flags.min_score, "") if flags.min_score is not None else read_min_score(path)
    export = ExportSettings(min_score, said, flags.mpp, bool(flags.gzip))
    return convert_out(path, Path(flags.out), target, read_id_map(id_map), classes, export)


def export_geojson(flags: ConvertConfig) -> str:
    """Export the cells of GeoJSON files; lines that sum it up."""
    target = choose("--to", flags.to, [*EXPORTERS, COCO, RESULTS])
    export = ExportSettings(flags.min_score or 0.0, "", flags.mpp, bool(flags.gzip))
    return export_cells(Path(flags.input), Path(flags.out), target, import_settings(flags), export)


def choose(flag: str, given: str | None, known: Sequence[str]) -> str:
    """One of the known words, or an error that names the nearest."""
    if given is None:
        raise InputError(f"{flag} is missing: one of {', '.join(known)}")
    if given not in known:
        raise InputError(f"{flag} must be one of {', '.join(known)}; got {given}{nearest(given, known)}")
    return given


def refuse_overwriting(out: Path, force: bool) -> None:
    """Refuse to write into a place that is not empty, unless ``force`` is set."""
    if not force and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise InputError(f"{out}: exists and is not empty; --force overwrites files of the same name")


if __name__ == "__main__":
    run_command(main)
