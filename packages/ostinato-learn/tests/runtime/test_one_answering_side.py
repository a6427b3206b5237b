"""An estimator that was fitted and the model that it saved answer by the same code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saved_models import classifier, forecaster, language_model, sequences, tagger, words_tagger

import ostinato_learn
from ostinato_learn import runtime

WAVES = [np.sin(np.arange(n) / 3) for n in (50, 40)]
ASKED = {
    "classes": (classifier, lambda model: model.predict_proba(sequences())),
    "both ways": (
        lambda path: classifier(path, bidirectional=True, readout="attention", ensemble=2),
        lambda model: model.predict_proba(sequences()),
    ),
    "tags": (tagger, lambda model: np.concatenate(model.predict_proba(list(sequences())))),
    "crf": (
        lambda path: words_tagger(path, crf=True),
        lambda model: np.concatenate(model.predict_proba([["to", "be"], ["or"]])),
    ),
    "series": (forecaster, lambda model: model.predict_quantiles(WAVES)),
    "tokens": (
        language_model,
        lambda model: np.array([s.probability for s in model.suggest("to b", 3)]),
    ),
}


@pytest.mark.parametrize("case", ASKED)
def test_the_bits_are_the_same_and_follow_the_weights(tmp_path, case):
    make, asked = ASKED[case]
    estimator = make(tmp_path / "m")
    found = asked(estimator)
    for saved in (ostinato_learn.load(tmp_path / "m"), runtime.load(tmp_path / "m")):
        np.testing.assert_array_equal(asked(saved), found)
    with torch.no_grad():
        for weight in estimator.net_.parameters():
            weight.mul_(2)
    changed = asked(ostinato_learn.load(tmp_path / "m")), asked(estimator)
    np.testing.assert_array_equal(changed[0], found)
    if case != "tokens":  # whose text was read already
        assert not np.array_equal(changed[1], found)
    estimator.save(tmp_path / "again")
    np.testing.assert_array_equal(
        asked(runtime.load(tmp_path / "again")), asked(ostinato_learn.load(tmp_path / "again"))
    )
