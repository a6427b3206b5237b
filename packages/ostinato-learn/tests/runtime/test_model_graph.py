"""Whole models as values: layers, readouts and heads; composed, side by side, and in a file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from graph_parts import Parts

from ostinato.engine import native
from ostinato_learn.runtime import programs
from ostinato_learn.runtime.compose import side_by_side
from ostinato_learn.runtime.model_graph import Embed, ModelGraph
from ostinato_learn.runtime.network import Network
from ostinato_learn.runtime.programs import StepProgram
from shared.reference import play_step
from zoo.suites import in_pairs, one_in

EPS = np.finfo(np.float32).eps


CELLS = [
    ["rnn"],
    ["gru"],
    ["lstm"],
    ["own"],
    ["own", "own"],
    ["gru", "rnn"],
    ["rnn", "lstm", "own"],
    ["lstm", "gru"],
]
READOUTS = ["last", "each", "mean"]


def through_a_file(graph, tensors):
    value = json.loads(json.dumps(graph.as_json(), allow_nan=False))
    read = ModelGraph.from_json(value, {n: a.shape for n, a in tensors.items()})
    assert read.as_json() == graph.as_json()
    return read


@pytest.mark.parametrize(
    ("cells", "readout", "H"),
    one_in(2, in_pairs(CELLS, READOUTS, [1, 8, 17]), of_several=True),
    ids=lambda v: "-".join(v) if isinstance(v, list) else None,
)
def test_composed_has_the_bits_of_the_layers(cells, readout, H):
    """One program of all layers step by step, against a program a layer over whole sequences."""
    parts = Parts()
    model = through_a_file(parts.model(cells, readout, H=H), parts.tensors)
    B, T = 3, 6
    x = np.random.default_rng(1).normal(size=(B, T, 5)).astype(np.float32)
    batch = Network(model, parts.tensors).answers(x)
    step, answer = model.composed()
    assert len(answer.inputs) == len(step.states) and not step.outputs
    player, answering = StepProgram(step, parts.tensors), StepProgram(answer, parts.tensors)
    carry, theirs = None, np.zeros((B, T, 3))
    for t in range(T):
        _, carry = player.play([x[:, t][None]], init=carry)
        theirs[:, t] = answering.play([c[None] for c in carry])[0][0][0]
    np.testing.assert_array_equal(batch, theirs if readout == "each" else theirs[:, -1])


@pytest.mark.parametrize(
    ("cells", "readout", "H"),
    one_in(2, in_pairs(CELLS, READOUTS, [1, 16, 17]), of_several=True),
    ids=lambda v: "-".join(v) if isinstance(v, list) else None,
)
def test_a_single_sequence_is_played_by_steps_with_the_bits_of_a_batch(cells, readout, H):
    parts = Parts()
    network = Network(parts.model(cells, readout, H=H), parts.tensors)
    x = np.random.default_rng(1).normal(size=(3, 9, 5)).astype(np.float32)
    for lengths in (None, np.array([4, 9, 1])):
        together = network.answers(x, lengths)
        for row in range(3):
            n = None if lengths is None else lengths[row : row + 1]
            alone = network.answers(x[row : row + 1], n)
            assert alone.shape == (1, *together.shape[1:])
            steps = slice(None) if n is None or readout != "each" else slice(n[0])
            np.testing.assert_array_equal(alone[0, steps], together[row, steps])
    assert network._stepwise is not None


def test_a_model_of_large_weights_is_played_by_the_batch_engine(monkeypatch):
    parts = Parts()
    model = parts.model(["gru"], H=64)
    step, answer = model.composed()
    assert (step.multiplies, answer.multiplies) == (3 * 64 * (5 + 64), 3 * 64)
    x = np.random.default_rng(1).normal(size=(1, 9, 5)).astype(np.float32)
    by_steps = Network(model, parts.tensors)
    monkeypatch.setattr(programs, "MOST_STEPWISE", step.multiplies + answer.multiplies - 1)
    by_batch = Network(model, parts.tensors)
    assert by_batch._stepwise is None
    monkeypatch.undo()
    assert by_steps._stepwise is not None
    np.testing.assert_array_equal(by_steps.answers(x), by_batch.answers(x))


def test_without_joints_the_bits_differ():
    """So that the test above sees what joints are for."""
    parts = Parts()
    model = parts.model(["own", "own"], H=17)
    x = np.random.default_rng(1).normal(size=(3, 1, 5)).astype(np.float32)
    step, _ = model.composed()
    bare = replace(step, joints=frozenset())
    carry = [np.ones((3, n.width), np.float32) / 3 for n in step.states]
    found = [StepProgram(graph, parts.tensors).play([x], init=carry)[1] for graph in (step, bare)]
    assert any((a != b).any() for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("readout", ["last", "each", "mean"])
def test_both_directions_have_the_meaning_of_numpy(readout):
    parts = Parts()
    model = parts.model(["gru", "own"], readout, directions=(False, True))
    x = np.random.default_rng(0).normal(size=(4, 7, 5)).astype(np.float32)
    lengths = np.array([7, 1, 4, 7])
    answers = Network(model, parts.tensors).answers(x, lengths)
    for row, n in enumerate(lengths):
        theirs = slow_answers(model, parts.tensors, x[row, :n])
        ours = answers[row, :n] if readout == "each" else answers[row]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=512 * EPS)


def slow_answers(model, tensors, x):
    """One sequence `[T, F]`, in float64 by NumPy."""
    tensors = {name: array.astype(np.float64) for name, array in tensors.items()}
    values = x.astype(np.float64)
    last = []
    for layer in model.layers:
        found, last = [], []
        for d in layer.directions:
            carry = [np.zeros((1, n.width)) for n in d.step.states]
            ys = {}
            for t in reversed(range(len(x))) if d.reverse else range(len(x)):
                carry, (ys[t],) = play_step(d.step, [values[t][None]], carry, tensors)
            last.append(ys[t][0])
            found.append(np.concatenate([ys[t] for t in range(len(x))]))
        values = np.concatenate(found, axis=1)
    if model.readout.kind == "each":
        return play_step(model.answer, [values], [], tensors)[1][0]
    if model.readout.kind == "last":
        read = [np.concatenate(last)[None]]
    else:
        read = [np.zeros((1, n.width)) for n in model.readout.step.states]
        for value in values:
            read, _ = play_step(model.readout.step, [value[None]], read, tensors)
    return play_step(model.answer, read, [], tensors)[1][0][0]


def test_a_model_that_reads_backwards_is_no_single_step():
    model = Parts().model(["gru"], directions=(False, True))
    with pytest.raises(ValueError, match="gru layer 0 also reads from the end"):
        model.composed()
    assert "gru layer 0" in model.why_not_streamable()


@pytest.mark.parametrize("shared", [True, False])
def test_side_by_side_is_each_alone(shared):
    parts = Parts()
    members = [parts.step("lstm", 5, 4), parts.step("lstm", 5, 4)]
    if shared:
        together = side_by_side(members, [5], lambda c, inputs, i: list(inputs))
    else:
        together = side_by_side(members, [10], lambda c, inputs, i: [c.slice(inputs[0], 5 * i, 5)])
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(3, 5)) for _ in members]
    states = [[rng.normal(size=(3, 4)) for _ in range(2)] for _ in members]
    tensors = {name: array.astype(np.float64) for name, array in parts.tensors.items()}
    if shared:
        x[1] = x[0]
    joined = [x[0]] if shared else [np.hstack(x)]
    new, ys = play_step(
        together, joined, [np.hstack(pair) for pair in zip(*states, strict=True)], tensors
    )
    alone = [play_step(m, [x[i]], states[i], tensors) for i, m in enumerate(members)]
    for ours, *theirs in zip([*new, *ys], *([*a, *b] for a, b in alone), strict=True):
        np.testing.assert_array_equal(ours, np.hstack(theirs))


def test_tokens_are_rows_of_a_table():
    parts = Parts()
    model = parts.model(["gru"], "each", F=4)
    table = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    tensors = {**parts.tensors, "table": table}
    tokens = np.array([[0, 5, 2], [1, 1, 3]])
    model = through_a_file(replace(model, embed=Embed(6, 4, "table")), tensors)
    ours = Network(model, tensors).answers(tokens)
    theirs = Network(replace(model, embed=None), tensors).answers(table[tokens])
    np.testing.assert_array_equal(ours, theirs)
    one_hot = replace(parts.model(["rnn"], "each", F=6), embed=Embed(6, 6, None))
    found = Network(through_a_file(one_hot, parts.tensors), parts.tensors).answers(tokens)
    eye = Network(replace(one_hot, embed=None), parts.tensors).answers(
        np.eye(6, dtype=np.float32)[tokens]
    )
    np.testing.assert_array_equal(found, eye)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(opset=2), "knows 1 to 1: install a newer one"),
        (lambda v: v.update(stages=[]), "has no layers"),
        (lambda v: v["stages"].append(v["stages"][0]), "reads 5 columns; there are 8"),
        (lambda v: v["stages"][0].update(stage="conv"), "'conv', which is not known"),
        (lambda v: v["readout"].update(kind="median"), "'median', which is not known"),
        (lambda v: v["stages"][0]["directions"][0].update(reverse=1), "neither true nor false"),
        (lambda v: v.update(head=v["stages"][0]["directions"][0]["step"]), "head does not read"),
        (lambda v: v["stages"][0].update(directions=[]), "directions that read the same"),
    ],
)
def test_what_is_refused_is_named(change, message):
    parts = Parts()
    value = parts.model(["gru"]).as_json()
    change(value)
    with pytest.raises(ValueError, match=message):
        ModelGraph.from_json(value, {n: a.shape for n, a in parts.tensors.items()})


def test_threads_follow_the_engines_own_number():
    before = programs.n_threads()
    token = native.own_threads.set(before + 3)
    try:
        assert programs.n_threads() == before + 3
    finally:
        native.own_threads.reset(token)
    assert programs.n_threads() == before


def test_no_output_is_kept_but_the_last(monkeypatch):
    """Of a readout that reads the last output alone: neither of a state nor of another value."""
    parts = Parts()
    played = []
    play = StepProgram.play
    monkeypatch.setattr(StepProgram, "play", lambda self, *a: played.append(self) or play(self, *a))
    for cell in ("gru", "own"):
        network = Network(parts.model([cell], directions=(False, True)), parts.tensors)
        network.answers(np.ones((2, 4, 5), np.float32), np.array([4, 2]))
    *steps, _ = played[:3]
    assert [len(program.graph.outputs) for program in steps] == [0, 0]
    assert [len(program.graph.states) for program in (played[0], played[3])] == [1, 2]
