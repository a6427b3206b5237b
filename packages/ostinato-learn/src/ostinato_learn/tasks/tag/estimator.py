"""`SequenceTagger`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ostinato_learn import training
from ostinato_learn.data.sequences.step_labels import as_labels, lengths_of
from ostinato_learn.data.text.words import Words
from ostinato_learn.hyperparameters import Architecture
from ostinato_learn.tasks.estimator import (
    AUTO,
    Auto,
    SequenceEstimator,
    as_the_start,
    check_pair,
    described,
    for_examples,
    own,
    prepared,
    validation_share,
)
from ostinato_learn.tasks.tag import fit
from ostinato_learn.tasks.tag.compared import compared
from ostinato_learn.tasks.tag.fit import Tagged
from ostinato_learn.tasks.tag.loss import TaggerSettings
from ostinato_learn.tasks.tag.model import Tagger


@described
@dataclass(eq=False, repr=False, kw_only=True)  # the constructor, which stores its arguments
class SequenceTagger(SequenceEstimator):
    """A recurrent network that gives a label to every step of a sequence.

    Sequences `X` are a list of arrays `[T_i, F]`, or `[T_i]` for one feature; an array `[N, T, F]`;
    `data.Ragged`; or a list of lists of words. An array or data frame `[T, F]`, or a list of words,
    is one sequence.

    Labels `y` are a sequence for each sequence of X, a label for each step: integers, strings or
    truth values. Predictions have the same type: a list of N arrays `[T_i]`, and `[T]` where X
    is one sequence.

    With `scheme`, the labels encode spans (names in a sentence, gestures in a recording) in that
    scheme; predictions are valid iob2. See `ostinato_learn.metrics.spans`.

    Args:
        crf: Learn which labels follow each other, with a linear-chain CRF; see
            `ostinato_learn.tasks.tag.crf`. Default: False.
        scheme: "iob2", "iobes" or "bilou"; by default labels are not spans.
        character_size: size of a character's embedding, and of the states of the GRUs that read
            the characters of a word; 0: characters are not read. Default: 25.
        {hyperparameters}
        dropout: between layers and before the readout, and of words' vectors; in training only. By
            the recipe 0.0. Default: 'auto'.

    Attributes:
        classes_: `[C]`, the labels, sorted; with a scheme its tags in iob2.
        net_: the `models.TaggerNet`.
        history_: the `training.History` (not saved).
        n_features_in_: F; not set for words.
        feature_names_in_: `[F]`, the names of the columns, if X was a data frame.
        n_iter_: updates made by `fit`.
        hyperparameters_: the parameters of the constructor, with those values that the recipe chose
            for the last `fit` (not saved).

    Example:
        >>> import numpy as np
        >>> from ostinato_learn import SequenceTagger
        >>> X = np.random.default_rng(0).normal(size=(60, 9, 1))
        >>> y = np.where(X.cumsum(1)[:, :, 0] > 0, "above", "below")  # of zero, their sum so far
        >>> model = SequenceTagger(hidden_size=8, learning_rate=0.02).fit(X, y)
        >>> model.score(X, y) > 0.9
        True
        >>> model.predict(np.array([[1.0], [-3.0], [1.0]]))
        array(['above', 'below', 'below'], dtype='<U5')
    """

    _task = "tag"

    crf: bool = TaggerSettings.crf
    scheme: str | None = TaggerSettings.scheme
    character_size: int = TaggerSettings.character_size
    window: int | Auto | None = AUTO

    # No ClassifierMixin: scikit-learn stratifies the folds of classifiers, and then refuses labels
    # that are sequences.

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        validation: Any = None,
        callbacks: Sequence[training.Callback] = (),
        resume: str | Path | None = None,
        **columns: Any,
    ) -> SequenceTagger:
        """Train a new network, or with `warm_start` the fitted one.

        Args:
            X: the sequences, N of them, or one; or a table with them: a data frame, the path of a
                file, or `data.Examples`.
            y: the labels of their steps. Those of a table are in its column `label`.
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
        preparation = None if start is None else start.preparation
        parts = self._parts(X, y, columns, validation, None, start)
        if parts is None:
            given = self._given(X, y, validation, start, seed)
            n, validated, lengths = len(given.y), given.validation is not None, given.y.lengths
            is_words = isinstance(given.X, Words)
        else:
            train, validated = parts.train, parts.validation is not None
            n, lengths = len(train), train.lengths
            is_words = len(train.features) == 1 and bool(train.categories)
        whole = self.crf or is_words or not isinstance(self.cell, str)
        sized = for_examples(n, validated, None if whole else int(lengths.sum()))
        values = self._hyperparameters(sized, start, resume)
        settings = own(TaggerSettings, values)
        if parts is not None:
            preparation = preparation or parts.preparation(values["standardize"])
            scheme: Any = self.scheme or fit.recognised(parts.train)
            settings = replace(settings, scheme=scheme, standardize=False)  # it is prepared
            inputs = prepared(preparation)
            given = Tagged.of_parts(parts.train, parts.validation, inputs, scheme, start)
        trained, history = fit.fit(
            given,
            own(Architecture, values),
            settings,
            own(training.Plan, values, seed=seed),
            start=start,
            callbacks=self._callbacks(callbacks, values),
            resume=resume,
        )
        return self._trained(replace(trained, preparation=preparation), history, values)

    def _given(self, X: Any, y: Any, validation: Any, start: Any, seed: int) -> Tagged:
        """Arrays and their labels, with the validation data that were given, or with a part."""
        if y is None:
            raise ValueError(
                "SequenceTagger requires y to be passed, but the target y is None; wanted a label "
                "for each step, or of a table label=, the name of their column"
            )
        X, validation = as_the_start(start, X, validation)
        given = Tagged.of(X, y, self.scheme)
        fraction = validation_share(self.validation_fraction, validation)
        if validation is not None:
            check_pair(validation)
            given = given.validated_by(validation[0], validation[1], self.scheme)
        elif fraction:
            given = given.split(fraction, seed)
        if start is not None and start.preparation is not None:
            given = given.prepared_by(start.preparation)
        return given

    def predict(self, X: Any) -> list[np.ndarray] | np.ndarray:
        """The likeliest labels: N arrays `[T_i]`, or `[T]` where X is one sequence.

        With a CRF, or with a scheme, they are the likeliest sequence of labels.
        """
        return self._fitted().predict(X)

    def predict_proba(self, X: Any) -> list[np.ndarray] | np.ndarray:
        """The probability of each label at each step: N arrays `[T_i, C]`, or `[T, C]`.

        The labels are in the order of `classes_`. With a CRF the whole sequence is taken into
        account.
        """
        return self._fitted().predict_proba(X)

    def score(self, X: Any, y: Any = None) -> float:
        """The share of all steps whose label is predicted right; a table has its own y."""
        fitted = self._fitted()
        X, y = self._answered(X, y)
        sequences, is_one = fitted.steps(X)
        labels = as_labels([y] if is_one else y, lengths_of(sequences), fitted.scheme)
        answers = fitted.predict(X)
        pairs = zip(labels, [answers] if is_one else answers, strict=True)
        right = sum(int(np.sum(one == other)) for one, other in pairs)
        return right / sum(map(len, labels))

    def evaluate(self, X: Any, y: Any = None, *, train: Any = None) -> dict[str, Any]:
        """Measure the model on labelled sequences.

        Args:
            X: the sequences, or a table with them.
            y: their labels; a table has its own.
            train: a table from which simple methods learn, to compare the model with them; None:
                the table of the last `fit`, if it was one and X is a table.

        Returns:
            accuracy (share of the steps whose label is right), loss (−log P of the labels, in nats
            per step) and n (steps). With a scheme also precision, recall and f1 of the spans; with
            words also unknown, the share of words that were not in the training. With simple
            methods also "baselines", their measures, and "verdict", a comparison in words.

        Raises:
            ValueError: y contains a label that the model does not know.
        """
        fitted, learnt = self._fitted(), self._to_compare(train, y)
        X, y = self._answered(X, y)
        if learnt is None:
            found: dict[str, Any] = fitted.evaluate(X, y)
            return found
        test = self.read(X, answers=True)
        steps = fitted.steps(test)[0]
        answers = fitted.answers(steps, test.y, sure=False)
        measured = fitted.measured(steps, test.y, answers)
        return measured | compared(fitted, learnt, test, answers, measured)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _attributes(self, model: Tagger) -> dict[str, Any]:
        n = None if model.vocabulary is not None else model.n_features
        return super()._attributes(model) | {"classes_": model.classes, "n_features_in_": n}


ESTIMATOR = SequenceTagger
