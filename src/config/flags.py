"""One frozen dataclass is a command's configuration: each field is a flag and a key of a TOML recipe.

A field made with :func:`option` carries its help and its bounds; one of type ``tuple[str, ...]`` takes several values.
A field whose type is itself a dataclass holds the settings of one room; its fields are flattened among the flags.
Precedence: flag over recipe over default.
"""

import argparse
import re
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar

from src.common.errors import InputError, nearest, nearest_path, run
from src.common.files import write_text
from src.config.command import Parser

Config = TypeVar("Config")


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
    auto: int | None = None,
) -> Any:
    """A field that is a flag: its default, its help with the unit, and what values it accepts (bounds inclusive).

    In a choice N stands for a whole number: ``cuda:N`` accepts cuda:1. ``auto`` is the number that the word auto stands
    for, where the flag takes it.
    """
    checks = {"choices": tuple(choices), "low": low, "high": high, "auto": auto}
    return field(default=default, metadata={"help": help, **checks})


def settings(cls: type[Config]) -> Config:
    """A field that holds a room's settings, built from their defaults."""
    return field(default_factory=cls)


@dataclass(frozen=True)
class Flag:
    """One flag of a configuration: its key in TOML, type without ``None``, default, and what it accepts."""

    key: str
    kind: type
    default: Any
    help: str
    choices: tuple[str, ...]
    low: float | None
    high: float | None
    auto: int | None
    section: str
    many: bool = False

    @property
    def name(self) -> str:
        """The flag as typed, ``--tile-size``."""
        return "--" + self.key.replace("_", "-")

    def check(self, value: Any) -> Any:
        """The value in the flag's own type; an :class:`InputError` names the flag where it does not fit."""
        if value is None and self.default is None:
            return None
        if self.many and isinstance(value, list | tuple) and value:
            return tuple(self._check_one(part) for part in value)
        return (self._check_one(value),) if self.many else self._check_one(value)

    def _check_one(self, value: Any) -> Any:
        if self.auto is not None and value in ("auto", self.auto):
            return self.auto
        if self.kind is float and type(value) is int and abs(value) < 1e300:
            value = float(value)
        if type(value) is not self.kind:
            expected = _KIND_NAMES[self.kind] + (" or auto" if self.auto is not None else "")
            raise InputError(f"{self.name} expects {expected}, got {value!r}")
        if self.choices and not any(_is_choice(value, choice) for choice in self.choices):
            raise InputError(
                f"{self.name} must be one of {', '.join(self.choices)}; got {value!r}{nearest(value, self.choices)}"
            )
        if self.kind in (int, float):
            self._check_bounds(value)
        if isinstance(value, str) and re.search(r"[\x00\ud800-\udfff]", value):
            raise InputError(f"{self.name} holds a character that is no text: {value!r}")
        return value

    def _check_bounds(self, value: Any) -> None:
        if abs(value) == float("inf"):
            raise InputError(f"{self.name} must be finite, got {value}")
        if value != value or (self.low is not None and value < self.low):
            raise InputError(f"{self.name} must be at least {self.low:g}, got {value}")
        if self.high is not None and value > self.high:
            raise InputError(f"{self.name} must be at most {self.high:g}, got {value}")


def _is_choice(value: Any, choice: str) -> bool:
    return re.fullmatch(re.escape(choice).replace("N", "[0-9]{1,9}"), value) is not None


_KIND_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def flags_of(cls: type) -> list[Flag]:
    """All flags of a configuration in the order of its fields, settings flattened."""
    return list(_walk(cls, "General"))


def _walk(cls: type, section: str) -> Iterator[Flag]:
    hints = typing.get_type_hints(cls)
    for item in fields(cls):
        kind = hints[item.name]
        if is_dataclass(kind):
            yield from _walk(typing.cast(type, kind), (kind.__doc__ or item.name).splitlines()[0].rstrip("."))
        else:
            yield _flag(item, kind, section)


def _flag(item: "Field[Any]", hint: Any, section: str) -> Flag:
    kind = hint
    if isinstance(hint, UnionType):
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


def _construct(cls: type[Config], values: Mapping[str, Any]) -> Config:
    hints = typing.get_type_hints(cls)
    arguments = {}
    for item in fields(cls):  # type: ignore[arg-type]
        if is_dataclass(hints[item.name]):
            arguments[item.name] = _construct(hints[item.name], values)
        elif item.name in values:
            arguments[item.name] = values[item.name]
    return cls(**arguments)


def flatten(config: Any) -> dict[str, Any]:
    """The inverse of :func:`build`: all settings as one flat dict."""
    flat: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        flat.update(flatten(value) if is_dataclass(value) else {item.name: value})
    return flat


def to_toml(config: Any) -> str:
    """The configuration as TOML that ``--recipe`` accepts; a setting that is ``None`` stands as a comment."""
    values, section = flatten(config), None
    lines: list[str] = []
    for flag in flags_of(type(config)):
        if flag.section != section:
            section = flag.section
            lines += ["", f"# {section}"] if lines else [f"# {section}"]
        value = "auto" if flag.auto is not None and values[flag.key] == flag.auto else values[flag.key]
        lines.append(f"# {flag.key} is not set" if value is None else f"{flag.key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def write_toml(path: Path, config: Any) -> None:
    """Write the configuration atomically as a recipe."""
    write_text(path, to_toml(config))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read the flat settings of a TOML recipe; a missing or broken file is an :class:`InputError` naming it."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}){nearest_path(path)}") from error
    except (ValueError, RecursionError) as error:  # a number of over 4,300 digits is a plain ValueError
        raise InputError(f"{path}: is not valid TOML ({error})") from error


def parse(
    cls: type[Config],
    description: str,
    example: str,
    check: Callable[[Config], None] | None = None,
    argv: Sequence[str] | None = None,
) -> Config:
    """Read the command line (and a ``--recipe``) into a configuration, and ``check`` what its flags say together.

    ``--help`` and ``--print-config`` print and exit with 0. Errors are one line and exit code 2.
    """

    def checked() -> Config:
        config = _parse(cls, description, example, argv)
        if check:
            check(config)
        return config

    return run(checked)


def _parse(cls: type[Config], description: str, example: str, argv: Sequence[str] | None) -> Config:
    flags = flags_of(cls)
    values = vars(_parser(flags, description, example).parse_args(argv))
    recipe, print_config = values.pop("recipe", None), values.pop("print_config", False)
    given = read_recipe(recipe) if recipe else {}
    try:
        build(cls, given)
    except InputError as error:
        raise InputError(f"{recipe}: {error}") from error
    config = build(cls, {**given, **values})
    if print_config:
        print(to_toml(config), end="")
        sys.exit(0)
    return config


def _parser(flags: list[Flag], description: str, example: str) -> Parser:
    parser = Parser(description, example, argument_default=argparse.SUPPRESS)
    parser.add_argument("--recipe", metavar="FILE", help="TOML file of settings; flags given beside it win")
    parser.add_argument("--print-config", action="store_true", help="print the resulting settings as TOML and stop")
    groups: dict[str, Any] = {}
    for flag in flags:
        group = groups.setdefault(
            flag.section, parser.add_argument_group(flag.section) if flag.section not in groups else None
        )
        _add(group, flag)
    return parser


def _add(group: Any, flag: Flag) -> None:
    text = f"{flag.help} {_default_text(flag)}".replace("%", "%%")
    if flag.kind is bool:
        group.add_argument(flag.name, action=argparse.BooleanOptionalAction, help=text)
    elif flag.choices:
        group.add_argument(flag.name, metavar="|".join(flag.choices), help=text)
    else:
        kind = flag.kind if flag.auto is None else partial(_number_or_word, flag.kind)
        many: dict[str, Any] = {"nargs": "+"} if flag.many else {}
        group.add_argument(flag.name, type=kind, metavar=flag.kind.__name__.upper(), help=text, **many)


def _number_or_word(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text


def _default_text(flag: Flag) -> str:
    return f"(default: {default})" if (default := _shown_default(flag)) else ""


def _shown_default(flag: Flag) -> str:
    if flag.default is None:
        return ""
    if flag.auto is not None and flag.default == flag.auto:
        return "auto"
    if flag.many:
        return " ".join(flag.default)
    return str(flag.default).lower() if flag.kind is bool else str(flag.default)


def flag_table(cls: type) -> str:
    """All flags as a Markdown table."""
    rows = ["| flag | default | meaning |", "|---|---|---|"]
    section = None
    for flag in flags_of(cls):
        if flag.section != section:
            section = flag.section
            rows.append(f"| **{section}** | | |")
        default = f"`{shown}`" if (shown := _shown_default(flag)) else ""
        choices = f" ({', '.join(f'`{choice}`' for choice in flag.choices)})" if flag.choices else ""
        rows.append(f"| `{flag.name}` | {default} | {flag.help}{choices} |")
    return "\n".join(rows) + "\n"
