"""Which model answers for a command: the graph of a saved model, without torch, or its network.

`predict` asks the graph wherever there is one that can be played. `evaluate` asks the network in
torch, so that it gives the figures with which the training ended; but a user's own cell, whose
code no saved model holds, is measured by its graph, and so is every model where torch is missing.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from ostinato.cli.run.runs import Trained


def to_predict(trained: Trained) -> Any:
    """The model that predicts: a `runtime.Model`, or what was fitted.

    Raises:
        ValueError: the saved model is damaged, or of a later version.
    """
    return _in_torch(trained) if _needs_torch(trained.entries()) else _graph(trained)


def to_evaluate(trained: Trained) -> Any:
    """The model that is measured; see `to_predict`."""
    entries = trained.entries()
    own_cell = isinstance(entries.get("net", {}).get("cell"), dict)
    if _needs_torch(entries) or (not own_cell and importlib.util.find_spec("torch") is not None):
        return _in_torch(trained)
    return _graph(trained)


def _needs_torch(config: dict[str, Any]) -> bool:
    """Whether a model has no graph, or nothing plays it here."""
    from ostinato.engine import native

    return config.get("graph") is None or native.unavailable() is not None


def _graph(trained: Trained) -> Any:
    from ostinato import runtime

    return runtime.load(trained.model)


def _in_torch(trained: Trained) -> Any:
    return trained.task().module("fit").load(trained.model)
