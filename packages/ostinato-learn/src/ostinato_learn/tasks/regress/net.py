"""A recurrent network that reads a whole sequence and gives numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ostinato_learn.models.inputs import WordBatch
from ostinato_learn.tasks.classify.net import ClassifierNet
from ostinato_learn.tasks.forecast.net import check_levels, increasing


class RegressorNet(ClassifierNet):
    """The body and the readout of a `ClassifierNet`, whose outputs are scaled numbers.

        y = centre + scale · z,   z = V s_T + c;   with quantiles z increases with the level

    Args:
        n_features: F, size of one element of a sequence; None if the elements are words.
        n_targets: K, how many numbers.
        levels: the levels of the quantiles; () for one number a target.
        centre, scale: the mean and the deviation of each target, K numbers; by default 0 and 1.
        more: further arguments of `ClassifierNet`.

    Attributes:
        config: the arguments as a dict; `RegressorNet(**net.config)` builds the same network.
        centre, scale: `[K]`, as tensors that are not trained.

    Example:
        >>> net = RegressorNet(n_features=3, n_targets=2, hidden_size=8)
        >>> net(torch.zeros(5, 9, 3)).shape
        torch.Size([5, 2, 1])
    """

    task = "regress"
    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        n_features: int | None,
        n_targets: int,
        levels: Sequence[float] = (),
        centre: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        **more: Any,
    ):
        known = check_levels(levels) if len(levels) else ()
        self.n_targets, self.n_levels = n_targets, max(1, len(known))
        super().__init__(n_features, n_targets * self.n_levels, **more)
        del self.config["n_classes"]
        given = {"centre": centre or [0.0] * n_targets, "scale": scale or [1.0] * n_targets}
        self.config |= {"n_targets": n_targets, "levels": list(known), **given}
        self.median = known.index(0.5) if known else None
        for name, values in given.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def forward(self, x: Tensor | WordBatch, lengths: Tensor | None = None) -> Tensor:
        """The scaled numbers, `[B, K, Q]`; arguments as of a `ClassifierNet`."""
        return self._increasing(super().forward(x, lengths))

    def scaled(self, state: Tensor) -> Tensor:
        """The scaled numbers, `[B, K, Q]`, of states `[B, H]` in evaluation."""
        return self._increasing(self.readout(state))

    def _increasing(self, raw: Tensor) -> Tensor:
        raw = raw.unflatten(1, (self.n_targets, self.n_levels))
        return raw if self.median is None else increasing(raw, self.median)
