"""`data.checks.check` on a million short sequences: seconds of one core, and memory.

    python -m benchmarks.studies.checks                   all kinds of data, as a table
    python -m benchmarks.studies.checks --kind noise      one kind, in this process

Seconds are of the processor, so that other programs count little; a kind has a process of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ostinato_learn.data import Examples, Ragged
from ostinato_learn.data.checks import check

STEPS, FEATURES = 10, 3


def noise(g: np.random.Generator, n: int) -> np.ndarray:
    return g.normal(size=(n, STEPS, FEATURES)).astype(np.float32)


def ragged(g: np.random.Generator, n: int) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum(g.integers(5, 16, n))])
    return Ragged(g.normal(size=(offsets[-1], FEATURES)), offsets)


def dense(g: np.random.Generator, n: int) -> np.ndarray:
    """Waves that differ in phase and frequency alone: many are near each other."""
    turns = np.linspace(0, 6, STEPS) * (1 + g.random((n, 1))) + 2 * np.pi * g.random((n, 1))
    return np.sin(turns)[:, :, None].astype(np.float32)


def of_classes(X: Any) -> Callable[[np.random.Generator, int], Examples]:
    return lambda g, n: Examples(X(g, n), g.choice(["bike", "bus", "car", "rail", "walk"], n))


def tagged(g: np.random.Generator, n: int) -> Examples:
    return Examples(noise(g, n), list(g.choice(["O", "B-PER", "I-PER"], (n, STEPS))))


def timed(g: np.random.Generator, n: int) -> Examples:
    hours = np.datetime64("2024-01-01", "ns") + np.arange(STEPS) * np.timedelta64(1, "h")
    return Examples(noise(g, n), times=list(np.broadcast_to(hours, (n, STEPS)).copy()))


def copied(g: np.random.Generator, n: int) -> np.ndarray:
    return np.tile(noise(g, n // 2), (2, 1, 1))


KINDS: dict[str, tuple[str, Callable[[np.random.Generator, int], Examples]]] = {
    "noise": ("10 steps of 3 features, labels", of_classes(noise)),
    "ragged": ("5 to 15 steps, labels", of_classes(ragged)),
    "copied": ("each sequence twice", of_classes(copied)),
    "dense": ("waves of one feature, near each other", of_classes(dense)),
    "tagged": ("a label for each step", tagged),
    "timed": ("a time for each step", timed),
}


def measured(kind: str, n: int) -> str:
    told, make = KINDS[kind]
    examples = make(np.random.default_rng(0), n)
    start = time.process_time()
    check(examples)
    alone = time.process_time() - start
    start = time.process_time()
    check(examples.select(np.arange(n * 4 // 5)), examples.select(np.arange(n * 4 // 5, n)))
    both = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"| {told} | {alone:.0f} s | {both:.0f} s | {peak:.1f} GiB |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("-n", type=int, default=1_000_000)
    asked = parser.parse_args()
    if asked.kind:
        print(measured(asked.kind, asked.n), flush=True)
        return
    print(f"| {asked.n:,} sequences | one file | two parts | peak memory |")
    print("| --- | ---: | ---: | ---: |", flush=True)
    for kind in KINDS:
        command = [sys.executable, "-m", "benchmarks.studies.checks"]
        command += ["--kind", kind, "-n", str(asked.n)]
        subprocess.run(command, check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
