"""`Regression`: the losses of regressors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ostinato.data import Batches
from ostinato.models.inputs import tensors
from ostinato.tasks.forecast.loss import pinball
from ostinato.training import evaluation
from ostinato.training.distributed import Share
from ostinato.training.examples import as_inputs, fingerprint
from ostinato.training.task import Mean, OfBatches, probed


class Regression(OfBatches):
    """The loss of a `RegressorNet`, in units of the targets' deviation.

        squared (y − z)²     absolute |y − z|     quantiles max(q (y − z_q), (q − 1)(y − z_q))

    Args:
        batches: X as `data.as_sequences` takes it or `CodedWords`, y `[N, K]`, scaled.
        loss: one of `LOSSES`.
        levels: the levels of the quantiles; () without quantiles.
        sample_weight: `[N]`, the weights of the examples in a batch's mean loss.
        validation: (X, y) for validation, without weights.
    """

    def __init__(
        self,
        batches: Batches,
        loss: str,
        levels: tuple[float, ...] = (),
        sample_weight: np.ndarray | None = None,
        validation: tuple[Any, Any] | None = None,
    ):
        super().__init__(batches, validation)
        self.X, self.y = as_inputs(batches.X), batches.y.astype(np.float32)
        self.kind, self.levels = loss, torch.tensor(levels, dtype=torch.float32)
        self.weights = None if sample_weight is None else sample_weight.astype(np.float32)

    def loss(self, net: torch.nn.Module) -> Share:
        indices = self.next_rows()
        x, lengths = tensors(self.X, indices)
        losses = self._losses(net(x, lengths), torch.tensor(self.y[indices]))
        if self.weights is None:
            return Share(losses.mean(), len(losses), {}, len(losses))
        weights = torch.tensor(self.weights[indices])
        total = weights.sum()
        loss = (weights * losses).sum() / total.clamp(min=torch.finfo(weights.dtype).tiny)
        return Share(loss, total.item(), {}, len(losses))

    def _losses(self, found: Tensor, y: Tensor) -> Tensor:
        """The losses `[B]` of scaled answers `[B, K, Q]` and targets `[B, K]`."""
        if self.kind == "quantiles":
            return pinball(y, found, self.levels).mean((1, 2))
        errors = found[:, :, 0] - y
        return (errors**2 if self.kind == "squared" else errors.abs()).mean(1)

    def fingerprint(self) -> str:
        chosen = probed(len(self.y))
        weights = None if self.weights is None else self.weights[chosen]
        return fingerprint(self.X, chosen, self.y[chosen], weights, self.kind)

    def validate(self, net: torch.nn.Module) -> dict[str, Mean]:
        assert self.validation is not None
        X, y = self.validation
        rows = self.ranks.rows(len(y))
        chosen = torch.tensor(np.asarray(y[rows], np.float32))
        if not len(chosen):
            return {"validation_loss": (0.0, 0)}
        losses = self._losses(evaluation.logits(net, X, rows=rows), chosen)
        return {"validation_loss": (losses.double().mean().item(), len(losses))}
