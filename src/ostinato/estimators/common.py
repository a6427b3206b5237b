"""What all estimators do alike."""

from __future__ import annotations

from dataclasses import fields
from inspect import signature
from numbers import Integral
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state


class Estimator(BaseEstimator):
    """An estimator whose parameters are hyperparameters, with `random_state` for the seed."""

    def _seed(self) -> int:
        """An integer from random_state: itself if it is one."""
        state = self.random_state
        if isinstance(state, Integral):
            return int(state)
        return int(check_random_state(state).randint(2**31))

    def _own(self, kind: type) -> dict[str, Any]:
        """The hyperparameters of this kind that the constructor takes."""
        known = signature(type(self)).parameters
        return {f.name: getattr(self, f.name) for f in fields(kind) if f.name in known}
