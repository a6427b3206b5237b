"""The IDX file format, in which MNIST comes.

A header, then the values, big-endian, the last axis fastest. The header: two zero bytes; a byte
for the type of the values (`TYPES`); a byte for the number of axes; four bytes, big-endian, for
the size of each axis.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from ostinato.data.formats.content import check_unpacked

TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
MAX_AXES = 32  # the most that every supported NumPy can hold
CHUNK = 1 << 20  # bytes read at a time: a header may promise more than exists

_Source: TypeAlias = "IO[bytes] | gzip.GzipFile"


def read_idx(source: str | os.PathLike[str] | bytes) -> np.ndarray:
    """Read an IDX file, plain or compressed with gzip.

    Args:
        source: the file's path, or its content as bytes.

    Returns:
        The array, in the machine's byte order; a copy.

    Raises:
        ValueError: the file is not an IDX file, ends early (the message gives the bytes wanted and
            found), or goes on after its last value.
        FileNotFoundError: there is no such file.

    Example:
        >>> from ostinato.datasets import read_idx
        >>> read_idx(bytes([0, 0, 8, 2,  0, 0, 0, 2,  0, 0, 0, 3,  1, 2, 3, 4, 5, 6]))
        array([[1, 2, 3],
               [4, 5, 6]], dtype=uint8)
    """
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), "IDX data")
    with Path(source).open("rb") as file:
        return _read(file, str(source))


def _read(file: IO[bytes], name: str) -> np.ndarray:
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not zipped:
        return _read_plain(file, name)
    packed_size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        with gzip.GzipFile(fileobj=file) as plain:
            return _read_plain(plain, name, packed_size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise ValueError(f"{name}: not a whole gzip file ({problem})") from None


def _read_plain(file: _Source, name: str, packed_size: int | None = None) -> np.ndarray:
    """The array; `packed_size` is that of a file packed with gzip."""
    dtype, shape = _read_header(file, name)
    wanted = math.prod(shape) * dtype.itemsize
    described = f"{'×'.join(map(str, shape)) or '1'} values of {dtype.itemsize} bytes"
    data = bytearray()
    for chunk in _read_at_most(file, wanted):
        data += chunk
        if packed_size is not None:
            check_unpacked(len(data), packed_size, name, "gzip")
    if len(data) < wanted:
        raise ValueError(
            f"{name}: the file is truncated: wanted {wanted} bytes after the header "
            f"({described}), found {len(data)}"
        )
    if file.read(1):
        raise ValueError(
            f"{name}: the file is oversized: wanted {wanted} bytes after the header "
            f"({described}), found more"
        )
    try:
        array = np.frombuffer(data, dtype).reshape(shape)
    except ValueError as problem:  # no values, since one axis is empty, but the others too large
        raise ValueError(f"{name}: NumPy cannot hold the shape {described}: {problem}") from None
    return array.astype(dtype.newbyteorder("="))


def _read_header(file: _Source, name: str) -> tuple[np.dtype, tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4:
        raise ValueError(
            f"{name}: the file is truncated: wanted 4 bytes of magic number, found {len(magic)}"
        )
    if magic[:2] != b"\0\0" or magic[2] not in TYPES:
        types = ", ".join(f"{code:02x}" for code in TYPES)
        raise ValueError(
            f"{name}: not an IDX file: it begins with the bytes {magic.hex(' ')}; "
            f"wanted 00 00, a type ({types}) and the number of axes"
        )
    n_axes = magic[3]
    if n_axes > MAX_AXES:
        raise ValueError(f"{name}: the header promises {n_axes} axes; wanted at most {MAX_AXES}")
    sizes = file.read(4 * n_axes)
    if len(sizes) < 4 * n_axes:
        raise ValueError(
            f"{name}: the file is truncated: wanted {4 * n_axes} bytes of axis sizes, "
            f"found {len(sizes)}"
        )
    return TYPES[magic[2]], tuple(np.frombuffer(sizes, ">u4").tolist())


def _read_at_most(file: _Source, wanted: int) -> Iterator[bytes]:
    while wanted and (chunk := file.read(min(CHUNK, wanted))):
        wanted -= len(chunk)
        yield chunk
