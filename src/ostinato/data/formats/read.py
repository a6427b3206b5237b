"""`read`: sequences and labels from a user's file."""

from __future__ import annotations

import io
import logging
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ostinato.data.formats.content import check_unpacked, read_content, unpacked
from ostinato.data.formats.ts import parse_ts
from ostinato.data.sequences.as_sequences import Sequences, shape_sequences
from ostinato.data.sequences.ragged import Ragged

_log = logging.getLogger(__name__)


def read(path: str | os.PathLike[str]) -> tuple[Sequences, np.ndarray | None]:
    """Read sequences and labels from a .npz or .ts file; `read_examples` reads tables.

    The name's ending decides how:

    `.npz`: NumPy arrays, by name: `X` of shape `[N, T, F]` (or `[N, T]` for one feature), or
    `values` `[ΣT, F]` and `offsets` `[N + 1]` as in `Ragged`; `y` `[N]` if there are labels.
    Other arrays are ignored, with a warning in the log.

    `.ts`, `.ts.gz`: the text format of the UEA & UCR time series archive (see
    `ostinato.data.formats.ts`), with class labels as strings or regression targets as float64.

    Args:
        path: the file.

    Returns:
        `(X, y)`: X `[N, T, F]` float32, or a `Ragged` where lengths differ; y `[N]`, or None.
        Missing values are NaN, which `as_sequences` (and so every model) refuses by name.

    Raises:
        ValueError: the file (and the line, in text), what was found there and what was wanted.
        FileNotFoundError: there is no such file.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> from ostinato.data import read
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "mine.npz")
        ...     np.savez(path, X=np.zeros((4, 9, 2)), y=np.array(["a", "b", "a", "b"]))
        ...     X, y = read(path)
        >>> X.shape, X.dtype, y
        ((4, 9, 2), dtype('float32'), array(['a', 'b', 'a', 'b'], dtype='<U1'))
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".ts.gz"):
        return parse_ts(io.BytesIO(read_content(path)), str(path))
    readers = {".npz": _read_npz, ".ts": parse_ts}
    for ending, reader in readers.items():
        if name.endswith(ending):
            with path.open("rb") as file:
                return reader(file, str(path))
    raise ValueError(f"{path}: unknown kind of file; wanted the ending .npz, .ts or .ts.gz")


def read_stream(content: bytes, name: str) -> tuple[Sequences, np.ndarray | None]:
    """Read the content of a file without a name, as `read` does; its first bytes give the format.

    Args:
        content: of an `.npz`, `.ts` or `.ts.gz` file.
        name: its name in errors.

    Example:
        >>> content = b"@classLabel true up down\\n@data\\n1,2,3:up\\n3,2,1:down\\n"
        >>> X, y = read_stream(content, "standard input")
        >>> X.shape, y.tolist()
        ((2, 3, 1), ['up', 'down'])
    """
    if content.startswith(b"PK"):
        return _read_npz(io.BytesIO(content), name)
    return parse_ts(io.BytesIO(unpacked(content, name)), name)


def _read_npz(file: BinaryIO, name: str) -> tuple[Sequences, np.ndarray | None]:
    return read_npz(file, name)[:2]


def read_npz(
    file: BinaryIO, name: str, further: Collection[str] = ()
) -> tuple[Sequences, np.ndarray | None, dict[str, np.ndarray]]:
    """X, y and further arrays of an `.npz` file, by their names.

    Raises:
        ValueError: as `read`, or a further array is missing, or has not one value per example.
    """
    arrays = _load_arrays(file, name, further)
    try:
        if "X" in arrays:
            X = shape_sequences(arrays["X"])
        elif {"values", "offsets"} <= arrays.keys():
            X = Ragged(arrays["values"], arrays["offsets"])
        else:
            raise ValueError(
                f"found the arrays {', '.join(arrays) or 'none'}; wanted X [N, T, F] or [N, T], "
                "or values and offsets, and y if there are labels"
            )
    except ValueError as problem:
        raise ValueError(f"{name}: {problem}") from None
    y = arrays.get("y")
    if y is not None and (y.ndim == 0 or len(y) != len(X)):
        found = f"{len(y)} entries" if y.ndim else "a single value"
        raise ValueError(f"{name}: X has {len(X)} examples and y has {found}; wanted as many")
    used = {"X", "y", *further} if "X" in arrays else {"values", "offsets", "y", *further}
    if ignored := [key for key in arrays if key not in used]:
        _log.warning("%s: ignored the arrays %s", name, ", ".join(ignored))
    return X, y, {key: _one_each(arrays.get(key), key, len(X), name, arrays) for key in further}


def _one_each(
    array: np.ndarray | None, key: str, n: int, name: str, arrays: Collection[str]
) -> np.ndarray:
    if array is None:
        raise ValueError(f"{name}: there is no array {key!r}; the arrays are {', '.join(arrays)}")
    if array.shape != (n,):
        raise ValueError(
            f"{name}: {key} has shape {list(array.shape)}; wanted [{n}], a value for each example"
        )
    return array


def _load_arrays(
    file: BinaryIO, name: str, further: Collection[str]
) -> dict[str, np.ndarray | None]:
    """The arrays in the file; None for those that `read` does not use."""
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{name}: not an .npz archive; wanted a file made by numpy.savez")
    wanted = {*_ARRAYS, *further}
    unpacked_size = _declared(file, name, wanted)
    check_unpacked(unpacked_size, file.seek(0, os.SEEK_END), name, ".npz")
    file.seek(0)
    key = ""
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays: dict[str, Any] = dict.fromkeys(archive.files)
            for key in arrays.keys() & wanted:
                arrays[key] = archive[key]
            return arrays
    except Exception as problem:  # a damaged archive can raise nearly anything
        if str(problem).startswith("Object arrays"):
            raise ValueError(
                f"{name}: {key} is an array of Python objects, which is not read, since reading it "
                f"could run code; {_ARRAYS.get(key, _ARRAYS['y'].replace('y', key))}"
            ) from None
        raise ValueError(f"{name}: cannot be read as .npz ({problem})") from problem


def _declared(file: BinaryIO, name: str, wanted: Collection[str]) -> int:
    """The unpacked bytes of these arrays; zipfile reads no more than the archive declares."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except Exception as problem:  # a damaged archive can raise nearly anything
        raise ValueError(f"{name}: cannot be read as .npz ({problem})") from problem
    return sum(e.file_size for e in entries if e.filename.removesuffix(".npy") in wanted)


# The arrays that a file may have, and what to do instead of saving one as objects.
_ARRAYS = {
    "X": "save sequences of different lengths as values=numpy.concatenate(X) and "
    "offsets=numpy.cumsum([0, *map(len, X)])",
    "values": "save it as numbers: values.astype(float)",
    "offsets": "save it as integers: offsets.astype(int)",
    "y": "save it as strings or integers: y.astype(str)",
}
