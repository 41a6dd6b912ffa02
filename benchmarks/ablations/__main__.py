"""Train variants of a recipe for the same budget on the same split, predict with each, and compare the scores.

python -m benchmarks.ablations --recipe script/recipes/cpu.toml --data-path data/train --split split.json \\
  --variant base: --variant flips:tta=flips --variant boxes:loss_weights=box=2 --seeds 3 --max-minutes 10

Each variant is NAME:key=value,key=value over the recipe. Variants that differ only in how they predict share one
training. Every result is a line of --log, so that an interrupted comparison goes on and several add up: what is there
is not measured again (name another --log for that), and the table has all seeds that are there.
"""

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from src.common.errors import InputError, run_command
from src.common.files import append_line, companion, read_lines, write_json
from src.config.command import parse
from src.config.flags import build, flags_of, option
from src.config.recipe import read_recipe, write_toml
from src.config.settings import InferenceConfig, TrainConfig
from src.data.classes import classes_of_results
from src.data.splits import read_split
from src.evaluation.ground_truth import load_ground_truth
from src.evaluation.results import read_results
from src.evaluation.scores import score

ROOT = Path(__file__).resolve().parents[2]
LOG = "benchmarks/ablations/log.jsonl"
# Settings that a finished training can be predicted with anew.
PREDICTION = {flag.key for flag in flags_of(InferenceConfig) if flag.acts_on in ("prediction", "nothing")}
BUDGETS = ("max_minutes", "max_steps")
FIGURES = ("AP50_at_100", "AP50", "AP", "AP75", "PQ", "F1")


@dataclass(frozen=True)
class Variant:
    """A name and the settings in which it differs from the recipe."""

    name: str
    settings: Mapping[str, Any]

    @property
    def training(self) -> dict[str, Any]:
        """The settings that act on training."""
        return {key: value for key, value in self.settings.items() if key not in PREDICTION}

    @property
    def prediction(self) -> dict[str, Any]:
        """The settings that act on prediction alone."""
        return {key: value for key, value in self.settings.items() if key in PREDICTION}


@dataclass(frozen=True)
class Study:
    """What all variants share: data, budget, and where the runs and the log lie."""

    recipe: Mapping[str, Any]
    recipe_name: str
    data_path: Path
    split: Path
    part: str
    classes: str | None
    budget: Mapping[str, float]
    min_score: float
    runs: Path
    log: Path


def parse_variant(text: str) -> Variant:
    """``"boxes:loss_weights=box=2,lr=0.01"``; a comma inside a value is one that no ``key=`` of a setting follows."""
    name, colon, rest = text.partition(":")
    if not colon or not re.fullmatch(r"[\w.+-]+", name):
        raise InputError(f"--variant {text}: expected NAME:key=value,key=value")
    settings = {}
    known = {flag.key for flag in flags_of(TrainConfig)}
    for part in filter(None, re.split(rf",(?=(?:{'|'.join(sorted(known))})=)", rest)):
        key, equals, value = part.partition("=")
        if not equals or key not in known:
            raise InputError(f"--variant {text}: {key!r} is not a setting")
        settings[key] = _value(value)
    build(TrainConfig, settings)
    return Variant(name, settings)


def _value(text: str) -> Any:
    """A TOML value; what is none is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def digest(*parts: Any) -> str:
    """A short name for anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def train(study: Study, variant: Variant, seed: int) -> Path:
    """The folder of the variant's finished training; an interrupted one goes on."""
    base = {key: value for key, value in study.recipe.items() if key not in PREDICTION}
    parts = read_split(study.split)
    folder = study.runs / digest(base, variant.training, seed, study.budget, parts["train"])
    if any(event["event"] == "end" for event in read_lines(folder / "log.jsonl")):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "train-only.json", {"train": parts["train"]})  # val is predicted once, at the end
    changes = {
        "data_path": str(study.data_path),
        "split": str(folder / "train-only.json"),
        "output_dir": str(folder),
        "seed": seed,
        "val_every": 0,
        **({"classes": study.classes} if study.classes else {}),
    }
    config = build(TrainConfig, {**study.recipe, **variant.training, **study.budget, **changes})
    write_toml(folder / "ablation.toml", config)
    _call("main.py", "--recipe", str(folder / "ablation.toml"), "--resume", "auto")
    return folder


def predict(study: Study, variant: Variant, folder: Path) -> Path:
    """The results of a trained variant on the study's part of the split."""
    recipe = {key: value for key, value in study.recipe.items() if key in PREDICTION}
    settings = {**recipe, **variant.prediction}
    output = folder / f"{study.part}-{digest(settings)}.json"
    if not output.exists():
        flags = [text for key, value in settings.items() for text in _flag(key, value)]
        images = ["--test-dir", str(study.data_path), "--split", str(study.split), "--part", study.part]
        _call("inference.py", "--ckpt", str(folder / "best.pt"), *images, "--output", str(output), *flags)
    return output


def _flag(key: str, value: Any) -> list[str]:
    name = key.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]


def _call(script: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, str(ROOT / script), *arguments], check=False)
    if done.returncode:
        raise InputError(f"{script} ended with {done.returncode}")


def measure(study: Study, variant: Variant, seed: int) -> dict[str, Any]:
    """Train, predict and score: a line of the log."""
    folder = train(study, variant, seed)
    output = predict(study, variant, folder)
    classes = classes_of_results(study.classes, output)
    names = read_split(study.split)[study.part]
    id_map = companion(output, "id-map")
    truths = load_ground_truth(study.data_path, len(classes), id_map, names)
    scores = score(truths, read_results(output), classes, study.min_score)
    steps = [event for event in read_lines(folder / "log.jsonl") if event["event"] == "step"]
    return {
        **identity(study, variant, seed),
        "steps": len(steps),
        "minutes": round(steps[-1]["time_s"] / 60, 1),
        "images_per_s": median(event["images_per_s"] for event in steps),
        "AP50_at_100": scores["at_100"]["AP50"],
        **{key: scores["uncapped"][key] for key in ("AP50", "AP", "AP75")},
        "PQ": scores["pq"]["agnostic"]["PQ"],
        "F1": scores["f1"]["detection"],
        "AP50_per_class": {key: value["AP50"] for key, value in scores["uncapped"]["per_class"].items()},
        "F1_per_class": scores["f1"]["per_class"],
    }


def identity(study: Study, variant: Variant, seed: int) -> dict[str, Any]:
    """What a line of the log is about; two lines with the same label are the same measurement."""
    parts = read_split(study.split)
    return {
        "variant": variant.name,
        "settings": dict(variant.settings),
        "recipe": study.recipe_name,
        "recipe_digest": digest(study.recipe),
        "seed": seed,
        "budget": dict(study.budget),
        "data": study.data_path.resolve().parent.name,
        "part": study.part,
        "pq_threshold": study.min_score,
        "split_digest": digest(parts["train"], parts[study.part]),
    }


def is_about(line: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a line of the log is the measurement of a label; the name of a variant does not matter."""
    return all(line.get(key) == value for key, value in wanted.items() if key != "variant")


def table(lines: Sequence[Mapping[str, Any]], names: Iterable[str]) -> str:
    """Mean and standard deviation over the seeds of each variant, as Markdown."""
    rows = [f"| variant | seeds | {' | '.join(FIGURES)} | AP50 of each class | images/s |"]
    rows.append("|---" * (len(FIGURES) + 4) + "|")
    for name in names:
        own = [line for line in lines if line["variant"] == name]
        if own:
            figures = " | ".join(_spread([line[key] for line in own]) for key in FIGURES)
            per_class = ", ".join(
                _spread([line["AP50_per_class"][key] for line in own]) for key in own[0]["AP50_per_class"]
            )
            speed = median(line["images_per_s"] for line in own)
            rows.append(f"| {name} | {len(own)} | {figures} | {per_class} | {speed:.2f} |")
    return "\n".join(rows)


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{mean(known):.3f}" + (f" ± {stdev(known):.3f}" if len(known) > 1 else "")


@dataclass(frozen=True)
class AblationConfig:
    """The comparison."""

    base: str = option("", "TOML recipe that the variants start from", name="--recipe", required=True, metavar="FILE")
    variant: tuple[str, ...] = option(
        (), "a variant; repeatable", required=True, repeated=True, metavar="NAME:key=value,…"
    )
    data_path: str = option("", "training folder", required=True, metavar="DIR")
    split: str = option("", "JSON of part → names; train and --part are used", required=True, metavar="FILE")
    part: str = option("val", "part that is predicted", metavar="NAME")
    classes: str | None = option(None, "JSON of classes; absent: those that main.py finds", metavar="FILE")
    min_score: float = option(0.5, "lowest score in PQ and F1", low=0, high=1, formerly="--pq-threshold", metavar="S")
    seeds: int = option(1, "seeds to measure", low=1)
    first_seed: int = option(0, "the first of them", low=0)
    max_minutes: float | None = option(None, "minutes of each training", low=0.01)
    max_steps: int | None = option(None, "steps of each training", low=1)
    runs: str = option("runs/ablate", "folder of the runs", metavar="DIR")
    log: str = option(LOG, "results", metavar="FILE")


def check_flags(config: AblationConfig) -> None:
    """Refuse a comparison without a budget."""
    if not config.max_minutes and not config.max_steps:
        raise InputError("give a budget: --max-minutes or --max-steps")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not yet in the log, and print the table."""
    flags = parse(AblationConfig, __doc__, check_flags, arguments)
    budget = {key: value for key in BUDGETS if (value := getattr(flags, key))}
    recipe = {key: value for key, value in read_recipe(flags.base).items() if key not in BUDGETS}
    study = Study(
        recipe, Path(flags.base).name, Path(flags.data_path), Path(flags.split), flags.part, flags.classes, budget,
        flags.min_score, Path(flags.runs), Path(flags.log),
    )  # fmt: skip
    variants = [parse_variant(text) for text in flags.variant]
    for seed in range(flags.first_seed, flags.first_seed + flags.seeds):
        for variant in variants:
            wanted = identity(study, variant, seed)
            if not any(is_about(line, wanted) for line in read_lines(study.log)):
                append_line(study.log, measure(study, variant, seed))
    labels = [identity(study, variant, seed) for variant in variants for seed in range(100)]
    found = [
        {**line, "variant": wanted["variant"]}
        for wanted in labels
        for line in read_lines(study.log)
        if is_about(line, wanted)
    ]
    print(table(found, [variant.name for variant in variants]))
    print(f"wrote {study.log}")


if __name__ == "__main__":
    run_command(main)
