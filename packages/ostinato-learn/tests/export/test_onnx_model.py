"""Whole networks in ONNX, in ONNX Runtime, against the meaning of their graphs."""

from __future__ import annotations

import numpy as np
import onnx_examples as ex
import pytest
import torch

from ostinato_learn.export.onnx import scan
from ostinato_learn.export.onnx.cells import recognised
from ostinato_learn.export.onnx.model import Exportable, carried_states, sequence_model, step_model
from ostinato_learn.export.parity import bound
from ostinato_learn.runtime.model_graph import Direction, ModelGraph, ReadoutGraph, Scan
from zoo.suites import one_in


def inputs(F, B, T, seed=0):
    """x `[B, T, F]` with NaN beyond the lengths, which must have no effect, and the lengths."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(B, T, F)).astype(np.float32)
    lengths = np.array([T, *random.integers(1, T + 1, B - 1)], np.int64)
    for row, n in zip(x, lengths, strict=True):
        row[n:] = np.nan
    return x, lengths


def assert_parity(graph, tensors, run, B, T):
    x, lengths = inputs(graph.n_inputs, B, T)
    (came,) = run({"x": x, "lengths": lengths})
    meant = ex.truth(graph, tensors, x, lengths)
    assert came.shape == meant.shape
    assert np.abs(came - meant).max() <= bound(graph, T)


CASES = {
    "rnn": {"cell": "rnn"},
    "relu": {"cell": "relu"},
    "gru": {"cell": "gru"},
    "lstm": {"cell": "lstm"},
    "no bias": {"cell": "lstm", "bias": False},
    "two layers": {"cell": "gru", "layers": 2, "F": 5, "H": 7},
    "two directions": {"cell": "lstm", "two": True, "layers": 2},
    "mean": {"cell": "rnn", "readout": "mean", "two": True},
    "tagger": {"cell": "gru", "readout": "each", "two": True},
    "one unit": {"cell": "lstm", "F": 1, "H": 1},
}


@pytest.mark.parametrize("operators", [True, False])
@pytest.mark.parametrize("case", one_in(3, CASES))
def test_sequence(case, operators, monkeypatch):
    """As the operators of ONNX, and as the Scan that a cell of one's own becomes."""
    if not operators:
        monkeypatch.setattr(scan, "recognised", lambda *_: None)
    graph, tensors = ex.network(**CASES[case])
    made = sequence_model(Exportable(graph, tensors))
    name = {"relu": "RNN"}.get(CASES[case]["cell"], CASES[case]["cell"].upper())
    n_directions = sum(len(layer.directions) for layer in graph.layers)
    assert made.operators == (name if operators else "Scan",) * n_directions
    run = ex.onnx_runtime(made.proto)
    for B, T in ((1, 1), (1, 9), (3, 6), (3, 17)):
        assert_parity(graph, tensors, run, B, T)


@pytest.mark.parametrize("case", [c for c in CASES if "two" not in CASES[c]])
def test_step(case):
    """Step by step from zeros, then one step from random states."""
    graph, tensors = ex.network(**CASES[case])
    run = ex.onnx_runtime(step_model(Exportable(graph, tensors)).proto)
    step, _ = graph.composed()
    B, T = 3, 7
    x = np.random.default_rng(2).normal(size=(B, T, graph.n_inputs)).astype(np.float32)
    places = carried_states(step).values()
    states = [np.zeros((B, step.states[i].width), np.float32) for i in places]
    answers = []
    for t in range(T):
        answer, *states = stepped(run, x[:, t], states)
        answers.append(answer)
    if graph.readout.kind == "each":
        meant = ex.truth(graph, tensors, x, np.full(B, T))
        assert np.abs(np.stack(answers, 1) - meant).max() <= bound(graph, T)
    else:
        for t in range(T):  # the answer after each step is that of the sequence so far
            meant = ex.truth(graph, tensors, x[:, : t + 1], np.full(B, t + 1))
            assert np.abs(answers[t] - meant).max() <= bound(graph, t + 1)


def stepped(run, x, states):
    return run({"x": x, **{f"state_{i}": s for i, s in enumerate(states)}})


def test_a_step_of_two_directions_is_refused_by_the_layer():
    graph, tensors = ex.network(two=True)
    with pytest.raises(ValueError, match="gru layer 1 also reads from the end"):
        step_model(Exportable(graph, tensors))


# ---- which steps are operators


def gru_as_written(z_keeps, reset_after, lerp):
    """A GRU of a user's own, in one of the ways in which it is written."""

    def make(F, H, normal):
        U, W = [normal(F, H) / 2 for _ in range(3)], [normal(H, H) / 2 for _ in range(3)]
        b, d = [normal(H) for _ in range(3)], normal(H)

        def step(h, x):
            z = torch.sigmoid(b[0] + h @ W[0] + x @ U[0])
            r = torch.sigmoid(x @ U[1] + h @ W[1] + b[1] + 1.0)
            inner = r * (d + h @ W[2]) if reset_after else (r * h) @ W[2]
            n = torch.tanh(inner + x @ U[2] + b[2])
            if lerp:
                return torch.lerp(n, h, z) if z_keeps else torch.lerp(h, n, z)
            return z * h + (1 - z) * n if z_keeps else (1 - z) * h + z * n

        return step, [*U, *W, *b, d], 1

    return make


def lstm_by_hand(F, H, normal):
    U, W, b = normal(F, 4 * H) / 2, normal(H, 4 * H) / 2, normal(4 * H)

    def step(carry, x):
        c, h = carry  # the other way about
        o, f, g, i = (torch.cat([x, h], 1) @ torch.cat([U, W]) + b).chunk(4, 1)
        c = torch.sigmoid(i) * torch.tanh(g) + c * torch.sigmoid(f + 1)
        h = torch.tanh(c) * torch.sigmoid(o)
        return (c, h), h

    return step, [U, W, b], 2


def leaky(F, H, normal):
    U, W = normal(F, H) / 2, normal(H, H) / 2
    return lambda h, x: 0.9 * h + 0.1 * torch.tanh(x @ U + h @ W), [U, W], 1


def coupled(F, H, normal):
    """An LSTM but for one operation: f = 1 − i."""
    U, W = normal(F, 3 * H) / 2, normal(H, 3 * H) / 2

    def step(carry, x):
        h, c = carry
        i, g, o = (x @ U + h @ W).chunk(3, 1)
        i = torch.sigmoid(i)
        c = (1 - i) * c + i * torch.tanh(g)
        return (h := torch.sigmoid(o) * torch.tanh(c), c), h

    return step, [U, W], 2


def squared_candidate(F, H, normal):
    """A GRU but for its candidate, which reads the gate twice."""
    make, weights, n = gru_as_written(True, True, False)(F, H, normal)
    W = normal(H, H)
    return lambda h, x: make(h, x) + 0.0 * h + torch.tanh(h @ W), [*weights, W], n


def gives_another_output(F, H, normal):
    U, W = normal(F, H) / 2, normal(H, H) / 2

    def step(h, x):
        h = torch.tanh(x @ U + h @ W)
        return h, 2 * h

    return step, [U, W], 1


OWN = {
    **{
        f"gru {z_keeps} {after} {lerp}": ("GRU", gru_as_written(z_keeps, after, lerp))
        for z_keeps in (True, False)
        for after in (True, False)
        for lerp in (True, False)
    },
    "lstm": ("LSTM", lstm_by_hand),
    "leaky": ("Scan", leaky),
    "coupled": ("Scan", coupled),
    "squared": ("Scan", squared_candidate),
    "output": ("Scan", gives_another_output),
}


@pytest.mark.parametrize("name", one_in(2, OWN))
def test_a_step_of_a_users_own(name):
    operator, make = OWN[name]
    n = ex.Network(3)
    F, H = 3, 5
    step, weights, n_states = make(F, H, n.normal)
    init = tuple(n.normal(2, H) for _ in range(n_states))
    graph = n.step(step, weights, init[0] if n_states == 1 else init, n.normal(2, F))
    for reverse in (False, True):
        layer = Scan("own", (Direction(graph, reverse),))
        model = ModelGraph(None, (layer,), ReadoutGraph("last"), n.head(H, 3))
        made = sequence_model(Exportable(model, n.tensors))
        assert made.operators == (operator,)
        assert_parity(model, n.tensors, ex.onnx_runtime(made.proto), 3, 8)


def test_weights_are_compared_too():
    """The proof is of the graph; the numbers are those of the tensors, gate by gate."""
    graph, tensors = ex.network("lstm")
    cell = recognised(graph.layers[0].directions[0].step, tensors)
    other = {name: t + 1 for name, t in tensors.items()}
    again = recognised(graph.layers[0].directions[0].step, other)
    np.testing.assert_array_equal(again.W, cell.W + 1)
    np.testing.assert_array_equal(again.R, cell.R + 1)
