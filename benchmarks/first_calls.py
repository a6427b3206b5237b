"""`first_calls`: the first call of a loop whose iteration has 10 to 2,000 operations.

Each in a fresh process that has imported torch and ostinato, forward and backward, beside a later
call and the same call in Python. A loop that appends every n-th state is a step of n iterations.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.results import Bound, Row, Spec, Timing

OPERATIONS = (10, 100, 1_000, 2_000)
WANTED_S = {2_000: 3.0}
EVERY = (1, 2, 5, 10)
AS_FAST = 0.95  # the time in Python over a later call's, where the engine gains nothing


def specs(quick: bool) -> list[Spec]:
    rounds = 1 if quick else 3
    cases = [("operations", n) for n in OPERATIONS] + [("every", n) for n in EVERY]
    return [
        Spec(f"first_calls/{kind}/{n}", lambda at=(kind, n): _row(*at, rounds))  # type: ignore[misc]
        for kind, n in (cases[:1] if quick else cases)
    ]


def _row(kind: str, n: int, rounds: int) -> Row:
    found = [_in_a_process(kind, n) for _ in range(rounds)]
    names = ("the first call", "a later one", "in Python")
    first, later, python = timings = tuple(
        Timing.of(name, times) for name, times in zip(names, zip(*found, strict=True), strict=True)
    )
    bounds = [Bound("Python over a later call", AS_FAST, python.median_s / later.median_s)]
    if kind == "operations" and n in WANTED_S:
        bounds.append(Bound("the first call", WANTED_S[n], first.median_s, False, "s"))
    what = f"{n:,} operations an iteration" if kind == "operations" else f"appends every {n} steps"
    return Row(f"first_calls/{kind}/{n}", what, timings, bounds=tuple(bounds))


def _in_a_process(kind: str, n: int) -> list[float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.first_calls", kind, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


# ------------------------------------------------------------------------ in that process


def deep(h: Any, x: Any, n: int) -> Any:
    import torch

    for _ in range(n // 2):
        h = torch.tanh(h) + x
    return h


def operations(cell: Any, h: Any, x: Any, n: int) -> Any:
    import torch

    outs = []
    for t in range(x.shape[1]):
        h = deep(h, x[:, t], n)
        outs.append(h)
    return torch.stack(outs, 1)


def every(cell: Any, h: Any, x: Any, n: int) -> Any:
    import torch

    outs = []
    for t in range(x.shape[1]):
        h = cell(x[:, t], h)
        if t % n == 0:
            outs.append(h)
    return torch.stack(outs, 1)


def main(kind: str, n: int) -> None:
    import torch

    import ostinato

    function, n_steps = (every, 200) if kind == "every" else (operations, 50)
    cell, h = torch.nn.GRUCell(32, 32), torch.zeros(16, 32)
    x = torch.randn(16, n_steps, 32, requires_grad=True)

    def seconds(run: Any) -> float:
        begin = time.perf_counter()
        run(cell, h, x, n).sum().backward()
        return time.perf_counter() - begin

    looped = ostinato.loop(function)
    seconds(function)  # what PyTorch does once
    first = seconds(looped)
    both = [(seconds(looped), seconds(function)) for _ in range(10)]
    later, python = (min(times) for times in zip(*both, strict=True))
    print(json.dumps([first, later, python]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
