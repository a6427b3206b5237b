"""Networks as graphs that run without torch: what a saved model says of its network.

The steps of the layers are recorded as `scan` records them; readouts and heads are written here as
nodes, with the meaning of `models/readout.py` and of the networks' forward passes in evaluation
mode.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ostinato import tree
from ostinato._scan import compiled
from ostinato.arguments import checked
from ostinato.compiler.capture.record import check_recording, record
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph import from_aten
from ostinato.compiler.graph.node import ROWS, Node
from ostinato.compiler.graph.saved import TensorNames, saved_step
from ostinato.models import ClassifierNet
from ostinato.models.ensemble import ClassifierEnsemble
from ostinato.models.forecaster import ForecasterNet
from ostinato.models.language import LanguageNet
from ostinato.models.stack import Stack
from ostinato.models.tagger import TaggerNet
from ostinato.models.words import WordReader
from ostinato.runtime import model_graph
from ostinato.runtime.compose import Composer, side_by_side
from ostinato.runtime.model_graph import Ahead, Direction, Embed, ModelGraph, Scan
from ostinato.runtime.step_graph import StepGraph
from ostinato.training.graph_parts import (
    apart,
    elementwise,
    linear,
    map_of,
    named,
    parameters,
    readout_of,
    relu,
    softmax,
    tensor_of,
)

ROWS_OF_SAMPLE = 3
MANY_STEPS = 1 << 24


class Described(NamedTuple):
    """A network's graph, and the tensors that it reads beside the network's own."""

    graph: ModelGraph
    folded: dict[str, Tensor]


def describe(net: torch.nn.Module, *, several: bool = False) -> Described:
    """The graph of a network.

    Args:
        net: a classifier, an ensemble of them, a tagger, a language model or a forecaster.
        several: whether each class of a classifier has its own probability.

    Raises:
        Unsupported: it has no graph; the reason is for people.
    """
    weights = net.state_dict()
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.dtype is not torch.float32:
            raise Unsupported(f"{name} is {tensor.dtype}; a graph computes in float32")
    if not all(tensor.is_cpu for tensor in weights.values()):
        return describe(copy.deepcopy(net).cpu(), several=several)
    names = TensorNames(weights)
    with _evaluating(net):
        if isinstance(net, ClassifierNet):
            graph = _classifier(net, names, several)
        elif isinstance(net, ClassifierEnsemble):
            members = [_classifier(m, names, several) for m in net._members]
            graph = _ensemble(members, _tables(net._members, names))
        elif isinstance(net, TaggerNet):
            graph = _tagger(net, names)
        elif isinstance(net, ForecasterNet):
            graph = _forecaster(net, names)
        elif isinstance(net, LanguageNet):
            graph = _language_model(net, names)
        else:
            raise Unsupported(f"a {type(net).__name__} has no graph yet")
    shapes = {name: tuple(t.shape) for name, t in {**weights, **names.folded}.items()}
    try:  # an operation that the compiler knows, and files do not yet
        ModelGraph.from_json(graph.as_json(), shapes)
    except ValueError as problem:
        raise Unsupported(f"its graph cannot be written: {problem}") from None
    return Described(graph, names.folded)


@contextmanager
def _evaluating(net: torch.nn.Module) -> Any:
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


# ---- networks


def _classifier(net: ClassifierNet, names: TensorNames, several: bool) -> ModelGraph:
    embed, width = _words(net.words, names)
    layers = _layers(net.body, width or net.config["n_features"], names)
    if net.pool is None:
        readout = model_graph.ReadoutGraph("last")
    else:
        readout = readout_of(net.pool, names, layers[-1].width)
    c = Composer()
    x = c.input(layers[-1].width)
    logits = linear(c, x, *parameters(net.readout), names)
    answer = elementwise(c, "sigmoid", logits) if several else softmax(c, logits)
    return ModelGraph(embed, layers, readout, map_of([x], answer))


def _tables(nets: Sequence[ClassifierNet], names: TensorNames) -> Embed | None:
    """The embeddings of all members as one table, side by side; None where steps are vectors."""
    tables = [net.words.embedding.weight.detach() for net in nets if net.words is not None]
    if not tables:
        return None
    table = torch.cat(tables, dim=1)
    return Embed(len(table), table.shape[1], names.fold(table))


def _ensemble(members: Sequence[ModelGraph], embed: Embed | None) -> ModelGraph:
    """The members side by side, and the mean of their answers, Σ p_m / M.

    The outputs of a layer are those of the first direction, member by member, then those of the
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
    """The steps of all members, each reading its own columns of what lies below.

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
    """The outputs of the i-th member, of all directions."""
    pieces, column = [], 0
    for direction in layer.directions:
        width = direction.step.outputs[0].width
        size = width // n_members
        pieces.append(c.slice(outputs, column + i * size, size))
        column += width
    return c.concat(pieces)


def _tagger(net: TaggerNet, names: TensorNames) -> ModelGraph:
    embed, width = _words(net.words, names)
    layers = _layers(net.body, width or net.config["n_features"], names)
    c = Composer()
    x = c.input(layers[-1].width)
    scores = linear(c, x, *parameters(net.readout), names)
    answer = scores if net.crf is not None else softmax(c, scores)
    return ModelGraph(embed, layers, model_graph.ReadoutGraph("each"), map_of([x], answer))


def _words(reader: WordReader | None, names: TensorNames) -> tuple[Embed | None, int | None]:
    """Words as vectors, and how many columns these have."""
    if reader is None:
        return None, None
    weight = reader.embedding.weight.detach()
    spelling = None
    if reader.characters is not None:
        characters = reader.characters.weight.detach()
        n, width = characters.shape
        layers = _layers(reader.spelling, width, names)
        c = Composer()
        x = c.input(layers[-1].width)
        spelling = ModelGraph(
            Embed(n, width, named(characters, names)),
            layers,
            model_graph.ReadoutGraph("last"),
            map_of([x], x),
        )
    n_words, size = weight.shape
    embed = Embed(n_words, size, named(weight, names), spelling)
    return embed, embed.n_columns


def _language_model(net: LanguageNet, names: TensorNames) -> ModelGraph:
    n_tokens = net.config["n_tokens"]
    layers = _layers(net.body, net.config["embedding_size"] or n_tokens, names)
    if net.embedding is None:
        embed = Embed(n_tokens, n_tokens, None)
    else:
        weight = net.embedding.weight.detach()
        embed = Embed(n_tokens, weight.shape[1], named(weight, names))
    c = Composer()
    features = x = c.input(layers[-1].width)
    if net.config["tied"]:
        features = linear(c, x, *parameters(net.readout), names)
    weight, bias = net.output
    logits = linear(c, features, weight.detach(), bias.detach(), names)
    return ModelGraph(
        embed, layers, model_graph.ReadoutGraph("each"), map_of([x], softmax(c, logits))
    )


def _forecaster(net: ForecasterNet, names: TensorNames) -> ModelGraph:
    """See `models/forecaster.py`; what is known of a step ahead is its future, then its lags."""
    sizes, hidden = net._sizes, net.config["hidden_size"]
    layers = _layers(net.body, 2 + sizes.n_past + sizes.n_future + sizes.n_static, names)
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
    each = StepGraph((vector, known), (), (), (apart(c, raw, net._median, middle),))
    ahead = Ahead(sizes.horizon, each)
    return ModelGraph(None, layers, model_graph.ReadoutGraph("last"), head, ahead)


# ---- layers


def _layers(
    body: torch.nn.RNNBase | Stack, n_features: int, names: TensorNames
) -> tuple[Scan, ...]:
    if isinstance(body, Stack):
        n_directions, kind = body.n_directions, type(body.cells[0]).__name__
        sizes = _sizes(body, n_features)
        steps = [_step_of_cell(cell, body.hidden_size, n, names) for cell, n in sizes]
    else:
        n_directions, kind = 2 if body.bidirectional else 1, body.mode.partition("_")[0].lower()
        steps = _steps_of_layers(body, names)
    layers: list[Scan] = []
    for i in range(0, len(steps), n_directions):
        pair = steps[i : i + n_directions]
        directions = tuple(Direction(step, reverse=k == 1) for k, step in enumerate(pair))
        layers.append(Scan(f"{kind} layer {len(layers)}", directions))
    return tuple(layers)


def _steps_of_layers(body: Any, names: TensorNames) -> list[StepGraph]:
    """The steps of recurrent layers: layer by layer, direction by direction."""
    body._refresh()
    n_directions = 2 if body.bidirectional else 1
    n = len(body._all_weights[0])
    steps = []
    for i in range(body.num_layers * n_directions):
        weights = body._flat_weights[i * n : (i + 1) * n]
        width = body.input_size if i < n_directions else n_directions * body.hidden_size
        h = torch.zeros(ROWS_OF_SAMPLE, body.hidden_size, dtype=torch.float32)
        init = (h, h) if body.mode == "LSTM" else h
        xs = torch.randn(1, ROWS_OF_SAMPLE, width, dtype=torch.float32, generator=_generator())
        a = checked(body._step(weights, False), init, xs, 0, False)
        captured = [w for w in weights if w is not None]
        recording, _ = record(a, captured, None)
        check_recording(recording, a, None)
        graph = from_aten.DifferentiableGraph(recording, torch.float32)
        steps.append(_saved(graph, captured, names))
    return steps


def _sizes(body: Stack, n_features: int) -> list[tuple[torch.nn.Module, int]]:
    """The cells, each with the width of its input."""
    first, rest = n_features, body.n_directions * body.hidden_size
    return [(cell, first if i < body.n_directions else rest) for i, cell in enumerate(body.cells)]


def _step_of_cell(
    cell: torch.nn.Module, hidden_size: int, n_features: int, names: TensorNames
) -> StepGraph:
    """The step of a user's own cell.

    The sample has many steps (a view of one): they are worth a recording however often cells of
    this kind were recorded, in a search of hyperparameters for example.
    """
    xs = torch.randn(1, ROWS_OF_SAMPLE, n_features, dtype=torch.float32, generator=_generator())
    xs = xs.expand(MANY_STEPS, -1, -1)
    if hasattr(cell, "initial"):
        init: Any = cell.initial(xs[0])  # type: ignore[operator]
    else:
        init = torch.zeros(ROWS_OF_SAMPLE, hidden_size, dtype=torch.float32)
    call = compiled(checked(cell, init, xs, 0, False))
    if call.drawn is not None:
        raise Unsupported("the cell draws random numbers also after eval()")
    if call.per_row:
        raise Unsupported("the cell takes a tensor from outside that has a row for each of a batch")
    step = _saved(call.compiled.planner.graph, call.captured, names)
    if not hasattr(cell, "initial"):
        return step
    other = tree.leaves(cell.initial(1 - 2 * xs[0]))  # type: ignore[operator]
    first = [_first_row(a, b) for a, b in zip(tree.leaves(init), other, strict=True)]
    return _beginning_with(step, first, names)


def _first_row(leaf: Tensor, other: Tensor) -> Tensor:
    """A first carry `[width]`, found for two inputs, each of some rows."""
    rows = torch.cat([leaf, other]).detach()
    rows = rows.reshape(len(rows), -1)
    if not bool((rows == rows[0]).all()):
        raise Unsupported("the cell's first carry depends on its first input")
    return rows[0]


def _beginning_with(step: StepGraph, first: list[Tensor], names: TensorNames) -> StepGraph:
    """The step with a carry that begins with these rows instead of zeros.

    A further state, `begun`, is 0 before the first step and 1 after it.
    """
    if not any(bool(row.any()) for row in first):
        return step
    c = Composer()
    inputs = [c.input(n.width) for n in step.inputs]
    states = [c.state(n.width) for n in step.states]
    begun = c.state(1)
    values = []
    for state, row in zip(states, first, strict=True):
        vector = tensor_of(c, row, names)
        values.append(c.node("select", [begun, state, vector], (0.0,), ROWS, state.shape))
    new_states, outputs = c.inlined(step, inputs, values)
    one = c.node("const", [], (1.0,), ROWS, (1,))
    return StepGraph(tuple(inputs), (*states, begun), (*new_states, one), tuple(outputs))


def _saved(
    graph: from_aten.DifferentiableGraph, captured: Sequence[Tensor], names: TensorNames
) -> StepGraph:
    f = saved_step(graph, captured, names)
    return StepGraph(f.xs, f.states, f.new_states, f.ys)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
