"""Tensors in a file of the safetensors format, as NumPy arrays that share its memory.

    8 bytes    n, the length of the header, little-endian
    n bytes    a JSON object: name → {"dtype", "shape", "data_offsets"}; offsets
               count from the end of the header
    the rest   the tensors, without gaps

The package safetensors copies every tensor. This reader copies none, and checks everything.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from ostinato_learn.runtime.values import Array, entries, fail, items, whole

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
MAX_HEADER = 1 << 24
MAX_AXES = 8


def unpack(content: bytes, where: str) -> dict[str, Array]:
    """The tensors, as views of `content`; `where` names it in errors.

    Raises:
        ValueError: it is incomplete, or has another format.
    """
    found = {}
    for name, dtype, shape, first in _places(io.BytesIO(content), len(content), where):
        array = np.frombuffer(content, dtype, math.prod(shape), first).reshape(shape)
        if not array.flags.aligned:
            fail(f"{where}: {name[:60]!r} is not aligned in memory")
        found[name] = array
    return found


def read_file(path: Path, where: str) -> bytes:
    """The content of a file, which is read only if it has the size stated in its header.

    Raises:
        ValueError: it has another size, or another format.
    """
    with path.open("rb") as file:
        for _ in _places(file, os.fstat(file.fileno()).st_size, where):
            pass
        file.seek(0)
        return file.read()


def _places(
    file: IO[bytes], size: int, where: str
) -> Iterator[tuple[str, np.dtype[Any], list[int], int]]:
    """The name, type, shape and first byte of each tensor in a file of `size` bytes."""
    start = file.read(8)
    if len(start) < 8:
        fail(f"{where} has {len(start)} bytes; wanted a safetensors file")
    n = int.from_bytes(start, "little")
    if n > min(MAX_HEADER, size - 8):
        fail(f"{where} is cut short, or its header of {n} bytes is too long")
    header = read_json(file.read(n), f"{where}: its header")
    if not isinstance(header, dict):
        fail(f"{where}: its header is not a JSON object")
    header.pop("__metadata__", None)
    begin = 8 + n
    for name, value in sorted(header.items(), key=lambda item: _bounds(item[1])):
        dtype, shape, end = _place(value, begin, f"{where}: {name[:60]!r}", 8 + n)
        if end > size:
            fail(f"{where} is cut short: {name[:60]!r} ends {end - size} bytes beyond it")
        yield name, dtype, shape, begin
        begin = end
    if begin != size:
        fail(f"{where} has {size - begin} bytes beyond its tensors")


def pack(tensors: Mapping[str, Array]) -> bytes:
    """Arrays as a file of the format."""
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    header, pieces, at = {}, [], 0
    for name, array in tensors.items():
        piece = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [at, at + len(piece)],
        }
        pieces.append(piece)
        at += len(piece)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    return b"".join([len(text).to_bytes(8, "little"), text, *pieces])


def read_json(content: bytes, where: str) -> Any:
    """A JSON value.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # RecursionError: lists in lists in lists …
        fail(f"{where} is not JSON ({str(error)[:80]})")


def _bounds(value: Any) -> list[int]:
    """The first byte of a tensor and its end; none where the header is damaged, which `_place`
    finds."""
    offsets = value.get("data_offsets") if isinstance(value, dict) else None
    return offsets if isinstance(offsets, list) and all(type(n) is int for n in offsets) else []


def _place(value: Any, begin: int, where: str, start: int) -> tuple[Any, list[int], int]:
    """Type, shape and end of the tensor that begins there."""
    value = entries(value, where, {"dtype", "shape", "data_offsets"})
    if not isinstance(value["dtype"], str) or value["dtype"] not in DTYPES:
        fail(f"{where} is of type {str(value['dtype'])[:60]!r}; wanted one of {', '.join(DTYPES)}")
    dtype = np.dtype(DTYPES[value["dtype"]])
    shape = [
        whole(n, f"{where}: shape", 0, 1 << 40)
        for n in items(value["shape"], f"{where}: shape", MAX_AXES)
    ]
    end = begin + math.prod(shape) * dtype.itemsize
    came, wanted = value["data_offsets"], [begin - start, end - start]
    if came != wanted:
        fail(f"{where} lies at {str(came)[:60]}; wanted {wanted}")
    return dtype, shape, end
