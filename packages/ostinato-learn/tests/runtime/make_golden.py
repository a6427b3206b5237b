"""Models of a release, to be read by all later ones: `python make_golden.py 0.1.0`.

Run once, before the release; what it makes stays in the tests.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from saved_models import Leaky, classifier, forecaster, language_model, tagger, words_tagger

GOLDEN = Path(__file__).parent / "golden"


def make(version: str) -> None:
    place = GOLDEN / version
    shutil.rmtree(place, ignore_errors=True)
    small = {"hidden_size": 3}
    labels = np.stack([np.arange(40) % 2, np.arange(40) % 3 == 0], axis=1).astype(int)
    classifier(place / "rnn", cell="rnn", readout="max", **small)
    classifier(place / "gru", cell="gru", num_layers=2, readout="attention", **small)
    classifier(place / "lstm", cell="lstm", bidirectional=True, **small)
    classifier(place / "ensemble", cell="gru", ensemble=2, readout="mean", **small)
    classifier(place / "several", labels, cell="gru", **small)
    classifier(place / "own", cell=Leaky, **small)
    tagger(place / "tagger", crf=True, **small)
    words_tagger(place / "words")
    forecaster(place / "forecaster")
    language_model(place / "language", cell="lstm", **small)


if __name__ == "__main__":
    make(sys.argv[1])
