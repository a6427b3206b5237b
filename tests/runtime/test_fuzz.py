"""Some thousands of damaged models; `fuzz.py` tries as many as one likes."""

from __future__ import annotations

import pytest
from fuzz import files_of, fuzz
from saved_models import Leaky, classifier, forecaster, language_model, tagger, words_tagger

MODELS = {
    "gru": lambda path: classifier(path, cell="gru", readout="attention", hidden_size=3),
    "own": lambda path: classifier(path, cell=Leaky, bidirectional=True, hidden_size=3),
    "ensemble": lambda path: classifier(path, ensemble=2, hidden_size=2),
    "tagger": lambda path: tagger(path, crf=True, hidden_size=3),
    "words": lambda path: words_tagger(path),
    "forecaster": lambda path: forecaster(path),
    "language": lambda path: language_model(path, hidden_size=3),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_damaged_model_answers_or_is_refused(tmp_path, name):
    MODELS[name](tmp_path / "m")
    found = fuzz(files_of(tmp_path / "m"), 800)
    assert found["refused"] > 500  # most changes are seen
    assert found["answered"] > 10  # some are none, and what they made was played
