"""`Regression`: the losses of regressors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ostinato_learn.data import Batches
from ostinato_learn.tasks.fitting import OfExamples
from ostinato_learn.tasks.forecast.loss import pinball
from ostinato_learn.training import evaluation
from ostinato_learn.training.task import Mean


class Regression(OfExamples):
    """The loss of a `RegressorNet`, in units of the targets' deviation.

        squared (y − z)²     absolute |y − z|     quantiles max(q (y − z_q), (q − 1)(y − z_q))

    Args:
        batches: y `[N, K]`, scaled; see `OfExamples`.
        loss: one of `LOSSES`.
        levels: the levels of the quantiles; () without quantiles.
        sample_weight, validation: see `OfExamples`.
    """

    def __init__(
        self,
        batches: Batches,
        loss: str,
        levels: tuple[float, ...] = (),
        sample_weight: np.ndarray | None = None,
        validation: tuple[Any, Any] | None = None,
    ):
        super().__init__(batches, sample_weight, validation)
        self.kind, self.levels = loss, torch.tensor(levels, dtype=torch.float32)

    def losses(self, found: Tensor, y: Tensor) -> Tensor:
        """Of scaled answers `[B, K, Q]` and targets `[B, K]`."""
        if self.kind == "quantiles":
            return pinball(y, found, self.levels).mean((1, 2))
        errors = found[:, :, 0] - y
        return (errors**2 if self.kind == "squared" else errors.abs()).mean(1)

    def fingerprint(self, *more: Any) -> str:
        return super().fingerprint(self.kind, *more)

    def validate(self, net: torch.nn.Module) -> dict[str, Mean]:
        assert self.validation is not None
        X, y = self.validation
        rows = self.ranks.rows(len(y))
        chosen = torch.tensor(np.asarray(y[rows], np.float32))
        if not len(chosen):
            return {"validation_loss": (0.0, 0)}
        losses = self.losses(evaluation.logits(net, X, rows=rows), chosen)
        return {"validation_loss": (losses.double().mean().item(), len(losses))}
