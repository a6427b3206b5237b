"""Regressors as graphs; see `models/saved_graph.py`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ostinato.internal import TensorNames
from ostinato_learn.models.graph_parts import (
    elementwise,
    increasing,
    linear,
    map_of,
    parameters,
    tensor_of,
)
from ostinato_learn.runtime.compose import Composer
from ostinato_learn.runtime.model_graph import ModelGraph
from ostinato_learn.tasks.classify.graph import body_of
from ostinato_learn.tasks.regress.net import RegressorNet


def graph(net: RegressorNet, names: TensorNames, several: bool) -> ModelGraph:
    """The graph, whose outputs `[K · Q]` are in the units of the targets."""
    embed, layers, readout = body_of(net, names)
    c = Composer()
    x = c.input(layers[-1].width)
    values = linear(c, x, *parameters(net.readout), names)
    Q = net.n_levels
    if net.median is not None:
        of_targets = [c.slice(values, k * Q, Q) for k in range(net.n_targets)]
        values = c.concat(
            [increasing(c, raw, net.median, c.slice(raw, net.median, 1)) for raw in of_targets]
        )
    scale, centre = (t.repeat_interleave(Q) for t in (net.scale, net.centre))
    values = elementwise(c, "mul", values, tensor_of(c, scale, names))
    values = elementwise(c, "add", values, tensor_of(c, centre, names))
    return ModelGraph(embed, layers, readout, map_of([x], values))


def head(net: RegressorNet, several: bool) -> Callable[[Tensor], Tensor]:
    """The function from scaled numbers `[B, K, Q]` to the units of the targets, `[B, K · Q]`."""
    return lambda z: (z * net.scale[:, None] + net.centre[:, None]).flatten(1)
