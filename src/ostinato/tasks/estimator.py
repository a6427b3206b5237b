"""What all estimators do alike, and the parameters that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from numbers import Integral
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ostinato.data.sequences.examples import Examples
from ostinato.data.sequences.preparation import Preparation
from ostinato.data.sequences.step_labels import Steps, n_features
from ostinato.data.text.words import Words
from ostinato.hyperparameters import Architecture, Fitting, Training, WordSettings, declare
from ostinato.models import saved_model
from ostinato.runtime.model import Model
from ostinato.saved.read import Saved, parameters
from ostinato.training.callbacks import Callback, Progress
from ostinato.training.history import History
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


@dataclass(eq=False, repr=False, kw_only=True)  # the constructor, which stores its arguments
class Estimator(BaseEstimator):
    """An estimator: its parameters are hyperparameters, with `random_state` for the seed.

    Its fields are the parameters of all estimators; a task adds its own, and other defaults.
    """

    cell: str = Architecture.cell
    hidden_size: int = Architecture.hidden_size
    num_layers: int = Architecture.num_layers
    dropout: float = Architecture.dropout
    iterations: int | None = Training.iterations
    epochs: float | None = Training.epochs
    batch_size: int = Training.batch_size
    optimizer: str = Training.optimizer
    learning_rate: float = Training.learning_rate
    momentum: float = Training.momentum
    weight_decay: float = Training.weight_decay
    clip_norm: float | None = Training.clip_norm
    schedule: str = Training.schedule
    warmup: int | None = Training.warmup
    step_size: int = Training.step_size
    step_gamma: float = Training.step_gamma
    memory: str | None = Training.memory
    truncate: int | None = Training.truncate
    eval_every: int = Training.eval_every
    patience: int | None = Training.patience
    restore_best: bool = Training.restore_best
    random_state: int | np.random.RandomState | None = declare(  # noqa: RUF009
        Training.seed,
        "an integer, which makes the training repeatable; a `numpy.random.RandomState`; or None "
        "for another seed at each `fit`.",
    )
    warm_start: bool = declare(
        False,
        "`fit` continues from the weights of the fitted model, if there is one, and keeps its "
        "scales and vocabulary. The network must still have the same sizes, and the data the same "
        "labels or inputs. The optimiser starts anew.",
    )
    verbose: int = declare(0, "1 shows the progress on stderr.")

    def _seed(self) -> int:
        """An integer from random_state: itself if it is one."""
        state = self.random_state
        if isinstance(state, Integral):
            return int(state)
        return int(check_random_state(state).randint(2**31))

    def _own(self, kind: type) -> dict[str, Any]:
        """The hyperparameters of this kind that the constructor takes."""
        known = {f.name for f in fields(self)}
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

    def _trained(self: E, model: Model, history: History) -> E:
        """Become fitted, by a training."""
        self.history_, self.n_iter_ = history, history.iterations
        return self._take(model)

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
        return {"n_features_in_": model.n_features, "feature_names_in_": model.feature_names}

    def save(self, path: str | Path) -> None:
        """Write the fitted model into a directory: all or nothing.

        `load` reads it, and without torch `ostinato.runtime.load`. Of a cell of your own the
        operations are saved, not the code: only the runtime reads such a model. The levels of
        quantiles are those of the last `fit`. A `RandomState` is not saved. The files are described
        in `ostinato.saved`.

        Raises:
            ValueError: the directory exists and is something else than a saved model; or the
                labels have a type that JSON cannot hold; or a weight is NaN or infinite; or the
                operations of your own cell cannot be saved.
            OSError: it cannot be written.
        """
        self._save(path)

    def _save(self, path: str | Path, examples: Any = None) -> None:
        model, kept = self._fitted(), self._of_model
        params = {name: v for name, v in self.get_params().items() if name not in kept}
        saved_model.save(model, Path(path), params, self.n_iter_, examples=examples)

    # Parameters that a model has, and where.
    _of_model: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    @classmethod
    def loaded(cls: type[E], model: Model, saved: Saved, path: Path) -> E:
        """The estimator of a model that was saved.

        Raises:
            ValueError: the parameters are not those of the constructor.
        """
        known = set(signature(cls).parameters) - set(cls._of_model)
        of_model = {name: getattr(model, place) for name, place in cls._of_model.items()}
        of_model = {name: value for name, value in of_model.items() if value}
        estimator = cls(**parameters(saved, known, path), **of_model)
        estimator.n_iter_ = saved.iterations
        return estimator._take(model)


@dataclass(eq=False, repr=False, kw_only=True)
class SequenceEstimator(Estimator):
    """An estimator of sequences of numbers or words, some of which may be kept for validation."""

    bidirectional: bool = Architecture.bidirectional
    similar_lengths: bool = Training.similar_lengths
    validation_fraction: float = declare(
        Fitting.validation_fraction,
        "share of the sequences, for a classifier of each class, kept from the training for "
        "validation.",
    )
    standardize: bool = declare(
        True,
        "scale each feature by its mean and deviation over all steps of the training examples; "
        "predictions do the same.",
    )
    embedding_size: int = declare(WordSettings.embedding_size, "size of a word's embedding.")
    vocabulary_size: int = declare(
        WordSettings.vocabulary_size,
        "number of words that have an embedding of their own, the most frequent ones; all others "
        "share that of the unknown word.",
    )

    def save(self, path: str | Path, *, examples: Any = None) -> None:
        """Write the fitted model into a directory: all or nothing; see `Estimator.save`.

        Args:
            path: the directory.
            examples: some sequences, which stay in the directory with their answers, so that
                `ostinato verify` replays them; by default it replays random numbers.

        Raises:
            ValueError, OSError: as for `Estimator.save`.
        """
        self._save(path, examples)

    def _prepares(self, X: Steps) -> Preparation | None:
        """What is done to sequences before a new network reads them; None: nothing."""
        if not self.standardize or isinstance(X, Words):
            return None
        names = tuple(f"feature {i}" for i in range(n_features(X)))
        return Preparation.fit(Examples(X, features=names))


def kept_apart(fraction: Any, validation: Any) -> float:
    """The share of the examples to keep for validation, checked.

    Raises:
        ValueError: it is no share; or validation data are given, too.
    """
    share = Fitting(validation_fraction=fraction).validation_fraction
    if validation is not None and share:
        raise ValueError(
            f"validation was given, and validation_fraction={share}; wanted one of them"
        )
    return share
