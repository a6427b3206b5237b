"""The writer of a saved model's directory, without torch. Its files:

    model.safetensors   the weights, by their names in the network; "folded.0", "folded.1", … are
                        tensors that were computed from them for the graph
    check.safetensors   some inputs, and the answers of `ostinato_learn.runtime` to them
    config.json         format, the version that saved it ("saved_by"), kind of estimator, its
                        parameters ("params"), the arguments of the network ("net"), what the kind
                        needs beside them, as labels ("fitted"), the updates made ("iterations"),
                        the network as a graph, for `runtime`, ("graph"), or why it has
                        none ("without_graph"), and the SHA-256 of the two files above ("sha256")
    README.md           a card for people, who may edit it

The files are written and replaced as one (see `ostinato_learn.files`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ostinato import __version__
from ostinato.internal import native
from ostinato_learn.files import parse_json, write_directory
from ostinato_learn.saved.card import Facts, card
from ostinato_learn.saved.read import CHECK, CONFIG, FORMAT, NAMES, README, TENSORS
from ostinato_learn.saved.replay import check_file


def write(
    path: Path,
    config: Mapping[str, Any],
    tensors: bytes,
    n_parameters: int,
    *,
    examples: Any = None,
    measures: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Make `path` the directory of a model, all or nothing.

    Args:
        path: the directory.
        config: the entries of config.json that describe the model: all but "format", "saved_by" and
            "sha256". The parameters of the estimator may have types that JSON lacks.
        tensors: the content of model.safetensors.
        n_parameters: the number of parameters, for the card.
        examples: some of a user's sequences, which are kept with their answers in
            check.safetensors; by default random numbers.
        measures: name → figure, for the card.

    Raises:
        ValueError: it exists and is something else than a saved model; or parameters have a type
            that JSON cannot hold.
        OSError: it cannot be written.
    """
    _check_replaceable(path)
    whole: dict[str, Any] = {
        "format": FORMAT,
        "saved_by": __version__,
        **config,
        "params": {name: _plain(name, value) for name, value in config["params"].items()},
        "sha256": {TENSORS: hashlib.sha256(tensors).hexdigest()},
    }
    files = {TENSORS: tensors}
    if whole["graph"] is not None and native.unavailable() is None:
        as_read = json.loads(json.dumps(whole, allow_nan=False))
        files[CHECK] = check_file(as_read, tensors, examples)
        whole["sha256"][CHECK] = hashlib.sha256(files[CHECK]).hexdigest()
    figures = {name: f"{value:.4g}" for name, value in measures.items()}
    facts = Facts(n_parameters, measured={"this model": figures} if figures else {})
    files |= {CONFIG: _as_text(whole).encode(), README: card(whole, facts).encode()}
    write_directory(path, files)


def _as_text(config: Mapping[str, Any]) -> str:
    """config.json, an entry per line; the graph, which is long, is the last line."""
    rest = {name: value for name, value in config.items() if name != "graph"}
    graph = json.dumps(config["graph"], allow_nan=False)
    return f'{json.dumps(rest, indent=2, allow_nan=False)[:-2]},\n  "graph": {graph}\n}}\n'


def _check_replaceable(path: Path) -> None:
    """A directory is replaced only if it is empty, or a saved model with nothing added."""
    if not path.exists():
        return
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
    foreign = names - {CONFIG, TENSORS, CHECK, README}
    if CONFIG in names and not _is_ours(path / CONFIG):
        foreign |= {CONFIG}
    if foreign:
        raise ValueError(
            f"{path} exists and is not just a saved model ({', '.join(sorted(foreign))} would be "
            "lost); save into a new directory"
        )


def _is_ours(file: Path) -> bool:
    try:
        config = parse_json(file.read_bytes())
    except ValueError:
        return False
    return isinstance(config, dict) and config.keys() >= NAMES


def _plain(name: str, value: Any) -> Any:
    """A parameter for JSON: mappings, whose keys may be numbers, as lists of pairs."""
    if isinstance(value, Mapping):
        return [[_plain(name, key), _plain(name, entry)] for key, entry in value.items()]
    if isinstance(value, np.generic):
        return value.item()
    if callable(value):  # a user's own cell
        return {"own": getattr(value, "__name__", str(value))}
    if isinstance(value, np.random.RandomState):
        return None  # it cannot be saved; None also means another seed each time
    if not isinstance(value, bool | int | float | str | None):
        raise ValueError(f"{name}={value!r} cannot be saved; wanted a number, a string or a dict")
    return value
