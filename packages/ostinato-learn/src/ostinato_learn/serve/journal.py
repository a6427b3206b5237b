"""The journal of open sequences: every step is in a file before it is answered.

    DIR/lock              held by the one server that uses the directory
    DIR/NAME/000007.kept  a snapshot: every sequence as it was when journal 7 began
    DIR/NAME/000007.log   the journal: all changes since then, appended record by record

A record is its length, its CRC-32, the CRC-32 of these two, a line of JSON [kind, key, …] and
bytes. A record holds rows and no states: the engine gives the same bits for the same rows, and a
server that starts runs them again. A snapshot has the states of all sequences. It is written beside
the next journal; older files are deleted when it is complete.

A process that is killed leaves at most one incomplete record, at the end, of a request that was not
answered. The next start removes it. A complete record that differs from its CRC is damaged, and the
journal is refused.

A record survives the end of the process at once, and a failure of the machine after a second
(`flush`).
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ostinato_learn import files

_HEAD = struct.Struct("<III")
MAGIC = "ostinato serve 1"
MAX_LOG = 64 << 20  # bytes, after which a snapshot is due: a start replays them in some seconds


class Record(NamedTuple):
    """One change: [kind, key, …] and bytes. `sequences.py` defines the kinds."""

    head: list[Any]
    content: bytes = b""


def packed(record: Record) -> bytes:
    """A record as bytes."""
    payload = json.dumps(record.head).encode() + b"\n" + record.content
    return _head(len(payload), zlib.crc32(payload)) + payload


def _head(size: int, crc: int) -> bytes:
    return _HEAD.pack(size, crc, zlib.crc32(struct.pack("<II", size, crc)))


def unpacked(content: bytes, where: str) -> tuple[list[Record], int]:
    """The records of a file, and the offset at which the last complete one ends.

    Raises:
        ValueError: a record is damaged.
    """
    found, at = [], 0
    while at + _HEAD.size <= len(content):
        size, crc, _ = _HEAD.unpack_from(content, at)
        whole = content[at : at + _HEAD.size] == _head(size, crc)
        end = at + _HEAD.size + size
        if whole and end > len(content):
            break
        payload = content[at + _HEAD.size : end]
        if not whole or zlib.crc32(payload) != crc:
            raise ValueError(
                f"{where} is damaged at byte {at:,}: take the directory of --state from a copy, or "
                "another directory to begin anew"
            )
        head, _, rest = payload.partition(b"\n")
        found.append(Record(json.loads(head), rest))
        at = end
    return found, at


class Journal:
    """The files of one model in a directory; errors of the disk are OSError.

    Args:
        directory: the directory of the files; it is created if it does not exist.
        fingerprint: that of the model; a journal of another model is refused.

    Raises:
        ValueError: a file is damaged, or of another model or version.
    """

    def __init__(self, directory: Path, fingerprint: str):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.fingerprint = directory, fingerprint
        self._numbers = {suffix: _numbers(directory, suffix) for suffix in ("kept", "log")}
        self._number = max([0, *self._numbers["kept"], *self._numbers["log"]])
        self._handle = -1
        self.size = 0

    def records(self) -> Iterator[Record]:
        """The stored records, in order; afterwards the journal is ready to be appended to."""
        snapshot = max(self._numbers["kept"], default=0)
        if snapshot:
            yield from self._read("kept", snapshot)[0]
        for number in sorted(n for n in self._numbers["log"] if n >= snapshot):
            found, end = self._read("log", number)
            path = self._path("log", number)
            if number == self._number:
                os.truncate(path, end)
            elif end != path.stat().st_size:
                raise ValueError(f"{path} is damaged: it ends within a record, and others follow")
            yield from found
        self._delete_before(snapshot)
        self._open(self._number)

    def _read(self, suffix: str, number: int) -> tuple[list[Record], int]:
        path = self._path(suffix, number)
        found, end = unpacked(path.read_bytes(), str(path))
        if found and found[0].head != [MAGIC, self.fingerprint]:
            raise ValueError(
                f"{path} is of another model or version, {found[0].head!r:.90}; this model's "
                f"fingerprint is {self.fingerprint[:12]}…. Serve the model that it was written by, "
                "or give another --state"
            )
        return found[1:], end

    def append(self, records: Iterable[Record]) -> int:
        """Write records, all or none, and return the size before.

        Raises:
            OSError: the disk is full, or fails otherwise; the journal is unchanged.
        """
        content, before = b"".join(map(packed, records)), self.size
        try:
            written = 0
            while written < len(content):
                written += os.write(self._handle, content[written:])
        except OSError:
            os.ftruncate(self._handle, before)
            raise
        self.size += len(content)
        return before

    def cut(self, size: int) -> None:
        """Remove the records that were appended since the journal had a size."""
        os.ftruncate(self._handle, size)
        self.size = size

    def flush(self) -> None:
        """Force the written records to the disk. May be called from another thread."""
        os.fsync(self._handle)

    def next(self) -> int:
        """Begin another journal, whose number a snapshot of this moment has.

        Raises:
            OSError: the new journal cannot be written; the old one remains in use.
        """
        before = self._handle
        self._open(self._number + 1)
        self._number += 1
        os.close(before)
        return self._number

    def keep(self, number: int, records: Iterable[Record]) -> None:
        """Write the snapshot of the moment when a journal began, and delete the files it replaces.

        May be called from another thread.

        Raises:
            OSError: the snapshot cannot be written; the older files still exist.
        """
        head = Record([MAGIC, self.fingerprint])
        files.write_pieces(self._path("kept", number), map(packed, (head, *records)))
        self._delete_before(number)

    def close(self) -> None:
        """Close the file; nothing can be appended any more."""
        if self._handle >= 0:
            os.fsync(self._handle)
            os.close(self._handle)
            self._handle = -1

    def _open(self, number: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        handle = os.open(self._path("log", number), flags, 0o600)
        before = self._handle, self.size
        self._handle, self.size = handle, os.fstat(handle).st_size
        if self.size == 0:
            try:
                self.append([Record([MAGIC, self.fingerprint])])
            except OSError:
                os.close(handle)
                self._handle, self.size = before
                raise

    def _path(self, suffix: str, number: int) -> Path:
        return self.directory / f"{number:06}.{suffix}"

    def _delete_before(self, number: int) -> None:
        for suffix in ("kept", "log"):
            for n in _numbers(self.directory, suffix):
                if n < number:
                    self._path(suffix, n).unlink(missing_ok=True)


def _numbers(directory: Path, suffix: str) -> list[int]:
    names = (path.stem for path in directory.glob(f"*.{suffix}"))
    return [int(name) for name in names if name.isdigit()]
