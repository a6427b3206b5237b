"""The IDX file format, in which MNIST comes.

A header, then the values, big-endian, the last axis fastest. The header: two zero bytes; a byte
for the type of the values (`TYPES`); a byte for the number of axes; four bytes, big-endian, for
the size of each axis.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from ostinato_learn.data.formats.content import GZIP, unpacked

TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
MAX_AXES = 32  # the most that every supported NumPy can hold


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
        >>> from ostinato_learn.datasets import read_idx
        >>> read_idx(bytes([0, 0, 8, 2,  0, 0, 0, 2,  0, 0, 0, 3,  1, 2, 3, 4, 5, 6]))
        array([[1, 2, 3],
               [4, 5, 6]], dtype=uint8)
    """
    if isinstance(source, bytes):
        content, name = source, "IDX data"
    else:
        content, name = Path(source).read_bytes(), str(source)
    if content.startswith(GZIP):
        content = unpacked(content, name)
    dtype, shape, begin = _header(content, name)
    wanted, found = math.prod(shape) * dtype.itemsize, len(content) - begin
    described = f"{'×'.join(map(str, shape)) or '1'} values of {dtype.itemsize} bytes"
    if found != wanted:
        what = "truncated" if found < wanted else "oversized"
        raise ValueError(
            f"{name}: the file is {what}: wanted {wanted} bytes after the header ({described}), "
            f"found {found}"
        )
    try:
        array = np.frombuffer(content, dtype, offset=begin).reshape(shape)
    except ValueError as problem:  # no values, since one axis is empty, but the others too large
        raise ValueError(f"{name}: NumPy cannot hold the shape {described}: {problem}") from None
    return array.astype(dtype.newbyteorder("="))


def _header(content: bytes, name: str) -> tuple[np.dtype, tuple[int, ...], int]:
    """The type and the shape of the values, and the byte at which they begin."""
    magic = content[:4]
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
    sizes = content[4 : 4 + 4 * n_axes]
    if len(sizes) < 4 * n_axes:
        raise ValueError(
            f"{name}: the file is truncated: wanted {4 * n_axes} bytes of axis sizes, "
            f"found {len(sizes)}"
        )
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    return TYPES[magic[2]], shape, 4 + 4 * n_axes
