"""Each operation of a step graph in ONNX, against its meaning in NumPy."""

from __future__ import annotations

import numpy as np
import onnx_examples as ex
import pytest
import torch

import ostinato
from ostinato.compiler.graph.node import WITHIN_ROWS, Node
from ostinato.engine.ops import OPS
from ostinato_learn.export.onnx.ops import ELEMENTWISE, ROWS
from ostinato_learn.runtime import step_graph
from ostinato_learn.runtime.step_graph import StepGraph
from shared.reference import play_step
from shared.saved import of_case, rows
from zoo import operations, steps
from zoo.random_steps import Draw, random_case
from zoo.suites import one_in, sample

# Rows that the writer itself makes: inputs, constants and products.
WRITTEN = {"x", "state", "const", "matmul"}
ONCE = {"tensor", "transpose", "part", "block"}


def test_every_operation_has_a_row():
    assert set(ELEMENTWISE) == set(OPS)
    assert set(step_graph._CHECKS) - set(OPS) <= {*ROWS, *WRITTEN, *ONCE}
    assert set(WITHIN_ROWS) <= set(ROWS)


SPECIAL = [0.0, -0.0, 1e-30, -1e-4, 1e-4, 0.3, -0.7, 1.0, -1.0, 2.5, -6.0, 20.0, -20.0, 90.0, 3e38]
# What ONNX Runtime rounds more than once, as multiples of ε of the result: exp2 by pow; a tanh by
# a rational function with an absolute error of 4e-7 near ±1; products and sums of two roundings.
ULPS = {
    "expm1": 16,
    "log1p": 8,
    "exp2": 8,
    "pow": 8,
    "pow_s": 8,
    "erf": 8,
    "softplus": 8,
    "erfcx": 16,
}


@pytest.mark.parametrize("name", sorted(n for n in OPS if OPS[n].arity))
@pytest.mark.parametrize("s", [0.5, -2.0, 0.0])
def test_elementwise(name, s):
    arity = OPS[name].arity
    grid = np.meshgrid(*[np.array(SPECIAL, np.float32)] * arity)
    values = [g.ravel()[:, None] for g in grid]
    if name == "atan2":
        values = [v + np.float32(0) for v in values]  # without −0, which ONNX has no sign of
    if name in ("sin", "cos", "tan"):
        values = [v[np.abs(v) < 100][:, None] for v in values]  # ONNX Runtime reduces coarsely
    inputs = tuple(Node("x", (), (i,), "rows", (1,), i) for i in range(arity))
    graph = StepGraph(inputs, (), (), (Node(name, inputs, (s,), "rows", (1,), arity),))
    feeds = {f"x{i}": v for i, v in enumerate(values)}
    (came,) = ex.session(ex.step_proto(graph, {})).run(None, feeds)
    with np.errstate(all="ignore"):
        meant = OPS[name].meaning(*(v.astype(np.float64) for v in values), np.float64(s))
        single = OPS[name].meaning(*values, np.float32(s))
    # Where float32 overflows or rounding decides (a difference of large numbers), float32's own
    # meaning counts; elsewhere float64's.
    for row in zip(
        came[:, 0], np.ravel(meant), np.ravel(single), *np.hstack(values).T, strict=True
    ):
        got, exact, rounded, *operands = row
        if np.isnan(rounded) or np.isinf(rounded):
            assert got == rounded or (np.isnan(got) and np.isnan(rounded)), (
                name,
                operands,
                row[:3],
            )
            continue
        error = ULPS.get(name, 4) * ex.EPS * abs(exact) + 2 * abs(float(rounded) - exact) + 1e-37
        if name in ("tanh", "sigmoid", "softplus", "erf", "erfc"):
            error += 4e-7
        assert abs(float(got) - exact) <= error, (name, operands, row[:3])


# ---- operations on arrays within a row, by hand


def row(i, width):
    return Node("x", (), (i,), "rows", (width,), i)


def a_then(op, attrs, width, of):
    """A map that is one operation of x0, whose rows have `of` columns."""
    x = row(0, of)
    return StepGraph((x,), (), (), (Node(op, (x,), attrs, "rows", (width,), 1),))


def places(runs):
    return np.concatenate(
        [np.full(n, -1) if start < 0 else start + step * np.arange(n) for start, n, step in runs]
    )


RUNS = ((4, 2, -2), (-1, 3, 0), (1, 3, 1), (5, 1, 1))
ARRAYS = {
    "spread": (a_then("spread", (3, 2), 30, 10), lambda a: np.repeat(a.reshape(-1, 5, 1, 2), 3, 2)),
    "spread all": (a_then("spread", (0.0,), 5, 1), lambda a: np.repeat(a, 5, 1)),
    "row_sum": (a_then("row_sum", (3, 2), 10, 30), lambda a: a.reshape(-1, 5, 3, 2).sum(2)),
    "row_sum all": (a_then("row_sum", (), 1, 12), lambda a: a.sum(1)),
    "row_max": (a_then("row_max", (3, 2), 10, 30), lambda a: a.reshape(-1, 5, 3, 2).max(2)),
    "take": (
        a_then("take", RUNS, 9, 6),
        lambda a: np.where(places(RUNS) < 0, 0, a[:, places(RUNS)]),
    ),
    "take without zeros": (a_then("take", RUNS[2:], 4, 6), lambda a: a[:, places(RUNS[2:])]),
}


@pytest.mark.parametrize("runtime", [ex.onnx_runtime, ex.openvino])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_within_a_row(name, runtime):
    graph, meaning = ARRAYS[name]
    for B in (1, 4):
        a = np.random.default_rng(0).normal(size=(B, graph.inputs[0].width)).astype(np.float32)
        (came,) = runtime(ex.step_proto(graph, {}))({"x0": a})
        np.testing.assert_allclose(came, meaning(a).reshape(B, -1), rtol=0, atol=8 * ex.EPS)


@pytest.mark.parametrize("runtime", [ex.onnx_runtime, ex.openvino])
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("shared", [None, 0, 1])
def test_products_within_a_row(shared, across, runtime):
    """Of two arrays of each row, or of one and a weight that all rows share."""
    groups, M, K, N = 2, 3, 4, 5
    sizes = [(groups, M, K), (groups, N, K) if across else (groups, K, N)]
    nodes = [row(i, int(np.prod(size))) for i, size in enumerate(sizes)]
    if shared is not None:
        nodes[shared] = Node("tensor", (), ("w",), "once", nodes[shared].shape, shared)
    attrs = (groups, M, K, N, across)
    made = Node("product", tuple(nodes), attrs, "rows", (groups * M * N,), 2)
    inputs = tuple(n for n in nodes if n.op == "x")
    random = np.random.default_rng(0)
    values = [
        random.normal(size=(1 if i == shared else 3, n.width)).astype(np.float32)
        for i, n in enumerate(nodes)
    ]
    tensors = {} if shared is None else {"w": values[shared][0]}
    feeds = {f"x{k}": values[nodes.index(n)] for k, n in enumerate(inputs)}
    (came,) = runtime(ex.step_proto(StepGraph(inputs, (), (), (made,)), tensors))(feeds)
    a, b = (v.reshape(-1, *size) for v, size in zip(values, sizes, strict=True))
    meant = a @ (b.swapaxes(2, 3) if across else b)
    np.testing.assert_allclose(came, meant.reshape(3, -1), rtol=0, atol=64 * ex.EPS)


# ---- steps

STEPS = {
    **{name: lambda name=name: steps.make(name, torch.float32) for name in sample(20, steps.ZOO)},
    **{f"{group}: {name}": make for group, name, make in operations.cases(torch.float32)},
}


# It computes in float64, which no saved graph does.
del STEPS["whole numbers and truth values: nothing but whole numbers"]


def delta_rule():
    """A matrix as memory: what a key reads is replaced, not added to (Schlag et al. 2021)."""
    W = torch.randn(6, 13) / 2

    def step(M, x):
        k, v, q, b = (x @ W).split([4, 4, 4, 1], 1)
        k = torch.softmax(k, 1)
        old = torch.bmm(M, k[:, :, None])[:, :, 0]
        M = M + (torch.sigmoid(b) * (v - old))[:, :, None] * k[:, None, :]
        return M, torch.einsum("bij,bj->bi", M, q)

    return steps.Case(step, [W], lambda B: torch.randn(B, 4, 4) / 2, lambda B: torch.randn(B, 6))


def heads():
    """Attention among three heads, each with weights of its own."""
    W, R = torch.randn(6, 6) / 2, torch.randn(3, 2, 2)

    def step(h, x):
        a = torch.einsum("bhi,hij->bhj", (x @ W).view(-1, 3, 2), R)
        b = h.view(-1, 3, 2)
        mixed = torch.softmax(a @ b.transpose(1, 2), -1) @ b
        return torch.tanh(mixed + b.amax(2, keepdim=True)).transpose(1, 2).reshape(-1, 6)

    return steps.Case(step, [W, R], lambda B: torch.randn(B, 6), lambda B: torch.randn(B, 6))


STEPS |= {"delta rule": delta_rule, "heads": heads}


@pytest.mark.parametrize("name", one_in(4, STEPS))
def test_steps_of_the_zoo(name):
    agree(STEPS[name]())


@pytest.mark.parametrize("seed", one_in(4, range(20)))
def test_random_steps(seed):
    case = random_case(Draw(7000 + seed))
    for p in case.parameters:
        p.data = p.data.float()
    single = steps.Case(
        case.step, case.parameters, lambda B: to_float(case.init(B)), lambda B: to_float(case.x(B))
    )
    agree(single)


def to_float(tree):
    return torch.utils._pytree.tree_map(lambda t: t.float(), tree)


def agree(case):
    """One step of a case, for one row and for three.

    A step is some twenty operations deep; each rounds at most 8 ε, sums of K terms √K more, and
    division and the like amplify: 256 ε of the largest number leaves room for a factor of two.
    """
    ostinato.forget(case.step)
    graph, tensors = of_case(case)
    session = ex.session(ex.step_proto(graph, tensors))
    needed = {i.name for i in session.get_inputs()}
    for B in (1, 3):
        xs, states = (rows(of(B)) for of in (case.x, case.init))
        named = {f"x{i}": v for i, v in enumerate(xs)} | {
            f"state{i}": v for i, v in enumerate(states)
        }
        feeds = {name: v.astype(np.float32) for name, v in named.items() if name in needed}
        came = session.run(None, feeds)
        wide = [[v.astype(np.float64) for v in values] for values in (xs, states)]
        new, ys = play_step(graph, *wide, ex.double(tensors))
        for got, meant in zip(came, [*new, *ys], strict=True):
            assert got.shape == meant.shape
            atol = 256 * ex.EPS * (1 + np.abs(meant).max())
            np.testing.assert_allclose(got, meant, rtol=0, atol=atol)
