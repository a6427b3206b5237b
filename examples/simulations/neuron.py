"""A neuron fitted to a voltage trace: the conductances of Hodgkin and Huxley's equations.

    python examples/simulations/neuron.py [--iterations 150] [--picture neuron.png]

The trace is made by the same equations and has noise, so that the true conductances are known. The
fitted neuron is pulled towards the trace a little: its spikes then keep to those of the trace, and
the gradient says which conductance is wrong, not only that a spike comes late.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

import ostinato

DT = 0.02  # ms
TRUE = torch.tensor([120.0, 36.0, 0.3], dtype=torch.float64)  # sodium, potassium, leak: mS/cm²
GUESS = torch.tensor([80.0, 50.0, 0.6], dtype=torch.float64)
PULL = 0.5  # per ms


@ostinato.loop
def voltages(g: Tensor, current: Tensor, trace: Tensor, pull: float) -> Tensor:
    """The voltage in mV after each step.

    Args:
        g: the three conductances.
        current: `[T]`, µA/cm².
        trace: `[T]`, a measured voltage, towards which the neuron is pulled.
    """
    exp = torch.exp
    V, m, h, n = (torch.full_like(current[0], v) for v in (-65.0, 0.05, 0.6, 0.32))
    found = []
    for t in range(len(current)):
        a_m = 0.1 * (V + 40) / (1 - exp(-(V + 40) / 10))
        a_h = 0.07 * exp(-(V + 65) / 20)
        a_n = 0.01 * (V + 55) / (1 - exp(-(V + 55) / 10))
        m = m + DT * (a_m * (1 - m) - 4 * exp(-(V + 65) / 18) * m)
        h = h + DT * (a_h * (1 - h) - h / (1 + exp(-(V + 35) / 10)))
        n = n + DT * (a_n * (1 - n) - 0.125 * exp(-(V + 65) / 80) * n)
        sodium = g[0] * m**3 * h * (V - 50)
        potassium = g[1] * n**4 * (V + 77)
        leak = g[2] * (V + 54.4)
        V = V + DT * (current[t] - sodium - potassium - leak + pull * (trace[t] - V))
        found.append(V)
    return torch.stack(found)


def experiment() -> tuple[Tensor, Tensor]:
    """A current that is turned on and off, and the noisy trace of 60 ms."""
    generator = torch.Generator().manual_seed(0)
    times = DT * torch.arange(3000, dtype=torch.float64)
    current = torch.where((times > 5) & (times < 45), 12.0, 0.0).double()
    exact = voltages(TRUE, current, torch.zeros_like(current), 0.0)
    return current, exact + torch.randn(3000, generator=generator, dtype=torch.float64)


def fit(iterations: int) -> dict[str, Any]:
    """The conductances that explain the trace, found by gradients of all steps."""
    current, trace = experiment()
    log_g = GUESS.log().requires_grad_()
    optimizer = torch.optim.Adam([log_g], lr=0.05)
    losses = []
    for _ in range(iterations):
        optimizer.zero_grad()
        loss = (voltages(log_g.exp(), current, trace, PULL) - trace).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    g = log_g.detach().exp()
    alone = [voltages(each, current, trace, 0.0).detach() for each in (GUESS, g)]
    return {"g": g, "losses": losses, "trace": trace, "guess": alone[0], "fitted": alone[1]}


def picture(found: dict[str, Any], path: str) -> None:
    import matplotlib.pyplot as plt

    times = DT * torch.arange(len(found["trace"]))
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    axes.plot(times, found["trace"], color="0.75", linewidth=1, label="measured")
    axes.plot(times, found["guess"], "C1--", linewidth=1, label="the first guess")
    axes.plot(times, found["fitted"], "C0", linewidth=1, label="fitted")
    axes.set(xlabel="ms", ylabel="mV", xlim=(0, 60))
    axes.legend(loc="upper right", frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--picture", metavar="FILE")
    options = parser.parse_args()
    found = fit(options.iterations)
    for name, value, true in zip(("sodium", "potassium", "leak"), found["g"], TRUE, strict=True):
        print(f"{name:10} {value:8.3f} mS/cm², the true one is {true:.3f}")
    if options.picture:
        picture(found, options.picture)


if __name__ == "__main__":
    main()
