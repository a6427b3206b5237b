"""Checks whether a training can start from the weights of a fitted model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_INSTEAD = "; or fit with warm_start=False, to begin anew"
# These have no weights, and may change.
_FREE = {"dropout", "init"}


def check_network(fitted: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ValueError if a new network has other sizes or settings than a fitted one.

    Raises:
        ValueError: they differ; only dropout, and how weights are drawn, may.
    """
    differences = [
        f"{name}={fitted[name]!r}, not {value!r}"
        for name, value in wanted.items()
        if name not in _FREE and _plain(fitted[name]) != _plain(value)
    ]
    if differences:
        raise ValueError(
            f"warm_start goes on from the fitted network, which has {', '.join(differences)}; "
            f"wanted the same{_INSTEAD}"
        )


def check_classes(fitted: np.ndarray, classes: np.ndarray) -> None:
    """Raise ValueError if the labels to learn are not those of a fitted model."""
    if fitted.tolist() != classes.tolist():
        raise ValueError(
            "warm_start can only be used where `y` has the same classes as in the previous call to "
            f"fit: it had {fitted.tolist()}, and y has {classes.tolist()}{_INSTEAD}"
        )


def check_same_columns(fitted: np.ndarray | None, names: np.ndarray | None) -> None:
    """Raise ValueError if a data frame has not the columns of a fitted model, in their order."""
    if fitted is not None and names is not None and fitted.tolist() != names.tolist():
        raise ValueError(
            f"warm_start goes on from a model of the columns {fitted.tolist()}, and X has "
            f"{names.tolist()}; wanted the same, in the same order{_INSTEAD}"
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
