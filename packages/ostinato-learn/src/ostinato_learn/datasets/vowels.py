"""Japanese Vowels: nine speakers, to be recognised by how they say two vowels."""

from __future__ import annotations

import gzip
import io

import numpy as np

from ostinato_learn.data.formats.ts import parse_ts
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.datasets.integrity import shipped
from ostinato_learn.datasets.split import Dataset, Split


def vowels() -> Dataset:
    """Utterances of the vowels /ae/ by nine men; the label is the speaker.

    M. Kudo, J. Toyama, M. Shimbo (1999), "Multidimensional curve classification using
    passing-through regions", Pattern Recognition Letters 20. UCI Machine Learning Repository,
    doi:10.24432/C5NS47, CC BY 4.0.

    Returns:
        `Dataset(train, test)`, each `Split(X, y)`: X a `Ragged` of 270 and 370 sequences of 7–29
        steps with 12 features (LPC cepstrum coefficients); y `[N]` int64, the speakers 1–9.

    Raises:
        OSError: a file of the installation is missing or damaged.

    Example:
        >>> from ostinato_learn import datasets
        >>> (X, y), (X_test, y_test) = datasets.vowels()
        >>> X
        Ragged(270 sequences of 7 to 26 steps, 12 features)
        >>> len(X_test), X[0].shape, y[:2]
        (370, (20, 12), array([1, 1]))
    """
    return Dataset(_split("TRAIN"), _split("TEST"))


def _split(part: str) -> Split:
    name = f"vowels/JapaneseVowels_{part}.ts.gz"
    X, y = parse_ts(io.BytesIO(gzip.decompress(shipped(name))), name)
    assert isinstance(X, Ragged) and y is not None  # its digest was compared
    return Split(X, y.astype(np.int64))
