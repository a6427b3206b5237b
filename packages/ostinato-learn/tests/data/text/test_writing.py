"""How a language model's next token is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ostinato_learn.data.text.vocabulary import END, Vocabulary
from ostinato_learn.data.text.writing import Generated, Sampling, written

SCORES = np.array([0.5, 9.0, 0.9, -1.0, 0.1, 0.6])  # UNKNOWN, the second, has the largest
VOCABULARY = Vocabulary.fit(["abc"], "character")  # tokens 2, 3 and 4


def slow(scores, temperature=1.0, top_k=None, top_p=1.0):
    """The probability of each token, one by one in the order of their scores."""
    known = sorted((i for i in range(len(scores)) if i != 1), key=lambda i: -scores[i])
    weights = {i: math.exp(scores[i] / temperature) for i in known[:top_k]}
    whole, before, kept = sum(weights.values()), 0.0, {}
    for i, weight in weights.items():
        if before < top_p * whole:
            kept[i] = weight
        before += weight
    return {i: weight / sum(kept.values()) for i, weight in kept.items()}


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.3},
        {"top_k": 4},
        {"top_k": 1},
        {"top_k": 99},
        {"top_p": 0.5},
        {"top_p": 1e-9},
        {"temperature": 0.3, "top_k": 4, "top_p": 0.9},
    ],
)
def test_tokens_are_drawn_by_their_probabilities(how):
    """4 standard errors of n draws; a temperature of 0.3 moves the largest share by 20 of them."""
    wanted, generator, n = slow(SCORES, **how), np.random.default_rng(0), 4000
    drawn = np.array([Sampling(**how).drawn(SCORES, generator) for _ in range(n)])
    for token in range(len(SCORES)):
        p = wanted.get(token, 0.0)
        assert abs(np.mean(drawn == token) - p) <= 4 * math.sqrt(p * (1 - p) / n), token


def test_a_constant_in_the_scores_changes_nothing():
    """Logits and logarithms of probabilities draw the same."""
    for how in ({}, {"temperature": 0.5, "top_p": 0.8}, {"top_k": 3}):
        one, other = np.random.default_rng(5), np.random.default_rng(5)
        for _ in range(100):
            drawn = Sampling(**how).drawn(SCORES, one)
            assert Sampling(**how).drawn(SCORES - SCORES.max() - 2.5, other) == drawn


@pytest.mark.parametrize("temperature", [0, 1e-308, 1e-3])
def test_a_cold_model_takes_the_likeliest_of_impossible_tokens(temperature):
    scores = np.array([-np.inf, 3.0, -1000.0, -np.inf, -1001.0])
    how = Sampling(temperature=temperature)
    assert {how.drawn(scores, np.random.default_rng(seed)) for seed in range(20)} == {2}


@pytest.mark.parametrize("number", [-1.0, np.nan, np.inf])
def test_a_temperature_is_a_number_from_zero_on(number):
    with pytest.raises(ValueError, match=rf"temperature={number}; wanted 0 or more, and finite"):
        Sampling(temperature=number)


@pytest.mark.parametrize(
    ("name", "number"),
    [("top_k", 0), ("top_k", -1), ("top_k", np.nan)]
    + [("top_p", p) for p in (0.0, -0.5, 1.5, np.nan, np.inf)],
)
def test_other_shares_are_refused(name, number):
    with pytest.raises(ValueError, match=f"generate: {name}={number}; wanted"):
        Sampling(**{name: number})


class Spelling:
    """A model that writes "abcabc…", or what follows of what it has read."""

    def __init__(self):
        self.reads = []

    def __call__(self, tokens, state):
        assert (state is None) == (tokens[0] == END)
        self.reads.append(tokens.tolist())
        scores = np.full(5, -np.inf)
        scores[{END: 2, 2: 3, 3: 4, 4: self.last}[int(tokens[-1])]] = 0
        return scores, "a state"

    last = 2


def test_each_token_is_read_once_and_a_document_ends():
    read = Spelling()
    made = written(read, VOCABULARY, "ab", 5, Sampling())
    assert made == Generated("cabca", 5)
    assert read.reads == [[END, 2, 3], [4], [2], [3], [4]]
    read.last = END
    assert written(read, VOCABULARY, "", 9, Sampling()) == Generated("abc", 3)
    assert written(read, VOCABULARY, "abc", 9, Sampling()) == Generated("", 0)
