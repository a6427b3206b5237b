"""How a CSV file is written, recognised where only one reading makes sense.

A guess changes only files that could not be read without it. Separator: the usual one does not
give each row the same number of fields, and one other does. Encoding: not UTF-8, and all usual
encodings of Windows have the same letters at its bytes. Numbers: no point is a decimal mark, as in
1.180,32, or no comma, as in 1,180.32; or numbers with three digits after it end with zeros that
others lack, as 1.180 beside 950. Where two readings are left, as of 1,180 alone, nothing is
changed.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection
from dataclasses import fields, replace

from ostinato_learn.data.formats.content import UTF16
from ostinato_learn.data.formats.dialect import MISSING, Decimal, Dialect

SEPARATORS = (",", "\t", ";", "|")
DELIMITED = (".csv", ".tsv")
LOOKED_AT = 1 << 22  # bytes
_ROWS = 10_000
# At the same bytes in the encodings of Windows for the west, the centre of Europe, Turkey and the
# Baltic; older encodings of DOS and of the Macintosh have other bytes for them.
_SAME = frozenset("ÁÂÄÇÉËÍÎÓÔÖÚÜßáâäçéëíîóôöúü°µ§€")
_GROUPS = r"[+-]?(\d+|[1-9]\d{{0,2}}({0}\d{{3}})+)({1}\d*)?([eE][+-]?\d+)?"
_DIGIT = re.compile(r"\d")
_PLAIN = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_WITH_COMMA = re.compile(_GROUPS.format(r"\.", ","))
_WITH_POINT = re.compile(_GROUPS.format(",", r"\."))


def recognised(
    content: bytes, kind: str, source: str, given: Dialect, fixed: Collection[str] = ()
) -> Dialect:
    """The dialect of a file, of which a user gave some attributes; the log says what was found.

    Args:
        content: the file, unpacked; its beginning is read.
        kind: its ending, ".csv" or ".tsv".
        source: its name, for the log.
        given: with the defaults where the user gave nothing.
        fixed: the attributes that the user gave, which may be the defaults.

    Example:
        >>> found = recognised(b"id;x\\na;1.180,32\\n", ".csv", "my.csv", Dialect())
        >>> found.separator, found.decimal, found.thousands
        (';', ',', '.')
    """
    default = Dialect()
    is_open = {
        each.name: each.name not in fixed and getattr(given, each.name) == each.default
        for each in fields(default)
    }
    content = content[:LOOKED_AT]
    if len(content) == LOOKED_AT:
        content = content[: content.rfind(b"\n") + 1] or content
    found = given
    if is_open["encoding"]:
        found = replace(found, encoding=_encoding(content) or given.encoding)
    try:
        text = content.decode(found.encoding).removeprefix("\ufeff")
    except UnicodeError:
        return given  # which is refused, with the place
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if is_open["separator"]:
        found = replace(found, separator=_separator(text, kind, found))
    between = found.between(kind)
    if is_open["decimal"] and is_open["thousands"]:
        decimal, thousands = _numbers(_rows(text, between, found) or [])
        found = replace(found, decimal=decimal, thousands=thousands)
    if found != given:
        import logging  # not needed to read a saved model

        logging.getLogger(__name__).warning("%s: read as: %s", source, _in_words(given, found))
    return found


def _in_words(given: Dialect, found: Dialect) -> str:
    """What was recognised, such as "; decimal , thousands . cp1252"."""
    shown = {
        "separator": "tabs" if found.separator == "\t" else found.separator,
        "decimal": f"decimal {found.decimal}",
        "thousands": f"thousands {found.thousands}",
        "encoding": found.encoding,
    }
    names = [name for name in shown if getattr(found, name) != getattr(given, name)]
    return " ".join(str(shown[name]) for name in names)


def _encoding(content: bytes) -> str | None:
    """The encoding of content that is not UTF-8, where all possible ones give the same text."""
    if content.startswith(UTF16):
        return "utf-16"
    try:
        content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        letters = {chr(byte) for byte in set(content) if byte > 127 and byte != 0x80}
        signs = letters | ({"€"} if b"\x80" in content else set())
        return "cp1252" if signs <= _SAME else None
    return None


def _separator(text: str, kind: str, dialect: Dialect) -> str | None:
    """The separator, if the usual one does not separate and just one other does."""
    usual = dialect.between(kind)
    fits = [sign for sign in SEPARATORS if _rows(text, sign, dialect) is not None]
    return fits[0] if len(fits) == 1 and fits[0] != usual else None


def _rows(text: str, between: str, dialect: Dialect) -> list[list[str]] | None:
    """The first rows; None: they have different numbers of fields, or single ones."""
    body = dialect.without_head(text.encode(), between).decode()
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=between, strict=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if not row:
                continue
            rows.append(row)
            if len(row) < 2 or len(row) != len(rows[0]):
                return None
            if len(rows) > _ROWS:
                break
    except csv.Error:
        return None
    return rows if len(rows) > 1 else None


def _numbers(rows: list[list[str]]) -> tuple[Decimal, str | None]:
    """The decimal mark, and the sign between thousands, of all columns of numbers."""
    plain, other = [], []
    for column in zip(*rows[1:], strict=True):
        present = [value for value in map(str.strip, column) if value not in MISSING]
        values = [value for value in present if _DIGIT.search(value)]
        if 2 * len(values) < len(present):  # names, and not numbers with a marker such as n.v.
            continue
        if all(map(_PLAIN.fullmatch, values)):
            plain.append(values)
        elif _all(_WITH_COMMA, values) or _all(_WITH_POINT, values):
            other.append(values)
    values = [value for column in other for value in column]
    with_points = [value for column in plain for value in column if "." in value]
    comma, point = _all(_WITH_COMMA, values), _all(_WITH_POINT, values)
    if not values and _all(_WITH_COMMA, with_points) and any(_grouped(c, ".") for c in plain):
        return ",", "."
    if comma and point and any(_grouped(column, ",") for column in other):
        return ".", ","
    if not values or comma == point:
        return ".", None
    if comma and _all(_WITH_COMMA, with_points):
        has_points = with_points or any("." in value for value in values)
        return ",", "." if has_points else None
    if point and any(value.count(",") + ("." in value) > 1 for value in values):
        return ".", ","
    return ".", None


def _grouped(values: list[str], sign: str) -> bool:
    """Whether a sign cannot be a decimal mark: 1.180 has a zero that 950 beside it lacks."""
    with_sign = [value for value in values if sign in value]
    last = {len(value.rpartition(sign)[2]) for value in with_sign}
    ends = any(value.endswith("0") for value in with_sign)
    return last == {3} and ends and len(with_sign) < len(values)


def _all(pattern: re.Pattern[str], values: list[str]) -> bool:
    return all(map(pattern.fullmatch, values))
