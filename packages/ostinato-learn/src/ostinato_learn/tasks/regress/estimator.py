"""`SequenceRegressor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.base import RegressorMixin

from ostinato_learn import training
from ostinato_learn.data.sequences.step_labels import as_texts_or_sequences
from ostinato_learn.data.tables.feature_names import check_rows_are_sequences, column_names
from ostinato_learn.hyperparameters import (
    Classifying,
    Declared,
    WordSettings,
    declare,
)
from ostinato_learn.tasks.estimator import (
    SequenceEstimator,
    as_the_start,
    check_pair,
    described,
    for_examples,
    own,
    prepared,
    prepares,
    validation_share,
)
from ostinato_learn.tasks.forecast.net import NINE
from ostinato_learn.tasks.regress import fit
from ostinato_learn.tasks.regress.baselines import compared
from ostinato_learn.tasks.regress.fit import Targeted
from ostinato_learn.tasks.regress.model import as_targets
from ostinato_learn.training.examples import check_sample_weight


@dataclass(frozen=True)
class RegressSettings(Declared):
    """The parameters of a regressor beside those of its network and its training."""

    loss: Literal["squared", "absolute", "quantiles"] = declare("squared", "How an error counts.")


@described
@dataclass(eq=False, repr=False, kw_only=True)  # the constructor, which stores its arguments
class SequenceRegressor(RegressorMixin, SequenceEstimator):
    """A recurrent network that gives a number, or several, to each sequence.

    Sequences `X` are as for `SequenceClassifier`: an array `[N, T, F]` or `[N, T]`, a list of
    arrays `[T_i, F]`, `data.Ragged`; or N texts, or N lists of words. Targets `y` are `[N]`, or
    `[N, K]` for several numbers; predictions have the same axes. The network learns them scaled by
    their mean and deviation in the training, and answers in their units.

    Args:
        loss: "squared", "absolute", or "quantiles", with which it learns all of `quantiles` at
            once: `predict` gives the median, and `predict_quantiles` them all. Default: 'squared'.
        quantiles: increasing levels between 0 and 1, with 0.5 among them.
            Default: (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9).
        {hyperparameters}
        cell: "rnn", "gru" or "lstm"; or a class of your own, whose forward is a step: see
            `models.Stack`. By the recipe 'gru'. Default: 'auto'.

    Attributes:
        net_: the `RegressorNet`.
        history_: the `training.History` (not saved).
        n_features_in_: F; 1 for X of two axes.
        feature_names_in_: the names of the columns, if X was a data frame.
        n_iter_: updates made by `fit`.
        hyperparameters_: the parameters of the constructor, with those values that the recipe chose
            for the last `fit` (not saved).

    Example:
        >>> import numpy as np
        >>> from ostinato_learn import SequenceRegressor
        >>> X = np.random.default_rng(0).normal(size=(200, 6, 1))
        >>> y = 100 + X.sum((1, 2))
        >>> model = SequenceRegressor(hidden_size=16).fit(X[:150], y[:150])
        >>> model.score(X[150:], y[150:]) > 0.9
        True
        >>> model.predict(X[150:]).shape
        (50,)
    """

    _task = "regress"

    loss: str = RegressSettings.loss
    quantiles: Sequence[float] = NINE
    readout: str = Classifying.readout

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        validation: Any = None,
        callbacks: Sequence[training.Callback] = (),
        resume: str | Path | None = None,
        **columns: Any,
    ) -> SequenceRegressor:
        """Train a new network, or with `warm_start` the fitted one.

        Args:
            X: the sequences, N of them; or a table with them: a data frame, the path of a file, or
                `data.Examples`.
            y: `[N]` or `[N, K]`, their numbers. Those of a table are in its column `label`, or in
                several.
            sample_weight: `[N]`, how much each example counts; by default 1.
            validation: (X, y), or another table, evaluated at every report.
            callbacks: called in the course of the training; see `training.Callback`.
            resume: the directory of a checkpoint of the same training, to go on from it.
            columns: of a table, the roles of its columns, with the names of the command line:
                `label`, `id`, `time`, `features`, …; see `data.Roles`. `missing` says how missing
                values are treated; see `data.Preparation`.

        Returns:
            self

        Raises:
            ValueError, TypeError: a parameter or an argument cannot be used; the message says why.
            training.Diverged: the loss became NaN or infinite.
        """
        seed, start = self._seed(), self._start()
        parts = self._parts(X, y, columns, validation, sample_weight, start)
        if parts is None:
            X, validation = as_the_start(start, X, validation)
            given = self._with_validation(_checked(X, y, sample_weight), validation, seed)
            sized = for_examples(len(given.y), given.validation is not None)
        else:
            sized = for_examples(len(parts.train), parts.validation is not None)
        values = self._hyperparameters(sized, start, resume)
        preparation = None if start is None else start.preparation
        if parts is not None:
            preparation = preparation or parts.preparation(values["standardize"])
            given = Targeted.of_parts(parts.train, parts.validation, prepared(preparation))
        else:
            if start is None:
                preparation = prepares(given.X, values["standardize"], given.feature_names)
            if preparation is not None:
                given = given.prepared_by(preparation)
        trained, history = fit.fit(
            given,
            own(Classifying, values),
            own(training.Plan, values, seed=seed),
            loss=own(RegressSettings, values).loss,
            quantiles=self.quantiles,
            words=own(WordSettings, values),
            start=start,
            callbacks=self._callbacks(callbacks, values),
            resume=resume,
        )
        return self._trained(replace(trained, preparation=preparation), history, values)

    def predict(self, X: Any) -> np.ndarray:
        """The number for each sequence, `[N]`, or `[N, K]`; with quantiles the medians."""
        return self._fitted().predict(X)

    def predict_quantiles(self, X: Any) -> np.ndarray:
        """The quantiles of each target, `[N, K, Q]`, in the order of `quantiles`.

        Without the loss "quantiles" Q is 1.
        """
        return self._fitted().predict_quantiles(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """R², the mean over the targets; a table has its own y."""
        X, y = self._answered(X, y)
        return float(super().score(X, y, sample_weight))

    def evaluate(self, X: Any, y: Any = None, *, train: Any = None) -> dict[str, Any]:
        """Measure the model on sequences with targets.

        Args:
            X: the sequences, or a table with them.
            y: their targets; a table has its own.
            train: a table from which simple methods learn, to compare the model with them; None:
                the table of the last `fit`, if it was one and X is a table.

        Returns:
            r2, mae and rmse, each the mean over the targets; with quantiles also pinball,
            coverage (the share of values in the widest interval) and width (its mean width); n, the
            sequences; of several targets "targets", the measures of each. With simple
            methods also "baselines", their measures, and "verdict", a comparison in words.

        Raises:
            ValueError: X or y cannot be used.
        """
        fitted, learnt = self._fitted(), self._to_compare(train, y)
        X, y = self._answered(X, y)
        found: dict[str, Any] = fitted.evaluate(X, y)
        if learnt is None:
            return found
        test = self.read(X, answers=True)
        return found | compared(fitted, learnt, test, fitted.predict_quantiles(X), self._seed())

    def _with_validation(self, given: Targeted, validation: Any, seed: int) -> Targeted:
        """With the validation data that were given, or with a part of the examples."""
        fraction = validation_share(self.validation_fraction, validation)
        if validation is None:
            return given.split(fraction, seed) if fraction else given
        check_pair(validation)
        held_out = _checked(*validation)
        as_targets(held_out.y, len(held_out.y), given.y.shape[1])
        return replace(given, validation=(held_out.X, held_out.y))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.regressor_tags.poor_score = True  # on tables whose columns are not steps in time
        return tags

    _of_model: ClassVar[Mapping[str, str]] = MappingProxyType({"quantiles": "levels"})


ESTIMATOR = SequenceRegressor


def _checked(X: Any, y: Any, sample_weight: Any = None) -> Targeted:
    given = X
    X = as_texts_or_sequences(X)
    if y is None:
        raise ValueError(
            "SequenceRegressor requires y to be passed, but the target y is None; wanted a number "
            "for each example"
        )
    targets = as_targets(y, len(X))
    check_rows_are_sequences(given, targets[:, 0])
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, len(X))
    is_one = np.asarray(y).ndim == 1
    columns = ("y",) if is_one else tuple(f"y{k}" for k in range(targets.shape[1]))
    names = column_names(given)
    return Targeted(X, targets, columns, is_one, feature_names=names, sample_weight=sample_weight)
