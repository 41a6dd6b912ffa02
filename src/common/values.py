"""Values as other programs write them: numbers as text or with a decimal point, names in any case and Unicode form."""

import math
import re
import unicodedata
from typing import Any


def integer(value: Any) -> Any:
    """A whole number that a tool wrote as text or with a decimal point as ``int``; anything else stays as it is."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and (match := re.fullmatch(r"(-?[0-9]{1,18})(\.0*)?", value.strip())):
        return int(match[1])
    return value


def number(value: Any) -> Any:
    """A finite number that a tool wrote as text as ``float``; anything else stays as it is."""
    if not isinstance(value, str) or "_" in value:
        return value
    try:
        found = float(value)
    except ValueError:
        return value
    return found if math.isfinite(found) else value


def plain(name: str) -> str:
    """A name without regard to case, Unicode form, and spaces around it."""
    folded = unicodedata.normalize("NFC", name).strip().casefold()
    return unicodedata.normalize("NFC", folded)  # folding can take letters and their marks apart
