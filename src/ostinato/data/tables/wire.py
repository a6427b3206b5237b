"""Values as bytes for another process: JSON, followed by NumPy's arrays.

Unlike a pickle the bytes hold no code: the reader names the dataclasses that may be made.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def written(value: Any) -> bytes:
    """A value of plain Python values, arrays, lists, tuples, dictionaries and dataclasses.

    Raises:
        TypeError: the value contains a value of another type.

    Example:
        >>> read(written({"x": (np.arange(3), None)}))
        {'x': (array([0, 1, 2]), None)}
    """
    arrays: list[np.ndarray] = []
    text = np.frombuffer(json.dumps(_parted(value, arrays)).encode(), np.uint8)
    content = io.BytesIO()
    np.savez(content, text, *arrays)
    return content.getvalue()


def read(content: bytes, known: Iterable[type] = ()) -> Any:
    """The value that `written` got; it may contain only dataclasses that are `known`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        text, *arrays = [archive[f"arr_{i}"] for i in range(len(archive.files))]
    return _whole(json.loads(text.tobytes()), arrays, {kind.__name__: kind for kind in known})


def _parted(value: Any, arrays: list[np.ndarray]) -> Any:
    """The value for JSON: a plain value, or a list of the name of the type and of its parts."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.dtype):
        return ["dtype", value.str]
    if isinstance(value, np.generic):
        return ["scalar", _parted(np.asarray(value), arrays)]
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return ["objects", [_parted(each, arrays) for each in value.tolist()]]
        arrays.append(value)
        return ["array", len(arrays) - 1]
    if isinstance(value, Mapping):
        return ["dict", [[_parted(k, arrays), _parted(v, arrays)] for k, v in value.items()]]
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return [kind, [_parted(each, arrays) for each in value]]
    if is_dataclass(value):
        held = [[f.name, _parted(getattr(value, f.name), arrays)] for f in fields(value)]
        return ["class", type(value).__name__, held]
    raise TypeError(f"{type(value).__name__} cannot be given to another process")


def _whole(parts: Any, arrays: list[np.ndarray], known: Mapping[str, type]) -> Any:
    if not isinstance(parts, list):
        return parts
    kind, of = parts[:2]
    if kind == "dtype":
        return np.dtype(of)
    if kind == "array":
        return arrays[of]
    if kind == "scalar":
        return _whole(of, arrays, known)[()]
    if kind == "dict":
        return {_whole(k, arrays, known): _whole(v, arrays, known) for k, v in of}
    if kind == "class":
        made: Any = object.__new__(known[of])
        for name, value in parts[2]:
            object.__setattr__(made, name, _whole(value, arrays, known))
        return made
    values = [_whole(each, arrays, known) for each in of]
    if kind == "objects":
        array = np.empty(len(values), object)
        array[:] = values
        return array
    return tuple(values) if kind == "tuple" else values
