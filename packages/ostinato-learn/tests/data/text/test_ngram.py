"""`KneserNey` beside the equations, written out slowly."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ostinato_learn.data.text.ngram import KneserNey
from ostinato_learn.data.text.vocabulary import END


class Slow:
    """Chen and Goodman's equations over dictionaries of tuples."""

    def __init__(self, documents, order, n_tokens):
        self.order, self.n_tokens = order, n_tokens
        self.padded = [[END] * (order - 1) + list(d) + [END] for d in documents]
        self.counts = {
            order: Counter(
                tuple(d[i - order + 1 : i + 1])
                for d in self.padded
                for i in range(order - 1, len(d))
            )
        }
        for k in range(order - 1, 0, -1):
            self.counts[k] = Counter(gram[1:] for gram in self.counts[k + 1])
        self.discounts = {k: self._discounts(k) for k in self.counts}

    def _discounts(self, k):
        n = Counter(self.counts[k].values())
        if not all(n[c] for c in (1, 2, 3, 4)):
            return {1: 0.5, 2: 1.0, 3: 1.5}
        y = n[1] / (n[1] + 2 * n[2])
        found = {c: c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3)}
        return found if min(found.values()) >= 0 else {1: 0.5, 2: 1.0, 3: 1.5}

    def probability(self, word, context):
        return self._probability(self.order, word, tuple(context))

    def _probability(self, k, word, context):
        if k == 0:
            return 1 / self.n_tokens
        below = self._probability(k - 1, word, context[1:])
        following = {w: self.counts[k][(*context, w)] for w in range(self.n_tokens)}
        total = sum(following.values())
        if not total:
            return below
        discounts = {w: self.discounts[k][min(c, 3)] if c else 0 for w, c in following.items()}
        gamma = sum(discounts.values()) / total
        return (following[word] - discounts[word]) / total + gamma * below


def texts(seed, n=6, longest=40, n_tokens=5):
    """Documents of tokens 2… that repeat, so that counts of one to many occur."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(n_tokens - 2))
    return [rng.choice(n_tokens - 2, rng.integers(0, longest), p=weights) + 2 for _ in range(n)]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_follows_the_equations(order, seed):
    training, test = texts(seed), texts(seed + 10, 3)
    fast, slow = KneserNey(training, order, 6), Slow(training, order, 6)
    for document in test:
        padded = [END] * (order - 1) + list(document) + [END]
        wanted = [
            slow.probability(padded[i], padded[i - order + 1 : i])
            for i in range(order - 1, len(padded))
        ]
        np.testing.assert_allclose(np.exp(fast.log_probabilities(document)), wanted, rtol=1e-12)


def test_the_discounts_are_estimated_where_the_data_allow_it():
    """Both ways are taken by the test above."""
    estimated = {
        bool(Slow(texts(seed), order, 6).discounts[k][1] != 0.5)
        for seed in (0, 1, 2)
        for order in (1, 2, 3, 5)
        for k in range(1, order + 1)
    }
    assert estimated == {False, True}


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_sum_to_one_after_any_context(order):
    model = KneserNey(texts(0), order, 7)
    for context in ([], [2], [5, 5, 5], [2, 3, 4, 2], [6, 6], [2, 6]):
        following = [np.array([*context, token]) for token in range(7)]
        last = [model.log_probabilities(each)[len(context)] for each in following]
        distribution = np.exp(last)
        assert distribution.shape == (7,)
        assert (distribution > 0).all()
        assert distribution.sum() == pytest.approx(1, abs=1e-12)


def test_keys_do_not_overflow():
    """50,000 tokens and order 5: 5·10⁴ to the fifth is beyond 64 bits."""
    rng = np.random.default_rng(0)
    document = rng.integers(2, 50_000, 2000)
    model = KneserNey([document, document], 5, 50_000)
    assert np.exp(model.log_probabilities(document)).min() > 0.1


def test_an_order_below_one_is_refused():
    with pytest.raises(ValueError, match="order=0; wanted 1 or more"):
        KneserNey(texts(0), 0, 5)
