from __future__ import annotations

import numpy as np
import pytest

from ostinato_learn.data.text.corpus import Corpus, Streams
from ostinato_learn.data.text.vocabulary import END, SPECIAL


def corpus(lengths=(5, 0, 11, 1)):
    tokens = iter(range(SPECIAL, 10_000))
    return Corpus([np.array([next(tokens) for _ in range(n)], dtype=np.int32) for n in lengths])


@pytest.mark.parametrize("n_streams", [1, 2, 5, 21])
@pytest.mark.parametrize("length", [1, 4, 50])
def test_streams_read_the_ring_in_order(n_streams, length):
    ring = corpus().tokens.tolist()
    streams = Streams(corpus(), n_streams, length)
    chunks = [streams.next_chunk() for _ in range(7)]
    for b in range(n_streams):
        start = b * len(ring) // n_streams
        for t in range(7 * length):
            chunk, i = chunks[t // length], t % length
            assert chunk.targets[b, i] == ring[(start + t) % len(ring)]
            assert chunk.inputs[b, i] == ring[(start + t - 1) % len(ring)]
            reset = chunk.resets is not None and chunk.resets[b, i]
            assert reset == (chunk.inputs[b, i] == END)


def test_an_epoch_reads_every_token_once():
    streams = Streams(corpus(), 3, 7)
    assert streams.chunks_per_epoch == 1
    assert sorted(streams.next_chunk().targets.ravel()) == sorted(corpus().tokens)
    assert Streams(corpus(), 3, 6).chunks_per_epoch == 2


def test_a_chunk_without_a_beginning_has_no_resets():
    streams = Streams(corpus((20,)), 1, 5)
    assert [streams.next_chunk().resets is None for _ in range(5)] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_they_go_on_from_a_state():
    streams, again = Streams(corpus(), 2, 4), Streams(corpus(), 2, 4)
    for _ in range(9):
        streams.next_chunk()
    again.load_state_dict(streams.state_dict())
    assert np.array_equal(again.next_chunk().inputs, streams.next_chunk().inputs)


def test_a_state_of_other_streams_is_refused():
    state = Streams(corpus(), 2, 4).state_dict()
    for other, name in [
        (Streams(corpus((3,)), 2, 4), "n_tokens=21; wanted 4"),
        (Streams(corpus(), 3, 4), "n_streams=2; wanted 3"),
        (Streams(corpus(), 2, 5), "length=4; wanted 5"),
    ]:
        with pytest.raises(ValueError, match=name):
            other.load_state_dict(state)


def test_errors():
    with pytest.raises(ValueError, match="the 2 documents have no token"):
        corpus((0, 0))
    with pytest.raises(ValueError, match="n_streams=0; wanted 1 or more"):
        Streams(corpus(), 0, 4)
    with pytest.raises(ValueError, match="22 streams through 21 tokens"):
        Streams(corpus(), 22, 4)
