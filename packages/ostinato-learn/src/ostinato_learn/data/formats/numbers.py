"""Numbers as a CSV file has them: one text, or a column of them.

Blanks around a number, a plus before it, signs between its thousands and a decimal comma are read;
digits of Unicode and 1_000, which Python would read, are not.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ostinato_learn.data.formats.dialect import MISSING, Dialect

if TYPE_CHECKING:
    import pyarrow as pa

_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
_MISSING = frozenset(MISSING)


def number(text: str, dialect: Dialect) -> float:
    """One number; NaN where it is missing, 1 and 0 for true and false.

    Raises:
        ValueError: it is none.
    """
    trimmed = text.strip()
    if trimmed in _MISSING or trimmed in dialect.na:
        return float("nan")
    if trimmed in _TRUE or trimmed in _FALSE:
        return float(trimmed in _TRUE)
    if dialect.thousands and re.match(dialect.grouped, trimmed):
        trimmed = trimmed.replace(dialect.thousands, "")
    if dialect.decimal == ",":  # then a point (as for thousands) is an error
        trimmed = trimmed.replace(".", "·").replace(",", ".")
    if not only_python_reads(trimmed):
        try:
            return float(trimmed)
        except ValueError:
            pass
    raise ValueError(f"{text[:40]!r} is not a number")


def only_python_reads(text: str) -> bool:
    """Whether a text may be a number only for Python: 1_000, or digits of Unicode."""
    return "_" in text or not text.isascii()


def is_number(text: str | bytes) -> bool:
    """Whether Python reads it as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def plain(texts: pa.ChunkedArray, dialect: Dialect) -> pa.ChunkedArray:
    """Texts with a decimal point, without blanks and thousands; null where they are missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.utf8_trim_whitespace(texts)
    missing = pc.is_in(found, value_set=pa.array(MISSING, texts.type))
    found = pc.if_else(missing, pa.scalar(None, texts.type), found)
    if dialect.thousands is not None:
        whole = pc.replace_substring(found, dialect.thousands, "")
        found = pc.if_else(pc.match_substring_regex(found, dialect.grouped), whole, found)
    if dialect.decimal == ",":  # then a point (as for thousands) is an error
        found = pc.replace_substring(pc.replace_substring(found, ".", "·"), ",", ".")
    return found


def parsed(texts: pa.ChunkedArray, dialect: Dialect) -> np.ndarray | None:
    """The texts as float64, NaN where missing; None if one is not a number.

    True and false are numbers where a column has nothing else.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    usual = dialect.decimal == "." and dialect.thousands is None
    as_plain = partial(plain, texts, dialect)
    ways = (
        as_plain,
        lambda: _truth(as_plain()),
        lambda: unsigned(as_plain()),
    )
    for way in (lambda: texts, *ways) if usual else ways:
        try:
            return pc.cast(way(), pa.float64()).to_numpy().astype(np.float64)
        except pa.ArrowInvalid:
            continue
    return None


def unsigned(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts without a plus before the number, which pyarrow does not read."""
    import pyarrow.compute as pc

    return pc.replace_substring_regex(texts, r"^\+([0-9.])", r"\1")


def _truth(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """true and false as 1 and 0; an error if there is anything else."""
    import pyarrow as pa
    import pyarrow.compute as pc

    truth = pc.is_in(texts, value_set=pa.array(_TRUE, texts.type))
    falsehood = pc.is_in(texts, value_set=pa.array(_FALSE, texts.type))
    if not pc.all(pc.or_(pc.or_(truth, falsehood), pc.is_null(texts))).as_py():
        raise pa.ArrowInvalid("no truth values")
    return pc.if_else(pc.is_null(texts), None, pc.cast(truth, pa.int8()))
