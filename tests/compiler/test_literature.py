"""Further steps of the literature, each against the plain loop: values and every gradient."""

from __future__ import annotations

import pytest
import torch
from test_bits import assert_same_bits, rows, rows_of, rows_of_weights, weights_for

import ostinato
import zoo.literature_arrays  # noqa: F401  (its steps join those of zoo.literature)
from zoo.literature import LITERATURE
from zoo.playing import assert_close, loop, play
from zoo.steps import Kit

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*was recorded"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", LITERATURE)
def test_double_is_the_loop(name):
    case = LITERATURE[name](Kit(torch.float64))
    for B in (4, 9, 1):
        init, xs = case.init(B), case.xs(4, B)
        for reverse in (False, True):
            ours = play(ostinato.scan, case, init, xs, reverse=reverse)
            assert_close(ours, play(loop, case, init, xs, reverse=reverse), 1e-10)
        found = ostinato.explain(case.step, init, xs)
        assert found.native, found.reason


@pytest.mark.parametrize("name", LITERATURE)
def test_float_has_the_same_bits_in_any_batch(name):
    case = LITERATURE[name](Kit(torch.float32))
    T, B = 3, 9
    init, xs = case.init(B), case.xs(T, B)
    weights = weights_for(case, T, B)
    whole = play(ostinato.scan, case, init, xs, weights=weights)
    for index in ([3], [8, 0]):
        few = play(
            ostinato.scan, case, rows(init, index, 0), rows(xs, index, 1),
            weights=rows_of_weights(case, weights, index),
        )  # fmt: skip
        assert_same_bits(few, rows_of(whole, index), f"rows {index}:", parameters=False)
