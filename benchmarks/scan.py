"""`scan`: training by ostinato.scan against every library, and of steps that no library has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks import peers_jax, peers_keras, peers_torch
from benchmarks.cells import (
    CUSTOM_SHAPES,
    GRU,
    LEM,
    LSTM,
    QUICK_SHAPES,
    RNN,
    SHAPES,
    SLSTM,
    Cell,
    Shape,
)
from benchmarks.contest import contest
from benchmarks.harness import Contender
from benchmarks.problem import Maker, Problem, admit
from benchmarks.results import Absent, Bound, Row, Spec

# The wanted ratios: the training time of the fastest peer over ours, by shape and cell.
WANTED = {
    "notebook": {"rnn": 2.1, "gru": 2.2, "lstm": 1.25},
    "pixels": {"rnn": 4.2, "gru": 4.2, "lstm": 2.0},
    "sensor": {"rnn": 3.2, "gru": 3.3, "lstm": 2.1},
    "stream": {"rnn": 1.15, "gru": 1.6, "lstm": 1.5},
    "large": {"rnn": 1.4, "gru": 1.5, "lstm": 1.3},
    "few": {"rnn": 1.0, "gru": 1.0, "lstm": 1.0},  # few rows: a swapped layer must not be slower
}
WANTED_OF_MM = {"rnn/notebook": 0.8, "rnn/large": 0.8}  # our rate over that of torch.mm
# For steps that no library has: our rate over that of our GRU; the loop's time over ours.
WANTED_OF_GRU, WANTED_OVER_LOOP = 0.7, 10.0
# With the loss on the last state alone, whose gradient vanishes on its way back: our time over that
# with the loss on all states. Forget gates above a half keep gradients at the smallest number.
LAST_SHAPES, WANTED_OF_ALL = ("pixels", "sensor", "large"), 1.15

# float64: the time of the fastest peer over ours, and our rate over ours in float32.
WANTED_OF_DOUBLE, WANTED_OF_FLOAT = 1.3, 0.45


def specs(quick: bool) -> list[Spec]:
    shapes = QUICK_SHAPES if quick else SHAPES
    rows = [
        Spec(f"{cell.name}/{s.name}", _bound(_library_row, cell, s, quick))
        for s in shapes
        for cell in (RNN, GRU, LSTM)
    ]
    rows += [
        Spec(f"{cell.name}/{s.name}", _bound(_custom_row, cell, s, quick))
        for s in (shapes[:1] if quick else CUSTOM_SHAPES)
        for cell in (LEM, SLSTM)
    ]
    rows += [
        Spec(f"{LSTM.name}/{s.name}/last", _bound(_last_row, LSTM, s, quick))
        for s in (shapes[:1] if quick else shapes)
        if quick or s.name in LAST_SHAPES
    ]
    rows += [
        Spec(f"{cell.name}/{shapes[0].name}/float64", _bound(_double_row, cell, shapes[0], quick))
        for cell in (RNN, GRU, LSTM)
    ]
    return rows


def _bound(row: Callable[..., Row], *arguments: Any) -> Callable[[], Row]:
    return lambda: row(*arguments)


def _entered(problem: Problem, peers: Sequence[Maker]) -> list[Contender | Absent]:
    """Ours and the peers, admitted or absent."""
    return admit(peers_torch.ours(problem), peers, problem.right, problem.tolerance)


def _library_row(cell: Cell, shape: Shape, quick: bool) -> Row:
    """A step that the libraries have, beside all of them."""
    problem = Problem(cell, shape)
    compiled = not quick or (cell, shape.name) == (RNN, "notebook")
    peers = [
        *peers_torch.peers(problem, compiled),
        *peers_jax.peers(problem, quick),
        *peers_keras.peers(problem),
    ]
    measured = contest(_entered(problem, peers), quick)
    name, gflop = f"{cell.name}/{shape.name}", cell.gflop(shape)
    row = measured.row(name, str(shape), gflop)
    bounds = []
    if row.fastest_peer is not None:
        peer, wanted = row.fastest_peer, WANTED[shape.name][cell.name]
        bounds.append(Bound(f"{peer.name} over ours", wanted, peer.ratio or 0.0))
    if name in WANTED_OF_MM:
        rate = gflop / row.ours.median_s / measured.mm_gflops
        bounds.append(Bound("rate over torch.mm's", WANTED_OF_MM[name], rate))
    return replace(row, bounds=tuple(bounds))


def _custom_row(cell: Cell, shape: Shape, quick: bool) -> Row:
    """A step that no library has, beside PyTorch's loop and scan, and our own GRU."""
    problem = Problem(cell, shape)
    gru = "ostinato.nn.GRU"
    found = _entered(problem, peers_torch.peers(problem, not quick))
    found.append(Contender(gru, _our_gru(shape)))
    measured = contest(found, quick)
    row = measured.row(f"{cell.name}/{shape.name}", str(shape), cell.gflop(shape), (gru,))
    loop = next(t for t in row.timings if t.name == "PyTorch loop")
    time_over_gru = measured.samples[gru].timing(measured.ours).ratio or 0.0
    of_gru = time_over_gru * cell.gflop(shape) / GRU.gflop(shape)
    return replace(
        row,
        bounds=(
            Bound("rate over that of ostinato.nn.GRU", WANTED_OF_GRU, of_gru),
            Bound("PyTorch loop over ours", WANTED_OVER_LOOP, loop.ratio or 0.0),
        ),
    )


def _last_row(cell: Cell, shape: Shape, quick: bool) -> Row:
    """The loss on the last state alone, beside PyTorch's layer with both settings of
    torch.set_flush_denormal, JAX, and ours with the loss on all states."""
    problem = Problem(cell, shape, last=True)
    layer, *_ = peers_torch.peers(problem, False)
    peers = [layer, peers_torch.flushing(layer), *peers_jax.peers(problem, quick)]
    on_all = "ostinato.scan, loss on all states"
    found = _entered(problem, peers)
    found.append(Contender(on_all, peers_torch.ours(Problem(cell, shape)).make().run))
    measured = contest(found, quick)
    name = f"{cell.name}/{shape.name}/last"
    row = measured.row(name, f"{shape}, loss on the last state", cell.gflop(shape), (on_all,))
    over = 1 / (measured.samples[on_all].timing(measured.ours).ratio or 1.0)
    return replace(row, bounds=(Bound("ours over ours on all states", WANTED_OF_ALL, over, False),))


def _double_row(cell: Cell, shape: Shape, quick: bool) -> Row:
    """In float64, beside PyTorch, JAX, and ours in float32."""
    problem, single = Problem(cell, shape, dtype=torch.float64), "ostinato.scan, float32"
    peers = [*peers_torch.peers(problem, False), *peers_jax.peers(problem, quick)]
    found = _entered(problem, peers)
    found.append(Contender(single, peers_torch.ours(Problem(cell, shape)).make().run))
    measured = contest(found, quick)
    name, title = f"{cell.name}/{shape.name}/float64", f"{shape}, float64"
    row = measured.row(name, title, cell.gflop(shape), (single,))
    of_float = measured.samples[single].timing(measured.ours).ratio or 0.0
    bounds = [Bound("rate over ours in float32", WANTED_OF_FLOAT, of_float)]
    if row.fastest_peer is not None:
        peer = row.fastest_peer
        bounds.append(Bound(f"{peer.name} over ours", WANTED_OF_DOUBLE, peer.ratio or 0.0))
    return replace(row, bounds=tuple(bounds))


def _our_gru(shape: Shape) -> Callable[[], Any]:
    import ostinato.nn

    problem = Problem(GRU, shape)
    layer = ostinato.nn.GRU(shape.F, shape.H)
    _, init = problem.tensors(torch.float32)
    xs, d_ys = torch.tensor(problem.xs), torch.tensor(problem.d_ys)

    def run() -> Any:
        ys, _ = layer(xs, init[0].unsqueeze(0))
        return torch.autograd.grad(ys, (*layer.parameters(), *init), d_ys)

    return run
