"""Some thousands of damaged models; `fuzz.py` tries as many as one likes."""

from __future__ import annotations

import random

import fuzz as fuzz_module
import numpy as np
import pytest
from fuzz import changed, files_of, fuzz, peak_bytes
from saved_models import Leaky, classifier, forecaster, language_model, tagger, words_tagger

pytestmark = pytest.mark.slow

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
    assert found["answered"] > 10  # some files were valid, and their models were run


def test_reading_a_model_takes_no_more_memory_than_its_files(tmp_path):
    """So that it takes twice their size in all."""
    classifier(tmp_path / "m", cell="gru", hidden_size=300)
    files = files_of(tmp_path / "m")
    size = sum(map(len, files.values()))
    assert size > 1_000_000
    assert peak_bytes(files["config.json"], files["model.safetensors"]) < size


SMALL = 1 << 20  # bytes of Python's objects for the graph of a small model


@pytest.mark.parametrize("name", ["gru", "words", "language"])
def test_reading_a_damaged_model_takes_little_memory(tmp_path, name):
    MODELS[name](tmp_path / "m")
    files, rng = files_of(tmp_path / "m"), random.Random(0)
    for _ in range(200):
        config, tensors = changed(files, rng)
        assert peak_bytes(config, tensors) < len(config) + len(tensors) + SMALL


def test_memory_beyond_that_would_be_seen(tmp_path, monkeypatch):
    MODELS["gru"](tmp_path / "m")
    config, tensors = files_of(tmp_path / "m").values()
    made = fuzz_module.made
    monkeypatch.setattr(fuzz_module, "made", lambda *a: np.ones(SMALL).any() and made(*a))
    assert peak_bytes(config, tensors) > 8 * SMALL
