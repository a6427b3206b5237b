"""Single steps as C: every operation, the steps of the zoo, and random ones."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest
import torch
from c_examples import (
    STRICT,
    checked_run,
    libraries_of,
    library_of,
    needs_gcc,
    reference_answers,
    source_of,
)
from torch.utils import _pytree as pytree

import ostinato
from ostinato.engine.ops import OPS
from ostinato.engine.program import Code
from ostinato_learn.export.c.ops import EXPRESSIONS, FUNCTIONS, used
from ostinato_learn.export.c.play import PartPlayer, answers, bound
from ostinato_learn.export.c.program import in_place
from ostinato_learn.export.c.write import named
from shared.saved import of_case, step_graph
from zoo.operations import cases
from zoo.random_steps import Draw, random_case
from zoo.steps import ZOO, make
from zoo.suites import one_in, sample

pytestmark = needs_gcc

NAN, INF = float("nan"), float("inf")
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 1e-30, -1e-30, 1e-42, 89.0, -104.5, INF, -INF, NAN]
# Exact operations have the bits of NumPy. The others are within 4 ulp of float64, or within 2⁻¹²⁶
# where the result is no normal number: see FUNCTIONS in c_ops.py for exp, tanh and sigmoid; the
# C library's own are within 2.
ROUNDED = {
    "exp", "exp2", "log", "log1p", "expm1", "erf", "erfc", "erfcx", "sin", "cos", "tan", "atan",
    "sinh", "cosh", "log2", "log10", "tanh", "sigmoid", "softplus", "pow", "atan2", "pow_s", "fma",
    "lerp", "tanh_backward", "sigmoid_backward", "mul_s", "rdiv_s",
}  # fmt: skip


# ---- operations


def test_every_operation_of_the_engine_has_an_expression():
    assert EXPRESSIONS.keys() == OPS.keys()
    called = {name for text in EXPRESSIONS.values() for name in re.findall(r"@(\w+)\(", text)}
    assert called <= FUNCTIONS.keys()


@pytest.fixture(scope="module")
def operations(tmp_path_factory):
    """op(name, a, b, c, s) in C."""
    functions = [
        f"void @op_{name}(const float *A, const float *B, const float *C, float s, float *out, "
        f"int n)\n{{\n    for (int i = 0; i < n; i++) {{\n"
        f"        const float a = A[i], b = B[i], c = C[i];\n"
        f"        (void)a, (void)b, (void)c, (void)s;\n        out[i] = {text};\n    }}\n}}\n"
        for name, text in EXPRESSIONS.items()
    ]
    text = "\n".join(functions)
    helpers = "".join(FUNCTIONS[name] for name in used(text))
    place = tmp_path_factory.mktemp("ops")
    include = "#include <float.h>\n#include <math.h>\n#include <stdint.h>\n"
    (place / "ops.c").write_text(named(include + helpers + text, "x"))
    checked_run(
        "gcc", *STRICT, "-O3", "-shared", "-fPIC", "ops.c", "-o", "ops.so", "-lm", cwd=place
    )
    library = ctypes.CDLL(str(place / "ops.so"))

    def op(name, a, b, c, s):
        out = np.empty_like(a)
        pointers = [v.ctypes.data_as(ctypes.c_void_p) for v in (a, b, c)]
        function = getattr(library, f"x_op_{name}")
        function(*pointers, ctypes.c_float(s), out.ctypes.data_as(ctypes.c_void_p), len(a))
        return out

    return op


def operands():
    rng = np.random.default_rng(0)
    special = np.array(SPECIAL, np.float32)
    a, b = (grid.ravel() for grid in np.meshgrid(special, special))
    c = np.resize(special[::-1], len(a))
    usual = (rng.normal(size=(3, 20_000)) * 3).astype(np.float32)
    wide = (rng.uniform(-110, 110, size=(3, 20_000))).astype(np.float32)
    small = (rng.normal(size=(3, 5_000)) * 1e-4).astype(np.float32)
    return np.concatenate([np.stack([a, b, c]), usual, wide, small], axis=1)


@pytest.mark.parametrize("name", OPS)
def test_operations_mean_what_numpy_says(operations, name):
    a, b, c = map(np.ascontiguousarray, operands())
    for s in (0.75, -2.0, 0.0):
        ours = operations(name, a, b, c, s)
        with np.errstate(all="ignore"):
            inputs = [v.astype(np.float64) for v in (a, b, c)[: OPS[name].arity]]
            exact = np.broadcast_to(OPS[name].meaning(*inputs, s), ours.shape)
            rounded = exact.astype(np.float32)
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(rounded))
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(ours[~finite], rounded[~finite])
        if name not in ROUNDED:
            np.testing.assert_array_equal(ours, rounded)
            continue
        allowed = 4 * np.spacing(np.abs(rounded[finite])) + 2.0**-126
        if name in ("fma", "lerp", "tanh_backward", "sigmoid_backward"):
            # each is some roundings of terms, which may cancel
            terms = [np.abs(v[finite]) for v in inputs]
            with np.errstate(all="ignore"):
                size = {
                    "fma": lambda a, b, c: a * b + c,
                    "lerp": lambda a, b, c: a + c * (a + b),
                    "tanh_backward": lambda a, b: a * (1 + b * b),
                    "sigmoid_backward": lambda a, b: a * b * (1 + b),
                }[name](*terms)
            allowed = allowed + 4 * 2.0**-24 * size
        assert (np.abs(ours[finite] - exact[finite]) <= allowed).all()


@pytest.mark.parametrize("stride", one_in(2, [9973, 499]))
@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid"])
def test_own_functions_are_within_their_bounds_all_over(operations, name, stride):
    """Every 500th float32: it is what the comment over FUNCTIONS says."""
    bits = np.arange(0, 2**32, stride, dtype=np.uint32)
    a = bits.view(np.float32)
    a = np.ascontiguousarray(a[np.isfinite(a)])
    ours = operations(name, a, a, a, 0.0).astype(np.float64)
    with np.errstate(all="ignore"):
        exact = OPS[name].meaning(a.astype(np.float64), 0.0)
        rounded = exact.astype(np.float32)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(ours[~finite], rounded[~finite])
    ours, exact, rounded = ours[finite], exact[finite], rounded[finite]
    ulps = np.abs(ours - exact) / np.spacing(np.maximum(np.abs(rounded), 2.0**-126))
    limit = {"exp": 1.25, "tanh": 2.5, "sigmoid": 2.5}[name]
    normal = np.abs(exact) > 2.0**-126
    assert ulps[normal].max() <= limit
    assert np.abs(ours - exact)[~normal].max() <= 2.0**-126


# ---- steps


def assert_equal_in_c(steps, place, n_steps):
    """C beside the meaning of the nodes in float64, within what rounding can do.

    Args:
        steps: by name, graph and tensors of a step.

    Returns:
        What rounding can do, by name.
    """
    sources = [source_of(*step, name=f"step{i}") for i, step in enumerate(steps.values())]
    bounds = {}
    libraries = libraries_of(sources, place)
    for (name, (graph, tensors)), s, library in zip(steps.items(), sources, libraries, strict=True):
        rng = np.random.default_rng(1)
        xs = rng.normal(size=(n_steps, s.prepare.n_inputs)).astype(np.float32)
        expected = reference_answers(graph, tensors, xs)
        allowed = bound(s.step, s.answer, xs)
        played = answers(PartPlayer(s.step), PartPlayer(s.answer), xs[None])[0]
        assert (np.abs(played - expected) <= allowed).all(), name
        ours = library.stream().answers(xs)
        assert (np.abs(ours - expected) <= allowed).all(), name
        bounds[name] = allowed
    return bounds


def test_the_zoo(tmp_path):
    steps = {name: of_case(make(name, torch.float32)) for name in sample(20, ZOO)}
    bounds = assert_equal_in_c(steps, tmp_path, n_steps=12)
    assert max(b.max() for b in bounds.values()) < 1e-3  # so that the comparison means something


@pytest.mark.slow
def test_the_operations(tmp_path):
    makers = {f"{group}: {name}": make for group, name, make in cases(torch.float32)}
    # The first computes in float64, which no saved graph does; the second divides by the largest
    # element of its carry, which begins as zeros.
    del makers["whole numbers and truth values: nothing but whole numbers"]
    del makers["over the features: norm"]
    steps = {}
    for name, make_case in makers.items():
        case = make_case()
        ostinato.forget(case.step)
        steps[name] = of_case(case)
    for allowed in assert_equal_in_c(steps, tmp_path, n_steps=4).values():
        assert np.median(allowed) < 1e-3  # not all: a place among equal elements is open


class Memory(torch.nn.Module):
    """A matrix for each row, written by outer products and read by products; and a delay line."""

    def __init__(self, F=5, heads=2, D=3, N=4):
        super().__init__()
        self.heads, self.D, self.N = heads, D, N
        self.key, self.query = torch.nn.Linear(F, heads * D), torch.nn.Linear(F, heads * D)
        self.value, self.decay = torch.nn.Linear(F, heads * N), torch.nn.Linear(F, heads)

    def forward(self, carry, x):
        memory, line = carry  # [B, heads, D, N], [B, F]
        B, heads, D, N = memory.shape
        key = torch.softmax(self.key(x).view(B, heads, D), 2)
        query, value = self.query(x).view(B, heads, D), self.value(x).view(B, heads, N)
        decay = torch.sigmoid(self.decay(x))[:, :, None, None]
        memory = memory * decay + key[..., None] * value[:, :, None]
        read = (query[:, :, None] @ memory)[:, :, 0]  # [B, heads, N]
        alike = torch.einsum("bhdn,bhen->bhde", memory, memory)
        largest = memory.amax(2) - memory.sum(1, keepdim=True).mean(2)
        line = torch.roll(line, 1, 1) * 0.5 + x.flip(1) + read.mean((1, 2))[:, None]
        mixed = alike.transpose(2, 3).reshape(B, -1)[:, :5].tanh()
        return memory + 0.01 * (read + largest)[:, :, None], line.tanh() + mixed


def test_rows_that_are_arrays(tmp_path):
    cell = Memory()
    torch.manual_seed(0)
    for p in cell.parameters():
        p.data = torch.randn(p.shape) * 0.4

    def init(B, dtype=torch.float32):
        return torch.zeros(B, 2, 3, 4, dtype=dtype), torch.zeros(B, 5, dtype=dtype)

    graph, tensors = step_graph(cell, cell.parameters(), init(3), torch.randn(3, 5))
    s = source_of(graph, tensors)
    codes = {x.code for x in s.step.instructions}
    assert {Code.BROADCAST, Code.ROW_SUM, Code.ROW_MAX, Code.TAKE, Code.PRODUCT} <= codes
    xs = np.random.default_rng(1).normal(size=(12, 5)).astype(np.float32)
    exact, expected = init(1, torch.float64), []
    with torch.no_grad():
        for x in xs:
            exact = cell.double()(exact, torch.tensor(x[None], dtype=torch.float64))
            expected.append(torch.cat([t.flatten(1) for t in exact], 1)[0].numpy())
    allowed = bound(s.step, s.answer, xs)
    assert allowed.max() < 1e-3
    played = answers(PartPlayer(s.step), PartPlayer(s.answer), xs[None])[0]
    assert (np.abs(played - expected) <= allowed).all()
    ours = library_of(s, tmp_path).stream().answers(xs)
    assert (np.abs(ours - expected) <= allowed).all()


def random_step(seed):
    """The graph and tensors of a random step in float32; None if the engine cannot play it."""
    case = random_case(Draw(seed))
    ostinato.forget(case.step)  # the code of all cases is the same, and a loop would do for many

    def single(tree):
        return pytree.tree_map(lambda t: t.float(), tree)

    for p in case.parameters:
        p.data = p.data.float()
    init, x = case.init, case.x
    case.init, case.x = (lambda B: single(init(B))), (lambda B: single(x(B)))
    try:
        return of_case(case)
    except AssertionError:  # of_case: refused by scan, for a reason that its own tests cover
        return None


@pytest.mark.parametrize(
    "seeds", [range(12), pytest.param(range(12, 60), marks=pytest.mark.slow)], ids=len
)
def test_random_steps(seeds, tmp_path):
    found = {seed: random_step(seed) for seed in seeds}
    played = {seed: step for seed, step in found.items() if step is not None}
    assert len(played) > 0.9 * len(found)
    assert_equal_in_c(played, tmp_path, n_steps=5)


def test_carries_are_written_in_place_where_nothing_reads_them_later():
    """A GRU needs no second copy of its state, a simple network does."""
    for name, alone in (("gru_cell_module", True), ("rnn_cell_module", False)):
        s = source_of(*of_case(make(name, torch.float32)))
        assert (in_place(s.step) != set()) == alone
