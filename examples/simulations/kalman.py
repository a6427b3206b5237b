"""A Kalman filter whose likelihood is maximised: a level with a trend, observed with noise.

    python examples/simulations/kalman.py [--iterations 40] [--picture kalman.png]

Three variances are unknown: that of the observations, and how much level and trend move in a day.
On some days nothing was observed; the filter then predicts alone.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

import ostinato

F64 = torch.float64
TRUE = torch.tensor([4.0, 0.2, 0.001], dtype=F64)
GUESS = torch.tensor([1.0, 1.0, 1.0], dtype=F64)


@ostinato.loop
def filtered(variances: Tensor, y: Tensor, observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The log-likelihood of the observations, and mean and variance of the level of each day.

    Args:
        variances: of the observations, the level and the trend.
        y: `[T]`.
        observed: `[T]`, whether there was an observation.
    """
    F = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=F64)
    Q = torch.diag(variances[1:])
    H = torch.tensor([1.0, 0.0], dtype=F64)
    m, P = torch.zeros(2, dtype=F64), 100 * torch.eye(2, dtype=F64)
    total, means, spread = torch.zeros((), dtype=F64), [], []
    for t in range(len(y)):
        m, P = F @ m, F @ P @ F.T + Q
        s = H @ P @ H + variances[0]
        error = torch.where(observed[t], y[t] - H @ m, 0.0)
        gain = torch.where(observed[t], P @ H / s, 0.0)
        m = m + gain * error
        P = P - torch.outer(gain, gain) * s
        total = total - torch.where(observed[t], error**2 / s + torch.log(s), 0.0) / 2
        means.append(m[0])
        spread.append(P[0, 0])
    return total, torch.stack(means), torch.stack(spread)


def experiment() -> dict[str, Tensor]:
    """The level of 600 days, and observations of it, with a gap of 60 days and single days."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(3, 600, generator=generator, dtype=F64) * TRUE.sqrt()[:, None]
    trend = noise[2].cumsum(0)
    level = (trend + noise[1]).cumsum(0)
    observed = torch.rand(600, generator=generator) > 0.2
    observed[300:360] = False
    return {"level": level, "y": level + noise[0], "observed": observed}


def fit(iterations: int) -> dict[str, Any]:
    """The variances with the greatest likelihood."""
    data = experiment()
    logs = GUESS.log().requires_grad_()
    optimizer = torch.optim.LBFGS([logs], max_iter=iterations, line_search_fn="strong_wolfe")

    def cost() -> Tensor:
        optimizer.zero_grad()
        value = -filtered(logs.exp(), data["y"], data["observed"])[0]
        value.backward()
        return value

    optimizer.step(cost)
    variances = logs.detach().exp()
    of_guess, _, _ = filtered(GUESS, data["y"], data["observed"])
    value, means, spread = filtered(variances, data["y"], data["observed"])
    return {
        **data,
        "variances": variances,
        "means": means,
        "spread": spread,
        "likelihoods": (of_guess.item(), value.item()),
    }


def picture(found: dict[str, Any], path: str) -> None:
    import matplotlib.pyplot as plt

    days, means, width = torch.arange(600), found["means"], 2 * found["spread"].sqrt()
    seen = found["observed"]
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    axes.plot(days[seen], found["y"][seen], ".", color="0.7", markersize=3, label="observed")
    axes.fill_between(days, means - width, means + width, color="C0", alpha=0.25, linewidth=0)
    axes.plot(days, means, "C0", linewidth=1, label="filtered, two standard deviations")
    axes.plot(days, found["level"], "k", linewidth=0.7, label="true")
    axes.set(xlabel="day", ylabel="level", xlim=(200, 450))
    near = means[200:450]
    axes.set_ylim(float(near.min()) - 15, float(near.max()) + 15)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--picture", metavar="FILE")
    options = parser.parse_args()
    found = fit(options.iterations)
    names = "observations", "level", "trend"
    for name, value, true in zip(names, found["variances"], TRUE, strict=True):
        print(f"variance of {name:13} {value:8.4f}, the true one is {true:.4f}")
    print("log-likelihood {:.1f}, that of the guess {:.1f}".format(*found["likelihoods"][::-1]))
    if options.picture:
        picture(found, options.picture)


if __name__ == "__main__":
    main()
