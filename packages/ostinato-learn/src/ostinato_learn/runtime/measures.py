"""`nats`: the loss of a probability.

A loss is made of float32 probabilities: one that was rounded to 0 counts as the smallest number
above it, 2⁻¹⁴⁹, and its loss as 103 nats.
"""

from __future__ import annotations

import numpy as np

_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


def nats(probability: np.ndarray) -> np.ndarray:
    """−log p in float64; a probability that was rounded to 0 counts as the smallest float32."""
    return -np.log(np.maximum(probability.astype(np.float64), _SMALLEST))
