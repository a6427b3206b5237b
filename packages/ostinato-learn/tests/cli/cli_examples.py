"""What the tests of the command line share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

SMALL = ("--hidden-size", 4, "--batch-size", 8, "--threads", 1)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "ostinato_learn.cli", *map(str, arguments)]


def process(*arguments: object, **options) -> subprocess.CompletedProcess:
    """Runs a command as a user's shell would, in a process of its own."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=600, **options
    )


def make_file(path: Path, n: int = 60, labelled: bool = True) -> Path:
    """Two classes that are easy to tell apart, with strings as labels."""
    generator = np.random.default_rng(0)
    rising = np.arange(n) % 2 == 0
    X = generator.normal(size=(n, 5, 2)) + np.where(rising, 1, -1)[:, None, None]
    arrays = {"X": X.astype(np.float32)}
    if labelled:
        arrays["y"] = np.where(rising, "up", "down")
    np.savez(path, **arrays)
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_clock(path):
    return [{k: v for k, v in line.items() if k != "elapsed_s"} for line in lines(path)]


def assert_same_run(one, other):
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (one, other)]
    assert weights[0] == weights[1]
    assert without_clock(one / "metrics.jsonl") == without_clock(other / "metrics.jsonl")
    assert (one / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()
