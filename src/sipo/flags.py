"""Flags and numbers from people's files: a table that went through CSV, SQLite or pandas has 1, 1.0 or "true" for true."""

import math
from decimal import Decimal
from typing import Any

WORDS = {"true": True, "t": True, "yes": True, "y": True, "false": False, "f": False, "no": False, "n": False}


def is_absent(value: Any) -> bool:
    """Null, NaN (as pandas writes null), or a blank text."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def read_flag(value: Any) -> bool | None:
    """True or False of a boolean, a number that is 0 or 1, or a text that spells either; None of anything else."""
    if isinstance(value, str) and value.strip().lower() in WORDS:
        return WORDS[value.strip().lower()]
    number = read_number(value)
    return bool(number) if number in (0, 1) else None


def read_number(value: Any) -> float | None:
    """The finite number that a value is or spells; None of anything else."""
    if not isinstance(value, bool | int | float | Decimal | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
