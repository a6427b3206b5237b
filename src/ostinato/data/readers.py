"""`read`: sequences and labels from a user's file."""

from __future__ import annotations

import gzip
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ostinato.data.ragged import Ragged
from ostinato.data.sequences import Sequences, shape_sequences
from ostinato.data.ts import parse_ts


def read(path: str | os.PathLike[str]) -> tuple[Sequences, np.ndarray | None]:
    """Read sequences, and their labels if the file has any.

    The name's ending decides how:

    `.npz`: NumPy arrays, by name: `X` of shape `[N, T, F]` (or `[N, T]` for one feature), or
    `values` `[ΣT, F]` and `offsets` `[N + 1]` as in `Ragged`; `y` `[N]` if there are labels.

    `.ts`, `.ts.gz`: the text format of the UEA & UCR time series archive (see
    `ostinato.data.ts`), with class labels as strings or regression targets as float64.

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
    if name.endswith(".npz"):
        return _read_npz(path)
    if name.endswith((".ts", ".ts.gz")):
        return _read_ts(path)
    raise ValueError(f"{path}: unknown kind of file; wanted the ending .npz, .ts or .ts.gz")


def _read_ts(path: Path) -> tuple[Sequences, np.ndarray | None]:
    if path.suffix.lower() == ".ts":
        with path.open("rb") as lines:
            return parse_ts(lines, str(path))
    try:
        with gzip.open(path, "rb") as lines:
            return parse_ts(lines, str(path))
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise ValueError(f"{path}: not a whole gzip file ({problem})") from None


def _read_npz(path: Path) -> tuple[Sequences, np.ndarray | None]:
    arrays, names = _load_arrays(path)
    try:
        if "X" in arrays:
            X = shape_sequences(arrays["X"])
        elif {"values", "offsets"} <= arrays.keys():
            X = Ragged(arrays["values"], arrays["offsets"])
        else:
            raise ValueError(
                f"found the arrays {', '.join(names) or 'none'}; wanted X [N, T, F] or [N, T], "
                "or values and offsets, and y if there are labels"
            )
    except ValueError as problem:
        raise ValueError(f"{path}: {problem}") from None
    y = arrays.get("y")
    if y is not None and (y.ndim == 0 or len(y) != len(X)):
        found = f"{len(y)} entries" if y.ndim else "a single value"
        raise ValueError(f"{path}: X has {len(X)} examples and y has {found}; wanted as many")
    return X, y


def _load_arrays(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays that `read` knows, and the names of all that are in the file."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: not an .npz archive; wanted a file made by numpy.savez")
        file.seek(0)
        known = ("X", "values", "offsets", "y")
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files if name in known}
                return arrays, archive.files
        except Exception as problem:  # a damaged archive can raise nearly anything
            raise ValueError(f"{path}: cannot be read as .npz ({problem})") from problem
