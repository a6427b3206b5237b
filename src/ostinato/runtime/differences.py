"""In what two saved models differ, of whatever format, without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ostinato.files import current
from ostinato.runtime.saved import CONFIG, TENSORS, check_hash
from ostinato.runtime.tensors import Array, read_json, unpack
from ostinato.runtime.values import fail

_MODEL = ("format", "kind", "saved_by", "iterations", "without_graph")
_FITTED_OF_OLD = ("classes", "feature_names", "preparation", "multilabel", "vocabulary", "early")
_ABSENT = object()

Parts = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class DifferentValue:
    """A value that differs; None where a model has none."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class DifferentTensor:
    """A tensor that differs.

    Attributes:
        name: in the network.
        a, b: type and shape, as "float32 [8, 3]"; None where a model has no such tensor.
        n: its elements, and `n_different` of them differ in a bit; None if the shapes differ.
        largest: the largest difference, at the element `at`; None if the shapes differ.
    """

    name: str
    a: str | None
    b: str | None
    n: int | None = None
    n_different: int | None = None
    largest: float | None = None
    at: tuple[int, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """For JSON, which has no NaN: an element that is NaN in one of them has no difference."""
        finite = self.largest is not None and np.isfinite(self.largest)
        return asdict(self) | {"largest": self.largest if finite else None}


def read(path: Path) -> tuple[Parts, dict[str, Array]]:
    """What config.json of a saved model says, in parts for people, and the tensors.

    Raises:
        ValueError: a file is missing, damaged or altered.
    """
    place, where = current(path), str(path / CONFIG)
    for name in (CONFIG, TENSORS):
        if not (place / name).is_file():
            raise ValueError(f"{path} has no {name}; wanted the directory of a saved model")
    config = read_json((place / CONFIG).read_bytes(), where)
    if not isinstance(config, dict):
        fail(f"{where} is no JSON object")
    for name in ("net", "params", "fitted", "graph"):
        part, may_lack = config.get(name), name != "net"
        if not isinstance(part, dict) and not (part is None and may_lack):
            fail(f"{where}: {name!r} is {str(part)[:60]}; wanted names and values")
    content = (place / TENSORS).read_bytes()
    if isinstance(config.get("sha256"), dict) and TENSORS in config["sha256"]:
        check_hash(config, TENSORS, content, str(path))
    return _parts(config), unpack(content, str(path / TENSORS))


def _parts(config: Mapping[str, Any]) -> Parts:
    fitted = config.get("fitted")
    if not isinstance(fitted, dict):  # formats 1 and 2
        fitted = {name: config.get(name) for name in _FITTED_OF_OLD}
    classes = fitted.get("classes")
    rest = {k: v for k, v in fitted.items() if k not in ("classes", "preparation")}
    return {
        "model": {name: config.get(name) for name in _MODEL},
        "hyperparameters": flat({**config["net"], **(config.get("params") or {})}),
        "graph": _graph(config.get("graph")),
        "preparation": flat(fitted.get("preparation") or {}),
        "labels": flat(classes) if isinstance(classes, dict) else {},
        "fitted": flat(rest),
    }


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """A JSON value as name → plain value: {"a": {"b": 1}} as {"a.b": 1}; lists of plain values
    stay whole."""
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        pairs = [(f"[{i}]", each) for i, each in enumerate(value)]
    else:
        return {prefix: value} if prefix else {}
    found: dict[str, Any] = {}
    for name, inner in pairs:
        joined = f"{prefix}{'.' if prefix and not name.startswith('[') else ''}{name}"
        found |= flat(inner, joined)
    return found


def _graph(graph: Any) -> dict[str, Any]:
    """The parts of a graph, each by the number of its nodes and a digest."""
    if not isinstance(graph, dict):
        return {}
    found: dict[str, Any] = {"opset": graph.get("opset")}
    stages = graph.get("stages")
    for i, stage in enumerate(stages if isinstance(stages, list) else [stages]):
        name = stage.get("name", stage.get("stage")) if isinstance(stage, dict) else "?"
        found[f"{i}: {name}"] = _digest(stage)
    return found | {n: _digest(graph[n]) for n in ("readout", "head", "ahead") if n in graph}


def _digest(part: Any) -> str:
    text = json.dumps(part, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text.count(chr(34) + 'op' + chr(34))} nodes ({digest})"


def between(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[DifferentValue]:
    """The values by name that are not in both, or not equal."""
    names = list(dict.fromkeys([*a, *b]))
    return [
        DifferentValue(name, a.get(name), b.get(name))
        for name in names
        if a.get(name, _ABSENT) != b.get(name, _ABSENT)
        and not (a.get(name) is None and b.get(name) is None)
    ]


def between_tensors(a: Mapping[str, Array], b: Mapping[str, Array]) -> list[DifferentTensor]:
    """The tensors that are not in both, or not equal to the bit."""
    found = []
    for name in dict.fromkeys([*a, *b]):
        one, other = a.get(name), b.get(name)
        if one is None or other is None or (one.shape, one.dtype) != (other.shape, other.dtype):
            found.append(DifferentTensor(name, _described(one), _described(other)))
        elif one.tobytes() != other.tobytes():
            found.append(_differing(name, one, other))
    return found


def _described(array: Array | None) -> str | None:
    return None if array is None else f"{array.dtype} {list(array.shape)}"


def _differing(name: str, one: Array, other: Array) -> DifferentTensor:
    bits = np.dtype(f"u{one.itemsize}")
    n = int((one.reshape(-1).view(bits) != other.reshape(-1).view(bits)).sum())
    distance = np.abs(one.astype(np.float64) - other.astype(np.float64))
    place = int(np.nan_to_num(distance, nan=np.inf).argmax())
    at = tuple(int(i) for i in np.unravel_index(place, one.shape))
    text = _described(one)
    return DifferentTensor(name, text, text, one.size, n, float(distance[at]), at)
