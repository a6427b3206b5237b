"""The bit contract: what does not change a single bit of a native scan, in float32 and float64.

Outputs, last carry and the gradients of xs and init do not depend on the number of threads, the
other rows of the batch, padding, on whether the sequence comes whole, in chunks or step by step, or
on the instruction set. Gradients of parameters do not depend on threads or instruction set.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ostinato import _native, scan
from zoo.bits import (
    assert_rows_have_their_bits,
    assert_same_bits,
    bits,
    rows,
    rows_of,
    rows_of_weights,
    weights_for,
)
from zoo.playing import Played, play
from zoo.steps import LINEAR, Case, Kit, make
from zoo.suites import one_in

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*was recorded"),  # one code at many sizes: meant
]

# Every kind of section, product and reduction; F and H past one vector, no multiple of anything.
NAMES = [
    "tanh_rnn_matmul",
    "rnn_cat",
    "gru_reset_after",
    "gru_reset_before",
    "lstm_chunk",
    "lstm_layer_norm",
    "lstm_peepholes",
    "slstm_stabilised",
    "lem",
    "min_gru",
    "readout_per_step",
    "clockwork",
    "stack_of_three",
    "mlp_gelu",
    "shared_twice",
]
F, H = 19, 23
ISAS = _native.available_isas()
VECTORS = [isa for isa in ISAS if isa != "base"]


DTYPES = [torch.float32, torch.float64]
BOTH = [(name, dtype) for name in NAMES for dtype in DTYPES]


def case_of(name: str, n_hidden: int = H, dtype: torch.dtype = torch.float32) -> Case:
    return make(name, dtype, F, n_hidden)


def met(case: Case, *sizes: int) -> None:
    """Let the engine meet a step at these batch sizes, with data that PyTorch agrees on."""
    for B in sizes:
        play(scan, case, case.init(B), case.xs(2, B))


def spoil(xs: Any) -> None:
    """NaN, infinities and denormals, some in each leaf of xs `[T, B, …]`, in rows 0 to 3."""
    for leaf in pytree.tree_leaves(xs):
        if not leaf.is_floating_point() or leaf.shape[1] < 5:
            continue
        leaf[1, 0, 0] = float("nan")
        leaf[2, 1, -1] = float("inf")
        leaf[0, 2, 0] = -float("inf")
        leaf[:, 3] = leaf[:, 3] * (torch.finfo(leaf.dtype).tiny / 10)


# ------------------------------------------------------------------------------------- threads


SMALL, FEW_ROWS = (H, [(5, 1), (5, 7), (4, 37)]), (96, [(80, 5)])


@pytest.mark.parametrize("n_hidden, sizes", [SMALL, FEW_ROWS])
@pytest.mark.parametrize("name, dtype", one_in(3, BOTH, of_several=True))
def test_threads(name, dtype, n_hidden, sizes):
    """Of a large step and few rows threads take columns (unless they take very long to meet here;
    that they do, however small it is, is forced in tests/engine and in the native tests)."""
    case = case_of(name, n_hidden, dtype)
    met(case, *(B for _, B in sizes))
    for T, B in sizes:
        init, xs = case.init(B), case.xs(T, B)
        spoil(xs)
        for options in ({}, {"reverse": True, "lengths": [T] + [b % T for b in range(B - 1)]}):
            torch.set_num_threads(1)
            alone = play(scan, case, init, xs, **options)
            for n in (2, 4):
                torch.set_num_threads(n)
                assert_same_bits(play(scan, case, init, xs, **options), alone, f"B={B}, {n}")


def test_threads_and_large_gradients():
    """Above one MB a gradient is summed at the end, each thread its own rows of it."""
    kit = Kit(torch.float32, 8, 560)
    U, W = kit.weight(8, 560), kit.weight(560, 560)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ U + h @ W)

    case = Case(step, [U, W], lambda B: kit.normal(B, 560), lambda B: kit.normal(B, 8))
    init, xs = case.init(10), case.xs(4, 10)
    for options in ({}, {"lengths": [4, 0, 1, 3, 2, 4, 4, 1, 2, 3]}):
        found = []
        for n in (1, 2, 4):
            torch.set_num_threads(n)
            found.append(play(scan, case, init, xs, **options))
        for p in found[1:]:
            assert_same_bits(p, found[0])
        exact = play_in_double(case, init, xs, **options)
        scale = exact.d_parameters[1].abs().max()
        assert (found[0].d_parameters[1] - exact.d_parameters[1]).abs().max() <= 1e-5 * scale


def play_in_double(case: Case, init: Tensor, xs: Tensor, **options: Any) -> Played:
    U, W = (p.detach().double().requires_grad_() for p in case.parameters)
    step = lambda h, x: torch.tanh(x @ U + h @ W)  # noqa: E731
    return play(
        scan, replace(case, step=step, parameters=[U, W]), init.double(), xs.double(), **options
    )


# ----------------------------------------------------------------------- the rest of the batch


# With 64 columns a gate, products of one row that fill whole registers are taken two at a time.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name,n_hidden", [*[(n, H) for n in NAMES], ("gru_reset_after", 64)])
def test_a_row_does_not_depend_on_the_others(name, n_hidden, dtype):
    """Alone, in a small batch, in a large one, and in another place."""
    case = case_of(name, n_hidden, dtype)
    met(case, 1, 2, 6, 18, 21)
    init, xs = case.init(21), case.xs(4, 21)
    spoil(xs)
    some = [0], [20], [7], [3, 4], list(range(6)), list(range(20, 2, -1))
    assert_rows_have_their_bits(case, init, xs, *some)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, reverse", [(n, i % 2 == 1) for i, n in enumerate(NAMES)])
def test_padding_does_not_matter(name, reverse, dtype):
    """A row of a ragged batch is the row alone, cut to its length; beyond, nothing is seen."""
    case = case_of(name, dtype=dtype)
    T, B = 5, 9
    lengths = [5, 1, 0, 3, 4, 2, 5, 1, 3]
    init, xs = case.init(B), case.xs(T, B)
    weights = weights_for(case, init, xs)
    results = []
    for filling in (0.0, float("nan"), 1e38):
        for leaf in pytree.tree_leaves(xs):
            for b, n in enumerate(lengths):
                leaf[n:, b] = filling if leaf.is_floating_point() else bool(filling)
        options = {"lengths": lengths, "reverse": reverse}
        results.append(play(scan, case, init, xs, weights=weights, **options))
    for p in results[1:]:
        assert_same_bits(p, results[0])
    n_states = len(pytree.tree_leaves(init))
    for b, n in enumerate(lengths):
        if n == 0:
            continue
        cut = pytree.tree_map(lambda leaf, n=n: leaf[:n], rows(xs, [b], 1))
        own = rows_of_weights(weights, init, [b])
        own = [w if i < n_states else w[:n] for i, w in enumerate(own)]
        part = play(scan, case, rows(init, [b], 0), cut, weights=own, reverse=reverse)
        row = rows_of(results[0], [b])
        row = replace(row, ys=[y[:n] for y in row.ys], d_xs=[g[:n] for g in row.d_xs])
        assert_same_bits(part, row, f"row {b}", parameters=False)


# ------------------------------------------------------------------------------- chunks of time


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, reverse", [(n, i % 2 == 1) for i, n in enumerate(NAMES)])
def test_in_chunks_or_step_by_step(name, reverse, dtype):
    """The carry handed on from scan to scan, and its gradient handed back."""
    case = case_of(name, dtype=dtype)
    met(case, 3, 13)
    for T, B in [(6, 3), (6, 13)]:
        init, xs = case.init(B), case.xs(T, B)
        spoil(xs)
        weights = weights_for(case, init, xs)

        def in_parts(cuts: list[int]) -> Any:
            def scanned(step: Any, first: Any, elements: Any) -> Any:
                carry, parts = first, []
                spans = list(zip([0, *cuts], [*cuts, 6], strict=True))
                for a, b in reversed(spans) if reverse else spans:
                    some = pytree.tree_map(lambda leaf, a=a, b=b: leaf[a:b], elements)
                    carry, ys = scan(step, carry, some, reverse=reverse)
                    parts.append(ys)
                parts = parts[::-1] if reverse else parts
                return carry, pytree.tree_map(lambda *ys: torch.cat(ys), *parts)

            return scanned

        whole = play(in_parts([]), case, init, xs, weights=weights)
        for cuts in ([2], [1, 4], [1, 2, 3, 4, 5]):
            parts = play(in_parts(cuts), case, init, xs, weights=weights)
            assert_same_bits(parts, whole, f"cut at {cuts}", parameters=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_sequences_pass_their_own_chunks(dtype):
    """The engine visits `before` and `after` every 32 or 256 rows: nobody may notice."""
    case = case_of("lstm_chunk", dtype=dtype)
    assert_rows_have_their_bits(case, case.init(12), case.xs(300, 12), [5], [11, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, reverse", [(n, i % 2 == 1) for i, n in enumerate(LINEAR)])
def test_a_linear_row_does_not_depend_on_the_others(name, reverse, dtype):
    """Nor on whether gradients are wanted, which decides what is kept, and where."""
    torch.manual_seed(0)
    A, U, b = torch.randn(16, 16) * 0.3, torch.randn(2, 16), torch.randn(16)
    weights = [t.to(dtype).requires_grad_() for t in (A, U, b)]

    def step(h, x):
        return LINEAR[name](h, x, *weights)

    init, xs = torch.randn(40, 16, dtype=dtype), torch.randn(5, 40, 2, dtype=dtype)
    whole = scan(step, init, xs, reverse=reverse)[1].detach()
    for n_rows in (1, 2, 5, 7, 8, 9, 15, 16, 17, 33, 40):
        for differentiable in (False, True):
            with torch.set_grad_enabled(differentiable):
                part = scan(step, init[:n_rows], xs[:, :n_rows], reverse=reverse)[1]
            assert bits(part.detach()) == bits(whole[:, :n_rows]), (n_rows, differentiable)


def test_what_is_saved_does_not_change_how_results_are_added_up():
    """Half of tanh is saved for the backward pass, which so reads a half of the product alone."""
    U, W, V = (torch.randn(size) / 3 for size in ((2, 1), (8, 8), (4, 8)))

    def step(h, x):
        product = h @ W
        return torch.sin((h + product)[:, :4] @ V), torch.tanh(x @ U + product)

    init, xs = torch.randn(3, 8), torch.randn(9, 3, 2)
    trained = scan(step, init, xs.clone().requires_grad_())
    for a, b in zip(scan(step, init, xs), trained, strict=True):
        assert bits(a) == bits(b.detach())


def test_layout_in_memory_does_not_matter():
    case = case_of("lstm_chunk")
    init, xs = case.init(7), case.xs(5, 7)
    weights = weights_for(case, init, xs)
    wanted = play(scan, case, init, xs, weights=weights)
    for shuffled in (
        xs.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        torch.stack([xs, xs], 1)[:, 1],
        torch.cat([xs, xs], 2)[..., :F],
    ):
        assert torch.equal(shuffled, xs) and shuffled.stride() != xs.stride()
        leaf = shuffled.detach().requires_grad_()
        carry, ys = scan(case.step, init, leaf)
        outs = [*carry, *pytree.tree_leaves(ys)]
        grads = torch.autograd.grad(outs, [leaf, *case.wanted], weights)
        assert bits(grads[0].contiguous()) == bits(wanted.d_xs[0])
        for a, b in zip(outs, [*wanted.carry, *wanted.ys], strict=True):
            assert bits(a.detach().contiguous()) == bits(b)
        for a, b in zip(grads[1:], wanted.d_parameters, strict=True):
            assert bits(a.contiguous()) == bits(b.contiguous())


# ------------------------------------------------------------------------- flags and machines


def vanishing(t: Tensor) -> int:
    """How many numbers lie between zero and the smallest normal one."""
    return int(((t != 0) & (t.abs() < torch.finfo(t.dtype).tiny)).sum())


def test_flush_to_zero_is_the_callers_affair(monkeypatch):
    """Numbers below 2⁻¹²⁶ are zeros whatever the caller's flag, which is as it was afterwards."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this machine has no such flag")
    many = torch.full((1 << 20,), 1e-30)  # enough for PyTorch's own threads
    try:
        for name in ("tanh_rnn_matmul", "lstm_chunk", "lstm_layer_norm"):
            case = case_of(name)
            with torch.no_grad():
                for p in case.parameters:
                    p.mul_(1e-20 if p.dim() > 1 else 1e-38)
            torch.set_flush_denormal(False)
            init = pytree.tree_map(lambda t: t * 1e-30, case.init(6))
            xs = case.xs(4, 6) * 1e-20
            weights = [1e-3 * w for w in weights_for(case, case.init(6), case.xs(4, 6))]
            found = []
            for n in (1, 2):
                torch.set_num_threads(n)
                for flush in (False, True):
                    torch.set_flush_denormal(flush)
                    found.append(play(scan, case, init, xs, weights=weights))
                    flushed = float(torch.tensor(1e-30) * torch.tensor(1e-10)) == 0
                    assert flushed == flush, "the caller's flag was changed"
                torch.set_flush_denormal(False)
                kept = many * 1e-10
                assert vanishing(kept) == len(kept), "a thread of PyTorch kept the engine's flag"
            for p in found[1:]:
                assert_same_bits(p, found[0], name)
            if name == "tanh_rnn_matmul":
                monkeypatch.setenv("OSTINATO_ENGINE", "eager")
                loop = play(scan, case, init, xs, weights=weights)
                monkeypatch.delenv("OSTINATO_ENGINE")
                for (what, ours), (_, theirs) in zip(found[0].named(), loop.named(), strict=True):
                    assert not vanishing(ours), what
                    bound = 1e-5 * float(theirs.abs().max()) + 64 * 2.0**-126
                    torch.testing.assert_close(ours, theirs, rtol=0, atol=bound)
                assert any(vanishing(t) for _, t in loop.named()), "this shows nothing"
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_that_vanish(monkeypatch, dtype):
    """A loss on the last state alone: 2⁻¹²⁶ (2⁻¹⁰²²) is reached long before the first step.

    Not a number below it is left, and no bit depends on threads, other rows or chunks.
    """
    torch.manual_seed(0)
    T, B, tiny = 400, 9, torch.finfo(dtype).tiny
    weight = 1.0 if dtype == torch.float32 else 1e-270  # of the loss
    U, W = (torch.randn(n, 4 * H, dtype=dtype).mul_(0.1).requires_grad_() for n in (3, H))

    def step(carry, x):
        h, c = carry
        i, f, g, o = (x @ U + h @ W).chunk(4, 1)
        c = torch.sigmoid(f + 0.5) * c + torch.sigmoid(i) * torch.tanh(g)
        return [torch.sigmoid(o) * torch.tanh(c), c], None

    xs, init = torch.randn(T, B, 3, dtype=dtype), torch.zeros(B, H, dtype=dtype)

    def gradients(some=slice(None), cut=T):
        start = carry = [t[some].clone().requires_grad_() for t in (init, init)]
        parts = [x.clone().requires_grad_() for x in xs[:, some].split([cut, T - cut]) if len(x)]
        for x in parts:
            carry, _ = scan(step, carry, x)
        *d_xs, d_h, d_c = torch.autograd.grad(carry[0].sum() * weight, [*parts, *start])
        return torch.cat(d_xs), d_h, d_c

    monkeypatch.setenv("OSTINATO_ENGINE", "eager")
    loop = gradients()
    monkeypatch.delenv("OSTINATO_ENGINE")
    assert any(vanishing(g) for g in loop), "no gradient vanishes: this shows nothing"
    torch.set_num_threads(1)
    ours = gradients()
    for g, exact in zip(ours, loop, strict=True):
        assert not vanishing(g)
        bound = 1e-5 * float(exact.abs().max()) + 1e3 * tiny
        torch.testing.assert_close(g, exact, rtol=0, atol=bound)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for some, cut in ((slice(None), T), (slice(None), 170), (slice(3, 4), T), (slice(2, 9), 1)):
            found = gradients(some, cut)
            whole = [ours[0][:, some], *(g[some] for g in ours[1:])]
            for a, b in zip(found, whole, strict=True):
                assert bits(a.contiguous()) == bits(b.contiguous())


def everything(names: list[str]) -> dict[str, np.ndarray]:
    """All that is compared between processes."""
    found = {}
    for name, dtype in itertools.product(names, DTYPES):
        case = case_of(name, dtype=dtype)
        met(case, 6)
        for T, B in [(4, 1), (5, 6), (3, 26)]:
            init, xs = case.init(B), case.xs(T, B)
            if B == 6:
                spoil(xs)
            for reverse in (False, True):
                played = play(scan, case, init, xs, reverse=reverse)
                for what, t in played.named():
                    key = f"{name}/{dtype}/{T}x{B}/{reverse}/{what}"
                    found[key] = np.ascontiguousarray(t.numpy())
    return found


def in_a_process(path: Path, isa: str, threads: int, names: list[str]) -> dict[str, np.ndarray]:
    here = Path(__file__).parent
    script = (
        f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]\n"
        "import numpy as np, torch, warnings; warnings.simplefilter('error')\n"
        "torch.set_num_threads(1)\n"  # of PyTorch's own; the engine follows the environment
        "import test_bits\n"
        f"np.savez({str(path)!r}, **{{k.replace('/', '|'): v for k, v in "
        f"test_bits.everything({names!r}).items()}})\n"
    )
    environment = os.environ | {"OSTINATO_ISA": isa, "OSTINATO_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(path) as saved:
        return {key.replace("|", "/"): saved[key] for key in saved.files}


@pytest.mark.skipif(not VECTORS, reason="no vector kernels for this machine")
@pytest.mark.slow
@pytest.mark.process
def test_instruction_sets_and_thread_counts_by_environment(tmp_path):
    few = ["gru_reset_before", "lstm_layer_norm"]  # base makes its fused multiply-adds in software
    runs = [(VECTORS[0], 1, NAMES), *((isa, 2, NAMES) for isa in VECTORS[1:])]
    runs += [(VECTORS[0], 4, few), ("base", 2, few)]
    found = [in_a_process(tmp_path / f"{i}.npz", *run) for i, run in enumerate(runs)]
    found.append(everything(few))  # and this process, as it happens to be
    right = found[0]
    assert len(right) > 1000
    for ours in found[1:]:
        assert ours.keys() <= right.keys() and len(ours) > 50
        for key, values in ours.items():
            assert bits(torch.from_numpy(values)) == bits(torch.from_numpy(right[key])), key


@pytest.mark.parametrize(
    "name, value",
    [("OSTINATO_ISA", "mmx"), ("OSTINATO_NUM_THREADS", "0"), ("OSTINATO_NUM_THREADS", "many")],
)
@pytest.mark.slow
@pytest.mark.process
def test_an_environment_that_means_nothing_is_refused(name, value):
    script = (
        "import torch, ostinato\n"
        "try:\n"
        "    ostinato.scan(lambda h, x: h + x, torch.zeros(2, 1), torch.ones(3, 2, 1))\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert f"{name}={value}" in done.stdout, done.stderr[-500:]


def test_the_checker_can_fail():
    """One bit in one gradient is seen; so is the sign of a zero; a NaN's payload is not."""
    case = case_of("lstm_chunk")
    init, xs = case.init(3), case.xs(2, 3)
    right, wrong = (play(scan, case, init, xs) for _ in range(2))
    assert_same_bits(wrong, right)
    g = wrong.d_init[0]
    g[1, 1] = torch.nextafter(g[1, 1], torch.tensor(9.0))
    with pytest.raises(AssertionError):
        assert_same_bits(wrong, right)
    assert bits(torch.tensor([0.0])) != bits(torch.tensor([-0.0]))
    payload = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert bits(payload) == bits(torch.tensor([float("nan")]))
