"""Forecasters as graphs; see `models/saved_graph.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from ostinato.internal import TensorNames
from ostinato_learn.models.graph_parts import map_of
from ostinato_learn.models.saved_graph import layers_of, recorded
from ostinato_learn.runtime import model_graph
from ostinato_learn.runtime.compose import Composer
from ostinato_learn.runtime.model_graph import Ahead, ModelGraph
from ostinato_learn.tasks.forecast.net import ForecasterNet


def graph(net: ForecasterNet, names: TensorNames, several: bool) -> ModelGraph:
    """See `net.py`; what is known of a step ahead is its future, then its lags."""
    sizes, hidden = net._sizes, net.config["hidden_size"]
    layers = layers_of(net.body, 2 + sizes.n_past + sizes.n_future + sizes.n_static, names)
    vectors = recorded(lambda state: torch.relu(net.ahead(state)), [layers[-1].width], names)
    widths = [n for n in (sizes.n_future, sizes.n_lags) if n]

    def raw(vector: Tensor, known: Tensor) -> Tensor:
        return net.raw(vector, known.split(widths, dim=1))

    def quantiles(raw: Tensor, known: Tensor) -> Tensor:
        return net.quantiles(raw, known[:, sizes.n_future :] if sizes.n_lags else None)

    # Two recordings, since within one each column of a product that is sliced has its own product.
    c = Composer()
    inputs = [c.input(hidden), c.input(sum(widths))]
    middle = c.inlined(recorded(raw, [hidden, sum(widths)], names), inputs, ())[1]
    of_raw = recorded(quantiles, [net.readout.out_features, sum(widths)], names)
    each = map_of(inputs, c.inlined(of_raw, [*middle, inputs[1]], ())[1][0])
    ahead = Ahead(sizes.horizon, each)
    return ModelGraph(None, layers, model_graph.ReadoutGraph("last"), vectors, ahead)
