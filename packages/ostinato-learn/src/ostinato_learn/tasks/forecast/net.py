"""`ForecasterNet`: a recurrent network that forecasts the values after a window of a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ostinato_learn.hyperparameters import (
    Architecture,
    Declared,
    HyperparameterError,
    arguments,
    declare,
    documented,
)
from ostinato_learn.models.body import last_state, recurrent, width
from ostinato_learn.models.initialize import initialize

NINE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, kw_only=True)
class _Sizes(Declared):
    """The sizes of a `ForecasterNet`, checked."""

    horizon: int = declare(MISSING, "h.", low=1)
    n_past: int = declare(0, "P.", low=0)
    n_future: int = declare(0, "K.", low=0)
    n_static: int = declare(0, "S.", low=0)
    n_lags: int = declare(0, "J.", low=0)


@documented
class ForecasterNet(torch.nn.Module):
    """A recurrent body over the last values, and a head for all steps ahead at once.

        s_t = cell(x_t, s_{t−1}),   x_t = [value, observed, past_t, future_t, static]
        d_1…d_h = relu(D s_T + b)                          a vector for each step ahead
        o_k = V relu(E [d_k, future_{T+k}, lags_k] + e) + c    the same E and V for each step
        quantiles_k = the median o_k + W lags_k, and cumulative sums of softplus(o_k) away from it

    These quantiles never cross. The lags of a step are the values at its place in the last seasons;
    W begins as 1/J, so that the network learns corrections of their mean. Inputs and quantiles are
    scaled, window by window (see `data/series/windows.py`).

    Args:
        horizon: h, steps ahead.
        n_past: P, inputs known for the same steps as the target.
        n_future: K, inputs known in advance.
        n_static: S, inputs that do not change over time.
        n_lags: J, the number of lags of each step.
        quantiles: the Q levels, increasing, between 0 and 1, with 0.5 among them.
        {hyperparameters}

    Attributes:
        config: the arguments as a dict; `ForecasterNet(**net.config)` builds the same network.

    Raises:
        ValueError: an argument of another type or out of its range.

    Example:
        >>> net = ForecasterNet(horizon=3)
        >>> net(torch.zeros(5, 24, 2)).shape
        torch.Size([5, 3, 9])
    """

    task = "forecast"  # of the folder that knows it as a graph

    def __init__(
        self,
        horizon: int,
        n_past: int = _Sizes.n_past,
        n_future: int = _Sizes.n_future,
        n_static: int = _Sizes.n_static,
        n_lags: int = _Sizes.n_lags,
        quantiles: Sequence[float] = NINE,
        cell: str = "gru",
        hidden_size: int = 64,
        num_layers: int = Architecture.num_layers,
        bidirectional: bool = Architecture.bidirectional,
        dropout: float = Architecture.dropout,
    ):
        given = arguments(locals())
        super().__init__()
        sizes = _Sizes(**{name: given[name] for name in _Sizes.__dataclass_fields__})
        names = ("cell", "hidden_size", "num_layers", "bidirectional", "dropout")
        model = Architecture(**{name: given[name] for name in names})
        levels = check_levels(quantiles)
        network = {name: getattr(model, name) for name in names}
        self.config = given | asdict(sizes) | network | {"quantiles": list(levels)}
        self._sizes, self._model = sizes, model
        self._median = levels.index(0.5)
        hidden = model.hidden_size
        n_inputs = 2 + sizes.n_past + sizes.n_future + sizes.n_static
        self.body = recurrent(model, n_inputs)
        self.dropout = torch.nn.Dropout(model.dropout)
        self.ahead = torch.nn.Linear(width(model), sizes.horizon * hidden)
        self.step = torch.nn.Linear(hidden + sizes.n_future + sizes.n_lags, hidden)
        self.readout = torch.nn.Linear(hidden, len(levels))
        for layer in (self.ahead, self.step):
            torch.nn.init.xavier_uniform_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        initialize(self.body, self.readout, "default")
        if sizes.n_lags:
            self.naive = torch.nn.Parameter(torch.full((sizes.n_lags,), 1 / sizes.n_lags))

    def forward(
        self, x: Tensor, future: Tensor | None = None, lags: Tensor | None = None
    ) -> Tensor:
        """The quantiles of the steps ahead, in the scale of the values in x.

        Args:
            x: `[B, T, 2 + P + K + S]`: the value (0 where it is missing), 1 where it is observed
                and 0 where not, then the past, future and static inputs.
            future: `[B, h, K]`, the inputs of the steps ahead; None if K is 0.
            lags: `[B, h, J]`, values of seasons before; None if J is 0.

        Returns:
            `[B, h, Q]`, increasing along Q.
        """
        _, carry = self.body(x)
        state = self.dropout(last_state(self._model, carry))
        ahead = torch.relu(self.ahead(state)).unflatten(1, (self._sizes.horizon, -1))
        beside = [part for part in (future, lags) if part is not None]
        return self.quantiles(self.raw(ahead, beside), lags)

    def raw(self, ahead: Tensor, beside: Sequence[Tensor]) -> Tensor:
        """The outputs o_k `[…, Q]` for steps ahead.

        Args:
            ahead: `[…, H]`, the vectors of the steps.
            beside: the known inputs of the steps, `[…, K]` and `[…, J]`.
        """
        return self.readout(torch.relu(self.step(torch.cat([ahead, *beside], dim=-1))))

    def quantiles(self, raw: Tensor, lags: Tensor | None) -> Tensor:
        """The quantiles `[…, Q]` of the outputs and of the lags `[…, J]`; None if J is 0."""
        return increasing(raw, self._median, 0 if lags is None else lags @ self.naive[:, None])


def increasing(raw: Tensor, median: int, shift: Tensor | float = 0) -> Tensor:
    """Turn numbers `[…, Q]` into increasing ones: that at `median` + `shift`, and distances to it.

    They increase in floating point, too: sums of nonnegative numbers never decrease, and rounding
    keeps their order.
    """
    each, far = raw.split(1, dim=-1), F.softplus(raw).split(1, dim=-1)
    found = {median: each[median] + shift}
    for move, places in (
        (torch.sub, range(median - 1, -1, -1)),
        (torch.add, range(median + 1, len(far))),
    ):
        total: Tensor | float = 0.0
        for i in places:  # not by cumsum: the engine adds in a tree, whose rounding may cross them
            total = total + far[i]
            found[i] = move(found[median], total)
    return torch.cat([found[i] for i in range(len(far))], dim=-1)


def check_levels(quantiles: Any) -> tuple[float, ...]:
    """The levels of quantiles as floats.

    Raises:
        HyperparameterError: they do not increase, leave (0, 1), or lack 0.5.
    """
    levels = list(quantiles) if not isinstance(quantiles, (str, Real)) else []
    numbers = all(isinstance(q, Real) and 0 < float(q) < 1 for q in levels)
    if not numbers or 0.5 not in levels or levels != sorted(set(levels)):
        raise HyperparameterError(
            f"quantiles={quantiles!r}: wanted increasing numbers between 0 and 1 with 0.5, the "
            "median, among them"
        )
    return tuple(map(float, levels))
