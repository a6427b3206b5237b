"""`SequenceClassifier`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from ostinato_learn import training
from ostinato_learn.data import LabelEncoder
from ostinato_learn.data.sequences.step_labels import Steps, as_texts_or_sequences, n_features
from ostinato_learn.data.tables.feature_names import check_rows_are_sequences, column_names
from ostinato_learn.data.text.words import Words
from ostinato_learn.hyperparameters import (
    Classifying,
    Fitting,
    HyperparameterError,
    WordSettings,
)
from ostinato_learn.models.module_network import ModuleNetwork
from ostinato_learn.tasks.classify import fit
from ostinato_learn.tasks.classify.compared import compared
from ostinato_learn.tasks.classify.fit import Labelled, check_lengths, check_like_trained
from ostinato_learn.tasks.classify.model import Classifier
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
from ostinato_learn.training.examples import check_sample_weight


@described
@dataclass(eq=False, repr=False, kw_only=True)  # the constructor, which stores its arguments
class SequenceClassifier(ClassifierMixin, SequenceEstimator):
    """A recurrent network that gives a label, or several, to each sequence.

    Sequences `X` are an array `[N, T, F]`, an array or data frame `[N, T]` of sequences of single
    numbers, a list or object array of N arrays `[T_i, F]` of different lengths, or `data.Ragged`;
    or N texts, or N lists of words, which the network reads by their embeddings.
    Labels `y` are `[N]` integers, strings or the like; predictions have the same type. Where a
    sequence may have several labels, `y` is `[N, C]` zeros and ones, a column for each label.

    Args:
        {hyperparameters}
        cell: "rnn", "gru" or "lstm"; or a class of your own, whose forward is a step: see
            `models.Stack`. By the recipe 'gru'. Default: 'auto'.
        class_weight: label -> weight, or "balanced"; labels not named, and by default all, weigh 1.
        ensemble: networks to train, with seeds that follow each other; their probabilities are
            averaged. Default: 1.
        early_error: the share of wrong answers, such as 0.05, that is accepted from answers before
            a sequence ends. `fit` finds on the validation part the probability from which on no
            larger share is wrong; a stream's `Answer.sure` says that it is reached. By default no
            such probability is looked for.

    Attributes:
        classes_: `[C]`, the labels, sorted.
        net_: the `models.ClassifierNet`; a `models.ClassifierEnsemble` with `ensemble` above 1.
        history_: the `training.History` (not saved); for an ensemble that of its last network.
        n_features_in_: F; 1 for X of two axes.
        feature_names_in_: `[T]`, the names of the columns, if X was a data frame `[N, T]`.
        n_iter_: updates made by the last `fit`.
        hyperparameters_: the parameters of the constructor, with those values that the recipe chose
            for the last `fit` (not saved).
        early_: with `early_error`: the threshold, and its measures on the validation part; see
            `tasks.classify.model.Early`.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn import SequenceClassifier
        >>> X = np.random.default_rng(0).normal(size=(100, 6, 1))
        >>> y = np.where(X.sum((1, 2)) > 0, "up", "down")
        >>> model = SequenceClassifier(hidden_size=8)
        >>> model.fit(X, y).score(X, y) > 0.95
        True
        >>> model.predict(np.ones((1, 6, 1)))
        array(['up'], dtype='<U4')
    """

    _task = "classify"

    init: str = Classifying.init
    readout: str = Classifying.readout
    class_weight: Mapping[Any, float] | str | None = Fitting.class_weight
    ensemble: int = 1
    early_error: float | None = None

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
    ) -> SequenceClassifier:
        """Train a new network, or with `warm_start` the fitted one.

        Args:
            X: the sequences, N of them; or a table with them: a data frame, the path of a file, or
                `data.Examples`.
            y: `[N]`, their labels; or `[N, C]` zeros and ones, a column for each label. Those of a
                table are in its column `label`.
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
        seed = self._seed()
        initial, members = self._initial_models(), []
        first = initial[0]
        parts = self._parts(X, y, columns, validation, sample_weight, first)
        if parts is None:
            X, validation = as_the_start(first, X, validation)
            given = self._with_validation(_checked(X, y, sample_weight), validation, seed)
            sized = for_examples(len(given.y), given.validation is not None)
        else:
            _check_labels(parts.train.y)
            sized = for_examples(len(parts.train), parts.validation is not None)
        values = self._hyperparameters(sized, first, resume)
        preparation = None if first is None else first.preparation
        if parts is not None:
            preparation = preparation or parts.preparation(values["standardize"])
            given = Labelled.of_parts(parts.train, parts.validation, prepared(preparation), first)
        else:
            if first is None:
                preparation = prepares(given.X, values["standardize"], given.feature_names)
            elif first.multilabel and given.y.shape[1:] == first.classes.shape:
                # The columns of y have no names: keep those of the fitted model.
                given = replace(given, encoder=LabelEncoder(first.classes))
            if preparation is not None and not isinstance(given.X, Words):
                given = given.prepared_by(preparation)
        self._check_ensemble(given, resume)
        plan = own(training.Plan, values, seed=seed)
        for i, start in enumerate(initial):
            trained, history = fit.fit(
                given,
                own(Classifying, values),
                replace(plan, seed=(seed + i) % 2**32),
                words=own(WordSettings, values),
                class_weight=self.class_weight,
                start=start,
                callbacks=self._callbacks(callbacks, values),
                resume=resume,
            )
            members.append(trained)
        trained = fit.together(members)
        if self.early_error is not None:
            if given.validation is None:
                raise ValueError(
                    f"early_error={self.early_error} needs validation data: give "
                    "validation_fraction, or validation to fit"
                )
            trained = fit.calibrated(trained, *given.validation, self.early_error)
        return self._trained(replace(trained, preparation=preparation), history, values)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label of each sequence, `[N]`."""
        return self._fitted().predict(X)

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each label, `[N, C]` in the order of `classes_`."""
        return self._fitted().predict_proba(X)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of each probability, `[N, C]`; finite also where a probability is 0."""
        return self._fitted().predict_log_proba(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The share of sequences whose label, or labels, are right; a table has its own y."""
        X, y = self._answered(X, y)
        return float(super().score(X, y, sample_weight))

    def evaluate(self, X: Any, y: Any = None, *, train: Any = None) -> dict[str, Any]:
        """Measure the model on labelled sequences.

        Args:
            X: the sequences, or a table with them.
            y: their labels; a table has its own.
            train: a table from which simple methods learn, to compare the model with them; None:
                the table of the last `fit`, if it was one and X is a table.

        Returns:
            {"accuracy": share of right answers, "loss": mean cross-entropy in nats, "n": N}; with
            simple methods also "baselines", their measures, and "verdict", a comparison in words.

        Raises:
            ValueError: y contains a label that the model does not know.
        """
        fitted, learnt = self._fitted(), self._to_compare(train, y)
        X, y = self._answered(X, y)
        found: dict[str, Any] = fitted.evaluate(X, y if fitted.multilabel else _check_labels(y))
        if learnt is None:
            return found
        proba = fitted.predict_proba(X)
        return found | compared(fitted, learnt, self.read(X, answers=True), proba, self._seed())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _initial_models(self) -> list[Classifier | None]:
        """For each network to train, the classifier whose weights it starts from; None: a new
        start."""
        count = self.ensemble
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
            raise HyperparameterError(f"ensemble={count!r}: wanted a whole number, 1 or more")
        if not (self.warm_start and hasattr(self, "net_")):
            return [None] * count
        fitted = self._fitted()
        nets, several = fit.members(fitted), fitted.multilabel
        if len(nets) != count:
            raise ValueError(
                f"warm_start goes on from the fitted model, which has ensemble={len(nets)}, not "
                f"{count}; wanted the same"
            )
        return [replace(fitted, network=ModuleNetwork(net, several=several)) for net in nets]

    def _with_validation(
        self, given: Labelled, validation: tuple[Any, Any] | None, seed: int
    ) -> Labelled:
        """With the validation data that were given, or with a part of the examples."""
        fraction = validation_share(self.validation_fraction, validation)
        if validation is not None:
            return replace(given, validation=_checked_validation(validation, given))
        return given.split(fraction, seed) if fraction else given

    def _check_ensemble(self, given: Labelled, resume: str | Path | None) -> None:
        if self.ensemble != 1 and given.y.ndim == 2:
            raise ValueError(
                f"ensemble={self.ensemble} is for one label an example; y has several: fit "
                "classifiers with other seeds, and average their predict_proba"
            )
        if self.ensemble != 1 and resume is not None:
            raise ValueError(f"resume is for a single network; ensemble={self.ensemble}")

    def _attributes(self, model: Classifier) -> dict[str, Any]:
        self.early_ = model.early  # also if it is None
        return super()._attributes(model) | {"classes_": model.classes}


ESTIMATOR = SequenceClassifier


def _checked(X: Any, y: Any, sample_weight: Any) -> Labelled:
    given, feature_names = X, column_names(X)
    X = as_texts_or_sequences(X)
    labels = _check_labels(y)
    check_rows_are_sequences(given, labels)
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, len(X))
    return Labelled.of(X, labels, feature_names=feature_names, sample_weight=sample_weight)


def _check_labels(y: Any) -> np.ndarray:
    if y is None:
        raise ValueError(
            "SequenceClassifier requires y to be passed, but the target y is None; "
            "wanted a label for each example"
        )
    try:
        kind = type_of_target(y)
    except TypeError:  # labels that cannot be sorted
        kinds = sorted({type(label).__name__ for label in np.asarray(y).flat})
        raise ValueError(
            f"y has labels of the types {', '.join(kinds)}; wanted one: all strings, or all "
            "integers, and none missing"
        ) from None
    if kind == "multilabel-indicator":
        several = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
        if not np.isin(several, (0, 1)).all():
            raise ValueError(
                f"y has the values {np.unique(several).tolist()}; wanted zeros and ones, a column "
                "for each label"
            )
        return several
    labels = column_or_1d(y, warn=True)
    check_classification_targets(labels)
    return labels


def _checked_validation(validation: tuple[Any, Any], given: Labelled) -> tuple[Steps, np.ndarray]:
    """Validation data, with class numbers, for these examples."""
    check_pair(validation)
    X: Steps
    if isinstance(given.X, Words):
        X = as_texts_or_sequences(validation[0])
    else:
        X = check_like_trained(validation[0], n_features(given.X), given.feature_names)
    labels = _check_labels(validation[1])
    check_lengths(X, labels)
    if labels.ndim != given.y.ndim or labels.shape[1:] != given.y.shape[1:]:
        raise ValueError(
            f"validation has y {list(labels.shape)} and the examples {list(given.y.shape)}; "
            "wanted the same labels"
        )
    return X, labels if labels.ndim == 2 else given.encoder.encode(labels)
