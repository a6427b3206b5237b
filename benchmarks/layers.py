"""`layers`: the time of ostinato.nn's layers over that of scan, and the gain by ragged batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import ostinato
import ostinato.nn
from benchmarks.cells import GRU, LSTM, QUICK_SHAPES, RNN, SHAPES, Cell, Shape
from benchmarks.contest import contest
from benchmarks.harness import Contender
from benchmarks.problem import Answer, Entrant, Maker, admit, tolerance
from benchmarks.results import Bound, Row, Spec
from ostinato.nn.steps import gru_step, lstm_step, rnn_step

STEPS: dict[str, Callable[..., Any]] = {
    "rnn": lambda *w: rnn_step("tanh", *w),
    "gru": gru_step,
    "lstm": lambda *w: lstm_step(*w, give_cells=False),
}
LAYERS = {"rnn": ostinato.nn.RNN, "gru": ostinato.nn.GRU, "lstm": ostinato.nn.LSTM}
WANTED_OVER_SCAN = 1.10
RAGGED = Shape("ragged", 32, 500, 128, 128)
QUICK_RAGGED = Shape("ragged", 16, 6, 16, 32)
WANTED_OVER_PADDED, WANTED_OVER_PACKED = 1.5, 10.0


def specs(quick: bool) -> list[Spec]:
    shapes = QUICK_SHAPES if quick else SHAPES
    rows = [
        Spec(f"{cell.name}/{s.name}", _bound(_layer_row, cell, s, quick))
        for s in shapes
        for cell in (RNN, GRU, LSTM)
    ]
    return [*rows, Spec("lstm/ragged", lambda: _ragged_row(quick))]


def _bound(row: Callable[..., Row], *arguments: Any) -> Callable[[], Row]:
    return lambda: row(*arguments)


def _layer_row(cell: Cell, shape: Shape, quick: bool) -> Row:
    layer = LAYERS[cell.name](shape.F, shape.H)
    weights = list(layer.parameters())
    xs, d_ys = torch.randn(shape.T, shape.B, shape.F), torch.randn(shape.T, shape.B, shape.H)
    init = tuple(torch.zeros(shape.B, shape.H, requires_grad=True) for _ in cell.starts)
    carry = init if len(init) > 1 else init[0]
    step = STEPS[cell.name](*weights)

    leaves = tuple(torch.zeros(1, shape.B, shape.H, requires_grad=True) for _ in init)
    hx = leaves if len(leaves) > 1 else leaves[0]

    def by_layer() -> Any:
        ys, _ = layer(xs, hx)
        return torch.autograd.grad(ys, (*weights, *leaves), d_ys)

    def by_scan() -> Any:
        _, ys = ostinato.scan(step, carry, xs)
        return torch.autograd.grad(ys, (*weights, *init), d_ys)

    for ours, theirs in zip(by_layer(), by_scan(), strict=True):
        same = torch.equal(ours.view_as(theirs), theirs)
        assert same, "the layer's gradients are not those of scan"
    name = f"ostinato.nn.{type(layer).__name__}"
    measured = contest([Contender(name, by_layer), Contender("ostinato.scan", by_scan)], quick)
    scan_over_layer = measured.samples["ostinato.scan"].timing(measured.ours).ratio or 0.0
    row = measured.row(
        f"{cell.name}/{shape.name}", str(shape), cell.gflop(shape), ("ostinato.scan",)
    )
    return replace(
        row, bounds=(Bound("layer over scan", WANTED_OVER_SCAN, 1 / scan_over_layer, False),)
    )


class Ragged:
    """A ragged batch: lengths uniform in 1…T, xs `[T, B, F]` and a gradient of ys `[T, B, H]`."""

    def __init__(self, shape: Shape):
        rng = np.random.default_rng(0)
        self.shape = shape
        self.lengths = torch.tensor(rng.integers(1, shape.T, shape.B, endpoint=True))
        valid = torch.arange(shape.T)[:, None, None] < self.lengths[:, None]
        self.xs = torch.tensor(rng.standard_normal((shape.T, shape.B, shape.F), np.float32))
        self.d_ys = torch.tensor(rng.standard_normal((shape.T, shape.B, shape.H), np.float32))
        self.d_ys = self.d_ys * valid
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.state = torch.nn.LSTM(shape.F, shape.H).state_dict()

    def ours(self, lengths: Tensor | None) -> Entrant:
        """ostinato's LSTM with these lengths, or padded."""
        layer = ostinato.nn.LSTM(self.shape.F, self.shape.H)
        layer.load_state_dict(self.state)
        weights = list(layer.parameters())

        def run() -> Any:
            ys, _ = layer(self.xs, lengths=lengths)
            return ys, torch.autograd.grad(ys, weights, self.d_ys)

        return Entrant(run, _answer)

    def packed(self, dtype: torch.dtype) -> Entrant:
        """torch.nn's LSTM, from a packed sequence to a packed sequence."""
        layer = torch.nn.LSTM(self.shape.F, self.shape.H)
        layer.load_state_dict(self.state)
        layer = layer.to(dtype)
        weights = list(layer.parameters())
        xs, d_ys = (
            pack_padded_sequence(a.to(dtype), self.lengths, enforce_sorted=False)
            for a in (self.xs, self.d_ys)
        )

        def run() -> Any:
            ys, _ = layer(xs)
            return ys, torch.autograd.grad(ys.data, weights, d_ys.data)

        return Entrant(run, lambda ran: self._unpacked(*ran))

    def _unpacked(self, ys: PackedSequence, grads: Any) -> Answer:
        padded, _ = pad_packed_sequence(ys, total_length=self.shape.T)
        return _answer((padded, grads))


def _answer(ran: Any) -> Answer:
    ys, grads = ran
    names = ("ys", "d_w_ih", "d_w_hh", "d_b_ih", "d_b_hh")
    return {n: t.detach().numpy() for n, t in zip(names, (ys, *grads), strict=True)}


def _ragged_row(quick: bool) -> Row:
    ragged = Ragged(QUICK_RAGGED if quick else RAGGED)
    reference = ragged.packed(torch.float64)
    right = reference.answer(reference.run())
    packed = Maker("PyTorch nn.LSTM, packed", lambda: ragged.packed(torch.float32))
    ours = Maker("ostinato.nn.LSTM, lengths", lambda: ragged.ours(ragged.lengths))
    padded = "ostinato.nn.LSTM, padded"
    found = admit(ours, [packed], right, tolerance(ragged.shape))
    found.append(Contender(padded, ragged.ours(None).run))
    measured = contest(found, quick)
    share = float(ragged.lengths.double().mean()) / ragged.shape.T
    row = measured.row(
        "lstm/ragged",
        f"{ragged.shape}, lengths uniform in 1…T ({100 * share:.0f} % of the padded steps)",
        share * LSTM.gflop(ragged.shape),
    )
    ratios = {t.name: t.ratio or 0.0 for t in row.timings[1:]}
    return replace(
        row,
        bounds=(
            Bound("our padded run over ours", WANTED_OVER_PADDED, ratios[padded]),
            Bound("PyTorch packed over ours", WANTED_OVER_PACKED, ratios[packed.name]),
        ),
    )
