from __future__ import annotations

import numpy as np
import pytest

from ostinato_learn.data.text.copies import LENGTH, MOST, Copies
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


def brute_share(text, training):
    """The share of 20-grams, by sets of tuples."""
    known = {tuple(d[i : i + LENGTH]) for d in training for i in range(len(d) - LENGTH + 1)}
    grams = [tuple(text[i : i + LENGTH]) for i in range(len(text) - LENGTH + 1)]
    return sum(gram in known for gram in grams) / len(grams)


def test_copies_are_those_of_sets_of_tuples():
    rng = np.random.default_rng(0)
    training = [rng.integers(2, 5, n) for n in (300, 19, 20, 150)]
    copies = Copies.of(Corpus(training))
    text = np.concatenate([training[0][40:90], rng.integers(2, 5, 40), training[3][:60]])
    wanted = brute_share(text.tolist(), [d.tolist() for d in training])
    assert 0.3 < wanted < 0.9
    assert copies.share(text) == wanted
    across = np.concatenate([training[0][-15:], training[1][:15]])  # over an end of a document
    assert copies.share(across) == brute_share(across.tolist(), [d.tolist() for d in training]) == 0
    assert copies.share(text[: LENGTH - 1]) is None


def test_of_a_large_corpus_a_sample_is_kept():
    rng = np.random.default_rng(0)
    training = rng.integers(2, 90, 3 * MOST)
    copies = Copies.of(Corpus([training]))
    assert copies.one_in == 4
    assert 0.9 * len(training) / 4 < len(copies.hashes) < 1.1 * len(training) / 4
    block = 2**20
    assert copies.share(training[block - 500 : block + 500]) == 1  # also where two blocks meet
    half = np.concatenate([training[:20_000], rng.integers(2, 90, 20_000)])
    assert abs(copies.share(half) - 0.5) < 0.02
