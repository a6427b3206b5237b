"""`stream_examples`: the sequences of a table one block after another, in constant memory.

A block is a part of the file, cut where a row ends. In a long table the last sequence of a block
may continue in the next one: its rows are then moved to the next block.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np

from ostinato.internal import needs
from ostinato_learn import environment
from ostinato_learn.data.formats import arrays, conll, spreadsheet
from ostinato_learn.data.formats.arrow import arrow_table, check_whole, whole
from ostinato_learn.data.formats.content import (
    BEGIN,
    CHUNK,
    GZIP,
    MAX_ROW,
    as_text,
    check_unpacked,
    kind_of,
)
from ostinato_learn.data.formats.delimited import parse_delimited
from ostinato_learn.data.formats.dialect import Dialect
from ostinato_learn.data.formats.json_lines import parse_json_lines
from ostinato_learn.data.sequences import label_sets
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.tables.read_examples import parse_examples
from ostinato_learn.data.tables.resample import resampled
from ostinato_learn.data.tables.roles import Roles, resolve
from ostinato_learn.data.tables.shapes import build
from ostinato_learn.data.tables.table import Table

BLOCK = 1 << 22  # bytes of a block
ROWS = 1 << 12  # rows of a Parquet file read at a time, at most
COPIES = 8  # copies of a block in memory: the bytes, columns in float64, features, prepared ones


def stream_examples(
    source: str | os.PathLike[str] | IO[bytes],
    roles: Roles | None = None,
    *,
    name: str = "standard input",
) -> Iterator[Examples]:
    """Read the sequences of a table in their order, some at a time.

    The parts of a sequence are never in two blocks. Memory holds a block, and 8 bytes for each id.

    Args:
        source: a file's path; or a file opened for bytes, such as standard input.
        roles: the roles of the columns, best those of a `Preparation`; missing ones are found from
            the first block. If sequences may have several labels, a block has the labels of all
            blocks so far.
        name: the name of an opened file in errors; its first bytes give the kind, as for
            `parse_examples`. Arrays (.npz, .npy, .ts), and words and tags, come as one block.

    Raises:
        ValueError: as `read_examples`; or roles sort the rows, which needs the whole file.

    Example:
        >>> import io
        >>> from ostinato_learn.data import Roles, stream_examples
        >>> file = io.BytesIO(b"id,x\\na,1\\na,2\\nb,3\\n")
        >>> [part.ids.tolist() for part in stream_examples(file, Roles(id="id", features=("x",)))]
        [['a', 'b']]
    """
    roles = roles or Roles()
    if roles.sort:
        raise ValueError("rows are sorted in the memory; read the whole file (read_examples)")
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as file:
            yield from _stream(file, str(source), roles)
    else:
        yield from _stream(source, name, roles)


def _stream(file: IO[bytes], name: str, roles: Roles) -> Iterator[Examples]:
    first, file = _begin(file, file.seekable())
    with _gzip_errors(name):
        packed = None
        if first.startswith(GZIP):
            packed = file
            first, file = _begin(cast(IO[bytes], gzip.GzipFile(fileobj=file)), False)
        kind = kind_of(first, name)
        if kind in (*arrays.ENDINGS, *conll.ENDINGS, spreadsheet.ENDING):
            yield parse_examples(_all(file, packed, name), name, roles)
        elif kind in (".parquet", ".arrow", ".feather"):
            if packed is not None:  # parts of it are read in any order
                file = io.BytesIO(_all(file, packed, name))
            yield from _examples(_Batches(_batches(file, kind), name), roles, not roles.labels)
        else:
            lines = _LineBlocks(file, kind, name, roles.dialect)
            yield from _examples(lines, roles, not roles.labels)


def _begin(file: IO[bytes], may_seek: bool) -> tuple[bytes, IO[bytes]]:
    """The first bytes of a file, and the file as if they had not been read."""
    if may_seek:
        position = file.tell()
        first = file.read(BEGIN)
        file.seek(position)
        return first, file
    first = file.read(BEGIN)
    return first, cast(IO[bytes], _Rejoined(first, file))


class _Rejoined:
    """A file whose first bytes have been read; it can only be read, from its first byte on."""

    def __init__(self, first: bytes, file: IO[bytes]):
        self._first = first
        self._file = file
        self._at = 0

    def read(self, n: int = -1) -> bytes:
        first, self._first = self._first, b""
        if n < 0:
            return first + self._file.read()
        first, self._first = first[:n], first[n:]
        read = first or self._file.read(n)
        self._at += len(read)
        return read

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return False


def _all(file: IO[bytes], packed: IO[bytes] | None, name: str) -> bytes:
    """The rest of a file; `packed` is the compressed file that it comes from, or None."""
    if packed is None:
        return file.read()
    parts, size = [], 0
    while part := file.read(CHUNK):
        parts.append(part)
        size += len(part)
        check_unpacked(size, packed.tell(), name, "gzip")
    return b"".join(parts)


@contextmanager
def _gzip_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise ValueError(f"{name}: not a whole gzip file ({problem})") from None


class _Blocks(Protocol):
    """A table, block after block.

    Attributes:
        at_end: whether the last block has been read.
    """

    at_end: bool

    def read(self) -> Table | None:
        """The next block, None after the last one."""

    def put_back(self, row: int) -> None:
        """Let the next block begin at this row of the last block."""


def _examples(blocks: _Blocks, roles: Roles, learns_labels: bool) -> Iterator[Examples]:
    """The sequences in blocks; each is complete and comes once.

    Args:
        learns_labels: whether the labels that occur are the labels that a sequence may have.
    """
    count, seen = 0, np.zeros(0, np.int64)
    full: Roles | None = None
    while (table := blocks.read()) is not None:
        full = full or resolve(roles, table)
        n_whole = len(table) if blocks.at_end else _whole(table, full)
        if n_whole < len(table):
            blocks.put_back(n_whole)
        if n_whole == 0:
            continue
        table = table.head(n_whole)
        if learns_labels and full.labels and full.target:
            full = label_sets.with_further(full, table)
        examples = build(table, full)
        examples = replace(examples, written=_written(table, full, examples.lengths))
        if full.id:
            seen = _new_ids(examples, seen)
        else:
            examples = replace(examples, ids=examples.ids + count)
        count += len(examples)
        yield resampled(examples)


def _written(table: Table, roles: Roles, lengths: np.ndarray) -> Any:
    """`Examples.written` of a block whose sequences have the lengths `[N]`."""
    if roles.target is None or roles.labels or roles.task not in ("classify", "tag"):
        return None
    labels = table[roles.target].written()
    if labels is None:
        return None
    starts = np.cumsum(lengths) - lengths
    if roles.task == "tag":
        return np.split(labels, starts[1:])
    return labels[starts] if roles.shape == "long" else labels


def _whole(table: Table, roles: Roles) -> int:
    """The number of rows of a block that belong to sequences which certainly end in it."""
    if roles.shape != "long":
        return len(table)
    if not roles.id:  # the table is one sequence
        return 0
    codes = table[roles.id].factor()[0]
    changes = np.flatnonzero(np.diff(codes))
    return int(changes[-1]) + 1 if len(changes) else 0


def _new_ids(examples: Examples, seen: np.ndarray) -> np.ndarray:
    """The hashes of all ids until now, sorted.

    Raises:
        ValueError: an id was in an earlier block.
    """
    hashes = np.array([hash(str(one)) for one in examples.ids.tolist()], np.int64)
    places = np.searchsorted(seen, hashes)
    back = np.append(seen, 0)[places] == hashes
    back[places == len(seen)] = False
    if back.any():
        one = int(np.argmax(back))
        row = int(examples.lengths[:one].sum())
        place = examples.places.of(one, 0, row, 0) if examples.places else ""
        raise ValueError(
            f"{examples.source}, {place.partition(', column')[0]}: the id "
            f"{examples.ids[one].item()!r} comes back after other ids; wanted the rows of a "
            "sequence together, and each sequence once"
        )
    order = np.argsort(hashes)
    return np.insert(seen, places[order], hashes[order])


def _for_one_sequence(size: int, name: str) -> int:
    """The size of the next block, if a sequence does not fit in one of `size` bytes.

    Raises:
        ValueError: the memory would not hold it.
    """
    there = environment.memory()
    if there is not None and COPIES * 2 * size > there:
        raise ValueError(
            f"{name}: a single sequence fills more than {size / 1e9:.1f} GB of the table, and must "
            f"fit into the memory, of {there / 1e9:.1f} GB, {COPIES} times; wanted several "
            "sequences, with a column of ids (--id): cut it into parts"
        )
    return 2 * size


class _LineBlocks:
    """Blocks of a CSV or JSON Lines file."""

    def __init__(self, file: IO[bytes], kind: str, name: str, dialect: Dialect):
        self.at_end = False
        self._name = name
        self._is_json = kind in (".jsonl", ".ndjson")
        if self._is_json:
            dialect = Dialect()
        dialect.check(kind, name)
        self._file = dialect.opened(file, name)
        self._dialect, self._kind = dialect, kind
        self._size = BLOCK
        self._header = b""  # of a CSV file; it is parsed with each block
        self._columns: tuple[str, ...] = ()  # columns of JSON Lines seen so far
        self._lines = np.zeros(0, np.int64)  # the line of each row of the block
        self._block = self._rest = b""
        self._ahead = self._file.read(self._size)
        while len(self._ahead) < self._size and (more := self._file.read(self._size)):
            self._ahead += more
        if not self._is_json:
            self._ahead = dialect.without_head(self._ahead, dialect.between(kind))
        self._line = 1  # the line of the file at which the block begins

    def read(self) -> Table | None:
        self._line += self._block.count(b"\n")
        self._block = b""
        while not self._block:
            content = self._rest + self._ahead
            self._ahead = self._file.read(self._size)
            self.at_end = not self._ahead
            cut = len(content) if self.at_end else self._last_row_end(content)
            if not cut and len(content) > max(MAX_ROW, 2 * self._size):
                raise ValueError(
                    f"{self._name}, line {self._line}: no row ends within {len(content):,} bytes; "
                    "wanted rows on lines of their own, and quotes closed"
                )
            self._block, self._rest = content[:cut], content[cut:]
            if self.at_end and not content.strip():
                if not len(self._lines):
                    raise ValueError(f"{self._name}: the file is empty")
                return None
        self._block = as_text(self._block, self._name, self._line - 1)
        return self._parsed()

    def put_back(self, row: int) -> None:
        offset = self._offset(int(self._lines[row]))
        self._rest = self._block[offset:] + self._rest
        self._block = self._block[:offset]
        if row == 0:
            self._size = _for_one_sequence(self._size, self._name)

    def _parsed(self) -> Table:
        if self._is_json:
            table = parse_json_lines(self._block, self._name, self._line - 1, self._columns)
            self._columns = table.names
        elif self._header:
            skipped = self._line - 1 - self._header.count(b"\n")
            table = self._delimited(self._header + self._block, skipped)
        else:
            table = self._delimited(self._block)
            self._header = self._block[: self._offset(int(table.lines[0]))]
        self._lines = table.lines
        return table

    def _delimited(self, content: bytes, skipped: int = 0) -> Table:
        between = self._dialect.between(self._kind)
        return parse_delimited(content, self._name, between, skipped, self._dialect)

    def _offset(self, line: int) -> int:
        """Where a line of the file begins in the block."""
        if line == self._line:
            return 0
        newlines = np.flatnonzero(np.frombuffer(self._block, np.uint8) == ord("\n"))
        return int(newlines[line - self._line - 1]) + 1

    def _last_row_end(self, content: bytes) -> int:
        """Where the last whole row ends: after a line end outside of quotes.

        Empty lines after it go to the next block, which shows whether rows follow.
        """
        end = content.rfind(b"\n") + 1
        if not self._is_json and b'"' in content:
            data = np.frombuffer(content, np.uint8)
            quotes = np.flatnonzero(data == ord('"'))
            newlines = np.flatnonzero(data == ord("\n"))
            outside = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
            end = int(outside[-1]) + 1 if len(outside) else 0
        rows = content[:end].rstrip()
        if not self._is_json and not self._header and b"\n" not in rows.lstrip():
            return 0  # a header alone
        return content.find(b"\n", len(rows)) + 1 if rows else 0


class _Batches:
    """Blocks of a Parquet or Arrow file."""

    def __init__(self, batches: Iterator[Any], name: str):
        with needs("ostinato-learn[tables]", "pyarrow"):
            import pyarrow as pa
        self._name = name
        self._pa = pa
        self._size = BLOCK
        self._batches = batches
        self._next = self._take()
        self.at_end = self._next is None
        self._table: Any = None  # the block, and the rows put back before it is read again
        self._rest: Any = None
        self._row = 0  # the row of the file at which the block begins

    def read(self) -> Table | None:
        if self._table is not None:
            self._row += len(self._table)
        rest, self._rest = self._rest, None
        if self._next is None and rest is None:
            if self._table is None:
                raise ValueError(f"{self._name}: the table has no rows; wanted at least one")
            return None
        parts = [part for part in (rest, self._next) if part is not None]
        self._table = self._pa.concat_tables(parts).combine_chunks()
        self._next = self._take() if self._next is not None else None
        self.at_end = self._next is None
        return arrow_table(self._table, self._name, self._row)

    def put_back(self, row: int) -> None:
        self._rest, self._table = self._table.slice(row), self._table.slice(0, row)
        if row == 0:
            self._size = _for_one_sequence(self._size, self._name)

    def _take(self) -> Any:
        """The next rows, at least a block's bytes if possible; None at the end."""
        taken, n_bytes = [], 0
        with whole(self._name):
            for batch in self._batches:
                check_whole(batch, self._name)
                taken.append(batch)
                n_bytes += batch.nbytes
                if n_bytes >= self._size and len(batch):
                    break
        table = self._pa.Table.from_batches(taken) if taken else None
        return table if table is not None and len(table) else None


def _batches(file: IO[bytes], kind: str) -> Iterator[Any]:
    """The record batches of pyarrow; a file that cannot seek is first read into memory."""
    from pyarrow import ipc, parquet

    content = file if file.seekable() else io.BytesIO(file.read())
    if kind == ".parquet":
        source = parquet.ParquetFile(content, pre_buffer=False)  # else all of it is in memory
        yield from source.iter_batches(batch_size=_rows_at_once(source))
        return
    start = content.read(6)
    content.seek(0)
    if start != b"ARROW1":
        yield from ipc.open_stream(content)
        return
    with ipc.open_file(content) as reader:
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


def _rows_at_once(source: Any) -> int:
    """The rows of a Parquet file that are read at a time: `ROWS`, or fewer that fill a block."""
    about = source.metadata
    n_bytes = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    return max(1, min(ROWS, BLOCK * about.num_rows // max(1, n_bytes)))
