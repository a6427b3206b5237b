"""A text that grows at its end, read by several threads."""

from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ostinato.data.text.growing_text import GrowingText


def read(tokens, state):
    time.sleep(1e-4)  # other threads run here
    total = (state or 0) + int(tokens.sum())
    return total, total


def test_each_thread_gets_the_answer_to_its_own_text():
    text = GrowingText(read)

    def typed(number):
        tokens = np.full(100, number)
        tokens[:80] = 1  # a beginning is shared
        lengths = np.random.default_rng(number).integers(1, 101, 100)  # typed, and taken back
        return [text.answer(tokens[:n]) - tokens[:n].sum() for n in lengths]

    with ThreadPoolExecutor(3) as pool:
        wrong_by = list(pool.map(typed, [1, 2, 5]))
    assert np.array(wrong_by).tolist() == [[0] * 100] * 3


def test_a_copy_reads_for_itself():
    text = GrowingText(read)
    text.answer(np.array([3, 4]))
    assert copy.deepcopy(text).answer(np.array([3, 4, 5])) == 12
