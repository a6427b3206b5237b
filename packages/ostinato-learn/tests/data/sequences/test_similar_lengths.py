"""Batches of sequences of similar length: the order compared with a slow one, and what it saves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato_learn.data import Batches
from zoo.suites import draws


def lengths_of(n, seed=0):
    return np.exp(np.random.default_rng(seed).normal(4, 1, n)).astype(np.int64) + 1


def batches(n, size, seed=0, lengths=None, **more):
    everyone = np.arange(n)
    lengths = lengths_of(n) if lengths is None else lengths
    return Batches(everyone, everyone, size, seed=seed, lengths=lengths, **more)


def padding(lengths, drawn):
    cells = sum(lengths[batch].max() * len(batch) for batch in drawn)
    return 1 - sum(lengths[batch].sum() for batch in drawn) / cells


@draws(60)
@given(st.integers(1, 90), st.data())
def test_each_epoch_has_every_example_once(n, data):
    size = data.draw(st.integers(1, n))
    walk = batches(n, size)
    drawn = np.concatenate([walk.next_indices() for _ in range(3 * n)])
    for epoch in range(3):
        assert sorted(drawn[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_batches_of_a_block_are_neighbours_by_length():
    """Each batch holds examples that are neighbours when its block is sorted by length."""
    lengths, size, n = lengths_of(640), 8, 640
    plain = batches(n, size, lengths=lengths)
    shuffled = Batches(np.arange(n), np.arange(n), size, seed=0)
    order = np.concatenate([plain.next_indices() for _ in range(n // size)])
    drawn = np.concatenate([shuffled.next_indices() for _ in range(n // size)])
    for start in range(0, n, 16 * size):
        block = sorted(drawn[start : start + 16 * size].tolist())  # the examples are those drawn
        assert sorted(order[start : start + 16 * size].tolist()) == block
        ranked = sorted(lengths[block].tolist())
        wanted = [ranked[i : i + size] for i in range(0, 16 * size, size)]
        found = lengths[order[start : start + 16 * size]].reshape(16, size).tolist()
        assert sorted(map(sorted, found)) == wanted
        assert found != wanted  # their batches are shuffled


@pytest.mark.parametrize("n", [640, 645, 1000])
def test_padding_is_saved_in_every_epoch(n):
    """Also where epochs begin within a batch."""
    lengths = lengths_of(n)
    similar, at_random = batches(n, 16, lengths=lengths), Batches(np.arange(n), np.arange(n), 16)
    for _ in range(4):
        ours, theirs = (
            padding(lengths, [walk.next_indices() for _ in range(n // 16)])
            for walk in (similar, at_random)
        )
        assert ours < 0.6 * theirs


def test_a_walk_goes_on_from_its_state():
    walk = batches(50, 7, seed=3)
    for _ in range(11):
        walk.next_indices()
    state = walk.state_dict()
    again = batches(50, 7, seed=9)
    again.load_state_dict(state)
    assert [walk.next_indices().tolist() for _ in range(20)] == [
        again.next_indices().tolist() for _ in range(20)
    ]


def test_states_of_other_batches():
    everyone = np.arange(50)
    plain, similar = Batches(everyone, everyone, 7), batches(50, 7)
    assert "similar_lengths" not in plain.state_dict()  # as earlier versions wrote it
    for one, other in ((plain, similar), (similar, plain)):
        with pytest.raises(ValueError, match="a run goes on only with the batches it had"):
            one.load_state_dict(other.state_dict())


def test_without_a_shuffle_the_order_stays():
    walk = batches(20, 4, shuffle=False)
    assert [walk.next_indices().tolist() for _ in range(5)] == np.arange(20).reshape(5, 4).tolist()
