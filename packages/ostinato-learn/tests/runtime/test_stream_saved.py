"""Streams of saved models: what is prepared, labelled and refused as by `predict`."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import saved_models as saved
import torch

import ostinato_learn.runtime
from ostinato.engine import native
from ostinato_learn import SequenceClassifier, SequenceTagger
from zoo.suites import one_in


def after_each_step(model, x):
    return np.stack([model.predict_proba(x[None, : t + 1])[0] for t in range(len(x))])


@pytest.mark.parametrize(
    ("cell", "readout"),
    one_in(
        3,
        product(["rnn", "gru", "lstm", saved.Leaky], ["last", "mean", "max", "attention"]),
        of_several=True,
    ),
)
def test_a_classifier(cell, readout, tmp_path):
    saved.classifier(tmp_path / "m", cell=cell, readout=readout, num_layers=2)
    model = ostinato_learn.runtime.load(tmp_path / "m")
    x = saved.sequences()[0]
    wanted = after_each_step(model, x)
    stream = model.stream()
    answers = [stream.push(row) for row in x]
    np.testing.assert_array_equal([a.proba for a in answers], wanted)
    assert answers[-1].label == model.predict(x[None])[0]
    half = model.stream()
    half.push(x[:4])
    again = model.stream(half.save())
    np.testing.assert_array_equal(again.push(x[4:]).proba, wanted[-1])
    pool = model.pool(4)
    for row in x:
        answer = pool.push({"a": row})["a"]
    np.testing.assert_array_equal(answer.proba, wanted[-1])


class Begun(torch.nn.Module):
    """A cell whose first carry is learnt."""

    def __init__(self, n_features, hidden_size):
        super().__init__()
        self.into = torch.nn.Linear(n_features, hidden_size)
        self.first = torch.nn.Parameter(torch.linspace(-1, 1, hidden_size))

    def initial(self, x):
        return self.first.expand(len(x), -1)

    def forward(self, h, x):
        return 0.9 * h + torch.tanh(self.into(x))


def test_a_first_carry_that_is_learnt(tmp_path):
    theirs = saved.classifier(tmp_path / "m", cell=Begun)
    model = ostinato_learn.runtime.load(tmp_path / "m")
    x = saved.sequences()[0]
    wanted = after_each_step(model, x)
    stream, pool = model.stream(), model.pool(2)
    np.testing.assert_array_equal([stream.push(row).proba for row in x], wanted)
    found = [pool.push({"a": row})["a"].proba for row in x]
    np.testing.assert_array_equal(found, wanted)
    stream.reset()
    np.testing.assert_array_equal(stream.push(x).proba, wanted[-1])
    assert np.abs(theirs.predict_proba(x[None])[0] - wanted[-1]).max() < 1e-5


@pytest.mark.process
def test_streams_need_no_torch_and_have_one_set_of_bits(tmp_path):
    saved.classifier(tmp_path / "m", cell="lstm", readout="attention")
    script = f"""
        import numpy as np, ostinato_learn.runtime
        model = ostinato_learn.runtime.load({str(tmp_path / "m")!r})
        stream, pool = model.stream(), model.pool(2)
        for row in np.linspace(-1, 1, 30, dtype=np.float32).reshape(-1, {saved.F}):
            answer, other = stream.push(row), pool.push({{"a": row}})["a"]
        print(answer.proba.tobytes().hex(), other.proba.tobytes().hex(), stream.save().hex())
    """
    isas = [isa for isa in native.available_isas() if isa != "base"]
    found = {saved.without_torch(script, OSTINATO_ISA=isa) for isa in isas}
    assert len(found) == 1
    alone, pooled, _ = found.pop().split()
    assert alone == pooled


def test_states_are_of_one_saved_model(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        saved.classifier(tmp_path / name, random_state=seed)
    a, b = (ostinato_learn.runtime.load(tmp_path / name) for name in "ab")
    state = a.stream().save()
    with pytest.raises(ValueError, match="to another model"):
        b.stream(state)
    assert ostinato_learn.runtime.load(tmp_path / "a").stream(state).n == 0


def test_several_labels(tmp_path):
    y = np.arange(saved.N)[:, None] % [2, 3] == 0
    saved.classifier(tmp_path / "m", y=y.astype(int))
    model = ostinato_learn.runtime.load(tmp_path / "m")
    x = saved.sequences()[0]
    stream = model.stream()
    for row in x:
        answer = stream.push(row)
    found = [name in answer.label for name in model.labels.tolist()]
    assert found == model.predict(x[None])[0].astype(bool).tolist()


def test_both_directions_are_refused_by_their_layer(tmp_path):
    saved.classifier(tmp_path / "m", cell="gru", bidirectional=True)
    model = ostinato_learn.runtime.load(tmp_path / "m")
    with pytest.raises(ValueError, match=r"cannot answer step by step: .*gru.* also reads from"):
        model.stream()
    with pytest.raises(ValueError, match="cannot answer step by step"):
        model.pool(3)


def test_a_tagger(tmp_path):
    saved.tagger(tmp_path / "m", bidirectional=False)
    model = ostinato_learn.runtime.load(tmp_path / "m")
    x = saved.sequences()[0]
    wanted, labels = model.predict_proba(x), model.predict(x)
    stream = model.stream()
    answers = [stream.push(row) for row in x]
    np.testing.assert_array_equal([a.proba for a in answers], wanted)
    assert [a.label for a in answers] == labels.tolist()
    np.testing.assert_array_equal(model.stream().push(x).proba, wanted)


def test_a_language_model(tmp_path):
    saved.language_model(tmp_path / "m")
    model = ostinato_learn.runtime.load(tmp_path / "m")
    text = "abba"
    (wanted,) = model.predict_proba([text])
    stream = model.stream()
    answers = [stream.push(letter) for letter in text]
    np.testing.assert_array_equal([a.proba for a in answers], wanted[1:])
    assert answers[-1].label == model.labels[wanted[-1].argmax()]
    stream.reset()
    np.testing.assert_array_equal(stream.push(text).proba, wanted[1:])
    pool = model.pool(2)
    np.testing.assert_array_equal(pool.push({"x": "a"})["x"].proba, wanted[1])


def test_texts_and_tokens_are_refused_where_there_is_none(tmp_path):
    saved.language_model(tmp_path / "m")
    stream = ostinato_learn.runtime.load(tmp_path / "m").stream()
    for x in ([10_000], [-1], 0.5, [[1]]):
        with pytest.raises(ValueError, match="numbers of tokens from 0 to"):
            stream.push(x)
    with pytest.raises(ValueError, match="no token"):
        stream.push("")
    assert stream.n == 0


def test_texts(tmp_path):
    """A string is a text to a model of texts, as for predict; a list has words as they are."""
    texts = ["a lovely day", "what a mess", "lovely", "a mess"] * 5
    classifier = SequenceClassifier(hidden_size=4, iterations=5, bidirectional=False)
    classifier.fit(texts, [1, 0, 1, 0] * 5).save(tmp_path / "m")
    model = ostinato_learn.runtime.load(tmp_path / "m")
    text = "A LOVELY mess"
    (wanted,) = model.predict_proba([text])
    np.testing.assert_array_equal(model.stream().push(text).proba, wanted)
    np.testing.assert_array_equal(model.stream().push(["a", "lovely", "mess"]).proba, wanted)
    stream = model.stream()
    for word in text.split():
        answer = stream.push(word)
    np.testing.assert_array_equal(answer.proba, wanted)
    assert stream.n == 3
    with pytest.raises(ValueError, match="there is no word in ' '"):
        stream.push(" ")


@pytest.mark.parametrize("letters", [0, 3])
def test_words(letters, tmp_path):
    X = [["the", "cat", "sat"], ["a", "dog", "ran"], ["the", "dog"]] * 4
    y = [["D", "N", "V"], ["D", "N", "V"], ["D", "N"]] * 4
    tagger = SequenceTagger(
        hidden_size=4, iterations=2, bidirectional=False, character_size=letters, random_state=0
    )
    tagger.fit(X, y).save(tmp_path / "m")
    model = ostinato_learn.runtime.load(tmp_path / "m")
    words = ["the", "bird", "sat"]
    wanted = model.predict_proba(words)
    stream = model.stream()
    np.testing.assert_array_equal([stream.push(word).proba for word in words], wanted)
    np.testing.assert_array_equal(model.stream().push(words).proba, wanted)
    pool = model.pool(2)
    np.testing.assert_array_equal(pool.push({1: "the"})[1].proba, wanted[0])


def test_an_ensemble(tmp_path):
    saved.classifier(tmp_path / "m", ensemble=3)
    model = ostinato_learn.runtime.load(tmp_path / "m")
    x = saved.sequences()[0]
    stream = model.stream()
    np.testing.assert_array_equal([stream.push(row).proba for row in x], after_each_step(model, x))


def test_the_face_in_torch_is_met(tmp_path):
    """Within the bound of packages/ostinato-learn/tests/runtime/test_model.py."""
    theirs = saved.classifier(tmp_path / "m", cell="gru")
    assert isinstance(theirs, SequenceClassifier)
    X = saved.sequences()
    stream = ostinato_learn.runtime.load(tmp_path / "m").stream()
    for row in X[0]:
        answer = stream.push(row)
    bound = 64 * np.finfo(np.float32).eps
    assert np.abs(answer.proba - theirs.predict_proba(X)[0]).max() < bound
