"""The directory of a saved model: its files, and how they are written and read.

    model.safetensors   the weights, by their names in the network; "folded.0", "folded.1", … are
                        tensors that were computed from them for the graph
    check.safetensors   some inputs, and the answers of `ostinato.runtime` to them
    config.json         format, the version that saved it ("saved_by"), kind of estimator, its
                        parameters ("params"), the arguments of the network ("net"), what the kind
                        needs beside them, as labels ("fitted"), the updates made ("iterations"),
                        the network as a graph, for `ostinato.runtime`, ("graph"), or why it has
                        none ("without_graph"), and the SHA-256 of the two files above ("sha256")
    README.md           a card for people, who may edit it

The files are written and replaced as one (see `ostinato.files`). Nothing in them is executed.
Weights are read only if they are unchanged and finite.

A user's own cell is code, which is not saved: such a model is read by `ostinato.runtime` alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ostinato import __version__, tasks
from ostinato.compiler.errors import Unsupported
from ostinato.engine import native
from ostinato.files import parse_json, write_directory
from ostinato.runtime.card import FOLDED, Facts, card, n_parameters
from ostinato.runtime.model import Model
from ostinato.runtime.network import Network
from ostinato.runtime.replay import check_file
from ostinato.runtime.saved import CHECK, CONFIG, FORMAT, NAMES, README, TENSORS, Saved, read
from ostinato.runtime.values import entries
from ostinato.training.build import built
from ostinato.training.module_network import ModuleNetwork, arrays
from ostinato.training.tensor_file import check_finite, fill, pack


def save(
    model: Model,
    path: Path,
    params: dict[str, Any],
    iterations: int,
    *,
    examples: Any = None,
    measures: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Make `path` the directory of a trained model, all or nothing.

    Args:
        model: over a `ModuleNetwork`.
        path: the directory.
        params: what the constructor of its estimator takes.
        iterations: updates made.
        examples: some of a user's sequences, which are kept with their answers in
            check.safetensors; by default random numbers.
        measures: name → figure, for the card.

    Raises:
        ValueError: it exists and is something else than a saved model; or parameters have a type
            that JSON cannot hold; or a weight is NaN or infinite; or the cell is a user's own and
            has no graph.
        OSError: it cannot be written.
    """
    network: ModuleNetwork = model.network
    described, why_not = None, None
    try:
        described = network.described()
    except Unsupported as refusal:
        why_not = refusal.reason
    net, own = dict(network.config), _own_cell(network.config)
    if own is not None:
        net["cell"] = own
        if described is None:
            raise ValueError(
                f"the cell {own['own']} is your own: a saved model holds no code, and what it "
                f"computes cannot be written as a graph: {why_not}. Keep "
                "net_.state_dict(), and load it into a network of the same class"
            )
    _check_replaceable(path)
    weights = network.module.state_dict()
    check_finite(weights, "the network")
    folded = described.folded if described else {}
    check_finite(folded, "a tensor that the network computes from its weights")
    kept = {name: torch.from_numpy(array) for name, array in model.kept_tensors().items()}
    content = pack({**weights, **kept, **folded})
    config: dict[str, Any] = {
        "format": FORMAT,
        "saved_by": __version__,
        "kind": model.kind,
        "params": {name: _plain(name, value) for name, value in params.items()},
        "net": net,
        "graph": described.graph.as_json() if described else None,
        "without_graph": why_not,
        "fitted": model.fitted(),
        "iterations": iterations,
        "sha256": {TENSORS: hashlib.sha256(content).hexdigest()},
    }
    files = {TENSORS: content}
    if described is not None and native.unavailable() is None:
        as_read = json.loads(json.dumps(config, allow_nan=False))
        files[CHECK] = check_file(as_read, content, examples)
        config["sha256"][CHECK] = hashlib.sha256(files[CHECK]).hexdigest()
    figures = {name: f"{value:.4g}" for name, value in measures.items()}
    facts = Facts(n_parameters(weights), measured={"this model": figures} if figures else {})
    files |= {CONFIG: _as_text(config).encode(), README: card(config, facts).encode()}
    write_directory(path, files)


def load(path: str | Path) -> Model:
    """The model in a directory over its module in torch; errors as of `loaded`."""
    return loaded(Path(path))[0]


def loaded(path: Path) -> tuple[Model, Saved]:
    """The model in a directory over its module in torch, and what was read.

    Raises:
        ValueError: a file is missing, damaged, altered or foreign, or of another format; or the
            cell is a user's own.
    """
    where = str(path / CONFIG)
    saved = read(path, in_torch=True)
    if isinstance(saved.net.get("cell"), dict):
        raise ValueError(
            f"{path}: the cell {saved.net['cell'].get('own')!r} is a user's own, and a saved model "
            f"holds no code; ostinato.runtime.load({str(path)!r}) answers with it, without its "
            "source"
        )
    task = tasks.by_kind(saved.kind, where)
    known: Any = task.module("fit")
    net = entries(saved.net, f"{where}: 'net'", known.ARGUMENTS - {"ensemble"},
                  frozenset({"ensemble"}))  # fmt: skip
    module = built(known.NETWORK, **net)
    network = ModuleNetwork(module, several=saved.fitted.get("multilabel") is True)
    model: Model = task.module("model").MODEL.of(saved, where, network)
    beside = model.kept_tensors().keys()
    weights = {
        name: torch.from_numpy(array.copy())
        for name, array in saved.tensors.items()
        if not name.startswith(FOLDED) and name not in beside
    }
    fill(module, weights, str(path / TENSORS))
    module.eval()
    if saved.graph is not None:
        played = Network(saved.graph, {**saved.tensors, **arrays(module)})
        network = ModuleNetwork(module, several=network.several, played=played)
    return replace(model, network=network), saved


def parameters(saved: Saved, known: Collection[str], path: Path) -> dict[str, Any]:
    """The parameters of an estimator, whose constructor takes those that are known.

    Raises:
        ValueError: it does not take one of them; the message names it.
    """
    unknown = sorted(saved.params.keys() - set(known))
    if unknown:
        raise ValueError(
            f"{path / CONFIG}: 'params' has {unknown}, which this version of ostinato does not "
            "know; load the model with the version that saved it, or train again"
        )
    return {
        name: dict(value) if isinstance(value, list) else value
        for name, value in saved.params.items()
    }


def _as_text(config: Mapping[str, Any]) -> str:
    """config.json, an entry per line; the graph, which is long, is the last line."""
    rest = {name: value for name, value in config.items() if name != "graph"}
    graph = json.dumps(config["graph"], allow_nan=False)
    return f'{json.dumps(rest, indent=2, allow_nan=False)[:-2]},\n  "graph": {graph}\n}}\n'


def _own_cell(net: dict[str, Any]) -> dict[str, str] | None:
    """A user's own cell as its name, since code is not saved; None for a known cell."""
    cell = net.get("cell", "")
    return None if isinstance(cell, str) else {"own": getattr(cell, "__name__", str(cell))}


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
