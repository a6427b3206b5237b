"""Regressors as graphs; see `models/saved_graph.py`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ostinato.internal import TensorNames
from ostinato_learn.models.saved_graph import recorded
from ostinato_learn.runtime.model_graph import ModelGraph
from ostinato_learn.tasks.classify.graph import body_of
from ostinato_learn.tasks.regress.net import RegressorNet


def graph(net: RegressorNet, names: TensorNames, several: bool) -> ModelGraph:
    """The graph, whose outputs `[K · Q]` are in the units of the targets."""
    embed, layers, readout = body_of(net, names)
    answer = head(net, several)
    of_state = recorded(lambda state: answer(net.scaled(state)), [layers[-1].width], names)
    return ModelGraph(embed, layers, readout, of_state)


def head(net: RegressorNet, several: bool) -> Callable[[Tensor], Tensor]:
    """The function from scaled numbers `[B, K, Q]` to the units of the targets, `[B, K · Q]`."""
    return lambda z: (z * net.scale[:, None] + net.centre[:, None]).flatten(1)
