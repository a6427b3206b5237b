"""`as_array`: what people have as an array of NumPy's; and whether its steps are in order."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def as_array(value: Any) -> np.ndarray:
    """`np.asarray`, also of a tensor with a gradient or in bfloat16; masked values and NA are NaN.

    Raises:
        ValueError: it is a list of lists of different lengths.
    """
    is_masked = isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value)
    if is_masked and value.dtype.kind in "biuf":
        floats = np.ma.asarray(value, np.result_type(value.dtype, np.float32))
        return np.asarray(floats.filled(np.nan))
    if hasattr(value, "detach"):  # a tensor of torch, which is not imported here
        value = value.detach()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    array = np.asarray(value)
    if array.dtype == object and "pandas" in sys.modules:
        missing = sys.modules["pandas"].isna(array)
        if np.any(missing):
            array = np.where(missing, np.nan, array)
    return array


def check_in_time(frame: Any, name: str) -> None:
    """Refuse steps whose index are dates in another order than that of time.

    Raises:
        ValueError: they are dates that do not increase.
    """
    if run_back(getattr(frame, "index", None)):
        raise ValueError(
            f"the index of {name} are dates, and they do not increase from step to step; wanted "
            f"the oldest step first: {name}.sort_index()"
        )


def run_back(index: Any) -> bool:
    """Whether an index holds dates, of which one is earlier than the one before."""
    if getattr(getattr(index, "dtype", None), "kind", "") != "M":
        return False
    dates = np.asarray(index, "M8[ns]")
    return bool((dates[1:] < dates[:-1]).any())
