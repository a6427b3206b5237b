"""Networks as graphs that run without torch, for saved models.

The steps of the layers and the heads are recorded as `scan` records them; the readouts of all
states are written as nodes, with the meaning of `models/readout.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ostinato.internal import (
    ROWS,
    TensorNames,
    Unsupported,
    check_recording,
    checked,
    compiled,
    from_aten,
    record,
    saved_step,
    tree,
)
from ostinato_learn import tasks
from ostinato_learn.models.graph_parts import (
    map_of,
    named,
    tensor_of,
)
from ostinato_learn.models.inputs import WordReader
from ostinato_learn.models.stack import Stack
from ostinato_learn.runtime import model_graph
from ostinato_learn.runtime.compose import Composer
from ostinato_learn.runtime.model_graph import Direction, Embed, ModelGraph, Scan
from ostinato_learn.runtime.step_graph import StepGraph

ROWS_OF_SAMPLE = 3
MANY_STEPS = 1 << 24
MOST_KNOWN = 64
# Graphs of recorded layers by mode, sizes and number of weights, on which alone they depend; a
# layer takes a tenth of a second to record.
_KNOWN: dict[tuple[Any, ...], from_aten.DifferentiableGraph] = {}


class Described(NamedTuple):
    """A network's graph, and the tensors that it reads in addition to the network's own."""

    graph: ModelGraph
    folded: dict[str, Tensor]


def describe(net: torch.nn.Module, *, several: bool = False) -> Described:
    """The graph of a network.

    Args:
        net: the network of a task, whose name is its `task`.
        several: whether each class of a classifier has its own probability.

    Raises:
        Unsupported: it has no graph; the reason is a sentence for the user.
    """
    weights = net.state_dict()
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.dtype is not torch.float32:
            raise Unsupported(f"{name} is {tensor.dtype}; a graph computes in float32")
    if not all(tensor.is_cpu for tensor in weights.values()):
        return describe(copy.deepcopy(net).cpu(), several=several)
    names = TensorNames(weights)
    with _evaluating(net):
        of_task = getattr(net, "task", None)
        if of_task is None:
            raise Unsupported(f"a {type(net).__name__} has no graph yet")
        graph = tasks.named(of_task).module("graph").graph(net, names, several)
    shapes = {name: tuple(t.shape) for name, t in {**weights, **names.folded}.items()}
    try:  # the compiler may know an operation that the file format does not have yet
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


# ---- parts of networks


def words_of(reader: WordReader | None, names: TensorNames) -> tuple[Embed | None, int | None]:
    """Words as vectors, and the number of their columns."""
    if reader is None:
        return None, None
    weight = reader.embedding.weight.detach()
    spelling = None
    if reader.characters is not None:
        characters = reader.characters.weight.detach()
        n, width = characters.shape
        layers = layers_of(reader.spelling, width, names)
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


# ---- layers


def layers_of(
    body: torch.nn.RNNBase | Stack, n_features: int, names: TensorNames
) -> tuple[Scan, ...]:
    """The recurrent layers of a body, each with the steps of its directions."""
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
        key = body.mode, width, body.hidden_size, len(captured)
        if key not in _KNOWN:
            recording, _ = record(a, captured, None)
            check_recording(recording, a, None)
            _KNOWN[key] = from_aten.DifferentiableGraph(recording, torch.float32)
            while len(_KNOWN) > MOST_KNOWN:
                _KNOWN.pop(next(iter(_KNOWN)))
        steps.append(_saved(_KNOWN[key], captured, names))
    return steps


def _sizes(body: Stack, n_features: int) -> list[tuple[torch.nn.Module, int]]:
    """The cells, each with the width of its input."""
    first, rest = n_features, body.n_directions * body.hidden_size
    return [(cell, first if i < body.n_directions else rest) for i, cell in enumerate(body.cells)]


def _step_of_cell(
    cell: torch.nn.Module, hidden_size: int, n_features: int, names: TensorNames
) -> StepGraph:
    """The step of a user's own cell.

    The sample has many steps (a view of one), so that the step is recorded however often cells of
    this kind were recorded before, in a search of hyperparameters for example.
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
        raise Unsupported("the cell takes a tensor from outside that has the rows of the batch")
    step = _saved(call.compiled.planner.graph, call.captured, names)
    if not hasattr(cell, "initial"):
        return step
    other = tree.leaves(cell.initial(1 - 2 * xs[0]))  # type: ignore[operator]
    first = [_first_row(a, b) for a, b in zip(tree.leaves(init), other, strict=True)]
    return _beginning_with(step, first, names)


# ---- heads


def recorded(
    function: Callable[..., Tensor], widths: Sequence[int], names: TensorNames
) -> StepGraph:
    """A function of rows as a graph without states.

    Args:
        function: from tensors `[B, width]`, one for each of `widths`, to a tensor `[B, K]`.

    Raises:
        Unsupported: it has no graph.
    """

    def step(carry: Tensor, rows: list[Tensor]) -> tuple[Tensor, Tensor]:
        return carry, function(*rows)

    generator = _generator()
    shapes = [(1, ROWS_OF_SAMPLE, n) for n in widths]
    sample = [torch.randn(s, dtype=torch.float32, generator=generator) for s in shapes]
    xs = [x.expand(MANY_STEPS, -1, -1) for x in sample]
    unused = torch.zeros(ROWS_OF_SAMPLE, 1, dtype=torch.float32)
    call = compiled(checked(step, unused, xs, 0, False))
    graph = _saved(call.compiled.planner.graph, call.captured, names)
    return map_of(graph.inputs, graph.outputs[0])


def _first_row(leaf: Tensor, other: Tensor) -> Tensor:
    """The first carry `[width]`, which must be equal for two inputs."""
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
