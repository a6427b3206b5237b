"""Weights of 8 bits in C; and tied embeddings, in float and in int8."""

from __future__ import annotations

import re

import numpy as np
import pytest
from c_examples import STRICT, checked_run, needs_gcc
from test_c_model import exported, given, noise, runtime_answers

from ostinato.engine import native
from ostinato_learn.export.c.play import PartPlayer, answers, bound
from ostinato_learn.export.c.program import part
from ostinato_learn.export.c.quantize import quantized
from ostinato_learn.models import ClassifierNet, LanguageNet
from ostinato_learn.runtime.network import Network
from zoo.suites import one_in

pytestmark = [
    needs_gcc,
    pytest.mark.skipif(native.unavailable() is not None, reason="needs the engine"),
]


@pytest.mark.parametrize("n_tokens", one_in(2, [15, 12]))
@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
def test_tied_weights_are_in_the_file_once(int8, n_tokens, tmp_path):
    g = given(LanguageNet(n_tokens, "lstm", 9, embedding_size=6, tied=True))
    report, library = exported(g, tmp_path, int8=int8)
    tokens = np.random.default_rng(0).integers(0, n_tokens, 12)
    step, answer = (part(graph, g.tensors) for graph in g.graph.composed())
    found = [[quantized(w).weight for w in p.weights] if int8 else None for p in (step, answer)]
    table = g.tensors[g.graph.embed.table]
    table = quantized(table.T).weight.T if int8 else table
    players = [PartPlayer(p, w) for p, w in zip((step, answer), found, strict=True)]
    expected = answers(*players, table[tokens][None])[0]
    ours = library.stream().answers(tokens)
    assert (np.abs(ours - expected) <= bound(step, answer, table[tokens], found)).all()
    text = (tmp_path / "net.c").read_text()
    found = re.findall(r"static const (\w+) \w+\[(\d+)\] = ", text)
    assert [int(n) for _, n in found].count(6 * n_tokens) == 1
    assert report.tables == sum({"float": 4, "int8_t": 1}[kind] * int(n) for kind, n in found)
    checked_run("gcc", *STRICT, "net.c", "net_test.c", "-o", "test", "-lm", cwd=tmp_path)
    assert "right" in checked_run("./test", cwd=tmp_path)


def test_int8_is_the_nearest_of_each_row():
    w = noise(7, 5)
    w[:, 2] = 0
    q = quantized(w)
    assert (np.abs(q.weight - w) <= q.scale * (0.5 + 1e-6)).all()
    assert (np.abs(q.values).max(0) == [127, 127, 0, 127, 127]).all() and (
        q.weight[:, 2] == 0
    ).all()


@pytest.mark.parametrize("size", [6, 0], ids=["embeddings", "zeros and a one"])
def test_int8_of_a_language_model(size, tmp_path):
    """Also the rows of its tokens; the self-test knows the answers."""
    g = given(LanguageNet(n_tokens=11, cell="gru", hidden_size=9, embedding_size=size))
    report, library = exported(g, tmp_path, int8=True)
    exact, _ = exported(g, tmp_path / "float")
    assert report.tables < 0.45 * exact.tables
    ours = library.stream().answers(np.arange(11))
    exact = Network(g.graph, g.tensors).answers(np.arange(11)[None])[0]
    assert 1e-5 < np.abs(ours - exact).max() < 0.05
    checked_run("gcc", *STRICT, "net.c", "net_test.c", "-o", "test", "-lm", cwd=tmp_path)
    assert "right" in checked_run("./test", cwd=tmp_path)


@pytest.mark.parametrize("cell", one_in(3, ["lstm", "gru", "rnn"]))
def test_int8_answers_are_those_of_its_weights(cell, tmp_path):
    g = given(ClassifierNet(5, 4, cell, 17, 2, readout="mean"))
    x = noise(20, 5)
    step, answer = (part(graph, g.tensors) for graph in g.graph.composed())
    weights = tuple([quantized(w).weight for w in p.weights] for p in (step, answer))
    players = [PartPlayer(p, w) for p, w in zip((step, answer), weights, strict=True)]
    expected = answers(*players, x[None])[0]
    report, library = exported(g, tmp_path, int8=True)
    ours = library.stream().answers(x)
    assert (np.abs(ours - expected) <= bound(step, answer, x, weights)).all()
    assert np.abs(ours - runtime_answers(g, x)).max() > 1e-5  # it is another model
    checked_run("gcc", "net.c", "net_test.c", "-o", "test", "-lm", cwd=tmp_path)
    assert "right" in checked_run("./test", cwd=tmp_path)
    plain_report, _ = exported(g, tmp_path)
    assert report.tables < 0.4 * plain_report.tables


@pytest.mark.parametrize("size", [1e30, 4.8e36, 3e37])
def test_large_inputs_saturate_as_those_of_float_weights(size, tmp_path):
    """A product with a whole number up to 127 would overflow, and two of them make NaN."""
    g = given(ClassifierNet(5, 4, "gru", 17))
    x = np.float32(size) * np.sign(noise(20, 5)).astype(np.float32)
    x[7:] = noise(13, 5)
    exact, library = exported(g, tmp_path / "float")[1], exported(g, tmp_path, int8=True)[1]
    ours = library.stream().answers(x)
    assert np.abs(ours - exact.stream().answers(x)).max() < 0.05
