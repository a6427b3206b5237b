"""`memory`: long runs within a budget of memory.

    peak     the memory of a process at its peak, beyond what it had before the run, the outputs and
             the gradients, as Linux counts it (VmHWM; the mark is set back before the run)
    time     of a step, beside the plain run of 10 000 steps, before and after in the same process

Each row has a process for each: memory that a plain run gave back would be used again unseen. The
rows with T=, B= and H= are the curves by which time and memory grow.
"""

from __future__ import annotations

import ctypes
import functools
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import ostinato
from benchmarks.results import Absent, Bound, Row, Spec, Timing

BUDGET_MB, MATRIX_BUDGET_MB = 64, 256
TIMES = 1.4
PLAIN_STEPS = 10_000
HEADS, WIDTH = 4, 32  # of the matrix state
STEPS = {"rnn": 1_000_000, "gru": 1_000_000, "lstm": 1_000_000, "matrix": 10_000}


def specs(quick: bool) -> list[Spec]:
    shapes = [
        *((cell, STEPS[cell], 1, 128, BUDGET_MB) for cell in ("rnn", "gru", "lstm")),
        ("matrix", STEPS["matrix"], 8, HEADS * WIDTH, MATRIX_BUDGET_MB),
    ]
    found = [
        Spec(f"memory/{shape[0]}", functools.partial(_bounded, quick, *shape)) for shape in shapes
    ]
    curves: dict[str, list[tuple[int, int, int]]] = {
        "T": [(n, 1, 128) for n in (1_000, 10_000, 100_000, 1_000_000)],
        "B": [(20_000, n, 128) for n in (1, 4, 16, 64)],
        "H": [(20_000, 1, n) for n in (32, 128, 512)],
    }
    for letter, points in curves.items():
        for T, B, H in points:
            varied = {"T": T, "B": B, "H": H}[letter]
            name = f"memory/{letter}={varied}"
            found.append(Spec(name, functools.partial(_point, name, quick, T, B, H)))
    return found


def _bounded(quick: bool, cell: str, T: int, B: int, H: int, budget_mb: int) -> Row:
    T = T // 100 if quick else T
    title = f"{cell.upper()}, T={T}, B={B}, H={H}, within {budget_mb} MB"
    name = f"memory/{cell}"
    found = _measured(cell, T, B, H, f"{budget_mb}MB", 1 if quick else 3)
    if isinstance(found, Absent):
        return Row(name, title, (), (found,))
    peak, within, plain, ratio = found
    bounds = [Bound("peak beyond xs, ys and gradients", budget_mb, peak, False, "MB")]
    if cell != "matrix":
        bounds.append(Bound("a step, over the plain run's", TIMES, ratio, False))
    return Row(name, title, (within, plain), bounds=tuple(bounds))


def _point(name: str, quick: bool, T: int, B: int, H: int) -> Row:
    T = max(T // 100, 100) if quick else T
    found = _measured("lstm", T, B, H, f"{BUDGET_MB}MB", 1)
    title = f"LSTM, T={T}, B={B}, H={H}, within {BUDGET_MB} MB"
    if isinstance(found, Absent):
        return Row(name, title, (), (found,))
    peak, within, plain, _ = found
    bound = Bound("peak beyond xs, ys and gradients", BUDGET_MB, peak, False, "MB")
    return Row(name, title, (within, plain), bounds=(bound,))


def _measured(
    cell: str, T: int, B: int, H: int, memory: str, rounds: int
) -> Absent | tuple[float, Timing, Timing, float]:
    """Peak in MB; a step within the budget, and of the plain run; the ratio of these."""
    if not Path("/proc/self/clear_refs").exists():
        return Absent("peak", "the peak of a process is Linux' to tell")
    arguments = [cell, str(T), str(B), str(H), memory, str(torch.get_num_threads())]
    peak = _child("peak", *arguments)
    if peak["refused"]:
        return Absent(f"within {memory}", peak["refused"])
    times = [_child("time", *arguments) for _ in range(rounds)]
    ratio = median(t["within"] / t["plain"] for t in times)
    within = _timing(f"a step within {memory}", [t["within"] for t in times], peak["plan"])
    plain = _timing(f"a step of the plain run, T={PLAIN_STEPS}", [t["plain"] for t in times])
    return peak["bytes"] / 1e6, within, plain, ratio


def _timing(name: str, seconds: list[float], note: str = "") -> Timing:
    middle = median(seconds)
    return Timing(name, middle, min(seconds), max(seconds), len(seconds), note=note)


def _child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


# ---- In the process of a row


class Problem:
    """Training of one cell: tensors made before the run, and the run."""

    def __init__(self, cell: str, T: int, B: int, H: int):
        torch.manual_seed(0)
        self.init: Any
        self.xs: Any
        if cell == "matrix":
            self.parameters: list[Tensor] = []
            self.init = torch.zeros(B, HEADS, WIDTH, WIDTH)
            self.xs = tuple(torch.randn(T, B, HEADS, WIDTH) / 6 for _ in range(3))
            self.step: Callable[..., Any] = matrix_step
        else:
            layer = getattr(ostinato.nn, cell.upper())(H, H)
            self.parameters = list(layer.parameters())
            self.step = layer._step(self.parameters, False)
            state = torch.zeros(B, H)
            self.init = (state, state.clone()) if cell == "lstm" else state
            self.xs = torch.randn(T, B, H)
        self.leaves = list(self.xs) if isinstance(self.xs, tuple) else [self.xs]
        for x in self.leaves:
            x.requires_grad_()
        self.d_ys = torch.randn(T, B, *((HEADS, WIDTH) if cell == "matrix" else (H,)))

    def run(self, memory: str | None) -> int:
        """Train once; the bytes of outputs and gradients."""
        _, ys = ostinato.scan(self.step, self.init, self.xs, memory=memory)
        found = torch.autograd.grad(ys, [*self.parameters, *self.leaves], self.d_ys)
        return sum(t.numel() * t.element_size() for t in (ys, *found))


def matrix_step(state: Tensor, x: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A matrix memory with a decay: it adds v kᵀ, and is read by q."""
    q, k, v = x
    state = 0.95 * state + v.unsqueeze(-1) * k.unsqueeze(-2)
    return state, (state @ q.unsqueeze(-1)).squeeze(-1)


def _status(what: str) -> int:
    """Bytes, from this process's status."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def _peak(cell: str, T: int, B: int, H: int, memory: str) -> dict[str, Any]:
    problem = Problem(cell, T, B, H)
    small = Problem(cell, 3, B, H)
    small.run(None)  # records the step and wakes the threads
    plan = ostinato.explain(problem.step, problem.init, problem.xs)
    if not plan.native:
        return {"refused": plan.reason}
    try:
        plan = ostinato.explain(problem.step, problem.init, problem.xs, memory=memory)
    except ValueError as refusal:
        return {"refused": str(refusal)}
    ctypes.CDLL(None).malloc_trim(0)  # what was freed would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    results = problem.run(memory)
    return {
        "refused": "",
        "bytes": _status("VmHWM") - before - results,
        "plan": str(plan.memory),
    }


def _time(cell: str, T: int, B: int, H: int, memory: str) -> dict[str, Any]:
    plain, long = Problem(cell, min(T, PLAIN_STEPS), B, H), Problem(cell, T, B, H)

    def step(problem: Problem, memory: str | None) -> float:
        begin = time.perf_counter()
        problem.run(memory)
        return (time.perf_counter() - begin) / len(problem.d_ys)

    plain.run(None)
    before = [step(plain, None) for _ in range(3)]
    within = step(long, memory)
    return {"within": within, "plain": median([*before, *(step(plain, None) for _ in range(3))])}


if __name__ == "__main__":
    what, cell, *numbers, memory, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    measure = {"peak": _peak, "time": _time}[what]
    T, B, H = map(int, numbers)
    print(json.dumps(measure(cell, T, B, H, memory)))
