"""The command line of every command: a configuration's flags, a recipe beneath them, one-line errors."""

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

from src.common.errors import InputError, nearest
from src.common.limits import set_max_pixels
from src.config.flags import Flag, build, flags_of, flatten
from src.config.recipe import read_recipe, to_toml

Config = TypeVar("Config")


def parse(
    cls: type[Config],
    description: str | None,
    check: Callable[[Config], None] | None = None,
    argv: Sequence[str] | None = None,
    recipe: bool = False,
) -> Config:
    """Read the command line into a configuration, and ``check`` what its flags say together.

    ``--help`` prints ``description``, the command's docstring, and all flags. With ``recipe`` there are the flags
    ``--recipe``, a file of settings beneath the flags, and ``--print-config``, which prints one. The limit of pixels
    that the flags give holds from here on.

    Raises:
        InputError: for the first flag, or key of the recipe, that is wrong or missing.
    """
    flags = flags_of(cls)
    parser = _parser(flags, description)
    if recipe:
        parser.add_argument("--recipe", metavar="FILE", help="TOML file of settings; flags given beside it win")
        parser.add_argument("--print-config", action="store_true", help="print the resulting settings as TOML and stop")
    values = vars(parser.parse_args(argv))
    file, print_config = (values.pop("recipe", None), values.pop("print_config", False)) if recipe else (None, False)
    config = build(cls, {**_settings_in(file, cls), **values})
    if print_config:
        print(to_toml(config), end="")
        sys.exit(0)
    final = flatten(config)
    for flag in flags:
        if flag.required and not final[flag.key]:
            raise InputError(f"{flag.name} is missing: {flag.help}")
    if final.get("max_pixels"):
        set_max_pixels(final["max_pixels"])
    if check:
        check(config)
    return config


def _settings_in(recipe: str | None, cls: type) -> dict[str, Any]:
    """The settings of a recipe, checked alone, so that an error names the file."""
    given = read_recipe(recipe) if recipe else {}
    try:
        build(cls, given)
    except InputError as error:
        raise InputError(f"{recipe}: {error}") from error
    return given


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are :class:`InputError`, with the nearest name for a mistyped flag."""

    def __init__(self, description: str | None, **more: Any) -> None:
        module = getattr(sys.modules["__main__"], "__spec__", None)
        super().__init__(
            prog=f"python -m {module.name}" if module else None,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **more,
        )

    def error(self, message: str) -> NoReturn:
        """Called by argparse for anything it does not accept."""
        raise InputError(message)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As in argparse; a mistyped flag is named before one that is missing."""
        words = sys.argv[1:] if args is None else list(args)
        known = [name for action in self._actions for name in action.option_strings]
        for word in itertools.takewhile(lambda word: word != "--", words):
            if word.startswith("--") and word.split("=")[0] not in known:
                raise InputError(f"unknown flag {word}{nearest(word.split('=')[0], known)}")
        return super().parse_args(words, namespace)


def _parser(flags: list[Flag], description: str | None) -> Parser:
    parser = Parser(description, argument_default=argparse.SUPPRESS)
    groups: dict[str, Any] = {}
    for flag in flags:
        group = groups.setdefault(
            flag.section, parser.add_argument_group(flag.section) if flag.section not in groups else None
        )
        _add(group, flag)
    return parser


def _add(group: Any, flag: Flag) -> None:
    default = f" (default: {shown_default(flag)})" if shown_default(flag) else ""
    text = f"{flag.help}{default}".replace("%", "%%")
    if flag.kind is bool:
        group.add_argument(flag.name, dest=flag.key, action=argparse.BooleanOptionalAction, help=text)
        return
    kind = partial(_number_or_word, flag.kind) if flag.auto else flag.kind
    metavar = flag.metavar or ("|".join(flag.choices) if flag.choices else flag.kind.__name__.upper())
    how: dict[str, Any] = {"type": kind, "metavar": metavar, "help": text}
    if flag.many:
        how |= {"action": "append"} if flag.repeated else {"nargs": "+"}
    if flag.name.startswith("--"):
        group.add_argument(flag.name, dest=flag.key, **how)
        if flag.formerly:
            group.add_argument(flag.formerly, dest=flag.key, **{**how, "help": argparse.SUPPRESS})
    else:
        group.add_argument(flag.key, **{**how, "nargs": "*" if flag.many else "?", "metavar": flag.name})


def _number_or_word(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text


def shown_default(flag: Flag) -> str:
    """The default of a flag as it is typed; empty where there is none."""
    if flag.default is None:
        return ""
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
        default = f"`{shown}`" if (shown := shown_default(flag)) else ""
        choices = f" ({', '.join(f'`{choice}`' for choice in flag.choices)})" if flag.choices else ""
        rows.append(f"| `{flag.name}` | {default} | {flag.help}{choices} |")
    return "\n".join(rows) + "\n"
