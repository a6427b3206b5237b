"""The hyperparameters of a network and of its training, each declared once.

A field of the dataclasses below has a name, a type, a default, a range and a help text, for

    training.Plan             which inherits the fields of `Training`
    models and estimators     which take the defaults, the checks and the documentation from here
    jobs/inputs/config.py     which derives flags, keys of TOML files and help texts

A new hyperparameter is a new field. The signature of the estimators is that of the fields of
`tasks.estimator.Estimator`, where it is written once more, with the default from here; a test finds
missing ones.

Neither torch nor numpy is imported: `ostinato --help` stays quick.
"""

from __future__ import annotations

import functools
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

Value = Any  # None | bool | int | float | str: the values of a flat TOML table, and None
T = TypeVar("T", bound=type)

DEFAULT_ITERATIONS = 5000  # the notebook's
DEFAULT_WINDOW = 128  # tokens that a language model reads between two updates
FEW_SEQUENCES = 10  # of labelled steps; fewer are divided in time
WORDS_KNOWN = 10_000  # by a language model, or pieces of words, at most
# A training may be resumed with other values of these: they decide when it ends and what it
# reports, or do not change its numbers.
EXTENDABLE = frozenset({"iterations", "epochs", "patience", "eval_every", "memory"})


class HyperparameterError(ValueError, TypeError):
    """A value of another type or out of its range; the message says what came and was wanted."""


def declare(
    default: Value,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    cli_name: str | None = None,
    or_own: bool = False,
    by_column: bool = False,
) -> Any:
    """A dataclass field with its help and range: low ≤ value ≤ high, above < value < below.

    `cli_name` is its name on the command line and in TOML files, if it differs. With
    `or_own` a user's own class or function is allowed, too, in Python; with `by_column` a choice
    for each of some columns, "forward,dose=zero".
    """
    limits = {"at least": low, "at most": high, "above": above, "below": below}
    limits = {words: limit for words, limit in limits.items() if limit is not None}
    metadata = {"help": help, "limits": limits, "cli_name": cli_name, "or_own": or_own}
    return field(default=default, metadata={**metadata, "by_column": by_column})


@dataclass(frozen=True)
class Declaration:
    """The type, range, default and help of a field."""

    name: str
    cli_name: str
    type: type  # bool, int, float or str
    optional: bool  # whether None is allowed
    choices: tuple[str, ...]  # the allowed values; empty: any text
    default: Value
    help: str
    limits: Mapping[str, float]
    or_own: bool  # whether a user's own class or function is allowed
    by_column: bool  # whether COLUMN=choice is allowed, too, and several of them

    @property
    def wanted(self) -> str:
        """The values that are allowed, in words."""
        if self.choices:
            words = f"one of {', '.join(map(repr, self.choices))}"
        else:
            nouns = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
            words = nouns[self.type] + self._range
        words += ", or a class of your own" if self.or_own else ""
        return words + (", or None" if self.optional else "")

    def checked(self, value: Any) -> Value:
        """`value` as a plain Python value, which fits into JSON.

        Raises:
            HyperparameterError: it is of another type, or out of range.
        """
        if (value is None and self.optional) or (self.or_own and callable(value)):
            return value
        plain = self.plain(value)
        if plain is None:
            raise HyperparameterError(f"{self.name}={value!r}: wanted {self.wanted}")
        return plain

    def plain(self, value: Any) -> Value:
        """`value` as a bool, int, float or str; None if it is of another type or out of range."""
        if self.type is str:
            known = isinstance(value, str) and (self._chosen(value) if self.choices else value)
            return str(value) if known else None
        if self.type is bool:  # NumPy's are equal to these, but not instances of bool
            return bool(value) if value in (True, False) else None
        if isinstance(value, bool) or not isinstance(value, Integral if self.type is int else Real):
            return None
        try:
            number = self.type(value)
        except OverflowError:
            return None
        return number if self._in_range(number) else None

    def _chosen(self, value: str) -> bool:
        """Whether all of a value's parts are among the choices."""
        parts = value.split(",") if self.by_column else [value]
        return all(
            (part.rpartition("=")[2].strip() if self.by_column else part) in self.choices
            for part in parts
        )

    @property
    def _range(self) -> str:
        words = [f"{words} {limit}" for words, limit in self.limits.items()]
        if "at least" not in self.limits:
            return f" {' and '.join(words)}" if words else ""
        low, *high = words
        low = low.removeprefix("at least ")
        return f" from {low} to {high[0].removeprefix('at most ')}" if high else f", {low} or more"

    def _in_range(self, number: float) -> bool:
        if isinstance(number, float) and not math.isfinite(number):
            return False
        holds = {
            "at least": lambda limit: number >= limit,
            "at most": lambda limit: number <= limit,
            "above": lambda limit: number > limit,
            "below": lambda limit: number < limit,
        }
        return all(holds[words](limit) for words, limit in self.limits.items())


class Declared:
    """A frozen dataclass with fields made by `declare`; the constructor checks its values."""

    def __post_init__(self) -> None:
        kind: Any = type(self)  # a class can be hashed, which mypy denies of this one
        for each in declarations(kind):
            object.__setattr__(self, each.name, each.checked(getattr(self, each.name)))


@functools.cache
def declarations(kind: type[Any]) -> tuple[Declaration, ...]:
    """The declarations of the fields of a `Declared`, in their order."""
    hints = typing.get_type_hints(kind)
    return tuple(_declaration(f.name, hints[f.name], f.default, **f.metadata) for f in fields(kind))


def _declaration(
    name: str,
    hint: Any,
    default: Value,
    help: str,
    limits: Mapping[str, float],
    cli_name: str,
    or_own: bool,
    by_column: bool,
) -> Declaration:
    optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
    if optional:
        (hint,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    kind = str if choices else hint
    cli_name = cli_name or name
    return Declaration(
        name, cli_name, kind, optional, choices, default, help, limits, or_own, by_column
    )


@dataclass(frozen=True)
class Architecture(Declared):
    """The network of any task: its cell, its sizes and its start."""

    cell: Literal["rnn", "gru", "lstm"] = declare("rnn", "The recurrent cell.", or_own=True)
    hidden_size: int = declare(128, "Size of the hidden state.", low=1)
    num_layers: int = declare(1, "Number of recurrent layers.", low=1, cli_name="layers")
    bidirectional: bool = declare(False, "Read each sequence in both directions.")
    dropout: float = declare(
        0.0, "Dropout between layers and before the readout, in training only.", low=0, below=1
    )
    init: Literal["default", "notebook"] = declare(
        "default", "First weights: Glorot U and V with orthogonal W, or the notebook's zeros."
    )


@dataclass(frozen=True)
class Classifying(Architecture):
    """The network of a classifier."""

    readout: Literal["last", "mean", "max", "attention"] = declare(
        "last", "What the classifier reads: the last state, or a mean, maximum or attention of all."
    )


@dataclass(frozen=True)
class WordSettings(Declared):
    """How a classifier reads words."""

    embedding_size: int = declare(100, "Size of a word's embedding.", low=1)
    vocabulary_size: int = declare(20_000, "Number of words known, the most frequent.", low=2)


@dataclass(frozen=True)
class Training(Declared):
    """How a network is trained. The defaults are those of docs/tutorial/rnn_mnist.ipynb."""

    iterations: int | None = declare(
        None, f"Updates to make; {DEFAULT_ITERATIONS} if epochs is not given either.", low=1
    )
    epochs: float | None = declare(
        None, "Passes over the data, instead of iterations; 1.5 is allowed.", above=0
    )
    batch_size: int = declare(128, "Examples an update sees.", low=1)
    optimizer: Literal["rmsprop", "sgd", "adam", "adamw"] = declare(
        "rmsprop", "Update rule; rmsprop is TensorFlow 1's and the notebook's."
    )
    learning_rate: float = declare(1e-3, "Step size, before the schedule.", above=0)
    momentum: float = declare(0.0, "Momentum of sgd and rmsprop.", low=0, below=1)
    weight_decay: float = declare(0.0, "Weight decay; adamw decouples it from the gradient.", low=0)
    clip_norm: float | None = declare(
        None, "Largest 2-norm of the gradient; a larger gradient is scaled down.", above=0
    )
    schedule: Literal["constant", "cosine", "step"] = declare(
        "constant",
        "How the learning rate moves: cosine falls to zero at the last iteration, "
        "step multiplies it by step_gamma every step_size iterations.",
    )
    warmup: int = declare(
        0, "Iterations at the start over which the learning rate rises from zero.", low=0
    )
    step_size: int = declare(1000, "Iterations between two changes by the schedule step.", low=1)
    step_gamma: float = declare(0.1, "Factor of each change by the schedule step.", above=0)
    eval_every: int = declare(1000, "Iterations between two reports.", low=1)
    patience: int | None = declare(
        None,
        "Stop after this number of reports without a lower validation loss; under the "
        "cosine schedule never before 60 % of the iterations.",
        low=1,
    )
    restore_best: bool = declare(
        True, "End with the weights of the report with the lowest validation loss."
    )
    memory: str | None = declare(
        None,
        "Memory that the layers may keep for a backward pass, such as 64MB; the rest is "
        "computed again, with the same bits.",
    )
    truncate: int | None = declare(
        None,
        "Steps after which the gradient of the state ends, while the state goes on. For a language "
        f"model the tokens between two updates, by default {DEFAULT_WINDOW}.",
        low=1,
    )
    window: int | None = declare(
        None,
        "Steps of the windows in which a tagger learns long sequences: many to a batch, at random "
        "places, each from the state that the one before it left. Default: whole sequences.",
        low=2,
    )
    similar_lengths: bool = declare(
        False,
        "Put sequences of similar length into a batch, which saves time where lengths differ "
        "severalfold.",
    )
    # PyTorch and NumPy both take seeds of 32 bits.
    seed: int = declare(0, "Seed of weights, order and splits.", low=0, high=2**32 - 1)


@dataclass(frozen=True)
class Fitting(Training):
    """How a network is trained, and how the examples are used."""

    validation_fraction: float = declare(
        0.0, "Share of the examples, of each class, kept for validation.", low=0, below=1
    )
    class_weight: str | None = declare(
        None, "balanced, or weights by label: cat=1,dog=2.5 (others count 1)."
    )


def arguments(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor, from its `locals()` before it has others.

    Example:
        >>> class Example:
        ...     def __init__(self, a, b=2):
        ...         self.config = arguments(locals())
        >>> Example(1).config
        {'a': 1, 'b': 2}
    """
    return {name: value for name, value in scope.items() if name not in ("self", "__class__")}


def documented(cls: T, by_recipe: Mapping[str, str] = types.MappingProxyType({})) -> T:
    """Describe the hyperparameters of a class at `{hyperparameters}` in its docstring.

    They are the parameters of its constructor that are declared above, and the fields with a help
    of their own, except those that the docstring describes itself. Each line ends with the default
    of the constructor; `by_recipe` are the values that follow from a recipe, in words.
    """
    text = cls.__doc__ or ""
    before = text.partition("{hyperparameters}")[0]
    indent = before[before.rfind("\n") + 1 :]  # of the source; less from Python 3.13 on
    defaults = {name: p.default for name, p in inspect.signature(cls).parameters.items()}
    bases = [base for base in reversed(cls.__mro__) if is_dataclass(base)]
    own = [f for base in bases if not issubclass(base, Declared) for f in fields(base)]
    helps = {
        each.name: f"{each.help} Wanted: {each.wanted}."
        for each in (*declarations(Classifying), *declarations(Fitting))
    }
    helps |= {f.name: f.metadata["help"] for f in own if "help" in f.metadata}
    helps = {
        n: f"{h} By the recipe {by_recipe[n]}." if by_recipe.get(n) else h for n, h in helps.items()
    }
    lines = [
        textwrap.fill(
            f"{name}: {help} Default: {defaults[name]!r}.",
            width=100,
            initial_indent=indent,
            subsequent_indent=indent + " " * 4,
        )
        for name, help in helps.items()
        if name in defaults and f"\n{indent}{name}: " not in text
    ]
    cls.__doc__ = text.replace(indent + "{hyperparameters}", "\n".join(lines))
    return cls
