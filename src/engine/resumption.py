"""What a checkpoint and the run that goes on from it must have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

from src.common.errors import InputError

FREE = frozenset({  # where and how fast, not what
    "data_path", "output_dir", "split", "classes", "groups", "resume", "on_change", "workers", "cache_dir", "cache_gb",
    "backend", "timeout_minutes", "device", "compile", "val_every", "save_every", "patience", "predict_batch_size",
    "max_pixels",
})  # fmt: skip
UNKNOWN_PRECISION = ("amp", "auto")  # in checkpoints of runs that did not yet write down what auto had meant
BUDGET = frozenset({"epochs", "max_steps", "max_minutes"})


def changes(checkpoint: Mapping[str, Any], settings: Mapping[str, Any], checksums: Mapping[str, str]) -> list[str]:
    """What differs between a checkpoint and a run, a phrase each; empty where a run goes on as it began.

    Args:
        settings: the run's settings, flat and resolved.
        checksums: name → checksum of the run's images with their masks.
    """
    before, images = checkpoint["settings"], checkpoint["checksums"]
    found = [
        f"--{key.replace('_', '-')} was {before.get(key)} and is {value}"
        for key, value in settings.items()
        if key not in FREE | BUDGET and before.get(key) != value and (key, before.get(key)) != UNKNOWN_PRECISION
    ]
    for what, names in (
        ("added", checksums.keys() - images.keys()),
        ("gone", images.keys() - checksums.keys()),
        ("changed", {name for name in images.keys() & checksums.keys() if images[name] != checksums[name]}),
    ):
        if names:
            found.append(f"{len(names)} images are {what} ({_some(names)})")
    return found


def moved_images(before: Mapping[str, Sequence[str]], split: Mapping[str, Sequence[str]]) -> list[str]:
    """A phrase where images are in another part of the split (part → names) than they were; else nothing."""
    parts = {name: part for part, names in before.items() for name in names}
    moved = {name for part, names in split.items() for name in names if parts.get(name, part) != part}
    return [f"{len(moved)} images are in another part of the split ({_some(moved)})"] if moved else []


def budget_changes(checkpoint: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """How the length of the run differs, a phrase each: that is what a run is often resumed for."""
    before = checkpoint["settings"]
    return [
        f"--{key.replace('_', '-')} was {before.get(key)} and is {settings[key]}"
        for key in sorted(BUDGET)
        if before.get(key) != settings[key]
    ]


def refuse_changes(found: list[str]) -> None:
    """Raise an :class:`InputError` that says what changed."""
    if found:
        raise InputError(
            f"--resume: the run is not the one that the checkpoint is of: {'; '.join(found)};"
            " --on-change continue goes on all the same"
        )


def _some(names: set[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")
