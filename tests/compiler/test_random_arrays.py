"""Random steps over rows that are arrays: played natively, and as the loop plays them."""

from __future__ import annotations

import pytest

import ostinato
from zoo.playing import assert_close, loop, play
from zoo.random_arrays import random_arrays
from zoo.random_steps import Draw

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*was recorded"),
]


SOME, MORE = range(10), range(10, 40)


@pytest.mark.parametrize("seed", [*SOME, *(pytest.param(n, marks=pytest.mark.slow) for n in MORE)])
def test_a_random_step_is_the_loop(seed):
    case = random_arrays(Draw(seed))
    ostinato.forget(case.step)  # the code of all cases is the same
    for B, reverse in ((4, False), (9, True), (1, False)):
        init, xs = case.init(B), case.xs(4, B)
        ours = play(ostinato.scan, case, init, xs, reverse=reverse)
        assert_close(ours, play(loop, case, init, xs, reverse=reverse), 1e-9)
    found = ostinato.explain(case.step, init, xs)
    assert found.native, found.reason


def test_the_moves_are_drawn():
    """Most steps have products, reductions and permutations of rows of several axes."""
    ops: set[str] = set()
    for seed in range(20):
        case = random_arrays(Draw(seed))
        ostinato.forget(case.step)
        ops |= set(ostinato.explain(case.step, case.init(3), case.xs(2, 3)).loop_ops)
    assert {"take", "product", "row_sum", "row_max", "spread"} <= ops
