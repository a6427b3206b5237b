"""`truncate=`: the carry goes on, its gradient stops; against a loop that detaches."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch

from ostinato import scan
from zoo.bits import assert_same_bits, assert_the_plain_run
from zoo.playing import (
    ENGINES,
    assert_close,
    least_memory,
    play,
    rows_apart,
)
from zoo.random_steps import Draw, random_case
from zoo.steps import make
from zoo.suites import one_in

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*was recorded"),
    pytest.mark.filterwarnings("error:.*slow loop"),
]
_numbers = itertools.count()
CASES = ["tanh_rnn_matmul", "lstm_chunk", "gru_reset_after", "readout_per_step", "stack_of_three"]


def options_of(T: int, B: int) -> list[dict[str, Any]]:
    random = torch.Generator().manual_seed(2)
    lengths = [T, 0, 1, *torch.randint(0, T + 1, (B,), generator=random).tolist()][:B]
    resets = torch.rand(T, B, generator=random) < 0.15
    ways = itertools.product([False, True], [None, lengths], [None, resets])
    return [{"reverse": r, "lengths": n, "resets": marks} for r, n, marks in ways]


@pytest.mark.parametrize("k", one_in(3, [3, 1, 12]))
@pytest.mark.parametrize("name", one_in(2, CASES))
@pytest.mark.parametrize("engine", ENGINES)
def test_a_loop_that_detaches(engine, name, k, monkeypatch):
    """Double precision; rounding grows over at most 13 steps of widths below 10."""
    monkeypatch.setenv("OSTINATO_ENGINE", engine)
    case = make(name, torch.float64, 5, 7)
    T, B = 13, 5
    init, xs = case.init(B), case.xs(T, B)
    for options in options_of(T, B):
        ours = play(scan, case, init, xs, truncate=k, **options)
        theirs = play(rows_apart, case, init, xs, truncate=k, **options)
        assert_close(ours, theirs, 1e-11)
        if engine == "native" and k < 12:
            whole = play(rows_apart, case, init, xs, **options)
            with pytest.raises(AssertionError):  # the gradients of a loop without it are others
                assert_close(ours, whole, 1e-3)


@pytest.mark.parametrize("name", CASES[:3])
def test_from_n_steps_on_it_is_the_plain_run(name):
    case = make(name, torch.float32, 5, 7)
    T, B = 70, 9
    init, xs = case.init(B), case.xs(T, B)
    for options, k in itertools.product(options_of(T, B), [T, T + 1, 10 * T]):
        assert_the_plain_run(case, init, xs, truncate=k, **options)


@pytest.mark.parametrize("k, threads", one_in(6, itertools.product([33, 4, 200], [1, 2]), True))
@pytest.mark.parametrize("name", CASES[:3])
def test_within_a_budget_the_bits_stay(name, k, threads):
    """Windows that are shorter than a span, and longer."""
    case = make(name, torch.float32, 5, 7)
    torch.set_num_threads(threads)
    T, B = 301, 9
    init, xs = case.init(B), case.xs(T, B)
    ways = options_of(T, B)
    for i, options in enumerate(ways if k == 4 else ways[:: len(ways) - 1]):  # none, and all
        one = play(scan, case, init, xs, truncate=k, **options)
        least = least_memory(case, init, xs, truncate=k, **options)
        for budget in (least, least * 3 // 2)[i % 2 :]:
            ours = play(scan, case, init, xs, truncate=k, memory=budget, **options)
            assert_same_bits(ours, one, (options, k, budget))


@pytest.mark.parametrize("seed", range(15))
def test_random_steps(seed):
    draw = Draw(100 + seed)
    case = random_case(draw)
    case.step.__code__ = case.step.__code__.replace(co_name=f"step_{next(_numbers)}")
    T, B, k = draw.pick([2, 5, 11]), draw.pick([1, 3, 8]), draw.pick([1, 2, 4])
    init, xs = case.init(B), case.xs(T, B)
    options = draw.pick(options_of(T, B))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are played by the loop
        ours = play(scan, case, init, xs, truncate=k, **options)
        theirs = play(rows_apart, case, init, xs, truncate=k, **options)
    for (name, a), (_, b) in zip(ours.named(), theirs.named(), strict=True):
        error, scale = float((a - b).abs().max()), float(b.abs().max())
        assert error <= 1e-9 * scale + 1e-12, (name, options, k)


def test_refused():
    W = torch.randn(3, 3, requires_grad=True)

    def step(h, x):
        return torch.tanh(x + h @ W)

    for wrong in (0, -3):
        with pytest.raises(ValueError, match=f"truncate is {wrong}; wanted at least 1"):
            scan(step, torch.zeros(2, 3), torch.zeros(4, 2, 3), truncate=wrong)
    for wrong in (1.5, True, "3"):
        with pytest.raises(TypeError, match="whole number of steps"):
            scan(step, torch.zeros(2, 3), torch.zeros(4, 2, 3), truncate=wrong)
