"""Weights as int8, with one scale for each row of a layer's matrix.

    w[k, n] = scale[n] · q[k, n],   scale[n] = max_k |w[k, n]| / 127,   q whole, −127 … 127

n is a unit that the layer computes: a row of torch.nn's `[units, inputs]`. States and sums stay
float32. An entry is off by at most half a scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Quantized:
    """A weight `[K, N]`.

    Attributes:
        values: `[K, N]` int8.
        scale: `[N]` float32.
    """

    values: Array
    scale: Array

    @property
    def weight(self) -> Array:
        """The represented weights, `[K, N]` float32."""
        return self.values.astype(np.float32) * self.scale


def quantized(weight: Array) -> Quantized:
    """The nearest int8 weight `[K, N]`; a column of zeros stays zero.

    Example:
        >>> q = quantized(np.array([[1.0, 0.0], [-0.5, 0.0]], np.float32))
        >>> q.values.tolist(), round(float(q.weight[1, 0]), 3)
        ([[127, 0], [-64, 0]], -0.504)
    """
    largest = np.abs(weight).max(0)
    scale = (largest / 127).astype(np.float32)
    divisor = np.where(scale > 0, scale, 1)
    values = np.clip(np.rint(weight / divisor), -127, 127).astype(np.int8)
    return Quantized(values, scale)
