"""`Dataset`: training and test examples."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Split(NamedTuple):
    """N examples and their labels; unpacks as `X, y`."""

    X: Any  # [N, T, F] float32, or a Ragged
    y: np.ndarray  # [N] int64


class Dataset(NamedTuple):
    """Unpacks as `(X, y), (X_test, y_test)`."""

    train: Split
    test: Split
