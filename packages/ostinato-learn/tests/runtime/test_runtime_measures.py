"""The measures of a saved model without torch are those of the network in torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from saved_models import Leaky, N, classifier, forecaster, language_model, sequences, tagger

from ostinato.engine import native
from ostinato_learn import SequenceTagger, runtime
from ostinato_learn.data.series.panel import as_panel
from ostinato_learn.models.module_network import ModuleNetwork
from ostinato_learn.tasks.tag.labelling import nats

LABELS = np.array(["down", "up", "still"])[np.arange(N) % 3]
SIGNS = list((sequences().cumsum(1).sum(2) > 0).astype(int))
SEVERAL = np.random.default_rng(0).integers(0, 2, (N, 3))
WORDS = [["to", "be"], ["or", "not", "to", "be"], ["bee"]] * 8
TAGS = [["B-x" if word[0] == "t" else "O" for word in words] for words in WORDS]
WAVES = as_panel([np.sin(np.arange(n) / 3) for n in (50, 40)])
TEXTS = ["to be or not to be", "that is 7"]


def words_tagger(path, crf):
    sizes = {"hidden_size": 3, "embedding_size": 2, "character_size": 2, "iterations": 5}
    model = SequenceTagger(cell="gru", **sizes, random_state=0, crf=crf, scheme="iob2")
    model.fit(WORDS, TAGS).save(path)
    return model


CASES = {
    "classes": (lambda p: classifier(p), (sequences(), LABELS)),
    "own cell": (lambda p: classifier(p, cell=Leaky), (sequences(), LABELS)),
    "several labels": (lambda p: classifier(p, y=SEVERAL), (sequences(), SEVERAL)),
    "tags": (lambda p: tagger(p), (sequences(), SIGNS)),
    "crf": (lambda p: tagger(p, crf=True), (sequences(), SIGNS)),
    "spans": (lambda p: words_tagger(p, False), (WORDS, TAGS)),
    "spans, crf": (lambda p: words_tagger(p, True), (WORDS, TAGS)),
    "series": (lambda p: forecaster(p), (WAVES,)),
    "series, 3 windows": (lambda p: forecaster(p), (WAVES, 3)),
    "series, overlapping windows": (lambda p: forecaster(p), (WAVES, 4, 1)),
    "characters": (lambda p: language_model(p), (TEXTS,)),
    "words": (lambda p: language_model(p, level="word"), (TEXTS,)),
}


@pytest.mark.parametrize("case", CASES)
def test_measures_are_those_of_the_network(tmp_path, monkeypatch, case):
    """Answers are float32, with a relative error of some 2⁻²³; a loss is a mean of their logs."""
    make, data = CASES[case]
    model = make(tmp_path / "m")._fitted()
    with monkeypatch.context() as m:
        m.setattr(native, "unavailable", lambda: "there is no vector unit")
        network = ModuleNetwork(model.net, several=model.network.several)
        assert network.played is None
        wanted = replace(model, network=network).evaluate(*data)
    found = runtime.load(tmp_path / "m").evaluate(*data)
    assert found == {name: pytest.approx(value, rel=2e-6) for name, value in wanted.items()}


def test_series_are_measured_as_they_are_forecast(tmp_path):
    forecaster(tmp_path / "m")
    model = runtime.load(tmp_path / "m")
    series = [np.sin(np.arange(n) / 3) for n in (30, 25)]
    assert model.evaluate(series, windows=2) == model.evaluate(as_panel(series), windows=2)


def test_a_probability_of_0_has_a_loss():
    probability = np.array([0, 2.0**-149, 0.5], np.float32)
    np.testing.assert_allclose(nats(probability), [149 * np.log(2), 149 * np.log(2), np.log(2)])


def test_labels_that_do_not_fit_are_refused(tmp_path):
    classifier(tmp_path / "m")
    model = runtime.load(tmp_path / "m")
    with pytest.raises(ValueError, match="'sideways', which was not trained"):
        model.evaluate(sequences(), ["sideways"] * N)
    with pytest.raises(ValueError, match=f"X has {N} examples and y has 3"):
        model.evaluate(sequences(), LABELS[:3])
    forecaster(tmp_path / "f")
    with pytest.raises(ValueError, match="no series has a value to forecast"):
        runtime.load(tmp_path / "f").evaluate(as_panel([[1.0, 2.0]]))
    language_model(tmp_path / "l")
    with pytest.raises(ValueError, match="2 documents have no character"):
        runtime.load(tmp_path / "l").evaluate(["", ""])
