"""Put together the data that the weights in weights/ are trained on, from two public sets that src.convert has read.

python -m benchmarks.he_weights consep dsb2018 he

CoNSeP's images come with their classes. Of the Data Science Bowl those images are taken that show stained tissue, which
benchmarks/dsb-he-split.json lists by the first letters of their names: those to train on with their cells as of unknown
class, those held out in a folder of their own, dsb-val, as they are.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from src.common.errors import InputError, run_command
from src.common.files import read_json, write_json
from src.config.command import parse
from src.config.flags import option
from src.data.folders import image_folders

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class HeWeightsConfig:
    """The data."""

    consep: str = option("", "folder of CoNSeP's training images", name="CONSEP", required=True)
    dsb: str = option("", "folder of stage1_train of the Data Science Bowl", name="DSB2018", required=True)
    out: str = option("", "folder to write: train and its split.json, and dsb-val", name="OUT", required=True)


def main() -> None:
    """Copy the images, and write the split: CoNSeP's validation images are those of the benchmark."""
    config = parse(HeWeightsConfig, __doc__)
    out = Path(config.out)
    split = read_json(FOLDER / "consep-split.json")
    consep = image_folders(config.consep)
    for name in (*split["train"], *split["val"]):
        if name not in consep:
            raise InputError(f"{config.consep}: has no image {name}")
        shutil.copytree(consep[name], out / "train" / name, dirs_exist_ok=True)
    split["train"] += [copy_as_unknown(folder, out / "train") for folder in find_listed(Path(config.dsb), "train")]
    for folder in find_listed(Path(config.dsb), "val"):
        shutil.copytree(folder, out / "dsb-val" / folder.name, dirs_exist_ok=True)
    shutil.copyfile(Path(config.consep) / "classes.json", out / "train" / "classes.json")
    write_json(out / "split.json", split, indent=1)
    print(f"wrote {out}: {len(split['train'])} images to train, {len(split['val'])} to validate")


def find_listed(folder: Path, part: str) -> list[Path]:
    """The folders of the images that a part of the list names, in its order."""
    found = {name.removeprefix("dsb_")[:12]: path for name, path in image_folders(folder).items()}
    listed = read_json(FOLDER / "dsb-he-split.json")[part]
    missing = [name for name in listed if name not in found]
    if missing:
        raise InputError(f"{folder}: has no image whose name begins with {missing[0]}")
    return [found[name] for name in listed]


def copy_as_unknown(folder: Path, out: Path) -> str:
    """Copy an image of one class with its cells as ``unknown.tif``; its name."""
    copy = out / folder.name
    copy.mkdir(parents=True, exist_ok=True)
    for name, copied in (("image.tif", "image.tif"), ("class1.tif", "unknown.tif")):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, copy / copied)
    return folder.name


if __name__ == "__main__":
    run_command(main)
