"""Taggers as graphs; see `models/saved_graph.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ostinato.internal import TensorNames
from ostinato_learn.models.saved_graph import layers_of, recorded, words_of
from ostinato_learn.runtime import model_graph
from ostinato_learn.runtime.model_graph import ModelGraph
from ostinato_learn.tasks.tag.net import TaggerNet


def graph(net: TaggerNet, names: TensorNames, several: bool) -> ModelGraph:
    """The graph, whose answers are probabilities, or of a CRF the scores before it."""
    embed, width = words_of(net.words, names)
    layers = layers_of(net.body, width or net.config["n_features"], names)
    answer = head(net, several)
    of_states = recorded(lambda states: answer(net.readout(states)), [layers[-1].width], names)
    return ModelGraph(embed, layers, model_graph.ReadoutGraph("each"), of_states)


def head(net: TaggerNet, several: bool) -> Callable[[Tensor], Tensor]:
    """From scores to probabilities; of a CRF they stay as they are."""
    return partial(torch.softmax, dim=-1) if net.crf is None else torch.clone
