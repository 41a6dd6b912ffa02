"""COCO's categories and the classes 1..K: which is which, by name."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.common.errors import InputError, some
from src.common.values import integer, plain
from src.data.classes import CellClass

GENERIC = re.compile(
    r"(class|category|cat|label|type|cell|object)?[ _#-]*\d+", re.IGNORECASE
)  # says no more than an id


@dataclass(frozen=True)
class Category:
    """A category of a COCO file."""

    id: int
    name: str
    supercategory: str


@dataclass(frozen=True)
class FileIds:
    """The category ids of a COCO file: id → name, and id → class id for those that are classes."""

    names: Mapping[int, str] = field(default_factory=dict)
    numbers: Mapping[int, int] = field(default_factory=dict)


def read_categories(data: Mapping[str, Any], path: Path) -> tuple[list[Category], list[str]]:
    """The categories of a decoded COCO file by id, without a root that only stands above the others.

    Some tools write such a root (``cells``, id 0), which no annotation has, beside the classes that name it as their
    supercategory.

    Returns:
        The categories, and the names of what was left out.

    Raises:
        InputError: a category without an integer id or a name, or two of one id.
    """
    items = [{**item, "id": integer(item.get("id"))} if isinstance(item, dict) else {} for item in data["categories"]]
    if not all(type(item.get("id")) is int and isinstance(item.get("name"), str) for item in items):
        raise InputError(f"{path}: a category needs an integer id and a name")
    categories = sorted(
        (Category(item["id"], item["name"].strip(), str(item.get("supercategory") or "")) for item in items),
        key=lambda category: category.id,
    )
    if len({category.id for category in categories}) != len(categories):
        raise InputError(f"{path}: two categories have the same id")
    used = used_ids(data)
    roots = [
        category
        for category in categories
        if category.id not in used and any(_is_above(category, other) for other in categories)
    ]
    return [category for category in categories if category not in roots], [category.name for category in roots]


def _is_above(category: Category, other: Category) -> bool:
    """Whether another category names this one as its supercategory; tools write a class's own name there, too."""
    return category.id != other.id and plain(category.name) == plain(other.supercategory)


def used_ids(data: Mapping[str, Any]) -> set[int]:
    """The category ids of a file's annotations, without malformed ones."""
    annotations = data.get("annotations")
    ids = (
        [integer(item.get("category_id")) for item in annotations if isinstance(item, dict)]
        if isinstance(annotations, list)
        else []
    )
    return {number for number in ids if type(number) is int}


def match_classes(
    categories: Sequence[Category], used: set[int], classes: Sequence[CellClass], path: Path
) -> tuple[dict[int, int], str]:
    """Category id → class id, and how they were matched where that is not by name.

    Names are compared without regard to case, Unicode form, and spaces around them. Where the names of either side are
    generic (``class1``, ``1``) the ids decide where they lie in 1..K, else the numbers in the names where these do,
    else the ids of those that annotations have, and at last their order. Categories that no annotation has need no
    class.

    Raises:
        InputError: names that differ, or more categories than classes.
    """
    exact = {cell_class.name: cell_class.id for cell_class in classes}
    alike = Counter(plain(cell_class.name) for cell_class in classes)
    like = {plain(c.name): c.id for c in classes if alike[plain(c.name)] == 1}
    numbers = {category.id: exact.get(category.name, like.get(plain(category.name))) for category in categories}
    by_name = {category_id: number for category_id, number in numbers.items() if number is not None}
    unknown = [category for category in categories if category.id in used and category.id not in by_name]
    if not unknown:
        return by_name, ""
    sides = ([category.name for category in categories], [cell_class.name for cell_class in classes])
    if not any(all(GENERIC.fullmatch(name.strip()) for name in names) for names in sides):
        raise InputError(
            f"{path}: has the categories {some([category.name for category in unknown])}, which are none of the classes"
            f" {some([cell_class.name for cell_class in classes])} (see --classes)"
        )
    said = f"{path}: categories and classes are matched by {{}}, because names are generic"
    known, ids = range(1, len(classes) + 1), [category.id for category in categories]
    named = [int(match[0]) if (match := re.search(r"[0-9]+$", category.name)) else 0 for category in categories]
    if not all(number in known for number in ids):
        if len(set(named)) == len(named) and all(number in known for number in named):
            return dict(zip(ids, named, strict=True)), said.format("the numbers in the names")
        if not all(number in known for number in used):
            if len(ids) > len(classes):
                raise InputError(f"{path}: has {len(ids)} categories for {len(classes)} classes (see --classes)")
            return dict(zip(ids, known, strict=False)), said.format("the order of their ids")
    return {number: number for number in ids}, said.format("id")


def renumbered(annotation: Any, numbers: Mapping[int, int], where: str) -> Any:
    """An annotation with its category as 1..K; what is malformed stays so, to be refused by its number."""
    number = integer(annotation.get("category_id")) if isinstance(annotation, dict) else None
    if type(number) is not int:
        return annotation
    if number not in numbers:
        raise InputError(f"{where}: category_id {number} is not among the file's categories")
    return {**annotation, "category_id": numbers[number]}
