"""`Tagger`: it learns, answers, is saved and read, without scikit-learn."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from tagging_examples import above_or_below, sentences, tagged
from training_examples import assert_same_end

from ostinato_learn.hyperparameters import Architecture
from ostinato_learn.metrics.spans import span_scores, spans, to_iob2
from ostinato_learn.models.saved_model import load, save
from ostinato_learn.tasks.tag import model
from ostinato_learn.tasks.tag.fit import Tagged, fit
from ostinato_learn.tasks.tag.loss import TaggerSettings
from ostinato_learn.tasks.tag.model import Tagger
from ostinato_learn.training import Callback, Checkpoint, Plan

MODEL = Architecture(cell="gru", hidden_size=8, bidirectional=True)
WORDS = TaggerSettings(embedding_size=4, character_size=6)


def plan(iterations: int = 2, **more) -> Plan:
    settings = {"optimizer": "adam", "learning_rate": 0.02, "batch_size": 10}
    return Plan(iterations=iterations, **settings | more)


def fitted(given: Tagged, settings=TaggerSettings(), iterations=2, model=MODEL) -> Tagger:  # noqa: B008
    return fit(given, model, settings, plan(iterations))[0]


def right_share(true, predicted):
    return np.mean(np.concatenate(true) == np.concatenate(predicted))


@pytest.mark.parametrize("crf", [False, True])
def test_it_learns_the_sign_of_a_sum(crf):
    X, y = above_or_below(100)
    settings = TaggerSettings(crf=crf)
    tagger = fitted(Tagged.of(X, y), settings, 120, replace(MODEL, bidirectional=False))
    new, labels = above_or_below(50, seed=1)
    assert right_share(labels, tagger.predict(new)) > 0.9
    assert tagger.predict(new)[0].dtype == np.dtype("<U5")


@pytest.mark.parametrize(("character_size", "low", "high"), [(6, 0.95, 1), (0, 0.2, 0.7)])
def test_unknown_words_are_known_by_their_characters(character_size, low, high):
    X, y = sentences(80)
    settings = replace(WORDS, character_size=character_size)
    tagger = fitted(Tagged.of(X, y), settings, 80)
    new, labels = sentences(40, seed=1)
    new = [[f"z{word}" for word in words] for words in new]
    measures = tagger.evaluate(new, labels)
    assert low < measures["accuracy"] <= high
    assert measures["unknown"] == 1 and tagger.evaluate(X, y)["unknown"] == 0


@pytest.mark.parametrize("crf", [False, True])
def test_measures_are_those_of_the_answers(crf):
    given = tagged()
    X, y = above_or_below(23)
    tagger = fitted(given, TaggerSettings(crf=crf), 20)
    shares = tagger.predict_proba(X)
    assert [each.shape for each in shares] == [(len(x), 2) for x in X]
    np.testing.assert_allclose(np.concatenate(shares).sum(1), 1, atol=1e-5)
    measures = tagger.evaluate(X, y)
    assert measures["n"] == sum(map(len, X))
    assert measures["accuracy"] == pytest.approx(right_share(y, tagger.predict(X)))
    if not crf:
        right = np.concatenate(
            [p[np.arange(len(b)), (b == "below").astype(int)] for p, b in zip(shares, y)]  # noqa: B905
        )
        assert measures["loss"] == pytest.approx(-np.log(right).mean(), rel=1e-5)
        assert all(
            (tagger.classes[p.argmax(1)] == a).all()
            for p, a in zip(shares, tagger.predict(X), strict=True)
        )


def test_one_sequence_is_answered_as_one():
    tagger = fitted(tagged(), iterations=20)
    X, _ = above_or_below(3)
    for x, labels, shares in zip(X, tagger.predict(X), tagger.predict_proba(X), strict=True):
        if len(x) > 1:
            assert tagger.predict(x).tolist() == labels.tolist()
            np.testing.assert_allclose(tagger.predict_proba(x), shares, atol=1e-6)
    words = fitted(Tagged.of(*sentences(20)), WORDS)
    assert words.predict(["aba", "cab"]).tolist() == words.predict([["aba", "cab"]])[0].tolist()


@pytest.mark.parametrize("scheme", ["iob2", "iobes", "bilou"])
@pytest.mark.parametrize("crf", [False, True])
def test_spans_come_in_any_scheme_and_go_as_valid_iob2(scheme, crf):
    X, y = sentences(30)
    letters = {"iob2": "BIIB", "iobes": "BIES", "bilou": "BILU"}[scheme]
    given = []
    for tags in y:
        out = []
        for tag, after in zip(tags, [*tags[1:], "O"], strict=True):
            closes = not after.startswith("I")
            index = {"B": 3 if closes else 0, "I": 2 if closes else 1}.get(tag[0])
            out.append(tag if index is None else letters[index] + tag[1:])
        given.append(out)
    settings = replace(WORDS, scheme=scheme, crf=crf)
    tagger = fitted(Tagged.of(X, given, scheme), settings, 1)
    assert tagger.classes.tolist() == ["B-one", "B-two", "I-two", "O"]
    with torch.no_grad():
        tagger.net.readout.bias[2] = 3.0  # "I-two" at every step, if it were free to choose
    answers = [each.tolist() for each in tagger.predict(X)]
    for tags in answers:
        assert to_iob2(tags, "iob2") == tags  # refuses what is not valid
    assert any(tag.startswith("I") for tags in answers for tag in tags)
    measures = tagger.evaluate(X, given)
    wanted = span_scores(y, answers)
    assert {name: measures[name] for name in ("precision", "recall", "f1")} == {
        "precision": wanted.precision,
        "recall": wanted.recall,
        "f1": wanted.f1,
    }
    assert sum(len(spans(tags)) for tags in y) > 0


def test_spans_are_measured_some_at_a_time_by_the_place_of_their_labels(monkeypatch):
    """Whatever a column of a data frame calls its rows."""
    pandas = pytest.importorskip("pandas")
    X, y = sentences(30)
    tagger = fitted(Tagged.of(X, y, "iob2"), replace(WORDS, scheme="iob2"), 20)
    wanted = tagger.evaluate(X, y)
    assert wanted["f1"] > 0
    monkeypatch.setattr(model, "SPANS_AT_ONCE", 20)
    for index in (range(30), range(30)[::-1], [f"row {i}" for i in range(30)], np.arange(30) / 2):
        assert tagger.evaluate(X, pandas.Series(y, index=index)) == wanted


def test_the_task_knows_the_rare_words_and_the_allowed_labels():
    X, y = sentences(30)
    tasks = []

    class Look(Callback):
        def on_start(self, run):
            tasks.append(run.task)

    settings = replace(WORDS, scheme="iob2", vocabulary_size=50)
    given = Tagged.of(X, y, "iob2")
    trained, _ = fit(given, MODEL, settings, plan(1), callbacks=[Look()])
    flat = [word for words in X for word in words]
    once = [False, *(flat.count(word) == 1 for word in trained.vocabulary.words)]
    assert tasks[0].once.tolist() == once and any(once) and not all(once[1:])
    follow, first = tasks[0].allowed
    classes = trained.classes.tolist()
    assert [classes[i] for i in np.flatnonzero(~first)] == ["I-two"]
    assert not follow[classes.index("B-one"), classes.index("I-two")]
    assert follow[classes.index("B-two")].all()


def test_features_are_standardised_by_the_training_part_alone():
    X, y = above_or_below(30)
    wide = [np.column_stack([1e4 * x[:, 0] + 7, np.full(len(x), 5.0)]) for x in X]
    narrow = [np.column_stack([x[:, 0], np.zeros(len(x))]) for x in X]
    given = Tagged.of(wide, y).validated_by([1e9 * x for x in wide], y)
    tagger = fitted(given, iterations=20)
    values = np.concatenate(wide)
    assert tagger.scale.mean == pytest.approx(values.mean(0))
    assert tagger.scale.deviation == (pytest.approx(values[:, 0].std()), 1.0)
    same = fitted(Tagged.of(narrow, y), iterations=20)
    for one, other in zip(tagger.predict_proba(wide), same.predict_proba(narrow), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    raw = fitted(Tagged.of(narrow, y), TaggerSettings(standardize=False))
    assert raw.scale is None


def test_the_same_bits_also_interrupted_and_resumed(tmp_path):
    class Stop(Callback):
        def on_iteration(self, run):
            if run.iteration == 7:
                raise KeyboardInterrupt

    X, y = sentences(40)
    model = replace(MODEL, dropout=0.3)
    settings = replace(WORDS, crf=True, scheme="iob2")

    def train(**more):
        given = Tagged.of(X, y, "iob2").split(0.25, 0)
        trained, history = fit(given, model, settings, plan(12, eval_every=4, warmup=2), **more)
        return trained.net, history

    whole = train()
    with pytest.raises(KeyboardInterrupt):
        train(callbacks=[Checkpoint(tmp_path / "c", every=5), Stop()])
    assert_same_end(train(resume=tmp_path / "c"), whole)
    assert "validation_accuracy" in whole[1].reports[0]
    assert whole[1].reports[0]["learning_rate"] < 0.02


@pytest.mark.parametrize("crf", [False, True])
def test_a_loaded_tagger_is_the_saved_one(tmp_path, crf):
    X, _ = above_or_below(23)
    numbers = fitted(tagged(), TaggerSettings(crf=crf))
    words = fitted(Tagged.of(*sentences(20), "iob2"), replace(WORDS, crf=crf, scheme="iob2"))
    for i, (tagger, given) in enumerate(((numbers, X), (words, sentences(20)[0]))):
        save(tagger, tmp_path / str(i), {}, 2)
        again = load(tmp_path / str(i))
        assert again.classes.dtype == tagger.classes.dtype and again.scheme == tagger.scheme
        pairs = zip(again.predict_proba(given), tagger.predict_proba(given), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs)
        pairs = zip(again.predict(given), tagger.predict(given), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs)
        save(again, tmp_path / "again", {}, 2)
        for name in ("config.json", "model.safetensors"):
            one = (tmp_path / "again" / name).read_bytes()
            assert one == (tmp_path / str(i) / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": {"dtype": "<U1", "values": ["a"]}}, "1 labels for a network of 4"),
        ({"vocabulary": None}, "or the network is for words"),
        ({"vocabulary": {"words": ["a"], "characters": "a"}}, "2 words for a network of"),
        ({"scheme": "iob9"}, "'scheme' is 'iob9'"),
        ({"scale": 3}, "'scale' is 3"),
        ({"scale": {"mean": [0.0], "deviation": [1.0]}}, "wanted means and positive"),
    ],
)
def test_a_damaged_model_is_named(tmp_path, change, message):
    save(fitted(Tagged.of(*sentences(20)), WORDS), tmp_path / "m", {}, 2)
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text())
    config["fitted"] |= change
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "m")


def test_what_does_not_fit_the_training_is_named():
    tagger, words = fitted(tagged()), fitted(Tagged.of(*sentences(20)), WORDS)
    for call, message in [
        (lambda: tagger.predict([np.zeros((2, 3))]), "X has 3 features, but .* expecting 2"),
        (lambda: tagger.predict([["a"]]), "X has words, but the model was trained with numbers"),
        (lambda: words.predict([[1.0]]), "X has numbers, but the model was trained with words"),
        (lambda: tagger.evaluate([np.zeros((1, 2))], [["left"]]), "the label 'left', which was"),
        (lambda: Tagged.of([np.zeros((2, 2))], [["a", "a"]]), "y has one class only, 'a'"),
        (lambda: tagged(3).split(0.1, 0), "of 3 sequences leaves 0 for validation and 3"),
        (lambda: tagged().validated_by([np.zeros((2, 3))], [["above"] * 2]), "X has 3 features"),
        (lambda: fitted(tagged(), model=replace(MODEL, init="notebook")), "init='notebook' is for"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with torch.no_grad():
        tagger.net.readout.weight.fill_(torch.inf)
    with pytest.raises(ValueError, match="the network's answer to example 0 is not finite"):
        tagger.predict([np.zeros((2, 2))])


def test_the_split_takes_whole_sequences():
    given = tagged(20)
    parts = given.split(0.25, 1)
    held = parts.validation
    assert (len(parts.y), len(held[1])) == (15, 5)
    rows = [tuple(x[:, 0].tolist()) for x in [*parts.X, *held[0]]]
    assert sorted(rows) == sorted(tuple(x[:, 0].tolist()) for x in given.X)
    again = given.split(0.25, 1)
    assert np.array_equal(again.y.values, parts.y.values)


@pytest.mark.slow
@pytest.mark.process
def test_it_needs_no_scikit_learn(tmp_path):
    script = f"""
        import sys
        sys.modules["sklearn"] = None  # an import of it fails
        from ostinato_learn.hyperparameters import Architecture
        from ostinato_learn.training import Plan
        from ostinato_learn.tasks.tag.fit import Tagged, fit
        from ostinato_learn.tasks.tag.model import Tagger
        from ostinato_learn.models.saved_model import load, save
        from ostinato_learn.tasks.tag.loss import TaggerSettings
        given = Tagged.of([["a", "b"], ["b"]], [["x", "y"], ["y"]])
        trained, _ = fit(
            given, Architecture(hidden_size=2), TaggerSettings(crf=True), Plan(iterations=1)
        )
        from pathlib import Path
        save(trained, Path({str(tmp_path / "m")!r}), {{}}, 1)
        assert len(load({str(tmp_path / "m")!r}).predict([["c"]])[0]) == 1
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
