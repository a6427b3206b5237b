"""MNIST: 70,000 handwritten digits, read as sequences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ostinato_learn.data.formats.idx import read_idx
from ostinato_learn.datasets.integrity import shipped
from ostinato_learn.datasets.split import Dataset, Split

# The order in which the literature on orthogonal RNNs reads permuted MNIST, since Helfrich,
# Willmott and Ye (2018), "Orthogonal Recurrent Neural Networks with Scaled Cayley Transform".
# RandomState is NumPy's frozen generator: its numbers never change.
PERMUTATION_SEED = 92916


def permutation() -> np.ndarray:
    """The fixed order of `mnist("permuted")`: `[784]` int64, step t shows pixel permutation[t]."""
    return np.random.RandomState(PERMUTATION_SEED).permutation(28 * 28).astype(np.int64)


# images [N, 28, 28] → sequences [N, T, F]
_READINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rows": lambda images: images,
    "columns": lambda images: images.transpose(0, 2, 1),
    "pixels": lambda images: images.reshape(-1, 28 * 28, 1),
    "permuted": lambda images: images.reshape(-1, 28 * 28, 1)[:, permutation()],
}


def mnist(as_sequence: str = "rows") -> Dataset:
    """Handwritten digits as sequences, 60,000 for training and 10,000 for testing.

    The MNIST database by Yann LeCun, Corinna Cortes and Christopher J. C. Burges, CC BY-SA 3.0.

    Args:
        as_sequence: how an image of 28×28 pixels is read.
            "rows": from top to bottom, T = 28 steps of F = 28 pixels;
            "columns": from left to right, T = 28, F = 28;
            "pixels": pixel by pixel along the rows, T = 784, F = 1;
            "permuted": pixel by pixel in one fixed random order, T = 784, F = 1.
            The last two are the field's tests of long memory.

    Returns:
        `Dataset(train, test)`, each `Split(X, y)`: X `[N, T, F]` float32 from 0 (paper) to 1
        (ink), C-contiguous; y `[N]` int64, the digits 0–9.

    Raises:
        ValueError: `as_sequence` is not one of these.
        OSError: a file of the installation is missing or damaged.

    Example:
        >>> from ostinato_learn import datasets
        >>> (X, y), (X_test, y_test) = datasets.mnist()
        >>> X.shape, X_test.shape, y[:5]
        ((60000, 28, 28), (10000, 28, 28), array([5, 0, 4, 1, 9]))
    """
    if as_sequence not in _READINGS:
        raise ValueError(
            f"mnist: as_sequence is {as_sequence!r}; wanted one of {', '.join(_READINGS)}"
        )
    return Dataset(_split("train", as_sequence), _split("t10k", as_sequence))


def _split(part: str, as_sequence: str) -> Split:
    images = read_idx(shipped(f"mnist/{part}-images-idx3-ubyte.gz"))
    labels = read_idx(shipped(f"mnist/{part}-labels-idx1-ubyte.gz"))
    X = np.ascontiguousarray(_READINGS[as_sequence](images), dtype=np.float32)
    X /= 255
    return Split(X, labels.astype(np.int64))
