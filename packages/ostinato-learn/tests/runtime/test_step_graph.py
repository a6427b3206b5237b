"""Recorded steps as values: their meaning is the step's, a file gives them back, nothing is read
unchecked."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

import ostinato
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.node import WITHIN_ROWS
from ostinato.engine.ops import OPS
from ostinato.nn.steps import gru_step
from ostinato_learn.runtime.programs import StepProgram
from ostinato_learn.runtime.step_graph import _CHECKS, StepGraph
from shared.reference import play_step
from shared.saved import of_case, rows, step_graph, torch_step
from zoo import operations, steps
from zoo.modern import MODERN
from zoo.random_steps import Draw, random_case
from zoo.suites import one_in, sample

EPS = np.finfo(np.float32).eps


def close(ours, theirs, tolerance=64 * EPS):
    """Steps are about a dozen operations deep on numbers of size 1, sums at most 24 long: rounding
    of 64 ε, relative to the largest number, leaves room for an amplification of two."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * (1 + np.abs(b).max(initial=0)))


def again(graph):
    """Through a file and back."""
    value = json.loads(json.dumps(graph.as_json(), allow_nan=False))
    read = StepGraph.from_json(value, graph.tensors)
    assert read.as_json() == graph.as_json()
    return read


@pytest.mark.parametrize("name", sample(12, sorted(steps.ZOO)))
def test_the_meaning_is_the_step(name):
    case = steps.make(name, torch.float32)
    graph, tensors = of_case(case)
    carry, x = case.init(3), case.x(3)
    new, ys = play_step(again(graph), rows(x), rows(carry), tensors)
    close([*new, *ys], [a for part in torch_step(case, carry, x) for a in part])


def matrix_memory():
    """A state that is a matrix: written by outer products, decayed by row, read by a product."""
    W, decay = torch.randn(6, 12) / 3, torch.rand(4)

    def step(M, x):
        k, v, q = (x @ W).split(4, 1)
        M = M * decay[:, None] + k[:, :, None] * v[:, None, :]
        return M, torch.bmm(M.transpose(1, 2), q[:, :, None])[:, :, 0]

    return steps.Case(
        step, [W, decay], lambda B: torch.randn(B, 4, 4) / 2, lambda B: torch.randn(B, 6)
    )


def heads():
    """Three heads of two columns: their products with each other, sums and largest values."""
    W = torch.randn(6, 6) / 2

    def step(h, x):
        a, b = (x @ W).view(-1, 3, 2), h.view(-1, 3, 2)
        mixed = torch.softmax(a @ b.transpose(1, 2), -1) @ b
        gate = torch.sigmoid(a.sum(1, keepdim=True) + b.amax(2, keepdim=True))
        return (mixed * gate).transpose(1, 2).reshape(-1, 6)

    return steps.Case(step, [W], lambda B: torch.randn(B, 6), lambda B: torch.randn(B, 6))


EVERY_STEP = {
    "a matrix as memory": matrix_memory,
    "three heads": heads,
    **{name: lambda name=name: steps.make(name, torch.float32) for name in sample(20, steps.ZOO)},
    **{name: make for _, name, make in operations.cases(torch.float32)},
    **{n: lambda n=n: MODERN[n](steps.Kit(torch.float32)) for n in sample(8, MODERN)},
}
EVERY_STEP.pop("nothing but whole numbers")  # which the engine computes in float64


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*was recorded")
@pytest.mark.parametrize("name", EVERY_STEP)
def test_the_bits_are_those_of_scan(name):
    """Of steps of the zoo and every operation: saved, read again and played without torch."""
    case, T, B = EVERY_STEP[name](), 4, 5
    ostinato.forget(case.step)
    graph, tensors = of_case(case)
    init, xs = case.init(B), case.xs(T, B)
    with torch.no_grad():
        carry, ys = ostinato.scan(case.step, init, xs)
    given = [over_time(x) for x in pytree.tree_leaves(xs)]
    outputs, finals = StepProgram(again(graph), tensors).play(given, init=rows_of_float32(init))
    expected = [*map(over_time, pytree.tree_leaves(ys)), *rows_of_float32(carry)]
    for ours, theirs in zip([*outputs, *finals], expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def over_time(leaf):
    """`[T, B, …]` as `[T, B, width]`."""
    return leaf.detach().float().numpy().reshape(*leaf.shape[:2], -1)


def rows_of_float32(tree):
    return [row.astype(np.float32) for row in rows(tree)]


@pytest.mark.parametrize("seed", one_in(5, range(25)))
def test_random_steps_in_the_engine(seed):
    """NumPy's meaning, and the engine over some steps, forwards and backwards."""
    graph, tensors, case = random_graph(seed)
    T, B = 4, 3
    xs = [
        np.stack([r[i] for r in [rows(case.x(B)) for _ in range(T)]])
        for i in range(len(graph.inputs))
    ]
    init = rows(case.init(B))
    for reverse in (False, True):
        outputs, finals = StepProgram(graph, tensors, reverse=reverse).play(xs, init=init)
        carry, found = init, {}
        for t in reversed(range(T)) if reverse else range(T):
            carry, found[t] = play_step(graph, [x[t] for x in xs], carry, tensors)
        theirs = [np.stack([found[t][i] for t in range(T)]) for i in range(len(outputs))]
        close([*outputs, *finals], [*theirs, *carry], 4096 * EPS)


def random_graph(seed):
    """Of a random step in float32; steps that the compiler refuses are passed over."""
    for attempt in range(20):
        case = random_case(Draw(1000 * seed + attempt))
        case = in_float32(case)
        try:
            graph, tensors = of_case(case)
        except (Unsupported, AssertionError):
            continue
        return again(graph), tensors, case
    raise AssertionError("no step that can be played")


def in_float32(case):
    """The same step on float32 parameters and inputs."""
    for p in case.parameters:
        p.data = p.data.float()

    def single(tree):
        return pytree.tree_map(lambda t: t.float(), tree)

    init, x = case.init, case.x
    return steps.Case(case.step, case.parameters, lambda B: single(init(B)), lambda B: single(x(B)))


def test_weights_are_read_by_name_and_computed_ones_are_folded():
    W, mask = torch.randn(4, 4) / 2, torch.tril(torch.ones(4, 4))
    b = torch.nn.Parameter(torch.randn(4))

    def step(h, x):
        return torch.tanh(x @ (W * mask) + h @ W.t() + b)

    case = steps.Case(step, [W, b], lambda B: torch.randn(B, 4), lambda B: torch.randn(B, 4))
    graph, tensors = of_case(case)
    assert set(tensors) == {"p0", "p1", "folded.0"}
    np.testing.assert_array_equal(tensors["folded.0"], (W * mask).numpy())
    assert [n.op for n in graph.nodes].count("transpose") == 1


def test_a_gru_layer():
    layer = ostinato.nn.GRU(3, 4)
    weights = [p.detach() for p in layer.parameters()]
    h, x = torch.randn(5, 4), torch.randn(5, 3)
    graph, tensors = step_graph(gru_step(*weights), weights, h, x)
    assert set(tensors) == {"p0", "p1", "p2", "p3"}
    ((new,), (y,)) = play_step(again(graph), rows(x), rows(h), tensors)
    assert graph.outputs == graph.new_states
    close([new, y], rows([gru_step(*weights)(h, x)] * 2))


# ---- what is refused


def small_graph():
    W = torch.randn(3, 3)
    case = steps.Case(
        lambda h, x: torch.tanh(torch.cat([x, h], 1)[:, 1:4] @ W + 0.5 * h.sum(1, keepdim=True)),
        [W],
        lambda B: torch.randn(B, 3),
        lambda B: torch.randn(B, 2),
    )
    return of_case(case)[0]


def everywhere(value, path=()):
    """The paths to all values within a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from everywhere(value[key], (*path, key))


WRONG = (None, True, -1, 10**30, 2.5, "", "x", [], [0], {}, {"op": "x"}, float("nan"))


def test_no_change_of_a_value_breaks_the_reader():
    """Each value replaced in turn: what is read is a graph that can be lowered, or ValueError."""
    graph = small_graph()
    value, n_refused = graph.as_json(), 0
    for path in list(everywhere(value)):
        for wrong in WRONG:
            changed = copy.deepcopy(value)
            if not path:
                changed = wrong
            else:
                at = changed
                for key in path[:-1]:
                    at = at[key]
                at[path[-1]] = wrong
            try:
                read = StepGraph.from_json(changed, graph.tensors)
            except ValueError:
                n_refused += 1
                continue
            play_step(
                read,
                [np.ones((2, n.width), np.float32) for n in read.inputs],
                [np.ones((2, n.width), np.float32) for n in read.states],
                {name: np.ones(shape, np.float32) for name, shape in read.tensors.items()},
            )
    assert n_refused > 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["nodes"][-1].update(op="quantum_gate"), "has no operation 'quantum_gate'"),
        (lambda v: v["nodes"][-1].update(inputs=[99]), "whole number from 0"),
        (lambda v: v.pop("outputs"), "lacks .'outputs'."),
        (lambda v: v.update(new_states=[]), "new_states are not as wide"),
        (lambda v: v["states"].append(3), "wanted 3"),
    ],
)
def test_what_is_refused_is_named(change, message):
    graph = small_graph()
    value = graph.as_json()
    change(value)
    with pytest.raises(ValueError, match=message):
        StepGraph.from_json(value, graph.tensors)


def test_every_operation_on_rows_can_be_read():
    """A new operation of the compiler needs its line in the reader, and its meaning in NumPy."""
    others = {"x", "state", "const", "slice", "concat", "matmul", "spread", *WITHIN_ROWS}
    others |= {"tensor", "transpose", "part", "block"}
    assert set(_CHECKS) == others | {name for name, op in OPS.items() if op.arity}


def test_a_tensor_of_another_shape_is_refused():
    graph = small_graph()
    name = next(iter(graph.tensors))
    with pytest.raises(ValueError, match="tensor"):
        StepGraph.from_json(graph.as_json(), {name: (5, 5)})
