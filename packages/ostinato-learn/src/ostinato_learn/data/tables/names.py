"""Names: the values of columns of names, spelled alike wherever they come from."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostinato_learn.data.sequences.preparation import Preparation

UNKNOWN = -1.0  # the number of a name unknown from the training; that of a missing name is NaN


class Names(dict[str, float]):
    """Name → its place among those of the training part.

    Example:
        >>> names = Names("page", ("home", "search"))
        >>> names.place(" search"), names.place("cart"), names.place("")
        (1.0, -1.0, nan)
    """

    def __init__(self, feature: str, words: Sequence[str]):
        super().__init__({word: float(i) for i, word in enumerate(words)})
        self.feature = feature

    def place(self, written: str | None) -> float:
        """The place of a name as a file has it: with blanks around it, or as a number."""
        text = (written or "").strip()
        if not text:
            return math.nan
        place = self.get(text)
        return self.get(as_name(text), UNKNOWN) if place is None else place


def known_names(preparation: Preparation) -> list[Names | None]:
    """Of each feature; None where it is a number."""
    return [None if f.words is None else Names(f.name, f.words) for f in preparation.features]


def named_twice(names: Iterable[str]) -> list[str]:
    """The names that come more than once, sorted."""
    return sorted(name for name, n in Counter(names).items() if n > 1)


def as_name(value: object) -> str:
    """A value as a name, whatever else its column holds.

    Whole numbers and truth values have one spelling, since each kind of file has its own (1, 1.0,
    true, True). All other texts are unchanged.
    """
    text = spelled(value)
    return text.capitalize() if text.lower() in ("true", "false") else text


def spelled(value: object) -> str:
    """A value as text: whole numbers in one spelling, all others as they are written."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e16 is written 10000000000000000 elsewhere
    text = str(value)
    whole = _WHOLE.fullmatch(text)
    if not whole:
        return text
    sign, digits = whole.groups()
    return f"-{digits}" if sign == "-" and digits != "0" else digits


_WHOLE = re.compile(r"([+-]?)(0|[1-9][0-9]*)(?:\.0*)?", re.ASCII)
