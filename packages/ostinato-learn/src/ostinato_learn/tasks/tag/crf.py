"""A linear-chain conditional random field: the probability of a label depends on the one before.

    score(y | e) = start[y_0] + Σ_t e_t[y_t] + Σ_{t>0} A[y_{t−1}, y_t] + end[y_{T−1}]
    P(y | e)     = exp(score(y | e) − log Z(e)),   Z(e) = Σ_y exp(score(y | e))

The scores e_t of the labels at each step come from a network. log Z is the *forward algorithm*, a
scan whose carry is α_t[j], the logarithm of the sum over all labellings that reach label j at t:

    α_0 = start + e_0,   α_t[j] = e_t[j] + log Σ_i exp(α_{t−1}[i] + A[i, j])

The sum over i is a matrix product, exp(α − max α) @ exp(A − m) with m the largest entry of each
column of A, so that the engine plays it like a recurrent layer. No column of the product
falls below exp(−(m_j − min_i A[i, j])): that is 0 in float32 only if two transitions into the same
label differ by more than 87.

Source: Lafferty, McCallum and Pereira 2001; Rabiner 1989 for the algorithms.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ostinato import scan
from ostinato_learn.tasks.tag.labelling import viterbi


class CRF(torch.nn.Module):
    """A linear-chain conditional random field over C labels.

    Emissions are `[B, T, C]`; `lengths` `[B]` are the valid steps of each row, 1 to T (by default
    all); values beyond them have no effect.

    Args:
        n_classes: C.

    Attributes:
        transitions: `[C, C]`, A: from the label of the row to that of the column.
        start, end: `[C]`. Initially all scores are zero: labels are independent of each other.

    Example:
        >>> crf = CRF(3)
        >>> _ = crf.transitions.data.fill_diagonal_(5.0)  # a label tends to stay
        >>> emissions = torch.tensor([[[2.0, 0, 0], [0, 1, 0], [2, 0, 0]]])
        >>> emissions.argmax(2).tolist(), crf.best(emissions).tolist()
        ([[0, 1, 0]], [[0, 0, 0]])
    """

    def __init__(self, n_classes: int):
        super().__init__()
        self.transitions = torch.nn.Parameter(torch.zeros(n_classes, n_classes))
        self.start = torch.nn.Parameter(torch.zeros(n_classes))
        self.end = torch.nn.Parameter(torch.zeros(n_classes))

    def forward(self, emissions: Tensor, y: Tensor, lengths: Tensor | None = None) -> Tensor:
        """−log P(y | e) of each row, `[B]`; y `[B, T]` integers, any class beyond the lengths."""
        lengths = _lengths(emissions, lengths)
        return self.log_partition(emissions, lengths) - self.score(emissions, y, lengths)

    def score(self, emissions: Tensor, y: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The score of the labels y `[B, T]`, `[B]`."""
        lengths = _lengths(emissions, lengths)
        valid = torch.arange(y.shape[1]) < lengths[:, None]  # [B, T]
        emitted = torch.where(valid, emissions.gather(2, y[:, :, None])[:, :, 0], 0).sum(1)
        moved = torch.where(valid[:, 1:], self.transitions[y[:, :-1], y[:, 1:]], 0).sum(1)
        last = y.gather(1, lengths[:, None] - 1)[:, 0]
        return self.start[y[:, 0]] + emitted + moved + self.end[last]

    def log_partition(self, emissions: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log Z(e), `[B]`."""
        lengths = _lengths(emissions, lengths)
        alpha = self.start + emissions[:, 0]
        if emissions.shape[1] > 1:
            largest = self.transitions.amax(0)
            factors = torch.exp(self.transitions - largest)

            def step(alpha: Tensor, scores: Tensor) -> Tensor:
                top = alpha.amax(1, keepdim=True)
                return torch.log(torch.exp(alpha - top) @ factors) + top + scores

            scores = (emissions[:, 1:] + largest).transpose(0, 1)
            alpha, _ = scan(step, alpha, scores, lengths=lengths - 1)
        return torch.logsumexp(alpha + self.end, dim=1)

    def best(
        self,
        emissions: Tensor,
        lengths: Tensor | None = None,
        allowed: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Tensor:
        """The labels of the highest score, `[B, T]`; beyond the lengths the last label again.

        Args:
            emissions, lengths: see above.
            allowed: see `Labelling`.
        """
        rows = None if lengths is None else lengths.numpy()
        e, A, start, end = (
            each.detach().numpy() for each in (emissions, self.transitions, self.start, self.end)
        )
        return torch.from_numpy(viterbi(e, A, start, end, rows, allowed))


def _lengths(emissions: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is None:
        return torch.full((len(emissions),), emissions.shape[1])
    return lengths
