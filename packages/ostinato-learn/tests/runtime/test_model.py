"""Saved models without torch: the labels and probabilities of the torch face; one sequence has the
same bits in any company."""

from __future__ import annotations

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from saved_models import (
    STEPS,
    F,
    Leaky,
    classifier,
    language_model,
    ragged,
    sequences,
    tagger,
    without_torch,
)

import ostinato_learn
from ostinato.engine import native
from ostinato_learn import runtime
from ostinato_learn.cli import main
from ostinato_learn.data import Examples, Preparation
from zoo.suites import one_in

EPS = np.finfo(np.float32).eps

# Of networks with 8 units, that were hardly trained: a state is a sum of K ≤ 20 products of size
# below 1 and an activation, off by (√K + 2.5) ε ≈ 8 ε at most; the recurrent weights are orthogonal
# and the gates below 1, so that n steps add up to √n · 8 ε; a softmax halves it. Layers add up.
BOUND = 8 * np.sqrt(40) * EPS * 2

MODELS = {
    "rnn": {"cell": "rnn"},
    "gru": {"cell": "gru", "num_layers": 2, "dropout": 0.2},
    "lstm": {"cell": "lstm", "bidirectional": True},
    "mean": {"cell": "gru", "readout": "mean"},
    "max": {"cell": "rnn", "readout": "max", "bidirectional": True, "num_layers": 2},
    "attention": {"cell": "lstm", "readout": "attention"},
    "ensemble": {"cell": "gru", "ensemble": 3},
    "own": {"cell": Leaky, "num_layers": 2},
    "own both ways": {"cell": Leaky, "bidirectional": True, "readout": "mean"},
}


def agrees(ours, theirs):
    """Probabilities within the bound, and the same label wherever that says which it is."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=BOUND)
    top = np.sort(theirs, axis=-1)
    clear = top[..., -1] - top[..., -2] > 2 * BOUND
    assert clear.mean() > 0.9
    assert (ours.argmax(-1) == theirs.argmax(-1))[clear].all()


@pytest.mark.parametrize("name", MODELS)
def test_classifiers(tmp_path, name):
    model = classifier(tmp_path / "m", **MODELS[name])
    again = runtime.load(tmp_path / "m")
    for X in (sequences(1), ragged(1)):
        probabilities = again.predict_proba(X)
        agrees(probabilities, model.predict_proba(X))
        assert probabilities.dtype == np.float32
        assert again.predict(X).tolist() == again.labels[probabilities.argmax(1)].tolist()
        assert again.predict(X).dtype == model.predict(X).dtype


@pytest.mark.parametrize("name", MODELS)
def test_a_sequence_has_the_same_bits_in_any_company(tmp_path, name):
    classifier(tmp_path / "m", **MODELS[name])
    model = runtime.load(tmp_path / "m")
    X = ragged(2)
    together = model.predict_proba(X)
    alone = np.concatenate([model.predict_proba(x[None]) for x in X])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(model.predict_proba(X[::-1]), together[::-1])
    few = model.predict_proba(X[:7])  # fewer than are hoisted for
    np.testing.assert_array_equal(few, together[:7])


def test_several_threads_may_ask_one_model(tmp_path):
    classifier(tmp_path / "m", cell="gru", num_layers=2)
    model, X = runtime.load(tmp_path / "m"), ragged(4)
    alone = runtime.load(tmp_path / "m").predict_proba(X)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: model.predict_proba(X), range(40)):
            np.testing.assert_array_equal(found, alone)


@pytest.mark.process
@pytest.mark.parametrize("name", one_in(4, ["gru", "max", "attention", "own"]))
def test_without_torch_and_on_every_instruction_set(tmp_path, name):
    """In processes of their own, in which importing torch fails."""
    classifier(tmp_path / "m", **MODELS[name])
    np.save(tmp_path / "X.npy", sequences(3))
    here = runtime.load(tmp_path / "m").predict_proba(sequences(3)).tobytes().hex()
    script = f"""
        import numpy as np, ostinato_learn
        model = ostinato_learn.runtime.load({str(tmp_path / "m")!r})
        print(model.predict_proba(np.load({str(tmp_path / "X.npy")!r})).tobytes().hex())
        assert "sklearn" not in sys.modules and "scipy" not in sys.modules
    """
    for isa in [isa for isa in native.available_isas() if isa != "base"]:
        for threads in ("1", "3"):
            there = without_torch(script, OSTINATO_ISA=isa, OSTINATO_NUM_THREADS=threads)
            assert there.strip() == here, (isa, threads)


def test_several_labels(tmp_path):
    y = np.stack([np.arange(40) % 2, np.arange(40) % 3 == 0, np.arange(40) % 5 == 0], 1).astype(int)
    model = classifier(tmp_path / "m", y)
    again = runtime.load(tmp_path / "m")
    X = sequences(1)
    np.testing.assert_allclose(again.predict_proba(X), model.predict_proba(X), rtol=0, atol=BOUND)
    assert (again.predict(X) == model.predict(X)).all()


def test_labels_are_numbers_where_they_were(tmp_path):
    classifier(tmp_path / "m", np.arange(40) % 2 + 7)
    assert set(runtime.load(tmp_path / "m").predict(sequences()).tolist()) <= {7, 8}


def test_a_user_s_input_is_prepared_as_in_the_training(tmp_path):
    from dataclasses import replace

    from ostinato_learn.models import saved_model

    classifier(tmp_path / "m")
    names = ("a", "b", "c")
    X = sequences() * 50 + 7
    preparation = Preparation.fit(Examples(X, features=names))
    prepared = replace(saved_model.load(tmp_path / "m"), preparation=preparation)
    saved_model.save(prepared, tmp_path / "p", {}, 3)
    model, in_torch = runtime.load(tmp_path / "p"), saved_model.load(tmp_path / "p")
    agrees(model.predict_proba(X), in_torch.predict_proba(X))
    assert model.n_features == 3
    X[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="X has NaN at example 0, step 0, feature 0"):
        model.predict(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((2, 3, 4), np.float32), "X has 4 features, but SequenceClassifier is expecting"),
        (np.full((2, 3, F), np.nan), "X has NaN at example 0"),
        (np.full((2, 3, F), np.inf), "X has inf at example 0"),
        (np.zeros((0, 3, F)), "X has no examples"),
        (np.zeros((2, 0, F)), "has no steps"),
        (np.zeros((3, F)), "X has 1 features"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, X, message):
    classifier(tmp_path / "m")
    with pytest.raises(ValueError, match=message):
        runtime.load(tmp_path / "m").predict(X)


def test_answers_that_are_not_finite_are_an_error(tmp_path):
    classifier(tmp_path / "m", cell="rnn")
    model = runtime.load(tmp_path / "m")
    tensors = {**model.tensors, "readout.weight": np.full((3, 8), 3e38, np.float32)}
    model.network.tensors = tensors
    with pytest.raises(ValueError, match=r"answer to example \d+ is not finite"):
        model.predict(sequences())


# ---- taggers and language models


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("crf", [False, True])
def test_taggers(tmp_path, crf, bidirectional):
    model = tagger(tmp_path / "m", crf=crf, bidirectional=bidirectional)
    again = runtime.load(tmp_path / "m")
    X = ragged(1)
    for ours, theirs in zip(again.predict_proba(X), model.predict_proba(X), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=8 * BOUND)
    labels = zip(again.predict(X), model.predict(X), strict=True)
    assert np.mean([np.mean(ours == theirs) for ours, theirs in labels]) > 0.99
    alone = [again.predict_proba(x) for x in X]
    for one, together in zip(alone, again.predict_proba(X), strict=True):
        np.testing.assert_array_equal(one, together)


@pytest.mark.parametrize("crf", [False, True])
def test_a_tagger_of_spans(tmp_path, crf):
    rng = np.random.default_rng(0)
    y = [
        [["O", "B-X", "I-X"][k] for k in np.minimum(rng.integers(0, 3, STEPS).cumsum(), 2)]
        for _ in range(40)
    ]
    y = [
        ["B-X" if t == "I-X" and (i == 0 or row[i - 1] == "O") else t for i, t in enumerate(row)]
        for row in y
    ]
    model = tagger(tmp_path / "m", y, scheme="iob2", crf=crf)
    again = runtime.load(tmp_path / "m")
    for ours, theirs in zip(again.predict(ragged(1)), model.predict(ragged(1)), strict=True):
        assert ours.tolist() == theirs.tolist()


TEXTS = ["what a fine day", "no, not at all!", "fine, fine", "not a day", "what"] * 8


@pytest.mark.parametrize("ensemble", [1, 3])
@pytest.mark.parametrize("readout", ["last", "attention"])
def test_classifiers_of_texts(tmp_path, ensemble, readout):
    y = np.array(["good", "bad", "good", "bad", "so"])[np.arange(40) % 5]
    model = ostinato_learn.SequenceClassifier(
        hidden_size=8, iterations=5, random_state=0, ensemble=ensemble, readout=readout
    )
    model.fit(TEXTS, y).save(tmp_path / "m")
    again = runtime.load(tmp_path / "m")
    X = [*TEXTS[:5], "an unheard of word"]
    agrees(again.predict_proba(X), model.predict_proba(X))
    assert again.predict(X).tolist() == model.predict(X).tolist()
    together = again.predict_proba(X)
    for x, row in zip(X, together, strict=True):
        np.testing.assert_array_equal(again.predict_proba([x])[0], row)
    assert runtime.verify(tmp_path / "m").n_different == 0
    with pytest.raises(ValueError, match="X has numbers, but the model was trained with words"):
        again.predict(sequences())


@pytest.mark.parametrize("parameters", [{}, {"character_size": 0}, {"crf": True, "cell": "lstm"}])
def test_taggers_of_words(tmp_path, parameters):
    X = [text.split() for text in TEXTS]
    y = [[word[:1] for word in words] for words in X]
    defaults = {"hidden_size": 8, "iterations": 5, "cell": "gru", "random_state": 0}
    defaults |= {"embedding_size": 6, "character_size": 5}
    model = ostinato_learn.SequenceTagger(**defaults | parameters).fit(X, y)
    model.save(tmp_path / "m")
    again = runtime.load(tmp_path / "m")
    some = [*X[:5], ["some", "wholly", "unheard", "words"]]
    for ours, theirs in zip(again.predict_proba(some), model.predict_proba(some), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=8 * BOUND)
    for ours, theirs in zip(again.predict(some), model.predict(some), strict=True):
        assert ours.tolist() == theirs.tolist()
    for x, together in zip(some, again.predict_proba(some), strict=True):
        np.testing.assert_array_equal(again.predict_proba(x), together)
    assert runtime.verify(tmp_path / "m").n_different == 0


def test_language_models(tmp_path):
    model = language_model(tmp_path / "m", cell="lstm")
    again = runtime.load(tmp_path / "m")
    for text in ("", "to be or n"):
        (best,) = again.predict([text])
        assert best == model.suggest(text, 1)[0].text
        (probabilities,) = again.predict_proba([text])
        assert probabilities.shape == (len(text) + 1, len(again.labels))
        (suggested,) = model.suggest(text, 1)
        place = again.labels.tolist().index(suggested.text)
        known = probabilities[-1, 2:].sum()  # suggested are tokens of a text alone
        assert abs(probabilities[-1, place] / known - suggested.probability) < 1e-4


@pytest.mark.parametrize("level", ["character", "word", "piece"])
def test_what_comes_next_is_the_same_everywhere(tmp_path, level, capsys):
    """The last word of a document is a word, in Python as on the command line."""
    model = language_model(tmp_path / "m", level=level, iterations=30)
    texts = ["to be", "or not to", "zebras", "to be or n"]
    wanted = [model.suggest(text, 1, complete=False)[0] for text in texts]
    assert runtime.load(tmp_path / "m").predict(texts) == [best.text for best in wanted]
    for text, best in zip(texts, wanted, strict=True):
        (tmp_path / "document.txt").write_text(text)
        assert main(["predict", str(tmp_path / "m"), str(tmp_path / "document.txt")]) == 0
        (_, row) = csv.reader(io.StringIO(capsys.readouterr().out))
        assert row[:2] == ["0", best.text]
        assert abs(float(row[2]) - best.probability) < 1e-5


@pytest.mark.parametrize("level", ["character", "word", "piece"])
def test_a_seed_writes_the_same_text_as_in_torch(tmp_path, level):
    """A draw could differ where it falls within the rounding of a score, some 1e-6 of all."""
    model = language_model(tmp_path / "m", level=level, iterations=30, tied=False)
    again = runtime.load(tmp_path / "m")
    n_tokens = 0
    for seed in range(20):
        how = {"temperature": 1.5, "top_k": 9, "top_p": 0.9, "seed": seed}
        made = model.generate("to be", 60, **how)
        assert again.generate("to be", 60, **how) == made
        n_tokens += made.n_tokens
    assert n_tokens > 30
    assert again.generate("to", 30, temperature=0) == model.generate("to", 30, temperature=0)
    with pytest.raises(ValueError, match="temperature=inf; wanted 0 or more, and finite"):
        again.generate("to", 3, temperature=np.inf)


@pytest.mark.parametrize("season", [1, 6])
@pytest.mark.parametrize("scaling", ["std", "mean_abs"])
def test_forecasters(tmp_path, scaling, season):
    rng = np.random.default_rng(0)
    series = [np.sin(np.arange(n) / 3) * 50 + rng.normal(size=n) + 900 for n in (60, 44, 80)]
    model = ostinato_learn.SequenceForecaster(
        horizon=4, season=season, scaling=scaling, hidden_size=6, iterations=5, random_state=0
    )
    model.fit(series).save(tmp_path / "m")
    again = runtime.load(tmp_path / "m")
    series[1][-3] = np.nan
    ours, theirs = again.predict_quantiles(series), model.predict_quantiles(series)
    # The values are those of windows with deviation 35, or of size 900; two more products than of
    # a classifier, and sums of 4 quantiles.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=8 * BOUND * 900)
    np.testing.assert_array_equal(again.predict(series), ours[:, :, 4])
    alone = np.concatenate([again.predict_quantiles([one]) for one in series])
    np.testing.assert_array_equal(ours, alone)
    assert runtime.verify(tmp_path / "m").n_different == 0
    assert again.labels.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    with pytest.raises(ValueError, match="scales each window as a whole"):
        again.graph.composed()


def test_a_forecaster_with_inputs_of_all_sorts(tmp_path):
    rng = np.random.default_rng(0)
    X = [np.column_stack([rng.normal(size=n), rng.normal(size=n)]) for n in (40, 50)]
    future = [rng.normal(size=(n + 3, 2)) for n in (40, 50)]
    static = rng.normal(size=(2, 1))
    settings = {"hidden_size": 6, "iterations": 3, "random_state": 0}
    model = ostinato_learn.SequenceForecaster(horizon=3, **settings)
    model.fit(X, future=future, static=static).save(tmp_path / "m")
    again = runtime.load(tmp_path / "m")
    given = {"future": future, "static": static}
    np.testing.assert_allclose(
        again.predict(X, **given), model.predict(X, **given), rtol=0, atol=8 * BOUND
    )
    with pytest.raises(ValueError, match="future has 0 columns; wanted 2"):
        again.predict(X, static=static)
    given["future"] = [f[:-1] for f in future]
    with pytest.raises(ValueError, match="reaches 2 steps beyond the end of series 0"):
        again.predict(X, **given)


def test_what_has_no_graph_says_so(tmp_path):
    classifier(tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text()) | {"graph": None, "without_graph": "it is too old"}
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"has no graph: it is too old. Such a model needs torch"):
        runtime.load(tmp_path / "m")
    assert ostinato_learn.load(tmp_path / "m").predict(sequences()).shape == (40,)


def test_another_format_says_what_to_do(tmp_path):
    classifier(tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text())
    for version, message in (
        (9, r"format 9, and this version of ostinato reads 1: install ostinato 0\.1\.0"),
        (0, "format '0'; wanted 1"),
        (True, "format 'True'; wanted 1"),
        ("x", "format 'x'"),
    ):
        file.write_text(json.dumps(config | {"format": version}))
        with pytest.raises(ValueError, match=message):
            runtime.load(tmp_path / "m")
