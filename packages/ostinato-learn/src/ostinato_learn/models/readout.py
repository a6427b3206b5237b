"""How the states of a sequence become one vector: last, mean, maximum, or by attention."""

from __future__ import annotations

import torch
from torch import Tensor


class Readout(torch.nn.Module):
    """The states `[B, T, D]` of sequences as vectors `[B, D]`.

        mean        Σ_t s_t / T
        max         max_t s_t, for each of the D values
        attention   Σ_t a_t s_t  with  a = softmax_t(v · s_t);   v is learnt, and begins at zero

    Steps beyond the length of a row do not count. The attention is Bahdanau's (2015) with scores
    that are linear in the state, and no query.

    Args:
        kind: "mean", "max" or "attention".
        size: D.

    Example:
        >>> states = torch.tensor([[[1.0], [3.0], [9.0]]])
        >>> Readout("mean", 1)(states, torch.tensor([2])).item()
        2.0
        >>> Readout("max", 1).steps(states)[0, :, 0].tolist()
        [1.0, 3.0, 9.0]
    """

    def __init__(self, kind: str, size: int):
        super().__init__()
        self.kind = kind
        self.query = torch.nn.Parameter(torch.zeros(size)) if kind == "attention" else None

    def forward(self, states: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`[B, D]`; lengths: `[B]` integers, by default all T."""
        valid = None if lengths is None else _valid(lengths, states.shape[1])
        if self.kind == "max":
            if valid is not None:
                states = states.masked_fill(~valid, -torch.inf)
            return states.amax(1)
        if self.kind == "mean":
            if valid is None:
                return states.mean(1)
            assert lengths is not None
            return states.masked_fill(~valid, 0).sum(1) / lengths[:, None].to(states)
        scores = self._scores(states)
        if valid is not None:
            scores = scores.masked_fill(~valid, -torch.inf)
            states = states.masked_fill(~valid, 0)
        return (torch.softmax(scores, 1) * states).sum(1)

    def steps(self, states: Tensor) -> Tensor:
        """`[B, T, D]`: after each step, as if the sequence ended there."""
        if self.kind == "max":
            return states.cummax(1).values
        if self.kind == "mean":
            count = torch.arange(1, states.shape[1] + 1, device=states.device, dtype=states.dtype)
            return states.cumsum(1) / count[:, None]
        scores = self._scores(states)
        weights = torch.exp(scores - scores.amax(1, keepdim=True))
        return (weights * states).cumsum(1) / weights.cumsum(1)

    def _scores(self, states: Tensor) -> Tensor:
        """`[B, T, 1]`."""
        assert self.query is not None
        return (states @ self.query)[:, :, None]


def _valid(lengths: Tensor, n_steps: int) -> Tensor:
    """`[B, T, 1]`: which steps are within the rows."""
    return (torch.arange(n_steps, device=lengths.device) < lengths[:, None])[:, :, None]
