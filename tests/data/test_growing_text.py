"""A text that grows at its end, read by several threads."""

from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ostinato.data.growing_text import GrowingText


def read(tokens, state):
    time.sleep(1e-4)  # other threads run here
    total = (state or 0) + int(tokens.sum())
    return total, total


def test_each_thread_gets_the_answer_to_its_own_text():
    text = GrowingText(read)

    def typed(number):
        tokens = np.full(50, number)
        return [text.answer(tokens[: n + 1]) for n in range(50)]

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(typed, [1, 2, 5]))
    assert found == [[number * (n + 1) for n in range(50)] for number in (1, 2, 5)]


def test_a_copy_reads_for_itself():
    text = GrowingText(read)
    text.answer(np.array([3, 4]))
    assert copy.deepcopy(text).answer(np.array([3, 4, 5])) == 12
