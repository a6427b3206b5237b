"""A bucket model of a river calibrated: snow, soil and two reservoirs, in the manner of HBV.

    python examples/simulations/river.py [--iterations 300] [--picture river.png]

Rain and temperature of four years drive the model; the flow at the outlet was measured. All seven
parameters are found by gradients through the 1,461 days. The measure is that of Nash and Sutcliffe:
1 for a perfect model, 0 for the mean flow. (The flow is made by the model itself, with noise.)
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

import ostinato

F64 = torch.float64
DAYS, WARM_UP = 1461, 365
NAMES = ("melt", "capacity", "shape", "quick", "threshold", "percolation", "base")
TRUE = torch.tensor([3.5, 180.0, 2.0, 0.35, 15.0, 1.2, 0.04], dtype=F64)
GUESS = torch.tensor([2.0, 300.0, 1.0, 0.2, 25.0, 0.5, 0.1], dtype=F64)


@ostinato.loop
def flows(p: Tensor, rain: Tensor, temperature: Tensor, demand: Tensor) -> Tensor:
    """The flow of each day in mm.

    Args:
        p: melt in mm a day and degree; capacity of the soil; shape of its outflow; shares of the
            upper reservoir that leave quickly, above a threshold; percolation; share of the lower.
        rain, temperature, demand: `[T]`; demand is what plants and air would take.
    """
    melt, capacity, shape, quick, threshold, percolation, base = p.unbind(0)
    snow, soil, upper, lower = (torch.full((), v, dtype=F64) for v in (0.0, 90.0, 5.0, 20.0))
    found = []
    for t in range(len(rain)):
        frozen = torch.where(temperature[t] < 0, rain[t], 0.0)
        melted = torch.minimum(melt * torch.relu(temperature[t]), snow)
        snow = snow + frozen - melted
        water = rain[t] - frozen + melted
        filled = torch.clamp(soil / capacity, 1e-4, 1.0)
        recharge = water * filled**shape
        soil = torch.clamp(soil + water - recharge - demand[t] * filled, min=0.01)
        upper = upper + recharge
        fast = quick * torch.relu(upper - threshold) + 0.1 * quick * upper
        down = torch.minimum(percolation, upper - fast)
        upper = upper - fast - down
        slow = base * (lower + down)
        lower = lower + down - slow
        found.append(fast + slow)
    return torch.stack(found)


def experiment() -> dict[str, Tensor]:
    """Weather of four years and the measured flow."""
    generator = torch.Generator().manual_seed(3)
    wet = torch.rand(DAYS, generator=generator, dtype=F64) < 0.35
    amount = -8 * torch.rand(DAYS, generator=generator, dtype=F64).log()
    season = torch.sin(2 * torch.pi * (torch.arange(DAYS, dtype=F64) - 110) / 365.25)
    noise = torch.randn(2, DAYS, generator=generator, dtype=F64)
    weather = {
        "rain": torch.where(wet, amount, 0.0),
        "temperature": 7 + 11 * season + 3 * noise[0],
        "demand": 1.5 + 1.3 * season,
    }
    return {**weather, "flow": flows(TRUE, **weather) * torch.exp(0.05 * noise[1])}


def efficiency(flow: Tensor, measured: Tensor) -> Tensor:
    """Nash and Sutcliffe's measure, without the first year."""
    flow, measured = flow[WARM_UP:], measured[WARM_UP:]
    return 1 - (flow - measured).square().sum() / (measured - measured.mean()).square().sum()


def fit(iterations: int) -> dict[str, Any]:
    """Calibrate the logarithms of the parameters."""
    data = experiment()
    measured = data.pop("flow")
    logs = GUESS.log().requires_grad_()
    optimizer = torch.optim.Adam([logs], lr=0.03)
    for _ in range(iterations):
        optimizer.zero_grad()
        (1 - efficiency(flows(logs.exp(), **data), measured)).backward()
        optimizer.step()
    parameters = logs.detach().exp()
    guess, fitted = (flows(p, **data) for p in (GUESS, parameters))
    return {
        "parameters": parameters,
        "measured": measured,
        "guess": guess,
        "fitted": fitted,
        "rain": data["rain"],
        "efficiencies": [float(efficiency(f, measured)) for f in (guess, fitted)],
    }


def picture(found: dict[str, Any], path: str) -> None:
    import matplotlib.pyplot as plt

    days, shown = torch.arange(DAYS) - WARM_UP, slice(WARM_UP, WARM_UP + 365)
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    axes.plot(days[shown], found["measured"][shown], color="0.65", linewidth=2, label="measured")
    axes.plot(days[shown], found["guess"][shown], "C1--", linewidth=1, label="the first guess")
    axes.plot(days[shown], found["fitted"][shown], "C0", linewidth=1, label="calibrated")
    axes.set(xlabel="day", ylabel="flow, mm a day", xlim=(0, 365), ylim=(0, 18))
    above = axes.twinx()
    above.bar(days[shown], found["rain"][shown], color="C9", width=1)
    above.set(ylabel="rain, mm a day", ylim=(120, 0))
    axes.legend(loc="center", bbox_to_anchor=(0.43, 0.55), frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--picture", metavar="FILE")
    options = parser.parse_args()
    found = fit(options.iterations)
    for name, value, true in zip(NAMES, found["parameters"], TRUE, strict=True):
        print(f"{name:12} {value:8.3f}, the true one is {true:.3f}")
    print("efficiency {1:.3f}, of the guess {0:.3f}".format(*found["efficiencies"]))
    if options.picture:
        picture(found, options.picture)


if __name__ == "__main__":
    main()
