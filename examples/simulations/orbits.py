"""A transfer between planets: the velocity with which a probe reaches its target in time.

    python examples/simulations/orbits.py [--iterations 60] [--picture orbits.png]

Sun, two planets and the probe move by leapfrog; the gradient of the distance at arrival goes back
through all steps to the velocity at the start. Units: the radius of the inner orbit, and its year
is 2π.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from torch import Tensor

import ostinato

F64 = torch.float64
OUTER = 1.52  # the radius of the target's orbit
ANGLE = 0.8  # of the target at the start
MASSES = torch.tensor([1.0, 3e-6, 3e-7, 0.0], dtype=F64)
STEPS, YEARS = 2000, 0.75
DT = 2 * math.pi * YEARS / STEPS


@ostinato.loop
def paths(speed: Tensor, places: Tensor, speeds: Tensor) -> Tensor:
    """The places `[T, 4, 2]` of sun, inner planet, target and probe.

    Args:
        speed: `[2]`, that of the probe relative to the inner planet, near which it starts.
        places, speeds: `[4, 2]`, at the start.
    """
    x = places
    v = torch.cat([speeds[:3], (speeds[3] + speed)[None]])
    found = []
    for _ in range(STEPS):
        x = x + DT / 2 * v
        between = x[None, :, :] - x[:, None, :]
        cubes = (between.square().sum(-1) + 1e-4) ** 1.5
        v = v + DT * (MASSES[None, :, None] * between / cubes[:, :, None]).sum(1)
        x = x + DT / 2 * v
        found.append(x)
    return torch.stack(found)


def at_start() -> tuple[Tensor, Tensor]:
    """Places and speeds on circles around the sun."""
    target = torch.tensor([math.cos(ANGLE), math.sin(ANGLE)], dtype=F64)
    places = torch.zeros(4, 2, dtype=F64)
    places[1, 0] = 1.0
    places[2] = OUTER * target
    places[3, 0] = 1.02
    speeds = torch.zeros(4, 2, dtype=F64)
    speeds[1, 1] = speeds[3, 1] = 1.0
    speeds[2] = torch.stack([-target[1], target[0]]) / OUTER**0.5
    return places, speeds


def fit(iterations: int) -> dict[str, Any]:
    """The speed at which the probe is with its target at the end."""
    places, speeds = at_start()
    speed = torch.tensor([0.0, 0.1], dtype=F64, requires_grad=True)
    optimizer = torch.optim.LBFGS([speed], max_iter=iterations, line_search_fn="strong_wolfe")
    first = paths(speed.detach(), places, speeds)

    def miss() -> Tensor:
        optimizer.zero_grad()
        end = paths(speed, places, speeds)[-1]
        distance = (end[3] - end[2]).square().sum()
        distance.backward()
        return distance

    optimizer.step(miss)
    last = paths(speed.detach(), places, speeds)
    return {
        "speed": speed.detach(),
        "first": first,
        "last": last,
        "misses": [float((p[-1, 3] - p[-1, 2]).norm()) for p in (first, last)],
    }


def picture(found: dict[str, Any], path: str) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    last = found["last"]
    axes.plot(0, 0, "o", color="gold", markersize=12)
    axes.plot(*last[:, 1].T, color="0.6", label="inner planet")
    axes.plot(*last[:, 2].T, "C3", label="target")
    axes.plot(*found["first"][:, 3].T, "C1--", linewidth=1, label="the first guess")
    axes.plot(*last[:, 3].T, "C0", label="probe")
    axes.plot(*last[-1, 2], "C3o")
    axes.plot(*last[-1, 3], "C0.")
    axes.set_aspect("equal")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--picture", metavar="FILE")
    options = parser.parse_args()
    found = fit(options.iterations)
    x, y = found["speed"].tolist()
    print(f"speed at the start ({x:.4f}, {y:.4f})")
    print(
        "distance to the target at arrival {:.2e}, of the guess {:.2f}".format(
            *found["misses"][::-1]
        )
    )
    if options.picture:
        picture(found, options.picture)


if __name__ == "__main__":
    main()
