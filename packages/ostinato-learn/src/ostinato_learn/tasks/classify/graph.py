"""Classifiers, and ensembles of them, as graphs; see `models/saved_graph.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ostinato.internal import ROWS, Node, TensorNames
from ostinato_learn.models.graph_parts import elementwise, map_of, readout_of
from ostinato_learn.models.saved_graph import layers_of, recorded, words_of
from ostinato_learn.runtime import model_graph
from ostinato_learn.runtime.compose import Composer, side_by_side
from ostinato_learn.runtime.model_graph import Direction, Embed, ModelGraph, Scan
from ostinato_learn.runtime.step_graph import StepGraph
from ostinato_learn.tasks.classify.net import ClassifierEnsemble, ClassifierNet


def graph(net: ClassifierNet | ClassifierEnsemble, names: TensorNames, several: bool) -> ModelGraph:
    """The graph; with `several` each class has its own probability."""
    if isinstance(net, ClassifierNet):
        return _classifier(net, names, several)
    members = [_classifier(m, names, several) for m in net._members]
    return _ensemble(members, _tables(net._members, names))


def body_of(
    net: ClassifierNet, names: TensorNames
) -> tuple[Embed | None, tuple[Scan, ...], model_graph.ReadoutGraph]:
    """The words of a network, if it reads any, its layers, and how their states become one."""
    embed, width = words_of(net.words, names)
    layers = layers_of(net.body, width or net.config["n_features"], names)
    if net.pool is None:
        return embed, layers, model_graph.ReadoutGraph("last")
    return embed, layers, readout_of(net.pool, names, layers[-1].width)


def _classifier(net: ClassifierNet, names: TensorNames, several: bool) -> ModelGraph:
    embed, layers, readout = body_of(net, names)
    answer = head(net, several)
    of_state = recorded(lambda state: answer(net.readout(state)), [layers[-1].width], names)
    return ModelGraph(embed, layers, readout, of_state)


def _tables(nets: Sequence[ClassifierNet], names: TensorNames) -> Embed | None:
    """The embeddings of all members as one table, side by side; None if steps are vectors."""
    tables = [net.words.embedding.weight.detach() for net in nets if net.words is not None]
    if not tables:
        return None
    table = torch.cat(tables, dim=1)
    return Embed(len(table), table.shape[1], names.fold(table))


def _ensemble(members: Sequence[ModelGraph], embed: Embed | None) -> ModelGraph:
    """The members side by side, and the mean of their answers, Σ p_m / M.

    The outputs of a layer are those of the first direction, for each member, then those of the
    second.
    """
    layers: list[Scan] = []
    for together in zip(*(m.layers for m in members), strict=True):
        below = layers[-1] if layers else None
        shared = below is None and embed is None
        directions = [
            Direction(_members([d.step for d in each], below, shared), each[0].reverse)
            for each in zip(*(layer.directions for layer in together), strict=True)
        ]
        layers.append(Scan(together[0].name, tuple(directions)))
    steps = [m.readout.step for m in members if m.readout.step is not None]
    answers = [m.readout.answer for m in members if m.readout.answer is not None]
    if steps:
        step = _members(steps, layers[-1], shared=False)
        readout = model_graph.ReadoutGraph("scan", step, _answers(answers))
    else:
        readout = members[0].readout
    return ModelGraph(embed, tuple(layers), readout, _mean_of_heads(members, layers[-1]))


def _members(steps: Sequence[StepGraph], below: Scan | None, shared: bool) -> StepGraph:
    """The steps of all members, each of which reads its own columns of the layer below.

    Args:
        below: the layer below; None: there is none.
        shared: all members read the same input.
    """
    width = steps[0].inputs[0].width

    def cut(c: Composer, inputs: Sequence[Node], i: int) -> list[Node]:
        if shared:
            return list(inputs)
        if below is None:
            return [c.slice(inputs[0], i * width, width)]
        return [_own(c, inputs[0], below, i, len(steps))]

    return side_by_side(steps, [width if shared else width * len(steps)], cut)


def _answers(maps: Sequence[StepGraph]) -> StepGraph:
    """The answers of all members' readouts, from the carries of all."""
    widths = [sum(n.width for n in each) for each in zip(*(m.inputs for m in maps), strict=True)]

    def cut(c: Composer, inputs: Sequence[Node], i: int) -> list[Node]:
        before = [sum(m.inputs[k].width for m in maps[:i]) for k in range(len(inputs))]
        own = zip(inputs, before, maps[i].inputs, strict=True)
        return [c.slice(x, column, n.width) for x, column, n in own]

    return side_by_side(maps, widths, cut)


def _mean_of_heads(members: Sequence[ModelGraph], top: Scan) -> StepGraph:
    c, n_members = Composer(), len(members)
    x = c.input(top.width)
    total = None
    for i, member in enumerate(members):
        size = top.width // n_members
        apart = member.readout.kind == "scan"  # else a member has columns of each direction
        own = c.slice(x, i * size, size) if apart else _own(c, x, top, i, n_members)
        (answer,) = c.inlined(member.head, [own], ())[1]
        total = answer if total is None else elementwise(c, "add", total, answer)
    assert total is not None
    return map_of([x], c.node("mul_s", [total], (1 / n_members,), ROWS, total.shape))


def _own(c: Composer, outputs: Node, layer: Scan, i: int, n_members: int) -> Node:
    """The outputs of the i-th member, for all directions."""
    pieces, column = [], 0
    for direction in layer.directions:
        width = direction.step.outputs[0].width
        size = width // n_members
        pieces.append(c.slice(outputs, column + i * size, size))
        column += width
    return c.concat(pieces)


def head(net: torch.nn.Module, several: bool) -> Callable[[Tensor], Tensor]:
    """From logits to probabilities."""
    return torch.sigmoid if several else partial(torch.softmax, dim=-1)
