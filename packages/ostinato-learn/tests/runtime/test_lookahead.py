"""Models of two directions that answer k steps late: the windows are those of the definition."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest
import saved_models as saved
import torch
from graph_parts import Parts
from stream_cases import FINGERPRINT, rows
from torch import nn

import ostinato_learn.runtime
from ostinato_learn import SequenceTagger
from ostinato_learn.runtime.lookahead import _HEAD, _MAGIC, MOST, LookaheadSource, LookaheadStream
from ostinato_learn.runtime.model_graph import Direction, ModelGraph, ReadoutGraph, Scan
from ostinato_learn.runtime.network import Network
from ostinato_learn.runtime.stream import sealed
from ostinato_learn.runtime.stream_source import RowScaling, StreamSource
from zoo.suites import one_in

F, H, T = 5, 8, 11
BOTH, ONE = (False, True), (False,)


def mixed(parts, kinds, readout):
    """Layers of one direction or two, by their cells: "gru both"."""
    layers, width = [], F
    for i, kind in enumerate(kinds):
        cell, _, both = kind.partition(" ")
        directions = BOTH if both else ONE
        played = tuple(Direction(parts.step(cell, width, H), r) for r in directions)
        layers.append(Scan(f"{cell} layer {i}", played))
        width = H * len(directions)
    read = parts.mean(width) if readout == "mean" else ReadoutGraph(readout)
    return ModelGraph(None, tuple(layers), read, parts.head(width))


MODELS = {
    "rnn each": (["rnn both"], "each"),
    "gru, two layers each": (["gru both", "gru both"], "each"),
    "lstm, two layers, mean": (["lstm both", "lstm both"], "mean"),
    "own each": (["own both", "own both"], "each"),
    "one direction below": (["lstm", "gru both"], "each"),
    "one direction above, last": (["gru both", "rnn"], "last"),
    "one direction between, mean": (["gru both", "own", "lstm both"], "mean"),
}


@cache
def network(name):
    kinds, readout = MODELS[name]
    parts = Parts()
    return Network(mixed(parts, kinds, readout), parts.tensors)


def source(name, k, **options):
    found = network(name)
    names = [f"label {i}" for i in range(found.graph.n_outputs)]
    return LookaheadSource(found, names, lookahead=k, fingerprint=FINGERPRINT, **options)


def by_definition(net, x, k, n_steps=None):
    """The answers for all steps, each from its window alone, one step of one row at a time."""
    graph = net.graph
    carried = [None] * len(graph.layers)
    readout, answers = None, []
    for t in range(len(x)):
        values = list(x[t : t + k + 1])
        for i, layer in enumerate(graph.layers):
            outputs = [[] for _ in values]
            for d in layer.directions:
                state = None if d.reverse else carried[i]
                order = range(len(values))
                for j in reversed(order) if d.reverse else order:
                    program = net._program(d.step, d.reverse, 1)
                    ys, state = program.play([values[j][None, None]], None, state)
                    outputs[j].append(ys[0][0, 0])
                    if j == 0 and not d.reverse:
                        carried[i] = state
            values = [np.concatenate(each) for each in outputs]
        read = [values[0][None]]
        if graph.readout.step is not None:
            program = net._program(graph.readout.step, False, 1)
            _, readout = program.play([values[0][None, None]], None, readout)
            read = readout
        answers.append(net._map(graph.answer, read)[0])
    return np.array(answers)


def streamed(made, x, sizes):
    """The answers of a stream that reads chunks of these sizes, and their numbers."""
    stream, found, at = LookaheadStream(made), [], 0
    for size in sizes:
        found += list(stream.push(x[at : at + size], each=True)) if size != 1 else [
            answer for answer in [stream.push(x[at])] if answer is not None
        ]  # fmt: skip
        at += size
    assert at == len(x) == stream.n and stream.n_answered == len(found)
    found += list(stream.finish())
    return np.array([a.proba for a in found]), [a.n for a in found]


@pytest.mark.parametrize(
    ("name", "k"), one_in(3, product(MODELS, [0, 1, 3, T - 1, T + 5]), of_several=True)
)
def test_answers_are_those_of_the_windows_to_the_bit(name, k):
    """However the steps come, and also where a sequence is shorter than a window."""
    x = rows(T, F)
    wanted = by_definition(network(name), x, k)
    made = source(name, k)
    for sizes in ([1] * T, [T], [3, 1, 5, 2], [2] * 5 + [1]):
        found, numbers = streamed(made, x, sizes)
        assert numbers == list(range(1, T + 1))
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", MODELS)
def test_a_lookahead_over_the_whole_sequence_gives_the_answers_of_predict(name):
    net, x = network(name), rows(T, F)
    found, _ = streamed(source(name, T - 1), x, [4, 7])
    answers = net.answers(x[None])[0]
    if net.graph.readout.kind == "each":
        np.testing.assert_array_equal(found, answers)
    else:  # the answer to the whole sequence
        np.testing.assert_array_equal(found[-1], answers)


def test_many_windows_are_played_in_blocks(monkeypatch):
    made, x = source("gru, two layers each", 3), rows(T, F)
    wanted, _ = streamed(made, x, [T])
    made.most_windows = 2
    np.testing.assert_array_equal(streamed(made, x, [T])[0], wanted)


def test_the_equation_in_torch(tmp_path):
    """One bidirectional GRU: its forward state goes on, its backward one begins at t + k."""
    X = saved.sequences()
    y = [(x.sum(1) > 0).astype(int) for x in X]
    fitted = SequenceTagger(
        cell="gru", bidirectional=True, hidden_size=6, iterations=20, random_state=0,
        standardize=False,
    ).fit(X, y)  # fmt: skip
    fitted.save(tmp_path / "m")
    body, readout = fitted.net_.body, fitted.net_.readout
    forward = nn.GRU(saved.F, 6, batch_first=True)
    backward = nn.GRU(saved.F, 6, batch_first=True)
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        getattr(forward, name).data = getattr(body, name).data
        getattr(backward, name).data = getattr(body, name + "_reverse").data
    x, k = torch.from_numpy(X[3]), 2
    with torch.no_grad():
        f = forward(x)[0]
        b = torch.stack([backward(x[t : t + k + 1].flip(0))[0][-1] for t in range(len(x))])
        wanted = torch.softmax(readout(torch.cat([f, b], 1)), 1)
    stream = ostinato_learn.runtime.load(tmp_path / "m").stream(lookahead=k)
    found = [*stream.push(X[3]).proba, *stream.finish().proba]
    # 9 steps of 6 units: √9 (√6 + √3 + 2) ε, some 2e-6
    np.testing.assert_allclose(found, wanted, atol=2e-6)


# ---- the life of a stream


def test_answers_come_late_and_then_each_step():
    stream = LookaheadStream(source("rnn each", 3))
    x = rows(T, F)
    assert [stream.push(row) for row in x[:3]] == [None, None, None]
    answer = stream.push(x[3])
    assert (answer.n, stream.n, stream.n_answered, answer.label[:5]) == (1, 4, 1, "label")
    assert stream.push(x[4:6]).n.tolist() == [2, 3]  # it answers at every step
    assert stream.push(x[6:8], each=False).n == 5
    assert len(stream.push(x[:1][:, :][0:1], each=True)) == 1
    assert stream.finish().n.tolist() == [7, 8, 9] and stream.n_answered == stream.n == 9
    assert len(stream.finish()) == 0
    with pytest.raises(ValueError, match=r"the sequence has ended; reset\(\) begins another"):
        stream.push(x[0])
    stream.reset()
    assert (stream.n, stream.finished, stream.push(x[0])) == (0, False, None)


@pytest.mark.parametrize("name", ["gru, two layers each", "one direction between, mean"])
def test_a_fork_and_a_state_go_on(name):
    made, x = source(name, 3), rows(T, F)
    wanted, _ = streamed(made, x, [T])
    for at in range(T):
        stream = LookaheadStream(made)
        if at:
            stream.push(x[:at])
        again = LookaheadStream(made)
        again.restore(stream.save())
        assert (again.n, again.n_answered) == (at, max(0, at - 3))
        for other in (stream.fork(), again):
            found = [*other.push(x[at:], each=True).proba, *other.finish().proba]
            np.testing.assert_array_equal(found, wanted[max(0, at - 3) :])
        assert stream.n == at
    other.save()
    again.restore(other.save())
    assert again.finished


def test_states_of_others_are_refused():
    made = source("rnn each", 3)
    stream = LookaheadStream(made)
    stream.push(rows(7, F))
    state = stream.save()
    with pytest.raises(ValueError, match="has lookahead=3; wanted 2"):
        LookaheadStream(source("rnn each", 2)).restore(state)
    made.fingerprint = "cd" * 32
    with pytest.raises(ValueError, match="to another model: its fingerprint begins with abab"):
        LookaheadStream(made).restore(state)
    made.fingerprint = FINGERPRINT
    for damaged in (state[:-1], state[:40] + b"x" + state[41:], b"", b"ostinato stream 1\n"):
        with pytest.raises(ValueError):
            LookaheadStream(made).restore(damaged)


def test_states_of_another_length_are_refused():
    made = source("rnn each", 3)
    size = made.n_carry + 2 * made.n_row
    stream = LookaheadStream(made)

    def state(n, n_bytes, finished=False):
        content = _HEAD.pack(n, 3, finished) + bytes(n_bytes)
        return sealed(_MAGIC, made.fingerprint, content)

    stream.restore(state(2, 4 * size))
    before = stream.save()
    for more in (-4, -1, 1, 4):
        n_bytes = _HEAD.size + 4 * size
        with pytest.raises(ValueError, match=f"has {n_bytes + more} bytes; wanted {n_bytes}$"):
            stream.restore(state(2, 4 * size + more))
    for finished in (False, True):
        with pytest.raises(ValueError, match="is damaged: it has -1 steps"):
            stream.restore(state(-1, 4 * made.n_carry, finished))
    assert stream.save() == before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_refused_moves_nothing(value):
    stream, x = LookaheadStream(source("rnn each", 2)), rows(T, F)
    stream.push(x[:4])
    before = stream.save()
    wrong = x.copy()
    wrong[5, 2] = value
    with pytest.raises(ValueError, match=r"step 1 of x has .* at feature 2; wanted finite"):
        stream.push(wrong[4:])
    with pytest.raises(ValueError, match=r"x has shape \[4\]; wanted \[5\]"):
        stream.push(x[0, :4])
    assert stream.save() == before


def test_one_owner():
    stream = LookaheadStream(source("rnn each", 2))
    with stream._claimed(), pytest.raises(RuntimeError, match="a stream has one owner"):
        stream.push(rows(1, F)[0])


# ---- what it is for


def test_what_has_no_lookahead_is_refused_with_the_reason():
    for kinds, readout, why in (
        (["gru", "lstm"], "each", "it reads in one direction, and answers each step at once"),
        (["rnn", "gru both"], "last", "gru layer 1 answers with its backward direction's state"),
    ):
        parts = Parts()
        net = Network(mixed(parts, kinds, readout), parts.tensors)
        with pytest.raises(ValueError, match=f"this model takes no lookahead: {why}"):
            LookaheadSource(net, "abc", lookahead=2)
    for k in (-1, 1.0, True, MOST + 1):
        with pytest.raises(ValueError, match="wanted a number of steps from 0 to 65536"):
            source("rnn each", k)


def test_it_is_offered_where_it_can_be(tmp_path):
    saved.tagger(tmp_path / "tagger", bidirectional=True)
    with pytest.raises(ValueError, match=r"gru layer 0 also reads .* stream\(lookahead=k\), or"):
        ostinato_learn.runtime.load(tmp_path / "tagger").stream()
    saved.classifier(tmp_path / "last", bidirectional=True)
    model = ostinato_learn.runtime.load(tmp_path / "last")
    with pytest.raises(ValueError, match=r"also reads .* Train one that reads in one direction"):
        model.stream()
    with pytest.raises(ValueError, match=r"rnn layer 0 answers with .*\(the readout is 'last'\)"):
        model.stream(lookahead=3)
    saved.tagger(tmp_path / "crf", bidirectional=True, crf=True)
    with pytest.raises(ValueError, match="the whole sequence: it has a CRF"):
        ostinato_learn.runtime.load(tmp_path / "crf").stream(lookahead=3)
    saved.forecaster(tmp_path / "forecaster", bidirectional=True)
    with pytest.raises(ValueError, match="reads whole series, and has no streams"):
        ostinato_learn.runtime.load(tmp_path / "forecaster").stream(lookahead=3)


@pytest.mark.parametrize("make", ["tagger", "words", "mean", "own"])
def test_saved_models(tmp_path, make):
    """Rows are scaled and words spelt as by `predict`."""
    path, x = tmp_path / "m", saved.sequences()[0] * 3 + 1
    if make == "tagger":
        saved.tagger(path, bidirectional=True, num_layers=2)
    elif make == "words":
        saved.words_tagger(path, bidirectional=True)
        x = ["to", "be", "or", "knot"]
    else:
        cell = saved.Leaky if make == "own" else "lstm"
        saved.classifier(path, bidirectional=True, readout="mean", cell=cell)
    model = ostinato_learn.runtime.load(path)
    stream = model.stream(lookahead=len(x))
    if make == "words":
        assert [stream.push(word) for word in x] == [None] * 4
    else:
        stream.push(x)
    answers = stream.finish()
    if make in ("tagger", "words"):
        np.testing.assert_array_equal(answers.proba, model.predict_proba(x))
        assert answers.labels == model.predict(x).tolist()
    else:
        np.testing.assert_array_equal(answers.proba[-1], model.predict_proba(x[None])[0])
    again = model.stream(stream.save(), lookahead=len(x))
    assert (again.n, again.finished) == (len(x), True)


@pytest.mark.parametrize("mask", [False, True])
def test_rows_are_scaled_as_the_native_player_scales_them(mask):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, F)) * 100).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    mean, scale = rng.normal(size=F) * 100, np.exp(rng.normal(size=F))
    scaling = RowScaling(mean, scale, rng.normal(size=F), mask)
    parts, width = Parts(), F * (1 + mask)
    made = StreamSource(
        Network(parts.model(["rnn"], F=width), parts.tensors), "abc", scaling=scaling
    )
    np.testing.assert_array_equal(scaling.of(x), made.prepared(x))
    assert scaling.of(x).shape == (50, width)
