"""Runs made up for the tests: as the report sees them, from a seeded generator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ostinato_learn.report.classify import ReportData, StepView

HOSTILE = "<script>alert(1)</script>\" onload='x' & $\\frac{1$ #010203 \x00\ud800 語"


def run(
    n: int = 300, n_classes: int = 10, seed: int = 0, classes: list[str] | None = None
) -> ReportData:
    """A run on pictures, with everything that a report can show."""
    rng = np.random.default_rng(seed)
    classes = classes or [str(c) for c in range(n_classes)]
    y_true = rng.integers(0, n_classes, n)
    proba = softmax(rng.normal(size=(n, n_classes)) + 3.5 * np.eye(n_classes)[y_true])
    return ReportData(
        title="made up, rnn, 16 units",
        classes=classes,
        y_true=y_true,
        proba=proba,
        metrics=[report(i) for i in range(0, 5001, 1000)],
        evaluation={
            "test": {"accuracy": 0.9724, "loss": 0.0987, "n": 10000},
            "elapsed_s": 75.7,
        },
        config={"model": {"cell": "rnn", "bidirectional": False}, "training": {"clip_norm": None}},
        environment={
            "date": "2025-01-31T10:00:00+00:00",
            "machine": {"cpu": "A processor", "cores": 2, "system": "Linux 6"},
            "threads": {"torch": 2},
            "packages": {"torch": "2.6.0"},
        },
        hardest=[view(classes, picture(rng), rng) for _ in range(3)],
        accuracy_by_step=np.linspace(0.1, 0.97, 28),
    )


def without(data: ReportData, **changes: object) -> ReportData:
    """The same run with some parts replaced."""
    return replace(data, **changes)  # type: ignore[arg-type]


def ragged(n_classes: int = 4) -> ReportData:
    """A run on sequences of different lengths with string labels, some with many features."""
    rng = np.random.default_rng(1)
    classes = [f"speaker {c}" for c in range(n_classes)]
    shapes = [(7, 12), (29, 12), (1, 1), (1500, 40)]
    views = [view(classes, rng.normal(size=shape), rng) for shape in shapes]
    return without(run(classes=classes, n_classes=n_classes), hardest=views)


def bidirectional() -> ReportData:
    """A run of a network that has no beliefs before the end."""
    data = run()
    blind = [replace(view, beliefs=None, states=None) for view in data.hardest]
    config = {"model": {"cell": "rnn", "bidirectional": True}}
    return without(data, hardest=blind, accuracy_by_step=None, config=config)


def bare() -> ReportData:
    """As little as a report can be made of."""
    return ReportData(
        title="bare",
        classes=["a", "b"],
        y_true=np.array([0, 1, 1, 0]),
        proba=np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]]),
        metrics=[],
        evaluation={},
        config={},
        environment={},
        hardest=[],
        accuracy_by_step=None,
    )


def hostile() -> ReportData:
    """A run whose every string tries to be something else."""
    rng = np.random.default_rng(2)
    classes = [HOSTILE, f"{HOSTILE} 2", "]]> $_$", "--><img src=http://example.org/x>"]
    data = run(n_classes=4, classes=classes)
    return without(
        data,
        title=HOSTILE,
        config={HOSTILE: {HOSTILE: HOSTILE}, "list": [HOSTILE, None]},
        environment={"machine": {"cpu": HOSTILE}, HOSTILE: HOSTILE},
        hardest=[view(classes, rng.normal(size=(5, 2)), rng) for _ in range(3)],
    )


def report(iteration: int) -> dict[str, float]:
    """One report of the training."""
    loss = 2.3 / (1 + iteration / 200)
    return {
        "iteration": iteration,
        "epoch": iteration * 128 / 60000,
        "loss": loss,
        "train_accuracy": 1 - loss / 2.6,
        "learning_rate": 0.001,
        "elapsed_s": iteration / 70,
    }


def view(classes: list[str], x: np.ndarray, rng: np.random.Generator) -> StepView:
    """An example misread, with beliefs and states that wander."""
    steps = len(x)
    beliefs = softmax(np.cumsum(rng.normal(size=(steps, len(classes))), axis=0))
    prediction = int(beliefs[-1].argmax())
    return StepView(
        x=x,
        label=classes[(prediction + 1) % len(classes)],
        prediction=classes[prediction],
        beliefs=beliefs,
        states=np.tanh(np.cumsum(0.4 * rng.normal(size=(steps, 16)), axis=0)),
    )


def picture(rng: np.random.Generator) -> np.ndarray:
    """A blot of 28 × 28 values in [0, 1]."""
    row, column = np.mgrid[:28, :28]
    centre = rng.uniform(8, 20, size=2)
    distance = np.hypot(row - centre[0], column - centre[1])
    return np.clip(1.5 - np.abs(distance - 6) / 2, 0, 1)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
