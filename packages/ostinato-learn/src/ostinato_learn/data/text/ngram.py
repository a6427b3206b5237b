"""`KneserNey`: an n-gram model, the baseline of language models.

Interpolated modified Kneser-Ney (Chen and Goodman 1999, equations 17, 24 and 26) with exact counts.
With w the next token and h the k − 1 tokens before it, h' all but the first of them,

    p_k(w | h) = (c(hw) − D(c(hw))) / c(h•) + γ(h) p_{k−1}(w | h'),    p_0(w) = 1 / V
    γ(h) = Σ_w D(c(hw)) / c(h•);    where c(h•) = Σ_w c(hw) is zero,  p_k(w | h) = p_{k−1}(w | h')

At the highest order c(hw) counts how often hw occurs; below it, how many different tokens precede
it. D(1), D(2) and D(c ≥ 3) of an order follow from how many k-grams are counted once to four times.

The number of a k-gram is its place in the sorted keys of its order; its key is the number of its
first k − 1 tokens, times V, plus its last token. So keys are integers for any V and any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ostinato_learn.data.text.vocabulary import END

FEW_DISCOUNTS = np.array([0.0, 0.5, 1.0, 1.5])  # for data too small to estimate them from


@dataclass(frozen=True, eq=False)
class _Order:
    """The k-grams of one order.

    Attributes:
        keys: `[M]` int64, sorted.
        share: `[M]`, (c − D(c)) / c(h•) of each k-gram.
        rest: γ(h) of each (k−1)-gram h; 1 where nothing follows it.
    """

    keys: np.ndarray
    share: np.ndarray
    rest: np.ndarray


class KneserNey:
    """An n-gram model of documents.

    Args:
        documents: arrays `[N]` of token numbers, without END, which is predicted at their ends.
        order: n; a token depends on the n − 1 tokens before it. Documents begin after n − 1 ENDs.
        n_tokens: V.

    Example:
        >>> model = KneserNey([np.array([2, 3, 2, 3, 2])], order=2, n_tokens=4)
        >>> np.exp(model.log_probabilities(np.array([2, 3]))).shape
        (3,)
    """

    def __init__(self, documents: Sequence[np.ndarray], order: int, n_tokens: int):
        if order < 1:
            raise ValueError(f"KneserNey: order={order}; wanted 1 or more")
        self.order, self.n_tokens = order, n_tokens
        tokens, is_read = _padded(documents, order)
        grams = [np.zeros(len(tokens), dtype=np.int64)]  # of each order, the k-gram at each place
        keys, firsts = [np.zeros(1, dtype=np.int64)], [np.zeros(1, dtype=np.int64)]
        for _ in range(order):
            ending = _shifted(grams[-1]) * n_tokens + tokens
            found = np.unique(ending, return_index=True, return_inverse=True)
            for kept, each in zip((keys, firsts, grams), found, strict=True):
                kept.append(each)
        counts = np.bincount(grams[order], weights=is_read, minlength=len(keys[order]))
        self._orders: list[_Order] = []
        for k in range(order, 0, -1):
            context = keys[k] // n_tokens
            self._orders.insert(0, _discounted(keys[k], context, counts, len(keys[k - 1])))
            # Each different k-gram adds one to the tokens that precede the (k−1)-gram of its end.
            shorter = grams[k - 1][firsts[k][counts > 0]]
            counts = np.bincount(shorter, minlength=len(keys[k - 1])).astype(np.float64)

    def log_probabilities(self, document: np.ndarray) -> np.ndarray:
        """The logarithm (nats) of each token's probability, and of END's, `[N + 1]`."""
        tokens, is_read = _padded([document], self.order)
        probability = np.full(len(tokens), 1 / self.n_tokens)
        context = np.zeros(len(tokens), dtype=np.int64)  # place of the tokens before; −1: unseen
        for order in self._orders:
            gram = _find(order.keys, np.where(context < 0, -1, context * self.n_tokens + tokens))
            share = np.where(gram < 0, 0, order.share[gram])
            probability = share + np.where(context < 0, 1, order.rest[context]) * probability
            context = _shifted(gram, first=-1)
        return np.log(probability[is_read > 0])


def _padded(documents: Sequence[np.ndarray], order: int) -> tuple[np.ndarray, np.ndarray]:
    """Documents with order − 1 ENDs before and one after each; and 1 for each token to predict."""
    before, end = np.full(order - 1, END, dtype=np.int64), np.array([END])
    tokens = np.concatenate([part for each in documents for part in (before, each, end)])
    is_read = [np.append(np.zeros(order - 1), np.ones(len(each) + 1)) for each in documents]
    return tokens, np.concatenate(is_read)


def _shifted(values: np.ndarray, first: int = 0) -> np.ndarray:
    return np.concatenate([[first], values[:-1]])


def _discounted(
    keys: np.ndarray, context: np.ndarray, counts: np.ndarray, n_contexts: int
) -> _Order:
    """The shares of an order, from each k-gram's count and context."""
    total = np.bincount(context, weights=counts, minlength=n_contexts)
    discount = _discounts(counts)[np.minimum(counts, 3).astype(np.int64)]
    taken = np.bincount(context, weights=discount, minlength=n_contexts)
    rest = np.divide(taken, total, out=np.ones(n_contexts), where=total > 0)
    return _Order(keys, (counts - discount) / np.maximum(total, 1)[context], rest)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """D(0) = 0, D(1), D(2), D(3 and more), from the numbers of k-grams counted 1 to 4 times."""
    n = [int((counts == c).sum()) for c in range(5)]
    if not all(n[1:]):
        return FEW_DISCOUNTS
    y = n[1] / (n[1] + 2 * n[2])
    found = np.array([0.0, *(c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3))])
    return found if (found >= 0).all() else FEW_DISCOUNTS


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each wanted key in sorted keys; −1 where it is missing."""
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)
