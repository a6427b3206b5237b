"""`Dialect`: how the CSV files of a user, a program or a country are written."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Literal, cast

Decimal = Literal[".", ","]
SEPARATOR_OF = {".csv": ",", ".tsv": "\t"}  # by the ending of the file
_NO_SEPARATORS = ('"', "\r", "\n")
_UTF8 = "utf-8"


@dataclass(frozen=True)
class Dialect:
    """What stands between fields and before decimals, and what the bytes mean.

    Raises:
        ValueError: one of these is none.

    Attributes:
        separator: one character; None: "," (a tab in a .tsv file).
        decimal: "," as in 1,5, or ".".
        encoding: a name that Python knows, as "cp1252"; UTF-8 may begin with a byte order mark.
    """

    separator: str | None = None
    decimal: Decimal = "."
    encoding: str = _UTF8

    def __post_init__(self) -> None:
        between = self.separator
        if between is not None and (
            type(between) is not str or between in _NO_SEPARATORS or len(between) != 1
        ):
            raise ValueError(f"separator is {between!r}; wanted one character, such as ; or \\t")
        if self.decimal not in (".", ","):
            raise ValueError(f"decimal is {self.decimal!r}; wanted '.' or ','")
        is_utf8(self.encoding)

    def check(self, kind: str, source: str) -> None:
        """Raise ValueError if a file of this ending cannot be written so.

        Raises:
            ValueError: it cannot; or what stands between fields stands before decimals, too.
        """
        if kind not in SEPARATOR_OF:
            for name in ("separator", "decimal", "encoding"):
                if getattr(self, name) != getattr(Dialect, name):
                    raise ValueError(f"{source}: {name} is for .csv and .tsv files")
        elif self.between(kind) == self.decimal:
            raise ValueError(
                f"{source}: {self.decimal!r} stands between the fields and before the decimals; "
                "name what is between the fields with separator (--separator ';')"
            )

    def between(self, kind: str) -> str:
        """What stands between the fields of a file with this ending."""
        return self.separator or SEPARATOR_OF[kind]

    def utf8(self, content: bytes, source: str) -> bytes:
        """The content of a file as UTF-8.

        Raises:
            ValueError: there is no such encoding, or the content is in another.
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


def is_utf8(encoding: str) -> bool:
    """Whether this is a name of UTF-8.

    Raises:
        ValueError: it is a name of no encoding of text.
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
