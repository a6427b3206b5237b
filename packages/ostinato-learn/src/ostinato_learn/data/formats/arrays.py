"""Sequences, labels and examples from files that hold arrays: `.npz`, `.npy`, `.ts` and IDX."""

from __future__ import annotations

import io
import logging
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ostinato_learn.data.formats.content import (
    GZIP,
    check_unpacked,
    ending,
    is_packed,
    read_content,
)
from ostinato_learn.data.formats.idx import read_idx
from ostinato_learn.data.formats.ts import parse_ts
from ostinato_learn.data.sequences.as_sequences import Sequences, shape_sequences
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.tables.roles import Roles
from ostinato_learn.data.tables.shapes import part_names

_log = logging.getLogger(__name__)

ENDINGS = (".npz", ".npy", ".ts", ".idx")
_OF_STEPS = ("shape", "time", "features", "target", "static", "known", "categories")
_OF_SEQUENCES = ("id", "group", "split")  # arrays of an .npz file may have these roles


def read(path: str | os.PathLike[str]) -> tuple[Sequences, np.ndarray | None]:
    """Read sequences and labels from a file of arrays; `read_examples` reads tables.

    The name's ending decides how; .gz may follow it.

    `.npz`: NumPy arrays, by name: `X` of shape `[N, T, F]` (or `[N, T]` for one feature), or
    `values` `[ΣT, F]` and `offsets` `[N + 1]` as in `Ragged`; `y` `[N]` if there are labels.
    Other arrays are ignored, with a warning in the log.

    `.npy`: X alone.

    `.ts`: the text format of the UEA & UCR time series archive (see `formats/ts.py`),
    with class labels as strings or regression targets as float64.

    IDX, as `train-images-idx3-ubyte`: X, with its labels in `train-labels-idx1-ubyte` beside it.

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
        >>> from ostinato_learn.data import read
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "mine.npz")
        ...     np.savez(path, X=np.zeros((4, 9, 2)), y=np.array(["a", "b", "a", "b"]))
        ...     X, y = read(path)
        >>> X.shape, X.dtype, y
        ((4, 9, 2), dtype('float32'), array(['a', 'b', 'a', 'b'], dtype='<U1'))
    """
    path = Path(path)
    kind = ending(path)
    if kind not in ENDINGS:
        raise ValueError(
            f"{path}: unknown kind of file; wanted the ending {', '.join(ENDINGS[:3])}, or IDX"
        )
    if is_packed(path):
        return parse_sequences(io.BytesIO(read_content(path)), kind, str(path))[:2]
    with path.open("rb") as file:
        return parse_sequences(file, kind, str(path))[:2]


def parse_sequences(
    file: BinaryIO, kind: str, source: str, further: Collection[str] = ()
) -> tuple[Sequences, np.ndarray | None, dict[str, np.ndarray]]:
    """X, y, and further arrays of an `.npz` file by their names; see `read`.

    Raises:
        ValueError: as `read`, or a further array is missing, or has not one value per example.
    """
    if kind == ".npy":
        return _npy(file, source), None, {}
    if kind == ".idx":
        return *_idx(file.read(), source), {}
    if kind == ".ts":
        return *parse_ts(file, source), {}
    return _npz(file, source, further)


def parse_arrays(content: bytes, kind: str, source: str, roles: Roles) -> Examples:
    """The examples of a file that says itself what is X and what is y.

    Args:
        content: of the file.
        kind: ".npz", ".npy", ".ts" or ".idx".
        source: its name, for messages; the labels of an IDX file lie beside it.
        roles: the task; of an .npz file, the names of further arrays `[N]` for id, group and
            split.

    To forecast, y `[N, T]` is the series; without a y, X is, of one feature.

    Raises:
        ValueError: the file is damaged; a role of a column is given; y does not fit the task.
    """
    for role in (*_OF_STEPS, *(() if kind == ".npz" else _OF_SEQUENCES)):
        if getattr(roles, role):
            raise ValueError(
                f"{source}: {role} names a column, and a file of arrays has none; its arrays are X "
                "and y; for named columns write a table (CSV, Parquet)"
            )
    if content.startswith(GZIP):
        raise ValueError(f"{source}: the file is gzip; wanted a name that ends with .gz")
    further = {role: getattr(roles, role) for role in _OF_SEQUENCES if getattr(roles, role)}
    X, y, found = parse_sequences(io.BytesIO(content), kind, source, further.values())
    named = {role: found[name] for role, name in further.items()}
    _check_content(X, source)
    y = _answers(X, y, roles, source)
    if roles.task == "forecast":
        X = Ragged(_values(X)[:, :0], _offsets(X))
    features = tuple(f"feature {i}" for i in range(_values(X).shape[1]))
    parts = named.get("split")
    return Examples(
        X=X,
        y=y,
        features=features,
        ids=_unique(named.get("id"), source),
        groups=named.get("group"),
        parts=None if parts is None else part_names(parts, lambda i: f"{source}: example {i}"),
        roles=roles,
        source=source,
    )


def _unique(ids: np.ndarray | None, source: str) -> Any:
    if ids is not None:
        names, first, counts = np.unique(ids, return_index=True, return_counts=True)
        if (counts > 1).any():
            i = int(np.argmax(counts > 1))
            raise ValueError(
                f"{source}: the id {names[i].item()!r} is that of {counts[i]} examples, first of "
                f"example {first[i]}; wanted each once"
            )
    return ids


def _npy(file: BinaryIO, source: str) -> Sequences:
    try:
        return shape_sequences(np.load(file, allow_pickle=False))
    except Exception as problem:  # a damaged file can raise nearly anything
        hint = ""
        if str(problem).startswith("Object arrays"):
            hint = "; wanted numbers: X.astype(float)"
        raise ValueError(f"{source}: cannot be read as .npy ({problem}){hint}") from None


def _npz(
    file: BinaryIO, name: str, further: Collection[str]
) -> tuple[Sequences, np.ndarray | None, dict[str, np.ndarray]]:
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


def _idx(content: bytes, source: str) -> tuple[Sequences, np.ndarray | None]:
    """Sequences, and labels if there is a file of them beside it: images-idx3 and labels-idx1.

    The values of a step beyond the second axis are its features, end to end.
    """
    try:
        values = read_idx(content)
    except ValueError as problem:
        raise ValueError(str(problem).replace("IDX data", source)) from None
    if values.ndim < 2:
        raise ValueError(
            f"{source}: {values.ndim} axes; wanted [N, T, F] or [N, T]: sequences, of which the "
            "labels are found beside them"
        )
    if values.ndim > 3:
        values = values.reshape(*values.shape[:2], -1)
    X = shape_sequences(values)
    path = Path(source)
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if beside == path or not beside.is_file():
        return X, None
    y = read_idx(beside)
    if y.shape != (len(X),):
        raise ValueError(
            f"{beside}: labels of shape {list(y.shape)}; wanted [{len(X)}], one for each sequence "
            f"of {source}"
        )
    return X, y


def _check_content(X: Sequences, source: str) -> None:
    values = _values(X)
    empty = np.flatnonzero(np.diff(_offsets(X)) == 0)
    if len(X) == 0 or len(empty):
        what = f"example {empty[0]} of X has no steps" if len(X) else "X has no examples"
        raise ValueError(f"{source}: {what}; wanted at least one")
    infinite = np.isinf(values)
    if infinite.any():
        row, feature = np.argwhere(infinite)[0].tolist()
        place = Ragged(values, _offsets(X)).place(row, feature)
        raise ValueError(
            f"{source}: X is infinite at {place}; wanted finite numbers, or NaN where "
            "one is missing"
        )


def _answers(X: Sequences, y: np.ndarray | None, roles: Roles, source: str) -> Any:
    """y as the task wants it."""
    if roles.task == "forecast":
        series = _values(X) if y is None else y
        if y is None and series.shape[1] != 1:
            raise ValueError(
                f"{source}: X has {series.shape[1]} features; wanted one, the series, or y [N, T]"
            )
        return np.split(_per_step(X, series, source).astype(np.float64), _offsets(X)[1:-1])
    if roles.task == "tag":
        if y is None:
            raise ValueError(f"{source}: there is no y; wanted a label for each step, [N, T]")
        return np.split(_per_step(X, y, source), _offsets(X)[1:-1])
    return y


def _per_step(X: Sequences, y: np.ndarray, source: str) -> np.ndarray:
    """`[ΣT]`."""
    n = len(_values(X))
    if y.size != n:
        raise ValueError(
            f"{source}: y has shape {list(y.shape)}; wanted a value for each of the {n} steps of X"
        )
    return y.reshape(-1)


def _values(X: Sequences) -> np.ndarray:
    return X.values if isinstance(X, Ragged) else X.reshape(-1, X.shape[2])


def _offsets(X: Sequences) -> np.ndarray:
    if isinstance(X, Ragged):
        return X.offsets
    return np.arange(len(X) + 1) * X.shape[1]
