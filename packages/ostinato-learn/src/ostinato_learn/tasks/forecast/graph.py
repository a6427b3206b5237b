"""Forecasters as graphs; see `models/saved_graph.py`."""

from __future__ import annotations

from ostinato.internal import ROWS, TensorNames
from ostinato_learn.models.graph_parts import (
    elementwise,
    increasing,
    linear,
    map_of,
    parameters,
    relu,
    tensor_of,
)
from ostinato_learn.models.saved_graph import layers_of
from ostinato_learn.runtime import model_graph
from ostinato_learn.runtime.compose import Composer
from ostinato_learn.runtime.model_graph import Ahead, ModelGraph
from ostinato_learn.runtime.step_graph import StepGraph
from ostinato_learn.tasks.forecast.net import ForecasterNet


def graph(net: ForecasterNet, names: TensorNames, several: bool) -> ModelGraph:
    """See `net.py`; what is known of a step ahead is its future, then its lags."""
    sizes, hidden = net._sizes, net.config["hidden_size"]
    layers = layers_of(net.body, 2 + sizes.n_past + sizes.n_future + sizes.n_static, names)
    c = Composer()
    x = c.input(layers[-1].width)
    head = map_of([x], relu(c, linear(c, x, *parameters(net.ahead), names)))
    c = Composer()
    vector, known = c.input(hidden), c.input(sizes.n_future + sizes.n_lags)
    inner = relu(c, linear(c, c.concat([vector, known]), *parameters(net.step), names))
    raw = linear(c, inner, *parameters(net.readout), names)
    middle = c.slice(raw, net._median, 1)
    if sizes.n_lags:
        lags = c.slice(known, sizes.n_future, sizes.n_lags)
        products = elementwise(c, "mul", lags, tensor_of(c, net.naive.detach(), names))
        middle = elementwise(c, "add", middle, c.node("row_sum", [products], (), ROWS, (1,)))
    each = StepGraph((vector, known), (), (), (increasing(c, raw, net._median, middle),))
    ahead = Ahead(sizes.horizon, each)
    return ModelGraph(None, layers, model_graph.ReadoutGraph("last"), head, ahead)
