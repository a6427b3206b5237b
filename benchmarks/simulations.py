"""`simulations`: loops of science in float64, value and gradient, beside PyTorch's loop and JAX.

The same unedited function runs in PyTorch and under `ostinato.loop` (`simulations_torch.py`); JAX
has a scan of the same step, jitted (`simulations_jax.py`). Each contender is a process of its own,
on one thread; in a round each has one turn, while the others wait. Ours takes part twice, without
llvmlite and with it, which compiles to machine code. JAX of other Pythons takes part
if JAX_PYTHONS names these, separated by colons: the present release, and one of 2024, which some
packages for simulations still pin.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.results import Absent, Bound, Row, Spec, Timing

OURS, TORCH, JAX = "ostinato.loop", "PyTorch's loop", "JAX"
COMPILED = "ostinato.loop with machine code"  # by the extra jit
FIRST_S = 1.0  # the first call
BLOCK_S = 0.2
# Sums of some thousand steps in another order; the chaotic systems run for a short time.
CLOSE = 1e-7
Numbers = tuple[np.ndarray, np.ndarray]  # the parameters, whose gradient is wanted; the data


def _random() -> np.random.Generator:
    return np.random.default_rng(0)


def _current(*shape: int) -> Numbers:
    return np.array([120.0, 36.0, 0.3]), 10 + _random().normal(size=shape)


def _weather(n_days: int, n_rivers: int) -> Numbers:
    r = _random()
    rain = r.gamma(0.5, 8, (n_days, n_rivers))
    season = 10 * np.sin(np.arange(n_days) / 58)[:, None]
    temperature = season + r.normal(size=(n_days, n_rivers))
    data = np.stack([rain, temperature, np.full_like(rain, 2.0)], -1)
    return np.array([0.0, 3.0, 250.0, 2.0, 0.9, 0.2, 0.05, 1.0, 20.0]), data


def _planets() -> Numbers:
    places = np.array([[0.0, 0.0], [1.0, 0.0], [-1.6, 0.0]])
    speeds = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, -0.8]])
    return np.array([1.0, 1e-3, 5e-4]), np.stack([places, speeds])


# The title of each case, and its numbers.
CASES: dict[str, tuple[str, Callable[[], Numbers]]] = {
    "lorenz": (
        "Lorenz's system, 5,000 steps of Euler",
        lambda: (np.array([10.0, 28.0, 8 / 3]), np.ones(3)),
    ),
    "neuron": ("a neuron of Hodgkin and Huxley, 4,000 steps", lambda: _current(4000)),
    "kalman": (
        "a Kalman filter with three states, 2,000 observations",
        lambda: (np.array([0.3, -0.5, 0.1]), _random().normal(size=2000)),
    ),
    "heat": (
        "heat on a ring of 256 points, 1,000 steps",
        lambda: (np.full(256, 0.2), np.sin(np.linspace(0, 6, 256))),
    ),
    "beliefs": (
        "60 beliefs in lists, 614 observations",
        lambda: (_random().normal(size=60) * 0.1, _random().normal(size=614)),
    ),
    "neurons": ("64 neurons, 2,000 steps", lambda: _current(2000, 64)),
    "rivers": ("64 rivers: snow, soil and two reservoirs, 3,650 days", lambda: _weather(3650, 64)),
    "orbits": ("three planets by leapfrog, 3,000 steps", _planets),
    "epidemic": (
        "an epidemic in four groups by Runge and Kutta, 2,000 steps",
        lambda: (np.array([0.3, 0.2, 0.1]), np.array([0.99, 0.01, 0.0, 0.0])),
    ),
    "volatility": (
        "the likelihood of a GARCH model, 3,000 returns",
        lambda: (np.array([0.1, 0.1, 0.8]), _random().normal(size=3000)),
    ),
    "stiff": (
        "van der Pol's oscillator, implicit, 4 steps of Newton in each of 1,500",
        lambda: (np.array([5.0]), np.array([2.0, 0.0])),
    ),
    "clocks": (
        "32 coupled oscillators of Kuramoto, 1,000 steps",
        lambda: (np.linspace(-1, 1, 32), _random().uniform(0, 6, 32)),
    ),
}


def specs(quick: bool) -> list[Spec]:
    names = list(CASES)[-1:] if quick else CASES
    return [Spec(f"simulations/{n}", lambda n=n: _row(n, 2 if quick else 7)) for n in names]  # type: ignore[misc]


class _Process:
    """A contender in a process of its own.

    Attributes:
        first: its first answer: the version, seconds of the first call, value and gradient.
    """

    def __init__(self, python: str, contender: str, case: str):
        command = [python, "-W", "ignore", "-m", "benchmarks.simulations", contender, case]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if contender == JAX:  # which takes no number of threads
            environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.seconds: list[float] = []
        self.first = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def turn(self) -> None:
        """Time a block of calls."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.seconds.append(self._answer())

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def _row(case: str, rounds: int) -> Row:
    pythons = os.environ.get("JAX_PYTHONS", sys.executable).split(":")
    wanted = [(sys.executable, name) for name in (OURS, COMPILED, TORCH)]
    wanted += [(p, JAX) for p in pythons]
    found, absent, processes = {}, [], []
    try:
        for python, contender in wanted:
            processes.append(process := _Process(python, contender, case))
            why = _problem(process.first, found)
            name = contender if contender != JAX else f"JAX {(process.first or {}).get('jax', '')}"
            if why:
                absent.append(Absent(name, why))
            else:
                found[name] = process
        for r in range(rounds):
            for name, process in found.items():
                if name != TORCH or r < 2:  # seconds a call, and no bound
                    process.turn()
    finally:
        for process in processes:
            process.end()
    return _judged(case, found, tuple(absent))


def _problem(answer: Any, found: dict[str, _Process]) -> str:
    """Why a contender is not timed, or ""."""
    if answer is None or "absent" in answer or ("jax" in answer and not answer["jax"]):
        return "not installed" if answer else "it failed"
    for ours in list(found.values())[:1]:
        for key in ("value", "gradient"):
            right, other = np.array(ours.first[key]), np.array(answer[key])
            if abs(right - other).max() > CLOSE * abs(right).max():
                return f"another {key}"
    return ""


def _judged(case: str, found: dict[str, _Process], absent: tuple[Absent, ...]) -> Row:
    ours = found[OURS].seconds
    timings, bounds = [], []
    for name, process in found.items():
        n, first = len(process.seconds), process.first["first_s"]
        ratio = float(np.median(np.divide(process.seconds, ours[:n])))
        timing = Timing.of(name, process.seconds)
        shown = None if name == OURS else ratio
        note = f"first call {first:.2f} s"
        timings.append(Timing(name, timing.median_s, timing.q1_s, timing.q3_s, n, shown, note))
    present = next((t for t in timings if t.name.startswith(JAX)), None)
    if present is not None and present.ratio is not None:
        bounds.append(Bound(f"{present.name} over ours", 1.0, present.ratio))
    bounds.append(Bound("the first call", FIRST_S, found[OURS].first["first_s"], False, "s"))
    return Row(f"simulations/{case}", CASES[case][0], tuple(timings), absent, tuple(bounds))


# ------------------------------------------------------------------------ in a process


def value_and_gradient(contender: str, case: str) -> tuple[Callable[[], Any], str | None]:
    """A function that computes both; the version of JAX, "" if it is not installed."""
    numbers = CASES[case][1]()
    if contender == JAX:
        try:
            import jax
        except ImportError:
            return tuple, ""
        from benchmarks import simulations_jax

        return simulations_jax.value_and_gradient(case, *numbers), jax.__version__
    from benchmarks import simulations_torch

    return simulations_torch.value_and_gradient(case, *numbers, contender != TORCH), None


def compiled_for(run: Callable[[], Any]) -> None:
    """Call the function until no thread compiles anything for it."""
    for _ in range(3):
        begin = time.perf_counter()
        while time.perf_counter() - begin < BLOCK_S:
            run()
        for thread in threading.enumerate():
            if thread.name == "ostinato-compiler":
                thread.join()


def main(contender: str, case: str) -> None:
    if contender == COMPILED and importlib.util.find_spec("llvmlite") is None:
        print(json.dumps({"absent": "llvmlite"}), flush=True)
        return
    if contender == OURS:
        sys.modules["llvmlite"] = None  # type: ignore[assignment]  # as if it were not installed
    run, jax = value_and_gradient(contender, case)
    if jax == "":
        print(json.dumps({"jax": ""}), flush=True)
        return
    begin = time.perf_counter()
    value, gradient = run()
    answer = {"first_s": time.perf_counter() - begin}
    answer |= {"value": float(value), "gradient": np.asarray(gradient).tolist()}
    print(json.dumps(answer | ({"jax": jax} if jax else {})), flush=True)
    if contender != TORCH:
        for _ in range(5):  # at which a loop's pace is measured
            run()
    if contender == COMPILED:
        compiled_for(run)
    for _ in sys.stdin:
        begin, n = time.perf_counter(), 0
        while time.perf_counter() - begin < BLOCK_S:
            run()
            n += 1
        print((time.perf_counter() - begin) / n, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
