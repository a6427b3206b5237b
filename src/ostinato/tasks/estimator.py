"""What all estimators do alike."""

from __future__ import annotations

from dataclasses import fields
from inspect import signature
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from ostinato.training import saved_model
from ostinato.training.saved_model import SavedModel

E = TypeVar("E", bound="Estimator")


def check_pair(validation: Any) -> None:
    """Raise ValueError if validation data are not a pair (X, y)."""
    if not isinstance(validation, (tuple, list)) or len(validation) != 2:
        n = f" of {len(validation)}" if hasattr(validation, "__len__") else ""
        raise ValueError(f"validation is a {type(validation).__name__}{n}; wanted (X, y)")


def as_the_start(start: Any, X: Any, validation: Any) -> tuple[Any, Any]:
    """X and the validation data, their columns in the order of the model that training starts from.

    Raises:
        ValueError: data frames have other columns; or the validation data are not a pair.
    """
    preparation = None if start is None else start.preparation
    if preparation is None or preparation.roles is None:
        return X, validation
    if validation is not None:
        check_pair(validation)
        validation = (start.in_order(validation[0]), validation[1])
    return start.in_order(X), validation


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

    @classmethod
    def _unfitted(cls: type[E], saved: SavedModel, path: Path, **more: Any) -> E:
        """The estimator of a saved model with its parameters, not yet with its network.

        `more` are parameters that the saved ones do not include.

        Raises:
            ValueError: the parameters are not those of the constructor.
        """
        saved_model.check_params(saved, set(signature(cls).parameters) - set(more), path)
        estimator = cls(**saved.params, **more)
        estimator.n_iter_ = saved.iterations
        return estimator
