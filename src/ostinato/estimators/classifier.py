"""`SequenceClassifier`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from inspect import signature
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from ostinato import training
from ostinato.data import Batches, LabelEncoder, Ragged, as_sequences
from ostinato.hyperparameters import Fitting, Model, documented
from ostinato.models import ClassifierNet
from ostinato.training import saved_model
from ostinato.training.examples import check_sample_weight
from ostinato.training.tensor_file import fill

KIND = "sequence_classifier"


@documented
@dataclass(eq=False, repr=False)  # the constructor alone, which stores its arguments
class SequenceClassifier(ClassifierMixin, BaseEstimator):
    """A recurrent network that tells classes of sequences apart.

    Sequences `X` are an array `[N, T, F]`, an array `[N, T]` of sequences of single numbers, a
    list of N arrays `[T_i, F]` of different lengths, or `data.Ragged`. Labels `y` are `[N]`
    integers, strings or the like; predictions are given in the same.

    Args:
        {hyperparameters}
        batch_size: examples an update sees; all N if there are fewer.
        random_state: an integer, from which the same training follows again; a
            `numpy.random.RandomState`, or None for another one each time.
        class_weight: label -> weight, or "balanced"; labels not named weigh 1.
        verbose: 1 shows the progress on stderr.

    Attributes:
        classes_: `[C]`, the labels, sorted.
        net_: the `models.ClassifierNet`.
        history_: the `training.History` (not saved).
        n_features_in_: F.
        n_iter_: updates made.

    Example:
        >>> import numpy as np
        >>> from ostinato import SequenceClassifier
        >>> X = np.random.default_rng(0).normal(size=(100, 6, 1))
        >>> y = np.where(X.sum((1, 2)) > 0, "up", "down")
        >>> model = SequenceClassifier(
        ...     hidden_size=8, iterations=200, batch_size=25, optimizer="adam", learning_rate=0.02
        ... )
        >>> model.fit(X, y).score(X, y) > 0.95
        True
        >>> model.predict(np.ones((1, 6, 1)))
        array(['up'], dtype='<U4')
    """

    cell: str = Model.cell
    hidden_size: int = Model.hidden_size
    num_layers: int = Model.num_layers
    bidirectional: bool = Model.bidirectional
    dropout: float = Model.dropout
    init: str = Model.init
    iterations: int | None = Fitting.iterations
    epochs: float | None = Fitting.epochs
    batch_size: int = Fitting.batch_size
    optimizer: str = Fitting.optimizer
    learning_rate: float = Fitting.learning_rate
    momentum: float = Fitting.momentum
    weight_decay: float = Fitting.weight_decay
    clip_norm: float | None = Fitting.clip_norm
    schedule: str = Fitting.schedule
    warmup: int = Fitting.warmup
    step_size: int = Fitting.step_size
    step_gamma: float = Fitting.step_gamma
    eval_every: int = Fitting.eval_every
    patience: int | None = Fitting.patience
    restore_best: bool = Fitting.restore_best
    random_state: int | np.random.RandomState | None = Fitting.seed
    validation_fraction: float = Fitting.validation_fraction
    class_weight: Mapping[Any, float] | str | None = Fitting.class_weight
    verbose: int = 0

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        validation: tuple[Any, Any] | None = None,
        callbacks: Sequence[training.Callback] = (),
        resume: str | Path | None = None,
    ) -> SequenceClassifier:
        """Train a new network.

        Args:
            X: the sequences, N of them.
            y: `[N]`, their labels.
            sample_weight: `[N]`, how much each example counts; by default 1.
            validation: (X, y), evaluated at every report.
            callbacks: called in the course of the training; see `training.Callback`.
            resume: the directory of a checkpoint of the same training, to go on from it.

        Returns:
            self

        Raises:
            ValueError, TypeError: a parameter or an argument cannot be used; the message says why.
            training.Diverged: the loss became NaN or infinite.
        """
        X = _check_sequences(X)
        encoder, y = LabelEncoder.fit(_check_labels(y, len(X)))
        if len(encoder) < 2:
            raise ValueError(
                f"y has one class only, {encoder.classes[0]!r}; wanted two or more to tell apart"
            )
        n_features = _n_features(X)
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, len(X))
        seed = self._seed()
        plan = self._plan(seed)
        if validation is not None:
            validation = self._check_validation(validation, encoder, n_features)
        elif self.validation_fraction:
            checked = Fitting(validation_fraction=self.validation_fraction)
            rest, held_out = _split(y, checked.validation_fraction, seed)
            validation = X[held_out], y[held_out]
            X, y = X[rest], y[rest]
            sample_weight = None if sample_weight is None else sample_weight[rest]
        plan = replace(plan, batch_size=min(plan.batch_size, len(X)))
        net = self._build(n_features, len(encoder), seed)
        history = training.train(
            net,
            Batches(X, y, plan.batch_size, seed=seed),
            plan,
            validation=validation,
            class_weight=_class_weight_by_number(self.class_weight, encoder),
            sample_weight=sample_weight,
            callbacks=[*callbacks, training.Progress()] if self.verbose else callbacks,
            resume=resume,
        )
        self.classes_ = encoder.classes
        self.n_features_in_ = n_features
        self.net_ = net
        self.history_ = history
        self.n_iter_ = history.iterations
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label of each sequence, `[N]`."""
        best = self._logits(X).argmax(1).numpy()
        return LabelEncoder(self.classes_).decode(best)

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each label, `[N, C]` in the order of `classes_`."""
        return torch.softmax(self._logits(X).double(), dim=1).numpy()

    def evaluate(self, X: Any, y: Any) -> dict[str, Any]:
        """Measure the model on labelled sequences.

        Returns:
            {"accuracy": share of right answers, "loss": mean cross-entropy in nats, "n": N}

        Raises:
            ValueError: y contains a label that the model does not know.
        """
        check_is_fitted(self)
        X = _check_features(X, self.n_features_in_)
        labels = LabelEncoder(self.classes_).encode(_check_labels(y, len(X)))
        result = training.evaluate(self.net_, X, labels)
        return {"accuracy": result.accuracy, "loss": result.loss, "n": result.n}

    def save(self, path: str | Path) -> None:
        """Write the fitted model into a directory, for `load`: all or nothing.

        The directory has two files, `model.safetensors` and `config.json`; what stands in them is
        described in `ostinato.training.saved_model`. A `RandomState` is not kept.

        Raises:
            ValueError: the directory exists and is something else than a saved model; or the
                labels are of a type that JSON has not.
            OSError: it cannot be written.
        """
        check_is_fitted(self)
        model = saved_model.SavedModel(
            kind=KIND,
            params=self.get_params(),
            net=self.net_.config,
            weights=self.net_.state_dict(),
            classes=self.classes_,
            iterations=self.n_iter_,
        )
        saved_model.write(Path(path), model)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _seed(self) -> int:
        """An integer from random_state: itself if it is one."""
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))

    def _plan(self, seed: int) -> training.Plan:
        return training.Plan(**self._own(training.Plan), seed=seed)

    def _own(self, kind: type) -> dict[str, Any]:
        """The hyperparameters of this kind; the seed follows from `random_state`."""
        return {f.name: getattr(self, f.name) for f in fields(kind) if f.name != "seed"}

    def _build(self, n_features: int, n_classes: int, seed: int) -> ClassifierNet:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return ClassifierNet(n_features, n_classes, **self._own(Model))

    def _check_validation(
        self, validation: tuple[Any, Any], encoder: LabelEncoder, n_features: int
    ) -> tuple[np.ndarray | Ragged, np.ndarray]:
        if self.validation_fraction:
            raise ValueError(
                f"validation was given, and validation_fraction={self.validation_fraction}; "
                "wanted one of them"
            )
        X = _check_features(validation[0], n_features)
        return X, encoder.encode(_check_labels(validation[1], len(X)))

    def _logits(self, X: Any) -> torch.Tensor:
        check_is_fitted(self)
        return training.logits(self.net_, _check_features(X, self.n_features_in_))


def load(path: str | Path) -> SequenceClassifier:
    """Load a model that `save` wrote; it predicts the same to the last bit.

    Args:
        path: its directory.

    Raises:
        ValueError: a file is missing, damaged or foreign, or the two do not belong together.

    Example:
        >>> import numpy as np, tempfile
        >>> X, y = np.random.default_rng(0).normal(size=(20, 3, 2)), np.arange(20) % 2
        >>> model = SequenceClassifier(hidden_size=4, iterations=2).fit(X, y)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     model.save(f"{directory}/model")
        ...     again = load(f"{directory}/model")
        >>> bool((again.predict_proba(X) == model.predict_proba(X)).all())
        True
    """
    path = Path(path)
    params, net_params = (set(signature(c).parameters) for c in (SequenceClassifier, ClassifierNet))
    saved = saved_model.read(path, KIND, params, net_params)
    with torch.random.fork_rng(devices=[]):
        net = ClassifierNet(**saved.net)
    if net.config["n_classes"] != len(saved.classes):
        raise ValueError(
            f"{path} has {len(saved.classes)} labels for a network of {net.config['n_classes']} "
            "classes; it is damaged"
        )
    fill(net, saved.weights, str(path))
    model = SequenceClassifier(**saved.params)
    model.classes_ = saved.classes
    model.net_ = net.eval()
    model.n_features_in_ = net.config["n_features"]
    model.n_iter_ = saved.iterations
    return model


def _check_sequences(X: Any) -> np.ndarray | Ragged:
    if hasattr(X, "toarray"):  # the sparse arrays of SciPy have it
        raise TypeError("X is a sparse matrix, and sparse data is not supported; pass X.toarray()")
    return as_sequences(X)


def _check_labels(y: Any, n: int) -> np.ndarray:
    if y is None:
        raise ValueError(
            "SequenceClassifier requires y to be passed, but the target y is None; "
            "wanted a label for each example"
        )
    labels = column_or_1d(y, warn=True)
    if len(labels) != n:
        raise ValueError(f"X has {n} examples and y has {len(labels)}; wanted a label for each")
    check_classification_targets(labels)
    return labels


def _split(y: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the examples to train on, and of those to validate with; both ascending."""
    rest, held_out = train_test_split(
        np.arange(len(y)), test_size=fraction, stratify=y, random_state=seed
    )
    return np.sort(rest), np.sort(held_out)


def _class_weight_by_number(
    class_weight: Any, encoder: LabelEncoder
) -> dict[int, float] | str | None:
    if not isinstance(class_weight, Mapping):
        return class_weight
    numbers = encoder.encode(class_weight, name="class_weight")
    return dict(zip(numbers.tolist(), class_weight.values(), strict=True))


def _n_features(X: np.ndarray | Ragged) -> int:
    return X.n_features if isinstance(X, Ragged) else X.shape[2]


def _check_features(X: Any, wanted: int) -> np.ndarray | Ragged:
    sequences = _check_sequences(X)
    if _n_features(sequences) != wanted:
        raise ValueError(
            f"X has {_n_features(sequences)} features, but SequenceClassifier is expecting "
            f"{wanted} features as input, those it was trained with"
        )
    return sequences
