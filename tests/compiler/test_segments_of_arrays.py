"""`memory=` and `truncate=` on steps whose rows are arrays, and on leaves without a batch.

A weight that multiplies several rows of a row has a gradient of several terms, whose order within a
chunk of steps must be that of a run in one piece.
"""

from __future__ import annotations

import pytest
import torch
from test_segments import least, same

from ostinato import scan
from zoo.modern import MODERN
from zoo.playing import play
from zoo.steps import Case, Kit

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*was recorded"),
    pytest.mark.filterwarnings("error:.*slow loop"),
]


@pytest.mark.parametrize("name", MODERN)
def test_bits_of_one_piece(name):
    """B = 5: one group; 17: two, with sums that would be late if they had one term."""
    case = MODERN[name](Kit(torch.float32))
    for T, B, reverse in [(70, 5, False), (33, 17, True)]:
        init, xs = case.init(B), case.xs(T, B)
        whole = play(scan, case, init, xs, reverse=reverse)
        of = least(case, init, xs, reverse=reverse)
        for options in ({"memory": of}, {"memory": 2 * of}, {"truncate": T}):
            ours = play(scan, case, init, xs, reverse=reverse, **options)
            same(ours, whole, (name, T, B, options))


def test_a_weight_used_twice_in_a_step():
    kit = Kit(torch.float32)
    W = kit.weight(6, 6)
    case = Case(lambda h, x: torch.tanh(x @ W + h @ W), [W], lambda B: kit.normal(B, 6),
                lambda B: kit.normal(B, 6))  # fmt: skip
    init, xs = case.init(20), case.xs(150, 20)
    whole = play(scan, case, init, xs)
    of = least(case, init, xs)
    for memory in (of, of * 5 // 4, of * 2):
        same(play(scan, case, init, xs, memory=memory), whole, memory)


def test_leaves_without_a_batch():
    kit = Kit(torch.float32)
    U, W = kit.weight(4, 6), kit.weight(6, 6)
    case = Case(lambda h, x: torch.tanh(U.T @ x + W @ h), [U, W], lambda B: kit.normal(6),
                lambda B: kit.normal(4))  # fmt: skip
    init, xs = kit.normal(6), kit.normal(90, 4)
    whole = play(scan, case, init, xs)
    for options in ({"memory": least(case, init, xs)}, {"truncate": 90}):
        same(play(scan, case, init, xs, **options), whole, options)
