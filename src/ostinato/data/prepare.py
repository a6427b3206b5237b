"""`Preparation`: how examples become the numbers of a network, learnt from the training part.

It is part of a model: the columns by name, so that a file with its columns in another order, or
with more of them, gives the same bits; the means and scales of the training part; the words that
were trained; and what a missing value becomes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from ostinato.data.examples import Examples
from ostinato.data.ragged import Ragged
from ostinato.data.roles import Roles
from ostinato.data.sequences import Sequences

_log = logging.getLogger(__name__)

Missing = Literal["error", "mask", "fill", "forward"]


@dataclass(frozen=True)
class Feature:
    """What is remembered of one feature.

    Attributes:
        name: of its column.
        words: those of the training part, if it holds names: each becomes a column of zeros and
            ones.
        mean, scale: the number x becomes (x − mean) / scale.
        fill: what a missing number becomes, before it is scaled.
    """

    name: str
    words: tuple[str, ...] | None = None
    mean: float = 0.0
    scale: float = 1.0
    fill: float = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of what it becomes."""
        if self.words is None:
            return (self.name,)
        return tuple(f"{self.name}={word}" for word in self.words)


@dataclass(frozen=True)
class Preparation:
    """The way from examples to a network's input.

    Attributes:
        features: of a step, in the order of the input.
        statics: of a sequence.
        missing: what a missing value is: "error", it is refused; "mask", 0, and a further column
            for each feature is 1 where it is missing; "fill", the mean of the training part;
            "forward", the last value before it in its sequence, or the mean if there is none. A
            missing word has zeros in all its columns; "forward" takes the last word.
        roles: of the columns of the file.

    Example:
        >>> import numpy as np
        >>> from ostinato.data import Examples, Preparation
        >>> X = np.array([[[1.0], [3.0]], [[np.nan], [np.nan]]], np.float32)
        >>> preparation = Preparation.fit(Examples(X, features=("speed",)), missing="mask")
        >>> preparation.columns
        ('speed', 'speed is missing')
        >>> preparation.apply(Examples(X, features=("speed",))).tolist()
        [[[-1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]
    """

    features: tuple[Feature, ...]
    statics: tuple[Feature, ...] = ()
    missing: Missing = "error"
    roles: Roles | None = None

    @staticmethod
    def fit(
        examples: Examples, *, missing: Missing = "error", standardize: bool = True
    ) -> Preparation:
        """Learn means, scales and words from the training part.

        Args:
            examples: the training part alone.
            missing: see `Preparation`.
            standardize: whether numbers are scaled to mean 0 and standard deviation 1 over all
                steps of the training part; a feature that never changes is only centred.

        Raises:
            ValueError: `missing` is unknown; a value is missing and that is an error; a feature has
                no value at all.
        """
        if missing not in get_args(Missing):
            raise ValueError(
                f"missing={missing!r} is not known; wanted one of {', '.join(get_args(Missing))}"
            )
        values = examples.values
        features = []
        for i, name in enumerate(examples.features):
            if missing == "error":
                _refuse_missing(examples, i)
            features.append(
                _feature(name, values[:, i], examples.categories.get(name), standardize, examples)
            )
        statics = []
        for name, static in examples.statics.items():
            numbers, words = _codes(static)
            if missing == "error":
                _refuse_missing_static(examples, name, numbers)
            statics.append(_feature(name, numbers, words, standardize, examples))
        return Preparation(tuple(features), tuple(statics), missing, examples.roles)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the input's columns, F of them."""
        return self._columns(self.features)

    @property
    def static_columns(self) -> tuple[str, ...]:
        """The names of the columns of `apply_statics`."""
        return self._columns(self.statics)

    def apply(self, examples: Examples) -> Sequences:
        """The input of a network: `[N, T, F]` float32, or a `Ragged`, finite throughout.

        Features are found by name: in any order, and among others. Words that the training part
        did not have are unknown: zeros in all columns. They are counted, and told in the log.

        Raises:
            ValueError: a feature is not there, or holds words instead of numbers or the reverse; a
                value is missing where that is an error, or overflows float32 when scaled.
        """
        values = examples.values
        starts = np.cumsum(examples.lengths) - examples.lengths
        parts = []
        for feature in self.features:
            i = _position(feature, examples)
            column = values[:, i]
            if self.missing == "error":
                _refuse_missing(examples, i)
            words = examples.categories.get(feature.name)
            place = partial(examples.place, feature=i)
            known = _as_trained(feature, column, words, examples, place)
            parts += self._inputs(feature, known, starts)
        return self._joined(parts, examples)

    def apply_statics(self, examples: Examples) -> np.ndarray:
        """The inputs that a sequence has once, `[N, S]` float32; errors as of `apply`."""
        parts: list[np.ndarray] = []
        every = np.arange(len(examples))
        for feature in self.statics:
            if feature.name not in examples.statics:
                raise ValueError(
                    f"{examples.source or 'examples'}: there is no static column {feature.name!r}, "
                    "with which the model was trained"
                )
            numbers, words = _codes(examples.statics[feature.name])
            if self.missing == "error":
                _refuse_missing_static(examples, feature.name, numbers)
            place = partial(_place_static, examples, feature.name)
            known = _as_trained(feature, numbers, words, examples, place)
            parts += self._inputs(feature, known, every)
        if not parts:
            return np.zeros((len(examples), 0), np.float32)
        return np.ascontiguousarray(np.stack(parts, axis=1))

    def as_json(self) -> dict[str, Any]:
        """As plain values, for a saved model."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Preparation:
        """What `as_json` gave, also after JSON made lists of its tuples.

        Raises:
            ValueError: it is something else.
        """
        try:
            roles = value["roles"]
            made = Preparation(
                tuple(_feature_from(f) for f in value["features"]),
                tuple(_feature_from(f) for f in value["statics"]),
                value["missing"],
                None if roles is None else Roles(**{k: _tuple(v) for k, v in roles.items()}),
            )
        except (TypeError, KeyError, ValueError) as problem:
            raise ValueError(f"this is no saved preparation of data ({problem})") from None
        if made.missing not in get_args(Missing) or set(value) != {f.name for f in fields(made)}:
            raise ValueError("this is no preparation of data that this version can read")
        return made

    def _columns(self, features: Iterable[Feature]) -> tuple[str, ...]:
        names: list[str] = []
        for feature in features:
            names += feature.columns
            if self.missing == "mask":
                names.append(f"{feature.name} is missing")
        return tuple(names)

    def _inputs(self, feature: Feature, values: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
        """The columns that a feature becomes, each `[ΣT]` float32.

        Args:
            values: `[ΣT]` float64; of words, their places among those trained, −1 if unknown; NaN
                if missing.
            starts: of the sequences.
        """
        absent = np.isnan(values)
        if self.missing == "forward":
            values = _forward(values, absent, starts)
        if feature.words is None:
            # A masked value becomes 0 when it is scaled.
            fill = feature.mean if self.missing == "mask" else feature.fill
            filled = np.where(np.isnan(values), fill, values)
            with np.errstate(over="ignore"):
                columns = [((filled - feature.mean) / feature.scale).astype(np.float32)]
        else:
            columns = [(values == i).astype(np.float32) for i in range(len(feature.words))]
        if self.missing == "mask":
            columns.append(absent.astype(np.float32))
        return columns

    def _joined(self, parts: list[np.ndarray], examples: Examples) -> Sequences:
        values = np.empty((len(examples.values), len(parts)), np.float32)
        for i, part in enumerate(parts):
            values[:, i] = part
        infinite = ~np.isfinite(values)
        if infinite.any():
            row, column = np.argwhere(infinite)[0].tolist()
            name = self.columns[column]
            place = examples.place(row, examples.features.index(name))
            raise ValueError(
                f"{place}: the value is too far from those of the training part to be scaled in "
                "float32; wanted values of a similar size"
            )
        if isinstance(examples.X, Ragged):
            return Ragged(values, examples.X.offsets)
        return values.reshape(*examples.X.shape[:2], len(parts))


def _feature(
    name: str,
    values: np.ndarray,
    words: tuple[str, ...] | None,
    standardize: bool,
    examples: Examples,
) -> Feature:
    """What is remembered of values `[M]`, NaN where missing."""
    present = values[~np.isnan(values)].astype(np.float64)
    if len(present) == 0:
        raise ValueError(
            f"{examples.source or 'examples'}: the column {name!r} has no value in the training "
            "part; leave it out of the features"
        )
    if words is not None:
        return Feature(name, tuple(words[i] for i in np.unique(present).astype(int)))
    mean = float(present.mean())
    if not standardize:
        return Feature(name, fill=mean)
    constant = present.min() == present.max()
    scale = 1.0 if constant else float(np.sqrt(np.mean((present - mean) ** 2)))
    return Feature(name, mean=mean, scale=scale or 1.0, fill=mean)


def _position(feature: Feature, examples: Examples) -> int:
    if feature.name in examples.features:
        return examples.features.index(feature.name)
    raise ValueError(
        f"{examples.source or 'examples'}: there is no feature {feature.name!r}, with which the "
        f"model was trained; there are {', '.join(map(repr, examples.features)) or 'none'}"
    )


def _as_trained(
    feature: Feature,
    values: np.ndarray,
    words: tuple[str, ...] | None,
    examples: Examples,
    place: Callable[[int], str],
) -> np.ndarray:
    """Values as float64; places among the words of this file as places among those trained."""
    present = ~np.isnan(values)
    if (words is None) != (feature.words is None) and present.any():
        kinds = ("numbers", "names")
        came, trained = kinds[words is not None], kinds[feature.words is not None]
        raise ValueError(
            f"{place(int(np.argmax(present)))}: the column holds {came}; the model was trained "
            f"with {trained}"
        )
    if words is None or feature.words is None:
        return values.astype(np.float64)
    places = {word: i for i, word in enumerate(feature.words)}
    table = np.array([places.get(word, -1) for word in words], np.float64)
    known = np.full(len(values), np.nan)
    known[present] = table[values[present].astype(np.int64)]
    unknown = known == -1
    if unknown.any():
        first = words[int(values[np.argmax(unknown)])]
        _log.warning(
            "%s: %s of %s values of %r were not in the training part (%r is the first) and are "
            "taken as unknown",
            examples.source or "examples",
            f"{int(unknown.sum()):,}",
            f"{len(values):,}",
            feature.name,
            first,
        )
    return known


def _forward(values: np.ndarray, absent: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Each missing value replaced by the last one before it in its sequence, if there is one."""
    last = np.where(absent, -1, np.arange(len(values)))
    first = np.zeros(len(values), np.int64)
    first[starts[starts < len(values)]] = starts[starts < len(values)]
    last = np.maximum.accumulate(last)
    first = np.maximum.accumulate(first)
    return np.where(last >= first, values[last], np.nan)


def _codes(static: np.ndarray) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """A static column as numbers; of words, their places among the sorted ones."""
    if static.dtype != object:
        return static.astype(np.float64), None
    words = tuple(sorted({word for word in static.tolist() if word is not None}))
    places = {word: float(i) for i, word in enumerate(words)}
    return np.array([places.get(word, np.nan) for word in static.tolist()]), words


def _refuse_missing(examples: Examples, i: int) -> None:
    """No value of feature i is missing; of a series' future only what is known ahead is wanted."""
    absent = np.isnan(examples.values[:, i])
    if absent.any() and examples.roles and examples.features[i] not in examples.roles.known:
        absent &= ~examples.ahead
    if absent.any():
        n = int(absent.sum())
        also = f" ({n:,} such values in the column)" if n > 1 else ""
        raise ValueError(
            f"{examples.place(int(np.argmax(absent)), i)}: the value is missing{also}; wanted one, "
            "or missing='mask', 'fill' or 'forward' (--missing)"
        )


def _refuse_missing_static(examples: Examples, name: str, values: np.ndarray) -> None:
    absent = np.isnan(values)
    if absent.any():
        raise ValueError(
            f"{_place_static(examples, name, int(np.argmax(absent)))}: the value is missing; "
            "wanted one, or missing='mask', 'fill' or 'forward' (--missing)"
        )


def _place_static(examples: Examples, name: str, sequence: int) -> str:
    return (
        f"{examples.source or 'examples'}, sequence {examples.ids[sequence]}, static column "
        f"{name!r}"
    )


def _feature_from(value: Mapping[str, Any]) -> Feature:
    return Feature(**{key: _tuple(item) for key, item in value.items()})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
