"""`batch`: sequences classified by the runtime, beside ONNX Runtime, OpenVINO and PyTorch.

The shapes are those of `scan`. In a row all contenders have one thread, or as many as there are
cores in use. Ours is timed as `predict_proba`, which also checks its input.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from benchmarks import peers_inference
from benchmarks.cells import GRU, LSTM, QUICK_SHAPES, RNN, SHAPES, Cell, Shape
from benchmarks.contest import contest
from benchmarks.harness import Effort
from benchmarks.problem import Entrant, Maker, admit, tolerance
from benchmarks.results import Bound, Row, Spec
from ostinato.engine import native

WANTED = 1.0  # the time of the fastest peer over ours
CLASSES = 3
# Blocks of a second: a peer's threads then reach a steady state, whatever ran before them.
EFFORT = Effort(rounds=5, share_s=10.0, least=3, block_s=1.0)


def specs(quick: bool) -> list[Spec]:
    import torch

    counts = sorted({1, torch.get_num_threads()})
    return [
        Spec(_name(cell, shape, threads), lambda at=(cell, shape, threads): _row(*at, quick))  # type: ignore[misc]
        for shape in (QUICK_SHAPES if quick else SHAPES[:5])
        for cell in (RNN, GRU, LSTM)
        for threads in counts
    ]


def _name(cell: Cell, shape: Shape, threads: int) -> str:
    return f"batch/{cell.name}/{shape.name}/{threads}"


@cache
def classifier(cell: Any, F: int, H: int) -> Any:
    """A classifier in the runtime, hardly trained."""
    from ostinato_learn import runtime

    with saved_classifier(cell, F, H) as model:
        return runtime.load(model)


@contextmanager
def saved_classifier(cell: Any, F: int, H: int) -> Iterator[str]:
    """The directory of a saved classifier, hardly trained."""
    import ostinato_learn

    X = np.random.default_rng(0).normal(size=(30, 3, F)).astype(np.float32)
    trained = ostinato_learn.SequenceClassifier(
        recipe="notebook", cell=cell, hidden_size=H, iterations=1
    ).fit(X, np.arange(30) % CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        trained.save(f"{folder}/model")
        yield f"{folder}/model"


def _row(cell: Cell, shape: Shape, threads: int, quick: bool) -> Row:
    model = classifier(cell.name, shape.F, shape.H)
    size = shape.B, shape.T, shape.F
    X = np.random.default_rng(1).standard_normal(size, np.float32)
    ours = Maker("runtime", lambda: Entrant(lambda: model.predict_proba(X), peers_inference.answer))
    peers = peers_inference.peers(model, X, threads)
    with on_threads(threads):
        found = admit(ours, peers, peers_inference.right(model, X), tolerance(shape))
        measured = contest(found, quick, EFFORT)
    gates, C = cell.gates, CLASSES
    gflop = 2 * shape.B * (shape.T * gates * shape.H * (shape.F + shape.H) + shape.H * C) / 1e9
    row = measured.row(_name(cell, shape, threads), f"{shape}; threads: {threads}", gflop)
    peer = row.fastest_peer
    bounds = () if peer is None else (Bound(f"{peer.name} over ours", WANTED, peer.ratio or 0.0),)
    return replace(row, bounds=bounds)


@contextmanager
def on_threads(n: int) -> Iterator[None]:
    """PyTorch and the engine on n threads."""
    import torch

    before = torch.get_num_threads()
    token = native.own_threads.set(n)
    torch.set_num_threads(n)
    try:
        yield
    finally:
        native.own_threads.reset(token)
        torch.set_num_threads(before)
