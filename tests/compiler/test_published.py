"""Steps of the literature, each against the plain loop: values and every gradient, and the bits."""

from __future__ import annotations

import pytest
import torch

import ostinato
import zoo.literature_arrays  # noqa: F401  (its steps join those of zoo.literature)
from zoo.bits import assert_rows_have_their_bits, assert_same_bits
from zoo.literature import LITERATURE
from zoo.modern import MODERN
from zoo.playing import assert_played_as_by_the_loop, play
from zoo.steps import Kit
from zoo.suites import one_in

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*was recorded"),
]
PUBLISHED = LITERATURE | MODERN


@pytest.mark.parametrize("name", one_in(10, PUBLISHED))
def test_double_is_the_loop(name):
    assert_played_as_by_the_loop(PUBLISHED[name](Kit(torch.float64)), (4, 9, 1), T=5)


@pytest.mark.parametrize("name", one_in(4, PUBLISHED))
def test_float_has_the_same_bits_in_any_batch(name):
    case = PUBLISHED[name](Kit(torch.float32))
    assert_rows_have_their_bits(case, case.init(11), case.xs(4, 11), [3], [10, 0, 4])


@pytest.mark.parametrize("name", one_in(4, MODERN))
def test_float_has_the_same_bits_on_any_threads(name):
    """Outputs, carry and all gradients."""
    case = MODERN[name](Kit(torch.float32))
    init, xs = case.init(11), case.xs(4, 11)
    alone = play(ostinato.scan, case, init, xs)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert_same_bits(play(ostinato.scan, case, init, xs), alone, f"{threads} threads:")


def test_no_name_is_taken_twice():
    assert len(PUBLISHED) == len(LITERATURE) + len(MODERN)
