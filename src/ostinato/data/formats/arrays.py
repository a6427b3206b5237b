"""Examples from files that hold arrays: `.npz`, `.npy`, `.ts` and IDX."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from ostinato.data.formats.content import GZIP
from ostinato.data.formats.idx import read_idx
from ostinato.data.formats.read import read_npz
from ostinato.data.formats.ts import parse_ts
from ostinato.data.sequences.as_sequences import Sequences, shape_sequences
from ostinato.data.sequences.examples import Examples
from ostinato.data.sequences.ragged import Ragged
from ostinato.data.tables.roles import Roles
from ostinato.data.tables.shapes import part_names

ENDINGS = (".npz", ".npy", ".ts", ".idx")
_OF_STEPS = ("shape", "time", "features", "target", "static", "known", "categories")
_OF_SEQUENCES = ("id", "group", "split")  # arrays of an .npz file may have these roles


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
    named: dict[str, np.ndarray] = {}
    if kind == ".npy":
        X, y = _npy(content, source), None
    elif kind == ".idx":
        X, y = _idx(content, source)
    elif kind == ".ts":
        X, y = parse_ts(io.BytesIO(content), source)
    else:
        further = {role: getattr(roles, role) for role in _OF_SEQUENCES if getattr(roles, role)}
        X, y, found = read_npz(io.BytesIO(content), source, further.values())
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


def _npy(content: bytes, source: str) -> Sequences:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
        return shape_sequences(array)
    except Exception as problem:  # a damaged file can raise nearly anything
        hint = ""
        if str(problem).startswith("Object arrays"):
            hint = "; wanted numbers: X.astype(float)"
        raise ValueError(f"{source}: cannot be read as .npy ({problem}){hint}") from None


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
