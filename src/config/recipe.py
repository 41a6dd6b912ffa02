"""Recipes: settings as TOML files."""

import tomllib
from pathlib import Path
from typing import Any

from src.common.errors import InputError, nearest_path
from src.common.files import read_text, write_text
from src.config.flags import flags_of, flatten


def to_toml(config: Any) -> str:
    """The configuration as TOML that ``--recipe`` accepts; a setting that is ``None`` stands as a comment."""
    values, section = flatten(config), None
    lines: list[str] = []
    for flag in flags_of(type(config)):
        if flag.section != section:
            section = flag.section
            lines += ["", f"# {section}"] if lines else [f"# {section}"]
        value = values[flag.key]
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
        return tomllib.loads(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}){nearest_path(path)}") from error
    except (ValueError, RecursionError) as error:  # a number of over 4,300 digits is a plain ValueError
        hint = "; write paths with / or in 'single quotes'" if "\\" in str(error) or "hex" in str(error) else ""
        raise InputError(f"{path}: is not valid TOML ({error}){hint}") from error
