"""What all estimators do alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from inspect import signature
from numbers import Integral
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ostinato.runtime.model import Model
from ostinato.runtime.saved import Saved
from ostinato.training import saved_model
from ostinato.training.callbacks import Callback, Progress
from ostinato.training.plan import Plan

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

    def _plan(self) -> Plan:
        """How to train; the warm-up is decided elsewhere where it is None."""
        given = self._own(Plan)
        return Plan(**given | {"warmup": given["warmup"] or 0, "seed": self._seed()})

    def _callbacks(self, callbacks: Sequence[Callback]) -> Sequence[Callback]:
        return [*callbacks, Progress()] if self.verbose else callbacks

    def _fitted(self) -> Any:
        """The model that the training gave."""
        check_is_fitted(self, "net_")
        return self._model

    def _start(self) -> Any:
        """The model with whose weights a training begins; None: it begins anew."""
        return self._fitted() if self.warm_start and hasattr(self, "net_") else None

    def _take(self: E, model: Model) -> E:
        """Become fitted."""
        self._model, self.net_ = model, model.net
        for name, value in self._attributes(model).items():
            if value is not None:
                setattr(self, name, value)
            elif hasattr(self, name):
                delattr(self, name)
        return self

    def _attributes(self, model: Any) -> dict[str, Any]:
        """Further public attributes of a fitted estimator; None: it has none."""
        raise NotImplementedError

    def _save(self, path: str | Path, examples: Any = None) -> None:
        model, kept = self._fitted(), self._of_model
        params = {name: v for name, v in self.get_params().items() if name not in kept}
        saved_model.save(model, Path(path), params, self.n_iter_, examples=examples)

    _of_model: Mapping[str, str] = MappingProxyType({})  # parameters that a model has, and where

    @classmethod
    def loaded(cls: type[E], model: Model, saved: Saved, path: Path) -> E:
        """The estimator of a model that was saved.

        Raises:
            ValueError: the parameters are not those of the constructor.
        """
        known = set(signature(cls).parameters) - set(cls._of_model)
        of_model = {name: getattr(model, place) for name, place in cls._of_model.items()}
        of_model = {name: value for name, value in of_model.items() if value}
        estimator = cls(**saved_model.parameters(saved, known, path), **of_model)
        estimator.n_iter_ = saved.iterations
        return estimator._take(model)
