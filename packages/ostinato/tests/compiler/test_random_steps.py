"""Steps that nobody wrote: whatever is drawn, values and gradients are those of the loop."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

import ostinato
from ostinato import scan
from zoo.playing import (
    Played,
    assert_close,
    counting,
    loop,
    play,
    rows_apart,
)
from zoo.random_arrays import random_arrays
from zoo.random_steps import Draw, Hypothesis, random_case
from zoo.steps import Case

_numbers = itertools.count()


def played(case: Case, init: Any, xs: Any, **options: Any) -> tuple[Played, str, int]:
    """The scan, what it said of a fallback, and the calls of the step by a second scan."""
    # A code object of its own: each drawn step is a new function, and is warned of once.
    case.step.__code__ = case.step.__code__.replace(co_name=f"step_{next(_numbers)}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours = play(scan, case, init, xs, **options)
    said = [str(w.message) for w in caught if "slow Python loop" in str(w.message)]
    with counting(case.step) as calls, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = play(scan, case, init, xs, **options)
    assert_close(again, ours, 1e-13)
    # The engine's comparison with the loop is for control flow, which these steps do not have.
    assert not any("differ" in text for text in said), said
    return ours, said[0] if said else "", calls[0]


def assert_right(ours: Played, theirs: Played) -> None:
    """Relative to the tensor, or absolute where cancellation leaves next to nothing of it."""
    for (name, a), (_, b) in zip(ours.named(), theirs.named(), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert torch.isfinite(b).all()
        error, scale = float((a - b).abs().max()), float(b.abs().max())
        assert error <= 1e-9 * scale + 1e-12, (name, error, scale)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_random_step(data):
    case = random_case(Hypothesis(data))
    B, T = data.draw(st.sampled_from([1, 2, 3, 5, 9])), data.draw(st.sampled_from([1, 2, 3, 5]))
    options: dict[str, Any] = {"reverse": data.draw(st.booleans())}
    how = loop
    if data.draw(st.integers(0, 3)) == 0:
        options["lengths"] = [T, *(data.draw(st.integers(0, T)) for _ in range(B - 1))]
        how = rows_apart
    if data.draw(st.integers(0, 5)) == 0:
        options["resets"] = torch.rand(T, B) < 0.3
        how = rows_apart
    init, xs = case.init(B), case.xs(T, B)
    ours, said, calls = played(case, init, xs, **options)
    assert_right(ours, play(how, case, init, xs, **options))
    assert said or calls <= 1, f"played by the loop in silence: {calls} calls for {T} steps"


@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 120), marks=pytest.mark.slow)])
def test_few_of_them_fall_back(seeds):
    """And each that does names an operation or a reason. At most one in twenty."""
    reasons = []
    for seed in seeds:
        torch.manual_seed(seed)
        case = random_case(Draw(seed))
        init, xs = case.init(3), case.xs(4, 3)
        ours, said, calls = played(case, init, xs)
        assert_right(ours, play(loop, case, init, xs))
        if said:
            reasons.append(said)
            assert "slow Python loop: " in said and len(said.split("slow Python loop: ")[1]) > 10
        else:
            assert calls <= 1, (seed, calls)
    assert len(reasons) <= len(seeds) // 20, "\n".join([f"{len(reasons)} fell back:", *reasons])


@pytest.mark.parametrize("seeds", [range(10), pytest.param(range(10, 60), marks=pytest.mark.slow)])
def test_float_keeps_to_double(seeds):
    """The same drawn steps in float32, against float64, where the step itself is no amplifier.

    PyTorch's own float32 loop shows how much a step amplifies rounding; the engine, whose order of
    sums is another, may be some times as far off, and an ulp or two where the loop is exact.
    """
    for seed in seeds:
        torch.manual_seed(seed)
        exact_case = random_case(Draw(seed))
        single = random_case(Draw(seed))
        for p, q in zip(single.parameters, exact_case.parameters, strict=True):
            p.data = q.data.float()
        init, xs = exact_case.init(5), exact_case.xs(3, 5)
        given = [pytree.tree_map(torch.Tensor.float, tree) for tree in (init, xs)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exact = play(loop, exact_case, init, xs)
            theirs = play(loop, single, *given)
            ours = play(scan, single, *given)
        rows = zip(ours.named(), theirs.named(), exact.named(), strict=True)
        for (name, a), (_, b), (_, c) in rows:
            scale = float(c.abs().max()) + 1e-3
            own, usual = (float((t.double() - c).abs().max()) / scale for t in (a, b))
            assert own <= 16 * usual + 256 * 2.0**-24, (seed, name, own, usual)


def test_the_checker_can_fail():
    """A step with one move changed is found to differ."""
    seen_apart = 0
    for seed in range(20):
        case, other = random_case(Draw(seed)), random_case(Draw(seed))
        for p, q in zip(other.parameters, case.parameters, strict=True):
            p.data = q.data * (1 + 1e-7)
        init, xs = case.init(3), case.xs(3, 3)
        try:
            assert_right(play(loop, other, init, xs), play(loop, case, init, xs))
        except AssertionError:
            seen_apart += 1
    assert seen_apart >= 17


# ------------------------------------------------------------------------- rows that are arrays


def test_the_moves_are_drawn():
    """Most steps have products, reductions and permutations of rows of several axes."""
    ops: set[str] = set()
    for seed in range(20):
        case = random_arrays(Draw(seed))
        ostinato.forget(case.step)
        ops |= set(ostinato.explain(case.step, case.init(3), case.xs(2, 3)).loop_ops)
    assert {"take", "product", "row_sum", "row_max", "spread"} <= ops
