"""`Array`; and plain values of a file that may be damaged or hostile: taken apart and checked."""

from __future__ import annotations

import reprlib
from typing import Any, NoReturn

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_SHORT = reprlib.Repr()  # reads only a part of a value, however deep it is
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 62


def fail(text: str) -> NoReturn:
    """Refuse a file: raise a ValueError which says that it is damaged or of another version."""
    raise ValueError(f"{text}; the file is damaged, or of another version of ostinato")


def entries(
    value: Any, where: str, wanted: set[str], optional: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """A dictionary with these names, and perhaps the optional ones."""
    if not isinstance(value, dict):
        fail(f"{where} is {_shown(value)}; wanted names and values")
    names = set(value)
    if not wanted <= names <= wanted | optional:
        missing, unknown = sorted(wanted - names), sorted(names - wanted - optional)
        fail(f"{where} lacks {missing} and has {_shown(unknown)} beyond what is known")
    return value


def items(value: Any, where: str, most: int) -> list[Any]:
    """A list of at most `most` entries."""
    if not isinstance(value, list) or len(value) > most:
        fail(f"{where} is {_shown(value)}; wanted a list of at most {most}")
    return value


def whole(value: Any, where: str, low: int, high: int) -> int:
    """A whole number from low to high."""
    if type(value) is not int or not low <= value <= high:
        fail(f"{where} has {_shown(value)}; wanted a whole number from {low} to {high}")
    return value


def text(value: Any, where: str) -> str:
    """The value, if it is a text.

    Raises:
        ValueError: it is not a text.
    """
    if not isinstance(value, str):
        fail(f"{where} is {_shown(value)}; wanted a text")
    return value


def _shown(value: Any) -> str:
    shown = _SHORT.repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"
