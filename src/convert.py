"""Bring images with their cells from other formats into this program's folders, and results into other formats."""

from collections.abc import Sequence
from pathlib import Path

from src.common.errors import InputError, nearest, run
from src.common.files import companion, id_map_of
from src.config.command import Parser, score_of, seed_of
from src.data.classes import classes_of_results
from src.data.id_map import read_id_map
from src.formats.conversion import convert_in, convert_out, open_source, require_path, whole_or_not
from src.formats.exporters import EXPORTERS
from src.formats.importers import IMPORTERS
from src.reporting.draw import SURE

RESULTS = "results"
IMPORT_FLAGS, EXPORT_FLAGS = ("images", "rectangles"), ("to", "id_map", "classes", "score_thresh")
EXAMPLE = """python -m src.convert --from dsb2018 stage1_train data/train
  python -m src.convert --from consep CoNSeP/Train data/train --rectangles 0
  python -m src.convert --from results test-results.json qupath --to geojson"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ``--help`` describes it."""
    flags = _parser().parse_args(arguments)
    path, out = Path(flags.input), Path(flags.out)
    kind = choose("--from", flags.source, [*IMPORTERS, RESULTS])
    for name in IMPORT_FLAGS if kind == RESULTS else EXPORT_FLAGS:
        if getattr(flags, name) is not None:
            raise InputError(f"--{name.replace('_', '-')}: says nothing to --from {kind} (see --help)")
    refuse_overwriting(out, flags.force)
    if kind != RESULTS:
        source = open_source(kind, path, flags.images, flags.max_pixels)
        with whole_or_not(out) as folder:
            *lines, last = convert_in(source, folder, flags.rectangles)
        print("\n".join([*lines, f"wrote {out}: {last}"]))
        return
    target = choose("--to", flags.to, [*EXPORTERS, "coco"])
    require_path(path)
    id_map = id_map_of(path, flags.id_map)
    if id_map is None:
        raise InputError(f"{companion(path, 'id-map')}: no such file; name an id map with --id-map")
    classes = classes_of_results(flags.classes, path)
    threshold = SURE if flags.score_thresh is None else flags.score_thresh
    print(convert_out(path, out, target, read_id_map(id_map, flags.max_pixels), classes, threshold))


def _parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE, "python -m src.convert")
    parser.add_argument("input", metavar="IN", help="folder or file to read")
    parser.add_argument("out", metavar="OUT", help="folder to write (for --to coco a file)")
    formats = ", ".join([*IMPORTERS, RESULTS])
    parser.add_argument("--from", dest="source", metavar="FORMAT", help=f"format of IN: {formats}")
    parser.add_argument("--images", metavar="DIR", help="with --from coco: where its images lie (default: beside IN)")
    parser.add_argument("--to", metavar="FORMAT", help=f"with --from results: {', '.join(EXPORTERS)} or coco")
    parser.add_argument("--id-map", metavar="FILE", help="id map of the results (default: the one beside them)")
    parser.add_classes()
    parser.add_argument(
        "--score-thresh", type=score_of, metavar="S", help=f"lowest score that is exported (default: {SURE})"
    )
    parser.add_argument(
        "--rectangles", type=seed_of, metavar="SEED", help="cut each image into four, with a split by source image"
    )
    parser.add_argument("--force", action="store_true", help="write over what is in OUT")
    parser.add_max_pixels()
    return parser


def choose(flag: str, given: str | None, known: Sequence[str]) -> str:
    """One of the known words, or an error that names the nearest."""
    if given is None:
        raise InputError(f"{flag} is missing: one of {', '.join(known)}")
    if given not in known:
        raise InputError(f"{flag} must be one of {', '.join(known)}; got {given}{nearest(given, known)}")
    return given


def refuse_overwriting(out: Path, force: bool) -> None:
    """Nothing is written over what is there, unless it is meant to be."""
    if not force and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise InputError(f"{out}: is not empty; --force writes over what has the same name")


if __name__ == "__main__":
    run(main)
