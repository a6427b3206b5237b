"""The content of a user's file: unpacked within limits, and as UTF-8 text."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from pathlib import Path
from typing import BinaryIO

from ostinato_learn import environment
from ostinato_learn.data.questions import OpenQuestion

GZIP = b"\x1f\x8b"
CHUNK = 1 << 24  # bytes unpacked at a time
# Text packs to a tenth, at best a fortieth. A large file that unpacks to more than a hundred times
# its size was made to exhaust the memory.
MAX_RATIO = 100
MAX_UNPACKED = 1 << 28
BEGIN = 64  # bytes from which the kind of content without a name is found
MAX_ROW = 1 << 26  # bytes of a line of text; pyarrow reads a row as a whole
MAX_COLUMNS = 100_000  # of a table: 1 GB, at 10 KB for each in pyarrow's CSV parser

# The first bytes of files that are not text, and what to do instead.
_BINARY = {
    GZIP: "gzip; wanted a name that ends with .gz",
    b"PK\x03\x04": "a ZIP archive, to be unpacked, or Excel; wanted a name that ends with .xlsx",
    b"PAR1": "Parquet; wanted a name that ends with .parquet",
    b"ARROW1": "Arrow; wanted a name that ends with .arrow",
    b"\x93NUMPY": "a NumPy array; wanted a name that ends with .npy",
    b"\xd0\xcf\x11\xe0": "an old Excel file; save it as .xlsx or CSV",
    b"SQLite format 3": "an SQLite database; export its table as CSV",
    b"%PDF": "PDF; wanted a table of text",
}
_STARTS = {
    b"PK\x03\x04": ".npz",
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
    b"FEA1": ".arrow",
    b"\xff\xff\xff\xff": ".arrow",
    b"\x93NUMPY": ".npy",
    b"@": ".ts",
    b"\0\0\x08": ".idx",
}
TABLES = (
    *(".csv", ".tsv", ".xlsx", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather"),
    *(".conll", ".conllu"),
)
KINDS = (*TABLES, ".npz", ".npy", ".ts", ".idx")
_IDX = re.compile(r"[.-]idx(\d-[a-z0-9]+)?$")
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def ending(path: Path) -> str:
    """The ending that says how a file is read: ".csv" of both "a.csv" and "a.CSV.gz".

    ".idx" of the names that MNIST's files have, "train-images-idx3-ubyte".
    """
    name = path.name.lower().removesuffix(".gz")
    if _IDX.search(name):
        return ".idx"
    return name[name.rfind(".") :] if "." in name else ""


def is_packed(path: Path) -> bool:
    """Whether the name says gzip."""
    return path.name.lower().endswith(".gz")


def read_content(path: Path) -> bytes:
    """The bytes of a file; of a file whose name ends with .gz, unpacked.

    Raises:
        ValueError: the gzip is damaged, ends early, or unpacks to more than `MAX_UNPACKED` bytes
            and `MAX_RATIO` times its size; or the file is empty.
        OSError: there is no such file, or it cannot be read.
    """
    content = _unpacked(path) if is_packed(path) else path.read_bytes()
    if not content:
        raise ValueError(f"{path}: the file is empty")
    return content


def unpacked(content: bytes, source: str) -> bytes:
    """Content that has no name; if it is gzip, unpacked.

    Raises:
        ValueError: as `read_content`.
    """
    if not content:
        raise ValueError(f"{source}: the file is empty")
    if not content.startswith(GZIP):
        return content
    return _gunzipped(io.BytesIO(content), len(content), source)


def kind_of(content: bytes, name: str) -> str:
    """The ending that says how content is read: that of its name, or what its first bytes say.

    Text without a known ending is CSV; or JSON Lines if it begins with a brace; or TSV if its
    first line begins with names that tabs separate, and no comma.
    """
    known = ending(Path(name))
    if known in KINDS:
        return known
    for start, kind in _STARTS.items():
        if content.startswith(start):
            return kind
    if content.lstrip(codecs.BOM_UTF8 + b" \n\r\t").startswith(b"{"):
        return ".jsonl"
    header = content[:BEGIN].lstrip().partition(b"\n")[0]
    return ".tsv" if b"\t" in header and b"," not in header else ".csv"


def as_text(content: bytes, source: str, skipped: int = 0) -> bytes:
    """Content as UTF-8 without its byte order mark, in which lines end with "\\n".

    Args:
        source: the name of the file, for messages.
        skipped: the number of lines of the file before `content`.

    Raises:
        ValueError: it is not text (the kind is named), not UTF-8, or blank.
    """
    for start, kind in _BINARY.items():
        if content.startswith(start):
            raise ValueError(f"{source}: the file is not text, but {kind}")
    if content.startswith(UTF16):
        raise OpenQuestion(
            f"{source}: the text is UTF-16; wanted UTF-8: iconv -f UTF-16 -t UTF-8 makes it; a CSV "
            "file is read as it is with encoding='utf-16' (--encoding utf-16)",
            encoding="utf-16",
        )
    content = content.removeprefix(codecs.BOM_UTF8)
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n")
        if b"\n" not in content:  # an old way to end lines
            content = content.replace(b"\r", b"\n")
    _check_utf8(content, source, skipped)
    if (zero := content.find(b"\0")) >= 0:
        raise ValueError(
            f"{source}, line {line_of(content, zero) + skipped}: a zero byte, which no text "
            "contains; the file is damaged, or not text"
        )
    if not content.strip():
        raise ValueError(f"{source}: the file is empty but for blanks")
    return content


def line_of(content: bytes, position: int) -> int:
    """The number of a byte's line, from 1."""
    return content.count(b"\n", 0, position) + 1


def check_memory(n_bytes: int, what: str) -> None:
    """Raise ValueError if arrays of this size do not fit: a small file may promise any rows.

    Raises:
        ValueError: they need more than the memory that this process may use.
    """
    memory = environment.memory()
    if memory is not None and n_bytes > memory:
        raise ValueError(
            f"{what} needs {n_bytes / 1e9:,.0f} GB as arrays; this machine has "
            f"{memory / 1e9:,.0f} GB"
        )


def check_width(n_columns: int, source: str) -> None:
    """Raise ValueError if a table has more than `MAX_COLUMNS` columns.

    Raises:
        ValueError: it has more.
    """
    if n_columns > MAX_COLUMNS:
        raise ValueError(
            f"{source}: {n_columns:,} columns; wanted at most {MAX_COLUMNS:,}: write a row for "
            "each step (shape 'long'), lists in Parquet or JSON Lines (shape 'nested'), or arrays "
            "(.npz)"
        )


def _unpacked(path: Path) -> bytes:
    with path.open("rb") as file:
        return _gunzipped(file, path.stat().st_size, str(path))


def check_unpacked(size: int, packed_size: int, source: str, packing: str) -> None:
    """Raise ValueError if so many unpacked bytes were made to fill the memory.

    Raises:
        ValueError: they are more than `MAX_UNPACKED` and `MAX_RATIO` times the packed ones.
    """
    allowed = max(MAX_UNPACKED, MAX_RATIO * packed_size)
    if size > allowed:
        raise ValueError(
            f"{source}: {packed_size:,} bytes of {packing} unpack to more than {allowed:,}, as no "
            "file of data does; if it is meant, unpack it first"
        )


def _gunzipped(packed: BinaryIO, packed_size: int, source: str) -> bytes:
    parts = []
    size = 0
    try:
        with gzip.open(packed, "rb") as file:
            while part := file.read(CHUNK):
                parts.append(part)
                size += len(part)
                check_unpacked(size, packed_size, source, "gzip")
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise ValueError(f"{source}: not a whole gzip file ({problem})") from None
    return b"".join(parts)


def _check_utf8(content: bytes, source: str, skipped: int) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = line_of(content, problem.start) + skipped
        column = problem.start - content.rfind(b"\n", 0, problem.start)
        raise OpenQuestion(
            f"{source}, line {line}: byte {column} is {content[problem.start]:#04x}, which is not "
            "UTF-8; wanted UTF-8: iconv -f LATIN1 -t UTF-8 makes it of most older files; a CSV "
            "file is read as it is with encoding='cp1252' (--encoding cp1252)",
            encoding="cp1252",
        ) from None
