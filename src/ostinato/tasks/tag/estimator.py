"""`SequenceTagger`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ostinato import training
from ostinato.data.sequences.step_labels import as_labels, lengths_of
from ostinato.hyperparameters import Architecture, Fitting, Training, documented
from ostinato.tasks.estimator import Estimator, as_the_start, check_pair
from ostinato.tasks.tag import fit
from ostinato.tasks.tag.fit import Tagged
from ostinato.tasks.tag.loss import TaggerSettings
from ostinato.tasks.tag.model import Tagger

# The share of the updates over which the learning rate rises, where `warmup` is None.
WARM_UP = 0.05
# The length of a training where neither epochs nor iterations are given.
EPOCHS, AT_LEAST = 20, 500


@documented
@dataclass(eq=False, repr=False)  # the constructor alone, which stores its arguments
class SequenceTagger(Estimator):
    """A recurrent network that gives a label to every step of a sequence.

    Sequences `X` are a list of arrays `[T_i, F]`, or `[T_i]` for one feature; an array `[N, T, F]`;
    `data.Ragged`; or a list of lists of words. An array or data frame `[T, F]`, or a list of words,
    is one sequence.

    Labels `y` are a sequence for each sequence of X, a label for each step: integers, strings or
    truth values. Predictions have the same type: a list of N arrays `[T_i]`, and `[T]` where X
    is one sequence.

    With `scheme`, the labels encode spans (names in a sentence, gestures in a recording) in that
    scheme; predictions are valid iob2. See `ostinato.metrics.spans`.

    Args:
        crf: Learn which labels follow each other, with a linear-chain CRF; see
            `ostinato.tasks.tag.crf`. Default: False.
        scheme: "iob2", "iobes" or "bilou"; by default labels are not spans.
        standardize: scale each feature by its mean and deviation in the training. Default: True.
        embedding_size: size of a word's embedding. Default: 100.
        character_size: size of a character's embedding, and of the states of the GRUs that read
            the characters of a word; 0: characters are not read. Default: 25.
        vocabulary_size: number of words that have an embedding of their own, the most frequent
            ones; all others share that of the unknown word. Default: 20000.
        {hyperparameters}
        iterations: updates to make; by default `epochs` decides.
        epochs: passes over the sequences; by default 20, and more where 20 are fewer than 500
            updates, unless iterations is given.
        batch_size: sequences an update sees; all N if there are fewer. Default: 32.
        dropout: between layers and before the readout, and of words' vectors; in training only.
            Default: 0.0.
        warmup: iterations at the start over which the learning rate rises from zero; by default a
            twentieth of all.
        validation_fraction: share of the sequences kept from the training for validation.
            Default: 0.0.
        random_state: an integer, which makes the training repeatable; a
            `numpy.random.RandomState`; or None for another seed at each `fit`. Default: 0.
        warm_start: `fit` continues from the weights of the fitted model, if there is one, and keeps
            its scales and vocabulary. The network must still have the same sizes and `y` the same
            labels. The optimiser starts anew. Default: False.
        verbose: 1 shows the progress on stderr. Default: 0.

    Attributes:
        classes_: `[C]`, the labels, sorted; with a scheme its tags in iob2.
        net_: the `models.TaggerNet`.
        history_: the `training.History` (not saved).
        n_features_in_: F; not set for words.
        feature_names_in_: `[F]`, the names of the columns, if X was a data frame.
        n_iter_: updates made by `fit`.

    Example:
        >>> import numpy as np
        >>> from ostinato import SequenceTagger
        >>> X = np.random.default_rng(0).normal(size=(60, 9, 1))
        >>> y = np.where(X.cumsum(1)[:, :, 0] > 0, "above", "below")  # of zero, their sum so far
        >>> model = SequenceTagger(hidden_size=8, learning_rate=0.02).fit(X, y)
        >>> model.score(X, y) > 0.9
        True
        >>> model.predict(np.array([[1.0], [-3.0], [1.0]]))
        array(['above', 'below', 'below'], dtype='<U5')
    """

    cell: str = "lstm"
    hidden_size: int = Architecture.hidden_size
    num_layers: int = Architecture.num_layers
    bidirectional: bool = True
    dropout: float = Architecture.dropout
    crf: bool = TaggerSettings.crf
    scheme: str | None = TaggerSettings.scheme
    standardize: bool = TaggerSettings.standardize
    embedding_size: int = TaggerSettings.embedding_size
    character_size: int = TaggerSettings.character_size
    vocabulary_size: int = TaggerSettings.vocabulary_size
    iterations: int | None = None
    epochs: float | None = None
    batch_size: int = 32
    optimizer: str = "adamw"
    learning_rate: float = 4e-3
    momentum: float = Training.momentum
    weight_decay: float = Training.weight_decay
    clip_norm: float | None = 1.0
    schedule: str = "cosine"
    warmup: int | None = None
    step_size: int = Training.step_size
    step_gamma: float = Training.step_gamma
    memory: str | None = Training.memory
    truncate: int | None = Training.truncate
    similar_lengths: bool = Training.similar_lengths
    eval_every: int = 100
    patience: int | None = Training.patience
    restore_best: bool = Training.restore_best
    random_state: int | np.random.RandomState | None = Training.seed
    validation_fraction: float = Fitting.validation_fraction
    warm_start: bool = False
    verbose: int = 0

    # No ClassifierMixin: scikit-learn stratifies the folds of classifiers, and then refuses labels
    # that are sequences.

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation: tuple[Any, Any] | None = None,
        callbacks: Sequence[training.Callback] = (),
        resume: str | Path | None = None,
    ) -> SequenceTagger:
        """Train a new network, or with `warm_start` the fitted one.

        Args:
            X: the sequences, N of them, or one.
            y: the labels of their steps.
            validation: (X, y), evaluated at every report.
            callbacks: called in the course of the training; see `training.Callback`.
            resume: the directory of a checkpoint of the same training, to go on from it.

        Returns:
            self

        Raises:
            ValueError, TypeError: a parameter or an argument cannot be used; the message says why.
            training.Diverged: the loss became NaN or infinite.
        """
        settings = TaggerSettings(**self._own(TaggerSettings))
        plan = self._plan()
        start = self._start()
        preparation = None if start is None else start.preparation
        X, validation = as_the_start(start, X, validation)
        given = Tagged.of(X, y, settings.scheme)
        fraction = Fitting(validation_fraction=self.validation_fraction).validation_fraction
        if validation is not None and fraction:
            raise ValueError(
                f"validation was given, and validation_fraction={fraction}; wanted one of them"
            )
        if validation is not None:
            check_pair(validation)
            given = given.validated_by(validation[0], validation[1], settings.scheme)
        elif fraction:
            given = given.split(fraction, plan.seed)
        if preparation is not None:
            given = given.prepared_by(preparation)
        trained, history = fit.fit(
            given,
            Architecture(**self._own(Architecture)),
            settings,
            _with_length(plan, len(given.y)),
            warm_up=WARM_UP if self.warmup is None else None,
            start=start,
            callbacks=self._callbacks(callbacks),
            resume=resume,
        )
        self.n_iter_ = history.iterations
        self.history_ = history
        return self._take(replace(trained, preparation=preparation))

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

    def score(self, X: Any, y: Any) -> float:
        """The share of all steps whose label is predicted right."""
        fitted = self._fitted()
        sequences, is_one = fitted.steps(X)
        labels = as_labels([y] if is_one else y, lengths_of(sequences), fitted.scheme)
        answers = fitted.predict(X)
        pairs = zip(labels, [answers] if is_one else answers, strict=True)
        right = sum(int(np.sum(one == other)) for one, other in pairs)
        return right / sum(map(len, labels))

    def evaluate(self, X: Any, y: Any) -> dict[str, Any]:
        """Measure the model on labelled sequences.

        Returns:
            accuracy (share of the steps whose label is right), loss (−log P of the labels, in nats
            per step) and n (steps). With a scheme also precision, recall and f1 of the spans; with
            words also unknown, the share of words that were not in the training.

        Raises:
            ValueError: y contains a label that the model does not know.
        """
        return self._fitted().evaluate(X, y)

    def save(self, path: str | Path, *, examples: Any = None) -> None:
        """Write the fitted model into a directory: all or nothing.

        `load` reads it, and without torch `ostinato.runtime.load`. A `RandomState` is not saved.

        Args:
            path: the directory.
            examples: some sequences, which stay in the directory with their answers, so that
                `ostinato verify` replays them; by default it replays random numbers.

        Raises:
            ValueError: the directory exists and is something else than a saved model; or the
                labels have a type that JSON cannot hold; or a weight is NaN or infinite.
            OSError: it cannot be written.
        """
        self._save(path, examples)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        return tags

    def _attributes(self, model: Tagger) -> dict[str, Any]:
        n = None if model.vocabulary is not None else model.n_features
        return {
            "classes_": model.classes,
            "n_features_in_": n,
            "feature_names_in_": model.feature_names,
        }


ESTIMATOR = SequenceTagger


def _with_length(plan: training.Plan, n: int) -> training.Plan:
    """The plan for n sequences, with a length if it has none."""
    if plan.iterations is not None or plan.epochs is not None:
        return plan
    updates = -(-EPOCHS * n // min(plan.batch_size, n))
    return replace(plan, iterations=max(updates, AT_LEAST))
