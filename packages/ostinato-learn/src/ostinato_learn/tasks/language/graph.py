"""Language models as graphs; see `models/saved_graph.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ostinato.internal import TensorNames
from ostinato_learn.models.graph_parts import named
from ostinato_learn.models.saved_graph import layers_of, recorded
from ostinato_learn.runtime import model_graph
from ostinato_learn.runtime.model_graph import Embed, ModelGraph
from ostinato_learn.tasks.language.net import LanguageNet


def graph(net: LanguageNet, names: TensorNames, several: bool) -> ModelGraph:
    """The graph, whose answers are probabilities."""
    n_tokens = net.config["n_tokens"]
    layers = layers_of(net.body, net.config["embedding_size"] or n_tokens, names)
    if net.embedding is None:
        embed = Embed(n_tokens, n_tokens, None)
    else:
        weight = net.embedding.weight.detach()
        embed = Embed(n_tokens, weight.shape[1], named(weight, names))
    answer = head(net, several)

    def of_states(states: Tensor) -> Tensor:
        return answer(net.logits(net.readout(states) if net.config["tied"] else states))

    answers = recorded(of_states, [layers[-1].width], names)
    return ModelGraph(embed, layers, model_graph.ReadoutGraph("each"), answers)


def head(net: LanguageNet, several: bool) -> Callable[[Tensor], Tensor]:
    """From logits to probabilities."""
    return partial(torch.softmax, dim=-1)
