"""Splits into train and val: made so that near duplicates stay together, or read from a file."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from src.common.errors import InputError
from src.common.files import read_json
from src.data.id_map import check_component
from src.data.names import ImageNames
from src.data.records import Record

MAX_STAIN_GROUPS = 10
MAX_CLUSTERED = 4000  # images; more take memory by the square of their number
STARTS = 20  # random starts of the descent, of which the best result is taken
ABSENCE_COST = 100.0  # of a class in only one part that could be in both; far above any sum of squared shares


def make_split(
    names: Sequence[str],
    class_counts: Mapping[str, Sequence[int] | np.ndarray],
    groups: Mapping[str, Hashable],
    val_fraction: float,
    seed: int,
) -> tuple[dict[str, list[str]], str]:
    """Divide images into ``train`` and ``val``; a group stays whole.

    Groups are chosen so that the share in val of the images and of each class's cells is near ``val_fraction``, with
    every class that lies in two groups or more in both parts, where any choice allows that.

    Args:
        names: the images, without repeats.
        class_counts: name → cells of each class, ``(K,)``.
        groups: name → group, such as a patient, or what :func:`group_by_stain` says.
        val_fraction: in [0, 1); 0 leaves val empty. Above 0 neither part is empty where there are two images.
        seed: equal arguments give an equal split.

    Returns:
        ``{"train": [...], "val": [...]}`` in the order of ``names``, and one line for the user about it, which also
        says so where all images are of one group and had to be split singly.

    Raises:
        InputError: ``val_fraction`` out of range, or a name without a group.
    """
    if not 0 <= val_fraction < 1:
        raise InputError(f"--val-fraction must be at least 0 and below 1, got {val_fraction}")
    for name in names:
        if name not in groups:
            raise InputError(f"--groups: {name} has no group")
    if val_fraction == 0 or len(names) < 2:
        return {"train": list(names), "val": []}, f"all {len(names)} images are for training, none for validation"
    members, note = _gather(names, groups)
    totals = np.array([_totals(group, class_counts) for group in members])
    in_val = _choose(totals, val_fraction, np.random.default_rng(seed))
    val = {name for group, chosen in zip(members, in_val, strict=True) if chosen for name in group}
    split = {"train": [name for name in names if name not in val], "val": [name for name in names if name in val]}
    return split, f"{len(val)} of {len(names)} images are for validation, {in_val.sum()} of {len(members)} {note}"


def group_by_stain(features: np.ndarray) -> list[int]:
    """Group images with similar stain by hierarchical clustering; the groups are numbered from 0.

    Ward linkage of standardised features, cut at ten groups, fewer for fewer than 20 images. Tissue of one slide
    shares its stain, so it mostly stays together. A group that holds several slides does no harm, but a slide divided
    between groups does. So there are few groups, but enough for val to take one in five. Average linkage finds one
    giant group and single images instead.

    This lessens the leak and does not end it: of CoNSeP's 107 crops of 27 images, 12-79% of those in val (fractions
    0.1-0.3, mean 40%) had a crop of the same image in train, against 97% where val is drawn at random.

    Clustering takes memory by the square of the number of images. So of more than :data:`MAX_CLUSTERED` an evenly
    spread part is clustered, and every image joins the group with the nearest mean.

    Args:
        features: ``(N, D)`` float, of :func:`src.data.stain.stain_features`.
    """
    if len(features) < 2:
        return [0] * len(features)
    from scipy.cluster.hierarchy import fcluster, linkage  # slow to import, and needed only here

    spread = features.std(axis=0)
    standardised = (features - features.mean(axis=0)) / np.where(spread > 1e-9, spread, 1)
    count = min(MAX_STAIN_GROUPS, max(2, len(features) // 2))
    chosen = standardised[:: -(-len(standardised) // MAX_CLUSTERED)]
    labels = fcluster(linkage(chosen, "ward"), count, "maxclust")
    if len(chosen) == len(standardised):
        return [int(label) - 1 for label in labels]
    centres = np.stack([chosen[labels == label].mean(axis=0) for label in np.unique(labels)])
    distances = (standardised**2).sum(axis=1)[:, None] - 2 * standardised @ centres.T + (centres**2).sum(axis=1)
    return [int(group) for group in distances.argmin(axis=1)]


def _gather(names: Sequence[str], groups: Mapping[str, Hashable]) -> tuple[list[list[str]], str]:
    """The images of each group, or each image by itself where there is one group only; and what to call them."""
    members: dict[Hashable, list[str]] = {}
    for name in names:
        members.setdefault(groups[name], []).append(name)
    if len(members) > 1:
        return list(members.values()), "groups"
    return [[name] for name in names], "single images (all are of one group, so near duplicates may be in both parts)"


def _totals(group: Sequence[str], class_counts: Mapping[str, Sequence[int] | np.ndarray]) -> np.ndarray:
    """Number of images and of cells of each class in a group, ``(1 + K,)``."""
    return np.concatenate([[len(group)], np.sum([np.asarray(class_counts[name]) for name in group], axis=0)])


def _choose(totals: np.ndarray, val_fraction: float, rng: np.random.Generator) -> np.ndarray:
    """``(G,)`` bool: which groups go to val, at least one and not all; ``totals`` is ``(G, 1 + K)``."""
    shares = totals / np.maximum(totals.sum(axis=0), 1)
    size = min(max(round(val_fraction * len(totals)), 1), len(totals) - 1)
    starts = [np.isin(np.arange(len(totals)), rng.permutation(len(totals))[:size]) for _ in range(STARTS)]
    ends = [_descend(start, shares, val_fraction) for start in starts]
    return min(ends, key=lambda end: end[1])[0]


def _descend(in_val: np.ndarray, shares: np.ndarray, val_fraction: float) -> tuple[np.ndarray, float]:
    """Move one group at a time, the best one first, while that lowers the cost; the result and its cost."""
    present = (shares > 0).astype(np.int64)
    cost = float(_costs(shares[in_val].sum(axis=0), present[in_val].sum(axis=0), present.sum(axis=0), val_fraction))
    while True:
        sign = np.where(in_val, -1, 1)[:, None]
        share_after = shares[in_val].sum(axis=0) + sign * shares
        present_after = present[in_val].sum(axis=0) + sign * present
        costs = _costs(share_after, present_after, present.sum(axis=0), val_fraction)
        best = int(costs.argmin())
        if costs[best] >= cost - 1e-12:
            return in_val, cost
        in_val, cost = in_val ^ (np.arange(len(in_val)) == best), float(costs[best])


def _costs(share: np.ndarray, present: np.ndarray, spread: np.ndarray, val_fraction: float) -> np.ndarray:
    """Squared distance from the wanted shares, plus a penalty per class that could be in both parts and is not.

    Args:
        share: ``(..., 1 + K)`` share in val of the images and of each class's cells.
        present: ``(..., 1 + K)`` number of val groups that hold any.
        spread: ``(1 + K,)`` number of groups that hold any.
    """
    distance = np.where(spread > 0, share - val_fraction, 0) ** 2
    torn = (spread > 1) & ((present == 0) | (present == spread))
    return distance.sum(axis=-1) + ABSENCE_COST * torn.sum(axis=-1)


def read_split(path: str | Path) -> dict[str, list[str]]:
    """Read a split, a JSON object of part → names; no name may stand twice."""
    split = read_json(path)
    if not isinstance(split, dict) or not split or not all(isinstance(names, list) for names in split.values()):
        raise InputError(f'{path}: expected a JSON object of part → names, such as {{"train": ["a"], "val": ["b"]}}')
    owners: dict[str, str] = {}
    for part, names in split.items():
        for name in names:
            check_component(name, path)
            if name in owners:
                where = f"twice in {part}" if owners[name] == part else f"in both {owners[name]} and {part}"
                raise InputError(f"{path}: {name} is {where}; a name may occur only once")
            owners[name] = part
    return split


def part_names(split: dict[str, list[str]], part: str) -> list[str]:
    """The names of one part of a split."""
    if part not in split:
        raise InputError(f"--part {part}: the split has only the parts {', '.join(split) or '(none)'}")
    return split[part]


def select(records: Sequence[Record], split: dict[str, list[str]], part: str) -> list[Record]:
    """The records of one part of a split, in the split's order; none of them may be in another part, too."""
    known = ImageNames(record.name for record in records)
    places = known.find_all(part_names(split, part), "--split", f"part {part} names a missing image")
    chosen = set(places)
    for other, names in split.items():
        for name in names if other != part else ():
            if known.find(name, "--split") in chosen:
                raise InputError(f"--split: {name} of the part {other} is an image of the part {part}, too")
    return [records[place] for place in places]


def read_groups(path: str | Path) -> dict[str, str]:
    """Read a JSON object of image name → group (the patient, or the slide)."""
    groups = read_json(path)
    if not isinstance(groups, dict) or not groups or not all(isinstance(group, str) for group in groups.values()):
        raise InputError(f'{path}: expected a JSON object of image name → group, such as {{"a": "patient 1"}}')
    return groups
