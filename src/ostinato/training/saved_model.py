"""The directory of a saved model: what it holds, how it is written and read.

    model.safetensors   the weights, by their names in the network
    config.json         format, kind of estimator, its parameters ("params"), the arguments of the
                        network ("net"), the labels ("classes"), the updates made ("iterations")

Both files are written and replaced as one (see `ostinato.files`). Nothing in them is executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ostinato.data import LabelEncoder
from ostinato.files import current, write_directory
from ostinato.training.tensor_file import pack, unpack

FORMAT = 1
CONFIG, TENSORS = "config.json", "model.safetensors"
_ENTRIES = {"format", "kind", "params", "net", "classes", "iterations"}


@dataclass(frozen=True)
class SavedModel:
    """A fitted estimator as values.

    Attributes:
        kind: which estimator, as "sequence_classifier".
        params: what its constructor was given.
        net: what its network's constructor was given.
        weights: of the network, by name.
        classes: `[C]` labels.
        iterations: updates made.
    """

    kind: str
    params: dict[str, Any]
    net: dict[str, Any]
    weights: dict[str, Tensor]
    classes: np.ndarray
    iterations: int


def write(path: Path, model: SavedModel) -> None:
    """Make `path` the directory of a model, all or nothing.

    Raises:
        ValueError: it exists and is something else than a saved model; or labels or parameters
            are of a type that JSON has not.
        OSError: it cannot be written.
    """
    _check_replaceable(path)
    config = {
        "format": FORMAT,
        "kind": model.kind,
        "params": {name: _plain(name, value) for name, value in model.params.items()},
        "net": model.net,
        "classes": LabelEncoder(model.classes).as_json(),
        "iterations": model.iterations,
    }
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    write_directory(path, {TENSORS: pack(model.weights), CONFIG: text.encode()})


def read(path: Path, kind: str, params: set[str], net: set[str]) -> SavedModel:
    """Read what `write` wrote.

    Args:
        path: the directory.
        kind: the kind that is wanted.
        params, net: the names that the two constructors know.

    Raises:
        ValueError: a file is missing, damaged, foreign, or of another kind or format.
    """
    place = current(path)
    for name in (CONFIG, TENSORS):
        if not (place / name).is_file():
            raise ValueError(
                f"{path} has no {name}; wanted a directory that save() has written, with "
                f"{CONFIG} and {TENSORS}"
            )
    config = _read_config(place / CONFIG, kind)
    for part, came, wanted in (
        ("the configuration", config, _ENTRIES),
        ("'params'", config.get("params"), params),
        ("'net'", config.get("net"), net),
        ("'classes'", config.get("classes"), {"dtype", "values"}),
    ):
        _check_names(f"{path / CONFIG}: {part}", came, wanted)
    return SavedModel(
        kind=kind,
        params={name: _from_plain(value) for name, value in config["params"].items()},
        net=config["net"],
        weights=unpack((place / TENSORS).read_bytes(), str(path / TENSORS)),
        classes=LabelEncoder.from_json(config["classes"], f"{path / CONFIG}: 'classes'").classes,
        iterations=config["iterations"],
    )


def _read_config(file: Path, kind: str) -> dict[str, Any]:
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); it is damaged") from None
    came = config.get("kind") if isinstance(config, dict) else None
    if came != kind:
        raise ValueError(f"{file} has the kind {came!r}; wanted {kind!r}, as save() writes it")
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{file} has format {config.get('format')!r}; this version of ostinato reads {FORMAT}"
        )
    return config


def _check_names(what: str, came: Any, wanted: set[str]) -> None:
    names = set(came) if isinstance(came, dict) else set()
    if names != wanted:
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
    return isinstance(config, dict) and config.keys() >= _ENTRIES


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
