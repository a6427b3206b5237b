"""Steps whose rows are arrays, each against the plain loop: values and every gradient."""

from __future__ import annotations

import pytest
import torch
from test_bits import assert_same_bits, rows, rows_of, rows_of_weights, weights_for

import ostinato
from zoo.modern import MODERN
from zoo.playing import assert_played_as_by_the_loop, play
from zoo.steps import Kit

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*was recorded"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODERN)
def test_double_is_the_loop(name):
    """Played natively at batches of 4 and 9; at 1 by whom it may be."""
    assert_played_as_by_the_loop(MODERN[name](Kit(torch.float64)), (4, 9, 1), T=5)


@pytest.mark.parametrize("name", MODERN)
def test_float_has_the_same_bits_on_any_threads_and_in_any_batch(name):
    """Outputs, carry and their gradients; those of parameters do not depend on threads."""
    case = MODERN[name](Kit(torch.float32))
    T, B = 4, 11
    init, xs = case.init(B), case.xs(T, B)
    weights = weights_for(case, T, B)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(play(ostinato.scan, case, init, xs, weights=weights))
            assert_same_bits(found[-1], found[0], f"{threads} threads:")
    finally:
        torch.set_num_threads(before)
    for index in ([3], [10, 0, 4]):
        few = play(
            ostinato.scan, case, rows(init, index, 0), rows(xs, index, 1),
            weights=rows_of_weights(case, weights, index),
        )  # fmt: skip
        assert_same_bits(few, rows_of(found[0], index), f"rows {index}:", parameters=False)
