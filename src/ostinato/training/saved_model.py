"""The directory of a saved model: what it holds, how it is written and read.

    model.safetensors   the weights, by their names in the network
    config.json         format, kind of estimator, its parameters ("params"), the arguments of the
                        network ("net"), what the kind needs beside them, as labels ("fitted"), the
                        updates made ("iterations"), and the SHA-256 of the other file ("sha256")

Both files are written and replaced as one (see `ostinato.files`). Nothing in them is executed.
Weights are read only if they are those that were saved, and finite. In formats 1 and 2, which are
still read, "classes" and "feature_names" stood beside "net", as there were only classifiers; format
1 had no "sha256".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from ostinato.files import current, write_directory
from ostinato.training.tensor_file import check_finite, pack, unpack

FORMAT = 3
CONFIG, TENSORS = "config.json", "model.safetensors"
_COMMON = {"format", "kind", "params", "net", "iterations"}
_ENTRIES = {
    1: {*_COMMON, "classes"},
    2: {*_COMMON, "classes", "feature_names", "sha256"},
    3: {*_COMMON, "fitted", "sha256"},
}


@dataclass(frozen=True)
class SavedModel:
    """A fitted estimator as values.

    Attributes:
        kind: which estimator, as "sequence_classifier".
        params: what its constructor was given.
        net: what its network's constructor was given.
        weights: of the network, by name.
        fitted: what else was found in the training, as JSON values: labels, scales, a vocabulary.
        iterations: updates made.
    """

    kind: str
    params: dict[str, Any]
    net: dict[str, Any]
    weights: dict[str, Tensor]
    fitted: dict[str, Any]
    iterations: int


def write(path: Path, model: SavedModel) -> None:
    """Make `path` the directory of a model, all or nothing.

    Raises:
        ValueError: it exists and is something else than a saved model; or parameters are of
            a type that JSON has not; or a weight is NaN or infinite.
        OSError: it cannot be written.
    """
    if not isinstance(cell := model.net.get("cell", ""), str):
        raise ValueError(
            f"the cell {getattr(cell, '__name__', cell)} is your own, and a saved model holds no "
            "code; keep net_.state_dict(), and load it into a network of the same class"
        )
    _check_replaceable(path)
    check_finite(model.weights, "the network")
    content = pack(model.weights)
    config = {
        "format": FORMAT,
        "kind": model.kind,
        "params": {name: _plain(name, value) for name, value in model.params.items()},
        "net": model.net,
        "fitted": model.fitted,
        "iterations": model.iterations,
        "sha256": {TENSORS: hashlib.sha256(content).hexdigest()},
    }
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    write_directory(path, {TENSORS: content, CONFIG: text.encode()})


def kind_of(path: Path) -> str:
    """The kind of the saved model in a directory.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    _check_files(path)
    return str(_read_config(current(path) / CONFIG).get("kind"))


def read(
    path: Path,
    kind: str,
    net: set[str],
    fitted: set[str],
    added: Mapping[str, Any] = MappingProxyType({}),
) -> SavedModel:
    """Read what `write` wrote.

    Args:
        path: the directory.
        kind: the kind that is wanted.
        net: the names of the arguments of its network.
        fitted: the names of what it needs beside them.
        added: arguments of the network, by name, that stand for those that were saved before
            there were such.

    Raises:
        ValueError: a file is missing, damaged, altered, foreign, or of another kind or format; or
            a weight is NaN or infinite.
    """
    _check_files(path)
    place = current(path)
    config = _read_config(place / CONFIG)
    if config.get("kind") != kind:
        raise ValueError(
            f"{place / CONFIG} has the kind {config.get('kind')!r}; wanted {kind!r}, as save() "
            "writes it"
        )
    version = config["format"]
    if isinstance(config.get("net"), dict):
        config["net"] = {**added, **config["net"]}
    for part, came, wanted in (
        ("the configuration", config, _ENTRIES[version]),
        ("'params'", config.get("params"), None),
        ("'net'", config.get("net"), net),
        ("'fitted'", _fitted(config), fitted),
        ("'sha256'", config.get("sha256", {TENSORS: None}), {TENSORS}),
    ):
        _check_names(f"{path / CONFIG}: {part}", came, wanted)
    content = (place / TENSORS).read_bytes()
    if version > 1 and hashlib.sha256(content).hexdigest() != config["sha256"][TENSORS]:
        raise ValueError(
            f"{path / TENSORS} is not the file that was saved: its SHA-256 differs from the one in "
            f"{CONFIG}; copy both files again, or train again"
        )
    weights = unpack(content, str(path / TENSORS))
    check_finite(weights, str(path / TENSORS))
    return SavedModel(
        kind=kind,
        params={name: _from_plain(value) for name, value in config["params"].items()},
        net=config["net"],
        weights=weights,
        fitted=_fitted(config),
        iterations=config["iterations"],
    )


def check_params(saved: SavedModel, known: Collection[str], path: Path) -> None:
    """Refuse parameters that the constructor of an estimator does not take."""
    unknown = sorted(saved.params.keys() - set(known))
    if unknown:
        raise ValueError(
            f"{path / CONFIG}: 'params' has {unknown}, which this version of ostinato does not "
            "know; load the model with the version that saved it, or train again"
        )


def _fitted(config: dict[str, Any]) -> Any:
    if config["format"] < 3:
        names = ("classes", "feature_names", "preparation", "multilabel")
        return {name: config.get(name) for name in names}
    return config.get("fitted")


def _check_files(path: Path) -> None:
    for name in (CONFIG, TENSORS):
        if not (current(path) / name).is_file():
            raise ValueError(
                f"{path} has no {name}; wanted a directory that save() has written, with "
                f"{CONFIG} and {TENSORS}"
            )


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); it is damaged") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file} is no JSON object; it is damaged")
    if config.get("format") not in _ENTRIES:
        raise ValueError(
            f"{file} has format {config.get('format')!r}; this version of ostinato reads 1 to "
            f"{FORMAT}: load the model with the version that saved it, or train again"
        )
    return config


def _check_names(what: str, came: Any, wanted: set[str] | None) -> None:
    """Whether `came` is a dictionary with these names; with any, if `wanted` is None."""
    if not isinstance(came, dict):
        raise ValueError(f"{what} is {came!r}; wanted names and values; it is damaged")
    names = set(came)
    if wanted is not None and names != wanted:
        raise ValueError(
            f"{what} lacks {sorted(wanted - names)} and has {sorted(names - wanted)} beyond what "
            "is known; it is damaged, or of another version of ostinato"
        )


def _check_replaceable(path: Path) -> None:
    """A directory is replaced only if it is empty, or a saved model with nothing added."""
    if not path.exists():
        return
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
    foreign = names - {CONFIG, TENSORS}
    if CONFIG in names and not _is_ours(path / CONFIG):
        foreign |= {CONFIG}
    if foreign:
        raise ValueError(
            f"{path} exists and is not just a saved model ({', '.join(sorted(foreign))} would be "
            "lost); save into a new directory"
        )


def _is_ours(file: Path) -> bool:
    try:
        config = json.loads(file.read_bytes())
    except ValueError:
        return False
    return isinstance(config, dict) and config.keys() >= _COMMON


def _plain(name: str, value: Any) -> Any:
    """A parameter for JSON: mappings, whose keys may be numbers, as lists of pairs."""
    if isinstance(value, Mapping):
        return [[_plain(name, key), _plain(name, entry)] for key, entry in value.items()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.random.RandomState):
        return None  # it cannot be kept; None also means another seed each time
    if not isinstance(value, bool | int | float | str | None):
        raise ValueError(f"{name}={value!r} cannot be saved; wanted a number, a string or a dict")
    return value


def _from_plain(value: Any) -> Any:
    return dict(value) if isinstance(value, list) else value
