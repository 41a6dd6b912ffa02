"""One frozen dataclass is a command's configuration: each field is a flag and a key of a TOML recipe.

A field made with :func:`option` carries its help and its bounds; one of type ``tuple[str, ...]`` takes several values.
A field whose type is itself a dataclass holds the settings of one concern; its fields are flattened among the flags.
Precedence: flag over recipe over default.
"""

import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, TypeVar

from src.common.errors import InputError, nearest

Config = TypeVar("Config")
Auto = Literal["auto"]  # a number that the program chooses
Effect = Literal["learning", "prediction", "budget", "nothing"]


def option(
    default: Any,
    help: str,
    *,
    acts_on: Effect | None = None,
    choices: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
    auto: bool = False,
    formerly_auto: int | None = None,
    name: str | None = None,
    formerly: str | None = None,
    required: bool = False,
    repeated: bool = False,
    metavar: str | None = None,
) -> Any:
    """A field that is a flag: its default, its help with the unit, and what values it accepts (bounds inclusive).

    Args:
        default: the value without the flag.
        help: one line for ``--help`` and the table of flags.
        acts_on: what a change of the setting changes: ``learning`` (the weights), ``prediction`` (what they find),
            ``budget`` (when training ends) or ``nothing`` (where and how fast it runs).
        choices: the words that are accepted; N stands for a whole number, NAME for a name: ``cuda:N`` accepts cuda:1.
        low: the least number.
        high: the greatest number.
        auto: whether a flag for numbers accepts the word auto too.
        formerly_auto: the number by which recipes and checkpoints of earlier versions say auto.
        name: the flag as typed, where it is not the field's own name; without dashes it is a positional argument.
        formerly: the flag's name in earlier versions, which is accepted too.
        required: whether the command needs it.
        repeated: whether a flag of several values is given once for each, rather than once for all.
        metavar: what stands for the value in the help.
    """
    checks = {"choices": tuple(choices), "low": low, "high": high, "auto": auto, "formerly_auto": formerly_auto}
    place = {"given_name": name, "formerly": formerly, "required": required, "repeated": repeated, "metavar": metavar}
    return field(default=default, metadata={"help": help, "acts_on": acts_on, **checks, **place})


def settings(cls: type[Config]) -> Config:
    """A field that holds the settings of one concern, built from their defaults."""
    return field(default_factory=cls)


def overrides(cls: type[Config]) -> Config:
    """A field for the settings of one concern of which those that are not given are ``None`` (see :func:`override`)."""
    return field(default_factory=lambda: _construct(cls, {}, no_defaults=True), metadata={"no_defaults": True})


def inherited(cls: type, name: str, default: Any = None, **changes: Any) -> Any:
    """A field that is the flag ``name`` of another configuration, but absent by default."""
    metadata = {item.name: item.metadata for item in fields(cls)}[name]
    return field(default=default, metadata={**metadata, **changes})


def override(settings: Config, given: Config) -> Config:
    """``settings`` with the values of ``given`` (see :func:`overrides`) that are not ``None``."""
    values = {item.name: getattr(given, item.name) for item in fields(given)}  # type: ignore[arg-type]
    return replace(settings, **{name: value for name, value in values.items() if value is not None})  # type: ignore[type-var]


@dataclass(frozen=True)
class Flag:
    """One flag of a configuration: its key in TOML, type without ``None``, default, and what it accepts."""

    key: str
    kind: type
    default: Any
    help: str
    acts_on: Effect | None
    choices: tuple[str, ...]
    low: float | None
    high: float | None
    auto: bool
    formerly_auto: int | None
    given_name: str | None
    formerly: str | None
    required: bool
    repeated: bool
    metavar: str | None
    section: str
    many: bool = False

    @property
    def name(self) -> str:
        """The flag as typed, ``--tile-size``; a positional argument has no dashes."""
        return self.given_name or "--" + self.key.replace("_", "-")

    def check(self, value: Any) -> Any:
        """The value in the flag's own type; an :class:`InputError` names the flag where it does not fit."""
        if value is None and self.default is None:
            return None
        if self.many and isinstance(value, list | tuple) and value:
            return tuple(self._check_one(part) for part in value)
        return (self._check_one(value),) if self.many else self._check_one(value)

    def _check_one(self, value: Any) -> Any:
        if self.auto and (value == "auto" or (type(value) is int and value == self.formerly_auto)):
            return "auto"
        if self.kind is float and type(value) is int and abs(value) < 1e300:
            value = float(value)
        if type(value) is not self.kind:
            expected = _KIND_NAMES[self.kind] + (" or auto" if self.auto else "")
            raise InputError(f"{self.name} expects {expected}, got {value!r}")
        if self.choices and not any(_is_choice(value, choice) for choice in self.choices):
            raise InputError(
                f"{self.name} must be one of {', '.join(self.choices)}; got {value!r}{nearest(value, self.choices)}"
            )
        if self.kind in (int, float):
            self._check_bounds(value)
        if isinstance(value, str) and re.search(r"[\x00\ud800-\udfff]", value):
            raise InputError(f"{self.name} holds a character that is not valid text: {value!r}")
        return value

    def _check_bounds(self, value: Any) -> None:
        if abs(value) == float("inf"):
            raise InputError(f"{self.name} must be finite, got {value}")
        if value != value or (self.low is not None and value < self.low):
            raise InputError(f"{self.name} must be at least {self.low:g}, got {value}")
        if self.high is not None and value > self.high:
            raise InputError(f"{self.name} must be at most {self.high:g}, got {value}")


def _is_choice(value: Any, choice: str) -> bool:
    pattern = re.escape(choice).replace("NAME", r"[\w.-]+").replace("N", "[0-9]{1,9}")
    return re.fullmatch(pattern, value) is not None


_KIND_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def flags_of(cls: type) -> list[Flag]:
    """All flags of a configuration in the order of its fields, settings flattened."""
    return list(_walk(cls, "General"))


def _walk(cls: type, section: str, no_defaults: bool = False) -> Iterator[Flag]:
    hints = typing.get_type_hints(cls)
    for item in fields(cls):
        kind = hints[item.name]
        if is_dataclass(kind):
            title = (kind.__doc__ or item.name).splitlines()[0].rstrip(".")
            yield from _walk(typing.cast(type, kind), title, item.metadata.get("no_defaults", False))
        else:
            flag = _flag(item, kind, section)
            yield replace(flag, default=None) if no_defaults else flag


def _flag(item: "Field[Any]", hint: Any, section: str) -> Flag:
    kind = hint
    if typing.get_origin(hint) in (UnionType, typing.Union):
        kind = next(part for part in typing.get_args(hint) if part is not type(None))
    if item.default is MISSING:
        raise TypeError(f"{item.name} needs a default made with option()")
    many = typing.get_origin(kind) is tuple
    kind = typing.get_args(kind)[0] if many else kind
    return Flag(item.name, kind, item.default, section=section, many=many, **item.metadata)


def build(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """Build a configuration from flat values, checking each; keys that are absent keep their defaults.

    Raises:
        InputError: for an unknown key (with the nearest known one) or a value that does not fit its flag.
    """
    known = {flag.key: flag for flag in flags_of(cls)}
    for key in values:
        if key not in known:
            raise InputError(f"unknown setting {key!r}{nearest(key, known)}")
    return _construct(cls, {key: known[key].check(value) for key, value in values.items()})


def _construct(cls: type[Config], values: Mapping[str, Any], no_defaults: bool = False) -> Config:
    hints = typing.get_type_hints(cls)
    arguments = {}
    for item in fields(cls):  # type: ignore[arg-type]
        if is_dataclass(hints[item.name]):
            arguments[item.name] = _construct(hints[item.name], values, item.metadata.get("no_defaults", False))
        elif item.name in values or no_defaults:
            arguments[item.name] = values.get(item.name)
    return cls(**arguments)


def flatten(config: Any) -> dict[str, Any]:
    """The inverse of :func:`build`: all settings as one flat dict."""
    flat: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        flat.update(flatten(value) if is_dataclass(value) else {item.name: value})
    return flat
