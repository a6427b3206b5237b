"""What all estimators do alike, and the parameters that they share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from inspect import signature
from numbers import Integral
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ostinato_learn import tasks
from ostinato_learn.data.sequences import splits
from ostinato_learn.data.sequences.examples import Coded, Examples
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.data.sequences.step_labels import Steps, as_texts_or_sequences, n_features
from ostinato_learn.data.tables import frames
from ostinato_learn.data.text.words import Words
from ostinato_learn.hyperparameters import (
    EXTENDABLE,
    Architecture,
    Classifying,
    Declaration,
    Declared,
    Fitting,
    HyperparameterError,
    Training,
    WordSettings,
    declarations,
    declare,
    documented,
)
from ostinato_learn.models import saved_model
from ostinato_learn.runtime.model import Model
from ostinato_learn.saved.read import Saved, parameters
from ostinato_learn.tasks import recipe
from ostinato_learn.tasks.recipe import RECIPES, Settings
from ostinato_learn.training import checkpoint, distributed
from ostinato_learn.training.callbacks import Callback, Progress
from ostinato_learn.training.history import History

E = TypeVar("E", bound="Estimator")
K = TypeVar("K")

AUTO: Any = "auto"  # left to the recipe
Auto = Literal["auto"]


@dataclass(frozen=True)
class _Key(Declaration):
    """A declaration with its key in recipes, "section.name"."""

    key: str


@dataclass(frozen=True)
class _Preparing(Declared):
    standardize: bool = declare(True, "Scale each feature.")


# What a recipe may choose, by the name of the parameter.
DECLARED = {
    each.name: _Key(**vars(each), key=f"{section}.{each.cli_name}")
    for section, kind in (("model", Classifying), ("training", Training), ("data", _Preparing))
    for each in declarations(kind)
}


ARCHITECTURE = {f.name for f in fields(Architecture)}


def _is_open(value: Any, declared: Declaration) -> bool:
    """Whether a parameter is left to the recipe; None is a value of those that may be none."""
    if value is None:
        return not declared.optional or declared.name in ("iterations", "epochs")
    return isinstance(value, str) and value == AUTO


def described(cls: type[E]) -> type[E]:
    """`documented`, with the values of the task's recipe."""
    words = recipe.in_words(cls._task)
    chosen = {f.name for f in fields(cls) if f.default == AUTO} | {"iterations", "epochs"}
    by_default = {n: words.get(each.key, repr(each.default)) for n, each in DECLARED.items()}
    return documented(cls, {n: text for n, text in by_default.items() if n in chosen})


@dataclass(frozen=True)
class TableParts:
    """The sequences of a table, in the parts that a training has.

    Attributes:
        train: the examples to learn from.
        validation: those to choose by.
        missing: how missing values are treated; see `Preparation.fit`.
    """

    train: Examples
    validation: Examples | None
    missing: Any

    def split(self, fraction: float, seed: int) -> TableParts:
        """With a share of the examples kept for validation, as on the command line."""
        if not fraction:
            return self
        if splits.are_few(self.train):
            train, validation = splits.in_time(self.train, fraction)
            return replace(self, train=train, validation=validation)
        rest, held_out = splits.held_out(self.train, fraction, seed)
        train, validation = self.train.select(rest), self.train.select(held_out)
        return replace(self, train=train, validation=validation)

    def preparation(self, standardize: bool) -> Preparation:
        """What makes the input of a network of them, learnt from the training part."""
        return Preparation.fit(self.train, missing=self.missing, standardize=standardize)


def prepared(preparation: Preparation) -> Callable[[Examples], Steps]:
    """The function that makes a network's input of examples."""
    return lambda part: as_texts_or_sequences(preparation.apply(part))


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

    recipe: str = declare(
        "task",
        '"task": parameters with the value "auto" follow from the task and the size of the data, '
        'as for `ostinato train FILE`; "notebook": those of docs/tutorial/rnn_mnist.ipynb.',
    )
    cell: str | type = AUTO
    hidden_size: int | Auto = AUTO
    num_layers: int = Architecture.num_layers
    dropout: float | Auto = AUTO
    iterations: int | None = declare(None, "updates to make, instead of epochs.")
    epochs: float | None = Training.epochs
    batch_size: int | Auto = AUTO
    optimizer: str = AUTO
    learning_rate: float | Auto = AUTO
    momentum: float = Training.momentum
    weight_decay: float = Training.weight_decay
    clip_norm: float | Auto | None = AUTO
    schedule: str = AUTO
    warmup: int | Auto = AUTO
    step_size: int = Training.step_size
    step_gamma: float = Training.step_gamma
    memory: str | None = Training.memory
    truncate: int | None = Training.truncate
    eval_every: int | Auto = AUTO
    patience: int | Auto | None = AUTO
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

    def _hyperparameters(
        self,
        sized: Callable[[Settings, Settings], Settings],
        start: Any = None,
        resume: str | Path | None = None,
    ) -> dict[str, Any]:
        """All parameters of the constructor, with a value for those that are left open.

        Args:
            sized: what follows from the size of the data, of the settings of the recipe and the
                given ones, as "section.name" → value; given for the recipe "task" alone.
            start: the model with whose weights the training begins; its network is kept.
            resume: the directory of a checkpoint, whose plan is kept, except for its length.

        Raises:
            HyperparameterError: a given parameter has another type, or is out of range.
            ValueError: the checkpoint cannot be read.
        """
        if self.recipe not in RECIPES:
            raise HyperparameterError(
                f"recipe={self.recipe!r}: wanted one of {', '.join(map(repr, RECIPES))}"
            )
        parameters = self.get_params(deep=False)
        known = {name: each for name, each in DECLARED.items() if name in parameters}
        given = {
            each.key: each.checked(parameters[name])
            for name, each in known.items()
            if not _is_open(parameters[name], each)
        }
        kept: dict[str, Any] = {}
        if start is not None:
            kept |= {n: v for n, v in start.net.config.items() if n in ARCHITECTURE}
        if resume is not None:
            plan = checkpoint.read(Path(resume), distributed.current())[0]["plan"]
            kept |= {n: v for n, v in plan.items() if n not in EXTENDABLE}
        given = {known[n].key: v for n, v in kept.items() if n in known} | given
        chosen = recipe.of_task(self._task, given, self.recipe)
        settings = {each.key: each.default for each in known.values()} | chosen | given
        settings |= {f"task.{name}": value for name, value in parameters.items()}
        settings |= sized(settings, given) if self.recipe == "task" else {}
        return parameters | {name: settings[each.key] for name, each in known.items()}

    def _table(
        self,
        X: Any,
        y: Any,
        columns: Mapping[str, Any],
        validation: Any = None,
        start: Any = None,
        missing: str = "error",
    ) -> TableParts | None:
        """The parts of a table, as the command line has them; None: X is none.

        Args:
            X: what `fit` was given.
            y: answers to `Examples`.
            columns: the roles of columns, `label`, and `missing`.
            validation: a further table, or (X, y) of `Examples`.
            start: the model that the training starts from, which knows the columns.
            missing: how missing values are treated, if `columns` do not say it.
        """
        is_examples = isinstance(X, (Examples, Coded))
        if not (is_examples or frames.is_path(X) or columns):
            return None
        if not (is_examples or frames.is_path(X) or frames.is_frame(X)):
            raise TypeError(
                f"{next(iter(columns))!r} is for tables, and X is a {type(X).__name__}; wanted a "
                "data frame, or the path of a file"
            )
        roles = {name: value for name, value in columns.items() if name != "missing"}
        known = start and start.preparation and start.preparation.roles
        trained = known and replace(known.for_model(True), split=roles.pop("split", None))
        task = tasks.named(self._task)
        how = columns.get("missing", missing)
        learnt = partial(Preparation.fit, missing=how)
        train = frames.to_learn(X, y, task, roles, trained, learnt)
        held_out = None
        if validation is not None:
            held_X, held_y = validation if isinstance(validation, tuple) else (validation, None)
            of_train = train.roles and replace(train.roles.for_model(True), sort=train.roles.sort)
            held_out = frames.to_learn(held_X, held_y, task, {}, of_train)
        elif train.parts is not None:
            parts = splits.split(train, train.parts)
            if "validation" in parts:
                held_out = train.select(parts["validation"])
            train = train.select(parts["train"])
        return TableParts(train, held_out, how)

    def read(self, X: Any, *, answers: bool = False) -> Examples:
        """The sequences of a table as the fitted model reads them, in the order of its answers.

        Args:
            X: a data frame, or the path of a file, with the columns of the training in any order.
            answers: whether the answers are read, too, as `y`.

        Returns:
            `data.Examples`; `ids` are the names of the sequences.

        Raises:
            ValueError: see `data.read_examples`; or the model was not fitted on a table.
        """
        found = self._fitted().read(X, answers)
        assert isinstance(found, Examples)
        return found

    def _callbacks(
        self, callbacks: Sequence[Callback], values: Mapping[str, Any]
    ) -> Sequence[Callback]:
        """With the progress, if it is given for; the settings are shown first."""
        if not self.verbose:
            return callbacks
        settings = {DECLARED[name].key: v for name, v in values.items() if name in DECLARED}
        print("; ".join(text for _, text in recipe.rows(settings)), file=sys.stderr)
        return [*callbacks, Progress()]

    def _fitted(self) -> Any:
        """The model that the training gave."""
        check_is_fitted(self, "net_")
        return self._model

    def _start(self) -> Any:
        """The model with whose weights a training begins; None: it begins anew."""
        return self._fitted() if self.warm_start and hasattr(self, "net_") else None

    def _trained(self: E, model: Model, history: History, values: Mapping[str, Any]) -> E:
        """Become fitted, by a training with these hyperparameters."""
        self.history_, self.n_iter_ = history, history.iterations
        self.hyperparameters_ = dict(values)
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

        `load` reads it, and without torch `ostinato_learn.runtime.load`. Of a cell of your own the
        operations are saved, not the code: only the runtime reads such a model. The levels of
        quantiles are those of the last `fit`. A `RandomState` is not saved. The files are described
        in `ostinato_learn.saved`.

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

    _task: ClassVar[str]  # its name
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

    bidirectional: bool | Auto = AUTO
    similar_lengths: bool = Training.similar_lengths
    validation_fraction: float = declare(
        Fitting.validation_fraction,
        "share of the sequences, for a classifier of each class, kept from the training for "
        "validation.",
    )
    standardize: bool | Auto = declare(  # noqa: RUF009
        AUTO,
        "scale each feature by its mean and deviation over all steps of the training examples; "
        "predictions do the same.",
    )
    embedding_size: int = declare(WordSettings.embedding_size, "size of a word's embedding.")
    vocabulary_size: int = declare(
        WordSettings.vocabulary_size,
        "number of words that have an embedding of their own, the most frequent ones; all others "
        "share that of the unknown word.",
    )

    def _parts(
        self, X: Any, y: Any, columns: Mapping[str, Any], validation: Any, weights: Any, start: Any
    ) -> TableParts | None:
        """The parts of a table, with a share for validation if requested; None: X is no table.

        Args: see `_table`; `weights` are `sample_weight`, which only arrays have.
        """
        fraction = validation_share(self.validation_fraction, validation)
        parts = self._table(X, y, columns, validation, start)
        if parts is not None and weights is not None:
            raise ValueError("sample_weight is for arrays, and X is a table; leave it out")
        parts = parts and parts.split(fraction, self._seed())
        self._learnt = parts and parts.train
        return parts

    def _to_compare(self, train: Any, y: Any) -> Any:
        """The examples that simple methods learn from; None: there are none.

        Args:
            train: a table; None: that of the last `fit`, if the answers are in a table, too.
            y: what `evaluate` was given.
        """
        if train is not None:
            return self.read(train, answers=True)
        return getattr(self, "_learnt", None) if y is None else None

    def __getstate__(self) -> Any:
        """Without the examples of the training."""
        return {n: value for n, value in super().__getstate__().items() if n != "_learnt"}

    def _answered(self, X: Any, y: Any = None) -> tuple[Any, Any]:
        """Sequences and their answers; those of a table are in it."""
        if y is None:
            X = self._fitted().read(X, answers=True)
            y = getattr(X, "y", None)
        return X, y

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


def for_examples(
    n: int, validated: bool, steps: int | None = None
) -> Callable[[Settings, Settings], Settings]:
    """`recipe.for_examples` for n training examples, for `Estimator._hyperparameters`."""
    return lambda settings, given: recipe.for_examples(n, settings, given, validated, steps)


def prepares(X: Steps, standardize: bool, columns: np.ndarray | None) -> Preparation | None:
    """What is done to sequences before a new network reads them; None: nothing.

    Args:
        X: the sequences.
        standardize: whether features are scaled.
        columns: the names of the columns of X, if it was a data frame; these are the features,
            unless each row is a sequence.
    """
    if not standardize or isinstance(X, Words):
        return None
    n = n_features(X)
    names: Any = [f"feature {i}" for i in range(n)]
    if columns is not None and len(columns) == n:
        names = columns
    return Preparation.fit(Examples(X, features=tuple(map(str, names))))


def validation_share(fraction: Any, validation: Any) -> float:
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


def own(kind: Callable[..., K], values: Mapping[str, Any], **more: Any) -> K:
    """The settings of this kind, a dataclass, that are among these values."""
    return kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values}, **more)  # type: ignore[arg-type]
