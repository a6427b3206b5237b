"""`Dialect`: how the CSV files of a user, a program or a country are written."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import IO, Literal, cast

Decimal = Literal[".", ","]
SEPARATOR_OF = {".csv": ",", ".tsv": "\t", ".xlsx": ","}  # by the ending of the file
OF_TEXT = ("separator", "decimal", "encoding")  # what a spreadsheet says itself
# How text says that a number is missing. A word is missing only if it is empty: "NA" is a name.
MISSING = ("", "NA", "N/A", "NaN", "nan", "NAN", "null", "NULL", "None", "?", ".", "-")
_NO_SEPARATORS = ('"', "\r", "\n")
_THOUSANDS = (",", ".", "'", "’", " ", "\u00a0", "\u202f", "_")
_UTF8 = "utf-8"
MOST_ABOVE = 10_000  # lines above a header, at most


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written: separator, decimal mark, lines above the header, encoding.

    Raises:
        ValueError: an attribute is invalid.

    Attributes:
        separator: one character; None: "," (a tab in a .tsv file).
        decimal: "," as in 1,5, or ".".
        encoding: a name that Python knows, as "cp1252"; UTF-8 may begin with a byte order mark.
        na: fields that mean a missing value, besides those that always do.
        thousands: the sign between the thousands of numbers; None: no sign.
        skip_lines: lines above the header. Lines that begin with # are left out there anyway.
    """

    separator: str | None = None
    decimal: Decimal = "."
    encoding: str = _UTF8
    na: tuple[str, ...] = ()
    thousands: str | None = None
    skip_lines: int = 0

    def __post_init__(self) -> None:
        between = self.separator
        if between is not None and (
            type(between) is not str or between in _NO_SEPARATORS or len(between) != 1
        ):
            raise ValueError(f"separator is {between!r}; wanted one character, such as ; or \\t")
        if self.decimal not in (".", ","):
            raise ValueError(f"decimal is {self.decimal!r}; wanted '.' or ','")
        if self.thousands not in (None, *_THOUSANDS) or self.thousands == self.decimal:
            raise ValueError(
                f"thousands is {self.thousands!r}; wanted a sign that is not before decimals: one "
                f"of {' '.join(map(repr, _THOUSANDS))}"
            )
        is_utf8(self.encoding)

    def check(self, kind: str, source: str) -> None:
        """Raise ValueError if a file of this ending cannot be written so.

        Raises:
            ValueError: it cannot.
        """
        for each in fields(self):
            allowed = kind in (".csv", ".tsv") or (kind == ".xlsx" and each.name not in OF_TEXT)
            if not allowed and getattr(self, each.name) != each.default:
                raise ValueError(f"{source}: {each.name} is for .csv and .tsv files")

    def between(self, kind: str) -> str:
        """The separator of the fields of a file with this ending."""
        return self.separator or SEPARATOR_OF[kind]

    @property
    def grouped(self) -> str:
        """A pattern of numbers with signs between their thousands; "" without such signs."""
        if self.thousands is None:
            return ""
        return rf"^[+-]?\d{{1,3}}({re.escape(self.thousands)}\d{{3}})+([{self.decimal}]\d*)?$"

    def without_head(self, content: bytes, between: str) -> bytes:
        r"""The content as UTF-8, with empty lines in place of those above the header.

        Lines that begin with # are above it; but the last of them is the header, if it has as many
        fields as the next line, unless that seems to be a header itself: without a number, while
        the line after it has one.

        Args:
            content: the beginning of a file at least, with the first rows.
            between: the separator of the fields.

        Example:
            >>> Dialect().without_head(b"# by a logger\nt,x\n0,1\n", ",")
            b'\nt,x\n0,1\n'
            >>> Dialect().without_head(b"# by a logger\n#t,x\n0,1\n", ",")
            b'\n#t,x\n0,1\n'
        """
        lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n", MOST_ABOVE)
        above = self.skip_lines
        while above < len(lines) and lines[above].startswith(b"#"):
            above += 1
        if above > self.skip_lines:
            last, row, after = (*lines[above - 1 :], b"", b"")[:3]
            sign = between.encode()
            named = not _has_number(row, sign) and _has_number(after, sign)
            above -= last.count(sign) == row.count(sign) and not named
        return b"\n" * min(above, len(lines) - 1) + b"\n".join(lines[above:])

    def utf8(self, content: bytes, source: str) -> bytes:
        """The content of a file as UTF-8.

        Raises:
            ValueError: there is no such encoding, or the content has another one.
        """
        if is_utf8(self.encoding):
            return content
        with _encoding_errors(source, self.encoding):
            return content.decode(self.encoding).encode()

    def opened(self, file: IO[bytes], source: str) -> IO[bytes]:
        """A file to be read as UTF-8, some bytes at a time."""
        if is_utf8(self.encoding):
            return file
        return cast("IO[bytes]", _Recoded(file, source, self.encoding))


def _has_number(line: bytes, between: bytes) -> bool:
    """Whether a field of a line is a number, or may mean one."""
    for field in line.decode("utf-8", "replace").split(between.decode()):
        if field.strip(' "\r') in MISSING:
            return True
        with suppress(ValueError):
            float(field.strip(' "\r'))
            return True
    return False


def is_utf8(encoding: str) -> bool:
    """Whether this is a name of UTF-8.

    Raises:
        ValueError: it is not the name of an encoding of text.
    """
    try:
        found = codecs.lookup(encoding)
        "a".encode(encoding)  # not so with one that makes bytes of bytes, as "hex" does
    except (LookupError, UnicodeError, TypeError):
        raise ValueError(
            f"encoding is {encoding!r}, which is not known; wanted a name such as cp1252, latin-1, "
            "utf-16 or shift_jis"
        ) from None
    return found.name in (_UTF8, "utf-8-sig")


class _Recoded:
    """A file of another encoding, read as UTF-8."""

    def __init__(self, file: IO[bytes], source: str, encoding: str):
        self._file, self._source, self._encoding = file, source, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()

    def read(self, n: int = -1) -> bytes:
        """Some n bytes of the file; b"" at its end."""
        while True:
            piece = self._file.read(n)
            with _encoding_errors(self._source, self._encoding):
                text = self._decoder.decode(piece, final=not piece)
            if text or not piece:
                return text.encode()


@contextmanager
def _encoding_errors(source: str, encoding: str) -> Iterator[None]:
    try:
        yield
    except UnicodeError as problem:
        raise ValueError(
            f"{source}: the file is not in the encoding {encoding} ({problem}); wanted the name of "
            "its own (--encoding)"
        ) from None
