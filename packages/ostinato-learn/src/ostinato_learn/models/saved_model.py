"""A trained model saved and loaded with its module in torch; the format is in `saved`.

Nothing in the files is executed. Weights are read only if they are unchanged and finite.

A user's own cell is code, which is not saved: such a model is read by `runtime.load` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ostinato.internal import Unsupported
from ostinato_learn import tasks
from ostinato_learn.models.build import built
from ostinato_learn.models.module_network import ModuleNetwork, arrays
from ostinato_learn.models.tensor_file import check_finite, fill, pack
from ostinato_learn.runtime.model import Model
from ostinato_learn.runtime.network import Network
from ostinato_learn.runtime.values import entries
from ostinato_learn.saved.card import NO_WEIGHTS, n_parameters
from ostinato_learn.saved.read import CONFIG, TENSORS, Saved, read
from ostinato_learn.saved.write import write


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
    weights = network.module.state_dict()
    check_finite(weights, "the network")
    folded = described.folded if described else {}
    check_finite(folded, "a tensor that the network computes from its weights")
    config = {
        "kind": model.kind,
        "params": params,
        "net": net,
        "graph": described.graph.as_json() if described else None,
        "without_graph": why_not,
        "fitted": model.fitted(),
        "iterations": iterations,
    }
    content = pack({**weights, **folded})
    write(path, config, content, n_parameters(weights), examples=examples, measures=measures)


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
            f"holds no code; ostinato_learn.runtime.load({str(path)!r}) answers with it, without "
            "its "
            "source"
        )
    task = tasks.by_kind(saved.kind, where)
    known: Any = task.module("fit")
    net = entries(
        saved.net, f"{where}: 'net'", known.ARGUMENTS - {"ensemble"}, frozenset({"ensemble"})
    )
    module = built(known.NETWORK, **net)
    network = ModuleNetwork(module, several=saved.fitted.get("multilabel") is True)
    model: Model = task.module("model").MODEL.of(saved, where, network)
    weights = {
        name: torch.from_numpy(array.copy())
        for name, array in saved.tensors.items()
        if not name.startswith(NO_WEIGHTS)
    }
    fill(module, weights, str(path / TENSORS))
    module.eval()
    if saved.graph is not None:
        played = Network(saved.graph, {**saved.tensors, **arrays(module)})
        network = ModuleNetwork(module, several=network.several, played=played)
    return replace(model, network=network), saved


def _own_cell(net: dict[str, Any]) -> dict[str, str] | None:
    """A user's own cell as its name, since code is not saved; None for a known cell."""
    cell = net.get("cell", "")
    return None if isinstance(cell, str) else {"own": getattr(cell, "__name__", str(cell))}
