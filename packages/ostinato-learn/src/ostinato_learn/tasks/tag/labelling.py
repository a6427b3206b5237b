"""`Labelling`: from the scores of the labels at every step to labels and probabilities.

With a CRF (`models/crf.py`) over C labels, of transitions A, start and end,

    score(y | e) = start[y_0] + Σ_t e_t[y_t] + Σ_{t>0} A[y_{t−1}, y_t] + end[y_{T−1}]

the likeliest labelling has the highest score, and the probability of a label at a step is that of
all labellings that have it there: sums by the forward and the backward algorithm (Rabiner 1989).
Without a CRF the scores are probabilities already. All is computed in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ostinato_learn.metrics.spans import SCHEMES, can_follow
from ostinato_learn.runtime.measures import nats
from ostinato_learn.runtime.values import Array, fail

_CRF = ("crf.transitions", "crf.start", "crf.end")


@dataclass(frozen=True)
class Labelling:
    """How scores `[T, C]` become labels.

    Attributes:
        crf: transitions `[C, C]`, start and end `[C]`, float64; None without a CRF.
        allowed: which label may follow which, `[C, C]`, and which may be the first, `[C]`; None if
            all may.
    """

    crf: tuple[Array, Array, Array] | None
    allowed: tuple[Array, Array] | None

    @staticmethod
    def of(tensors: Mapping[str, Array], labels: Array, scheme: Any, where: str) -> Labelling:
        """The labelling of a saved tagger."""
        crf, n = None, len(labels)
        if _CRF[0] in tensors:
            shapes = [tensors[name].shape if name in tensors else None for name in _CRF]
            if shapes != [(n, n), (n,), (n,)]:
                fail(f"{where}: the CRF is not one of {n} labels")
            transitions, start, end = (tensors[name].astype(np.float64) for name in _CRF)
            crf = transitions, start, end
        if scheme is None:
            return Labelling(crf, None)
        tags = labels.tolist()
        if str(scheme) not in SCHEMES or not all(isinstance(tag, str) for tag in tags):
            fail(f"{where}: 'scheme' is {str(scheme)[:60]!r}")
        follow = np.array([[can_follow(tag, before) for tag in tags] for before in tags])
        return Labelling(crf, (follow, np.array([can_follow(tag, None) for tag in tags])))

    def best(self, scores: Array, lengths: Array) -> Array:
        """The likeliest labels `[B, T]` by scores `[B, T, C]`; meaningless beyond the lengths.

        Where labels depend on each other, they are those of the whole row.
        """
        if self.crf is None and self.allowed is None:
            return scores.argmax(2)
        emissions = scores.astype(np.float64)
        if self.crf is None:
            with np.errstate(divide="ignore", invalid="ignore"):
                emissions = np.log(emissions)
            nothing = np.zeros(scores.shape[2])
            transitions, start, end = np.diag(nothing), nothing, nothing
        else:
            transitions, start, end = self.crf
        return viterbi(emissions, transitions, start, end, lengths, self.allowed)

    def probabilities(self, scores: Array) -> Array:
        """The probability of each label at each step, `[T, C]`."""
        if self.crf is None:
            return scores
        transitions, _, end = self.crf
        emissions = scores.astype(np.float64)
        ahead = self._ahead(emissions)
        behind = [end]
        for e in emissions[:0:-1]:
            behind.append(_log_sum(transitions + (e + behind[-1]), 1))
        logs = np.array(ahead) + np.array(behind[::-1])
        return np.exp(logs - _log_sum(logs, 1)[:, None])

    def nats(self, scores: Array, labels: Array) -> float:
        """−log P of labels `[T]`, the numbers of those of a whole sequence."""
        steps = np.arange(len(labels))
        if self.crf is None:
            return float(nats(scores[steps, labels]).sum())
        transitions, start, end = self.crf
        emissions = scores.astype(np.float64)
        score = start[labels[0]] + emissions[steps, labels].sum() + end[labels[-1]]
        score += transitions[labels[:-1], labels[1:]].sum()
        return float(_log_sum(self._ahead(emissions)[-1] + end, 0) - score)

    def _ahead(self, emissions: Array) -> list[Array]:
        """The logarithm of the sum over all labellings up to each step, by their last label."""
        assert self.crf is not None
        transitions, start, _ = self.crf
        ahead = [start + emissions[0]]
        for e in emissions[1:]:
            ahead.append(_log_sum(ahead[-1][:, None] + transitions, 0) + e)
        return ahead


def viterbi(
    emissions: Array,
    transitions: Array,
    start: Array,
    end: Array,
    lengths: Array | None = None,
    allowed: tuple[Array, Array] | None = None,
) -> Array:
    """The labels y of the highest score(y | e), `[B, T]`; beyond a row's length its last again.

    Args:
        emissions: `[B, T, C]`, with `lengths` `[B]`, from 1 to T; by default T.
        transitions, start, end: `[C, C]`, `[C]`, `[C]`.
        allowed: see `Labelling`.
    """
    if allowed is not None:
        transitions = np.where(allowed[0], transitions, -np.inf)
        start = np.where(allowed[1], start, -np.inf)
    best = [start + emissions[:, 0]]  # [B, C], of a labelling that ends so
    for t in range(1, emissions.shape[1]):
        reached = (best[-1][:, :, None] + transitions).max(1) + emissions[:, t]
        going = lengths is None or (t < lengths)[:, None]
        best.append(reached if going is True else np.where(going, reached, best[-1]))
    label = (best[-1] + end).argmax(1)
    labels = [label]
    for t in range(len(best) - 1, 0, -1):
        before = (best[t - 1] + transitions[:, label].T).argmax(1)
        label = before if lengths is None else np.where(t < lengths, before, label)
        labels.append(label)
    return np.stack(labels[::-1], axis=1)


def _log_sum(values: Array, axis: int) -> Array:
    """log Σ exp along an axis."""
    largest = values.max(axis, keepdims=True)
    return np.log(np.exp(values - largest).sum(axis)) + np.squeeze(largest, axis)
