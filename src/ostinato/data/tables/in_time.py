"""`check_in_time`: whether the steps of a data frame stand in the order of time."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_in_time(frame: Any, name: str) -> None:
    """Refuse steps whose index are dates in another order than that of time.

    Raises:
        ValueError: they are.
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
