"""The input of `ostinato stream`: its description, and its bytes as they come."""

from __future__ import annotations

import hashlib
import os
import select
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ostinato_learn.data.formats.dialect import Dialect

BLOCK = 1 << 16  # bytes that are read at once: some thousand rows
HEAD = 4096  # bytes at the beginning of a file, whose digest identifies it


@dataclass(frozen=True)
class InputFormat:
    """The description of the input.

    Attributes:
        name: the name of the file, or "-".
        key: the column of the key, or None.
        names: the names of the columns; None: they are in the first line.
        dialect: the dialect of CSV.
    """

    name: str
    key: str | None
    names: list[str] | None
    dialect: Dialect

    @property
    def shown(self) -> str:
        return "standard input" if self.name == "-" else self.name


class Input:
    """Bytes from a file, a pipe or a terminal."""

    def __init__(self, handle: int):
        self.handle = handle
        self.is_file = stat.S_ISREG(os.fstat(handle).st_mode)

    def pieces(self, deadline: Callable[[], float | None]) -> Iterator[bytes]:
        """The next bytes; b"" if none came within the deadline, in seconds from now (None: no
        deadline)."""
        while True:
            if not self.is_file and os.name != "nt":
                ready, _, _ = select.select([self.handle], [], [], deadline())
                if not ready:
                    yield b""
                    continue
            piece = os.read(self.handle, BLOCK)
            if not piece:
                return
            yield piece

    def begins(self, at_most: int) -> tuple[str, int] | None:
        """The identity of a file: SHA-256 and number of its first bytes."""
        if not self.is_file:
            return None
        here = os.lseek(self.handle, 0, os.SEEK_CUR)
        self.go_to(0)
        content = os.read(self.handle, min(at_most, HEAD))
        self.go_to(here)
        return hashlib.sha256(content).hexdigest(), len(content)

    def go_to(self, position: int) -> None:
        os.lseek(self.handle, position, os.SEEK_SET)

    @property
    def size(self) -> int:
        return os.fstat(self.handle).st_size
