"""The directory of a saved model: its files, and how they are written and read.

    model.safetensors   the weights, by their names in the network; "folded.0", "folded.1", … are
                        tensors that were computed from them for the graph
    check.safetensors   some inputs, and the answers of `ostinato.runtime` to them
    config.json         format, the version that saved it ("saved_by"), kind of estimator, its
                        parameters ("params"), the arguments of the network ("net"), what the kind
                        needs beside them, as labels ("fitted"), the updates made ("iterations"),
                        the network as a graph, for `ostinato.runtime`, ("graph"), or why it has
                        none ("without_graph"), and the SHA-256 of the two files above ("sha256")
    README.md           a model card for readers, which may be edited

The files are written and replaced as one (see `ostinato.files`). Nothing in them is executed.
Weights are read only if they are unchanged and finite.

A user's own cell is code, which is not saved: such a model is read by `ostinato.runtime` alone.
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
import torch
from torch import Tensor

from ostinato import __version__
from ostinato.compiler.errors import Unsupported
from ostinato.engine import native
from ostinato.files import current, parse_json, write_directory
from ostinato.runtime.card import FOLDED, Facts, card, n_parameters
from ostinato.runtime.replay import check_file
from ostinato.runtime.saved import CHECK, CONFIG, FORMAT, NAMES, README, TENSORS, check_format
from ostinato.runtime.tensors import read_file
from ostinato.training.saved_graph import Described, describe
from ostinato.training.tensor_file import check_finite, pack, unpack


@dataclass(frozen=True)
class SavedModel:
    """A fitted estimator as values.

    Attributes:
        kind: the kind of the estimator, such as "sequence_classifier".
        params: the arguments of its constructor.
        net: the arguments of its network's constructor.
        weights: those of the network, by name.
        fitted: further results of the training, as JSON values: labels, scales, a vocabulary.
        iterations: updates made.
        graph: the network without torch.
        without_graph: the reason if there is no graph.
    """

    kind: str
    params: dict[str, Any]
    net: dict[str, Any]
    weights: dict[str, Tensor]
    fitted: dict[str, Any]
    iterations: int
    graph: Described | None = None
    without_graph: str | None = None

    @staticmethod
    def of(net: torch.nn.Module, *, several: bool = False, **more: Any) -> SavedModel:
        """A network as a saved model; `more` are further attributes.

        Args:
            net: the network; its `config` has the arguments of its constructor.
            several: whether each class of a classifier has its own probability.
        """
        graph, why_not = None, None
        try:
            graph = describe(net, several=several)
        except Unsupported as refusal:
            why_not = refusal.reason
        parts = {"net": net.config, "weights": net.state_dict(), **more}
        return SavedModel(**parts, graph=graph, without_graph=why_not)


def write(
    path: Path,
    model: SavedModel,
    examples: Any = None,
    measures: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Make `path` the directory of a model, all or nothing.

    Args:
        path: the directory.
        model: the model to save.
        examples: some of a user's sequences, which are kept with their answers in
            check.safetensors; by default random numbers.
        measures: name → figure, for the card.

    Raises:
        ValueError: it exists and is something else than a saved model; or parameters have a type
            that JSON cannot hold; or a weight is NaN or infinite; or the cell is a user's own and
            has no graph.
        OSError: it cannot be written.
    """
    net, own = dict(model.net), _own_cell(model.net)
    if own is not None:
        net["cell"] = own
        if model.graph is None:
            raise ValueError(
                f"the cell {own['own']} is your own: a saved model holds no code, and its "
                f"operations cannot be written as a graph: {model.without_graph}. Keep "
                "net_.state_dict(), and load it into a network of the same class"
            )
    _check_replaceable(path)
    check_finite(model.weights, "the network")
    folded = model.graph.folded if model.graph else {}
    check_finite(folded, "a tensor that the network computes from its weights")
    content = pack({**model.weights, **folded})
    config: dict[str, Any] = {
        "format": FORMAT,
        "saved_by": __version__,
        "kind": model.kind,
        "params": {name: _plain(name, value) for name, value in model.params.items()},
        "net": net,
        "graph": model.graph.graph.as_json() if model.graph else None,
        "without_graph": model.without_graph,
        "fitted": model.fitted,
        "iterations": model.iterations,
        "sha256": {TENSORS: hashlib.sha256(content).hexdigest()},
    }
    files = {TENSORS: content}
    if model.graph is not None and native.unavailable() is None:
        as_read = json.loads(json.dumps(config, allow_nan=False))
        files[CHECK] = check_file(as_read, content, examples)
        config["sha256"][CHECK] = hashlib.sha256(files[CHECK]).hexdigest()
    files |= {CONFIG: _as_text(config).encode(), README: _card(model, config, measures).encode()}
    write_directory(path, files)


def _card(model: SavedModel, config: dict[str, Any], measures: Mapping[str, float]) -> str:
    figures = {name: f"{value:.4g}" for name, value in measures.items()}
    measured = {"this model": figures} if figures else {}
    return card(config, Facts(n_parameters(model.weights), measured=measured))


def _as_text(config: Mapping[str, Any]) -> str:
    """config.json, an entry per line; the graph, which is long, is the last line."""
    rest = {name: value for name, value in config.items() if name != "graph"}
    graph = json.dumps(config["graph"], allow_nan=False)
    return f'{json.dumps(rest, indent=2, allow_nan=False)[:-2]},\n  "graph": {graph}\n}}\n'


def _own_cell(net: dict[str, Any]) -> dict[str, str] | None:
    """A user's own cell as its name, since code is not saved; None for a known cell."""
    cell = net.get("cell", "")
    return None if isinstance(cell, str) else {"own": getattr(cell, "__name__", str(cell))}


def kind_of(path: Path) -> str:
    """The kind of the saved model in a directory.

    Raises:
        ValueError: there is no saved model, or it is damaged.
    """
    _check_files(path)
    return str(_read_config(current(path) / CONFIG).get("kind"))


def read(
    path: Path,
    kind: str,
    net: set[str],
    fitted: set[str],
    unsaid: Mapping[str, Any] = MappingProxyType({}),
) -> SavedModel:
    """Read what `write` wrote.

    Args:
        path: the directory.
        kind: the kind that it must have.
        net: the names of the arguments of its network.
        fitted: the names of the entries of its "fitted".
        unsaid: arguments of the network, by name, for models that lack them.

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
    if isinstance(config.get("net"), dict):
        config["net"] = {**unsaid, **config["net"]}
        _refuse_own_cell(config["net"].get("cell"), path)
    for part, came, wanted in (
        ("the configuration", config, NAMES),
        ("'params'", config.get("params"), None),
        ("'net'", config.get("net"), net),
        ("'fitted'", config.get("fitted"), fitted),
        ("'sha256'", config.get("sha256"), {TENSORS, *_with_check(config)}),
    ):
        _check_names(f"{path / CONFIG}: {part}", came, wanted)
    content = read_file(place / TENSORS, str(path / TENSORS))
    if hashlib.sha256(content).hexdigest() != config["sha256"][TENSORS]:
        raise ValueError(
            f"{path / TENSORS} is not the file that was saved: its SHA-256 differs from the one in "
            f"{CONFIG}; copy both files again, or train again"
        )
    weights = unpack(content, str(path / TENSORS))
    weights = {name: t for name, t in weights.items() if not name.startswith(FOLDED)}
    check_finite(weights, str(path / TENSORS))
    return SavedModel(
        kind=kind,
        params={name: _from_plain(value) for name, value in config["params"].items()},
        net=config["net"],
        weights=weights,
        fitted=config["fitted"],
        iterations=config["iterations"],
    )


def _with_check(config: dict[str, Any]) -> set[str]:
    """The name of the file of answers, if the model has one."""
    hashes = config.get("sha256")
    return {CHECK} if isinstance(hashes, dict) and CHECK in hashes else set()


def _refuse_own_cell(cell: Any, path: Path) -> None:
    if isinstance(cell, dict):
        raise ValueError(
            f"{path}: the cell {cell.get('own')!r} is a user's own, and a saved model holds no "
            f"code; ostinato.runtime.load({str(path)!r}) answers with it, without its source"
        )


def check_params(saved: SavedModel, known: Collection[str], path: Path) -> None:
    """Refuse parameters that the constructor of an estimator does not take.

    Raises:
        ValueError: there is one; the message names it.
    """
    unknown = sorted(saved.params.keys() - set(known))
    if unknown:
        raise ValueError(
            f"{path / CONFIG}: 'params' has {unknown}, which this version of ostinato does not "
            "know; load the model with the version that saved it, or train again"
        )


def _check_files(path: Path) -> None:
    for name in (CONFIG, TENSORS):
        if not (current(path) / name).is_file():
            raise ValueError(
                f"{path} has no {name}; wanted a directory that save() has written, with "
                f"{CONFIG} and {TENSORS}"
            )


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = parse_json(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); it is damaged") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file} is not a JSON object; it is damaged")
    check_format(config, str(file))
    return config


def _check_names(what: str, came: Any, wanted: set[str] | None) -> None:
    """Raise ValueError unless `came` is a dictionary with these names (None: any)."""
    if not isinstance(came, dict):
        raise ValueError(f"{what} is {came!r}; wanted names and values; it is damaged")
    names = set(came)
    if wanted is not None and names != wanted:
        raise ValueError(
            f"{what} lacks {sorted(wanted - names)} and has the unknown {sorted(names - wanted)}; "
            "it is damaged, or of another version of ostinato"
        )


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


def _from_plain(value: Any) -> Any:
    return dict(value) if isinstance(value, list) else value
