"""`Preparation`: how examples become the numbers of a network, learnt from the training part.

It is part of a model: the columns by name, so that a file with its columns in another order, or
with further columns, gives the same bits; the means and scales of the training part; its words; and
the replacement of missing values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, get_args

import numpy as np

from ostinato_learn.data.questions import OpenQuestion
from ostinato_learn.data.sequences.as_sequences import Sequences
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.features import (
    Feature,
    Missing,
    Unknown,
    as_trained,
    as_tuple,
    feature_from,
    learnt,
)
from ostinato_learn.data.sequences.mapped import Mapped, stretches
from ostinato_learn.data.sequences.moments import Moments
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.sequences.step_labels import n_features
from ostinato_learn.data.tables.roles import Roles
from ostinato_learn.data.text.words import MAX_WORDS, Integers, Words

PIECE = 1 << 18  # values at a time: a column of so few is in the processor's cache with its row
_OTHERWISE = "missing='mask', 'fill' or 'forward' (--missing mask)"
_REMEDY, _LATER = f", or {_OTHERWISE}", f", or a model trained with {_OTHERWISE}"


@dataclass(frozen=True)
class Preparation:
    """What turns examples into a network's input: scales, names and words, learnt in training.

    Attributes:
        features: the features of a step, in the order of the input.
        statics: the static inputs of a sequence.
        missing: how missing values are treated: "error", refused; "mask", 0, and a further column
            for each feature is 1 where it is missing; "fill", the mean of the training part;
            "forward", the last value before it in its sequence, or else the mean;
            "zero", 0, before it is scaled. A missing word has zeros in all its columns; "forward"
            takes the last word.
        roles: the roles of the columns of the file.
        reads_words: whether a step is a word of a vocabulary: `apply` gives `Words`, for a model
            with a vocabulary, where there is one feature and it holds names.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn.data import Examples, Preparation
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
    reads_words: bool = False

    @staticmethod
    def fit(
        examples: Examples,
        *,
        missing: Missing | Mapping[str, Missing] = "error",
        standardize: bool = True,
    ) -> Preparation:
        """Learn means, scales and words from the training part.

        Args:
            examples: the training part alone.
            missing: see `Preparation`; or a treatment for each of some columns, by name, and by ""
                for all others (by default an error). Such a model can be neither exported nor
                streamed.
            standardize: whether numbers are scaled to mean 0 and standard deviation 1 over all
                steps of the training part; a feature that never changes is only centred.

        Raises:
            ValueError: `missing` is unknown; a value is missing and that is an error; a feature has
                no values.
        """
        given = dict(missing) if isinstance(missing, Mapping) else {"": missing}
        missing = given.pop("", "error")
        for each in (missing, *given.values()):
            if each not in get_args(Missing):
                raise ValueError(
                    f"missing={each!r} is not known; wanted one of {', '.join(get_args(Missing))}"
                )
        for name in given:
            if name not in (*examples.features, *examples.statics):
                raise ValueError(
                    f"{examples.source or 'examples'}: missing names the column {name!r}, which is "
                    f"no input; the inputs are {', '.join((*examples.features, *examples.statics))}"
                )
        if _is_words(examples):
            _words_of(examples)  # refuses missing words
            return Preparation((Feature(examples.features[0]),), (), missing, examples.roles, True)
        moments = [Moments() for _ in examples.features]
        words: list[set[str] | None] = [None] * len(moments)
        of_numbers = {
            i: moments[i]
            for i, name in enumerate(examples.features)
            if name not in examples.categories
        }
        for block in examples.blocks():
            if block.values.shape[1] != len(moments):
                raise ValueError(
                    f"there are {len(moments)} names for {block.values.shape[1]} features; wanted "
                    "Examples(X, features=(…)) with a name for each"
                )
            lacks = _lacks(block.values)
            for i, name in enumerate(examples.features):
                if lacks[i] and given.get(name, missing) == "error":
                    _refuse_missing(block, i)
                if name in examples.categories:
                    words[i] = (words[i] or set()) | _words(block, i)
            _each(Moments.add, of_numbers, block.values)
        for block in examples.blocks() if standardize else ():  # again: from the mean of all
            _each(Moments.add_deviations, of_numbers, block.values)
        features = [
            learnt(name, known, counted, standardize, examples, given.get(name))
            for name, known, counted in zip(examples.features, words, moments, strict=True)
        ]
        statics = []
        for name, static in examples.statics.items():
            numbers, names = _codes(static)
            if given.get(name, missing) == "error":
                _refuse_missing_static(examples, name, numbers)
            counted = Moments()
            counted.add(numbers)
            counted.add_deviations(numbers)
            known = set(names) if names else None
            statics.append(learnt(name, known, counted, standardize, examples, given.get(name)))
        return Preparation(tuple(features), tuple(statics), missing, examples.roles)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the input's columns, F of them."""
        return self._columns(self.features)

    @property
    def static_columns(self) -> tuple[str, ...]:
        """The names of the columns of `apply_statics`."""
        return self._columns(self.statics)

    def apply(self, examples: Examples, *, unseen: bool = False) -> Any:
        """The input of a network: `[N, T, F]` float32, or a `Ragged`, finite throughout; or
        `Words`, if the preparation `reads_words`.

        Features are found by name: in any order, and among others. Words that the training part
        did not have are unknown: zeros in all columns. The log has their number.

        Args:
            examples: the examples.
            unseen: leave the values of examples in a file unread until they are needed: another
                process of the same training checks them.

        Raises:
            ValueError: a feature is missing, or holds words instead of numbers or the reverse; a
                value is missing where that is an error, or overflows float32 when scaled.
        """
        if self.reads_words:
            name = self.features[0].name
            if examples.features != (name,) or name not in examples.categories:
                raise ValueError(
                    f"{examples.source or 'examples'}: the model was trained with words, one "
                    f"feature {self.features[0].name!r}; there are "
                    f"{', '.join(map(repr, examples.features))}"
                )
            return _words_of(examples, unseen)
        unknown: dict[str, Unknown] = {}
        prepared: Sequences
        if not isinstance(examples.sequences, Mapped):
            prepared = self._apply(examples, unknown)
        else:
            for block in () if unseen else examples.blocks():  # errors now, not while training
                self._apply(block, unknown)
            prepared = examples.sequences.prepared(
                partial(self._apply_values, examples.features, examples.categories),
                len(self.columns),
            )
        for name, found in unknown.items():
            found.tell(name, examples.source)
        return prepared

    def knows(self, X: Any) -> bool:
        """Whether X are `Examples` whose features are found by their names."""
        if not isinstance(X, Examples):
            return False
        return X.roles is not None or any(f.name in X.features for f in self.features)

    def apply_in_order(self, X: Sequences) -> Any:
        """`apply` to sequences whose features are in the order of `features`, without names.

        Raises:
            ValueError: as `apply`; or the number of features differs; or a feature holds names,
                which an array of numbers cannot.
        """
        if n_features(X) != len(self.features):
            raise ValueError(
                f"X has {n_features(X)} features; wanted the {len(self.features)} of the training"
            )
        holds_names = [feature.name for feature in self.features if feature.words is not None]
        if holds_names:
            raise ValueError(
                f"the model reads names in {holds_names[0]!r}, which an array of numbers has not; "
                "wanted the Examples that data.read_examples gives"
            )
        return self.apply(Examples(X, features=tuple(feature.name for feature in self.features)))

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
            if self._how(feature) == "error":
                _refuse_missing_static(examples, feature.name, numbers, _LATER)
            place = partial(_place_static, examples, feature.name)
            unknown: dict[str, Unknown] = {}
            known = as_trained(feature, numbers, words, place, unknown)
            for name, found in unknown.items():
                found.tell(name, examples.source)
            parts += self._inputs(feature, known, every)
        if not parts:
            return np.zeros((len(examples), 0), np.float32)
        return np.ascontiguousarray(np.stack(parts, axis=1))

    def _apply(self, examples: Examples, unknown: dict[str, Unknown]) -> Sequences:
        values, positions = examples.values, _positions(self.features, examples)
        lacks = _lacks(values)
        known: dict[int, np.ndarray] = {}
        for feature, i in zip(self.features, positions, strict=True):
            if lacks[i] and self._how(feature) == "error":
                _refuse_missing(examples, i, _LATER)
            words = examples.categories.get(feature.name)
            if words is not None or feature.words is not None:
                place = partial(examples.place, feature=i)
                known[i] = as_trained(feature, values[:, i], words, place, unknown)
        unscaled = all(f.mean == 0 and f.scale == 1 for f in self.features)
        if unscaled and self.columns == examples.features and not (known or lacks.any()):
            return self._finite(values, examples)  # the values as they are, without a copy
        prepared = np.empty((len(values), len(self.columns)), np.float32)
        begins = np.cumsum(examples.lengths) - examples.lengths
        for chosen in stretches(examples.lengths * values.shape[1], PIECE):
            starts = begins[chosen]
            rows = slice(starts[0], starts[-1] + examples.lengths[chosen[-1]])
            parts: list[np.ndarray] = []
            for feature, i in zip(self.features, positions, strict=True):
                column = known[i][rows] if i in known else values[rows, i].astype(np.float64)
                parts += self._inputs(feature, column, starts - rows.start)
            for column, part in zip(prepared[rows].T, parts, strict=True):
                column[:] = part
        return self._finite(prepared, examples)

    def _apply_values(
        self, features: tuple[str, ...], categories: Mapping[str, tuple[str, ...]], X: Ragged
    ) -> Ragged:
        """`apply` for sequences that were read from a file, and that were applied to before."""
        examples = Examples(X, features=features, categories=categories)
        lenient = [
            replace(feature, missing="fill") if self._how(feature) == "error" else feature
            for feature in self.features
        ]
        prepared = replace(self, features=tuple(lenient))._apply(examples, {})
        assert isinstance(prepared, Ragged)
        return prepared

    def _how(self, feature: Feature) -> Missing:
        """What a missing value of a feature is."""
        return feature.missing or self.missing

    def check_uniform(self) -> None:
        """Raise ValueError if exports and streams would fill missing values in in another way.

        Raises:
            ValueError: a column is treated differently, or missing values become 0 with a mask.
        """
        own = [f.name for f in (*self.features, *self.statics) if f.missing]
        if own or self.missing == "zero":
            what = f"in the column {own[0]!r} in a way of its own" if own else "by zeros"
            raise ValueError(
                f"the model fills missing values in {what}, which exported models and streams do "
                "not do; wanted missing='error', 'mask', 'fill' or 'forward' for all columns"
            )

    def as_json(self) -> dict[str, Any]:
        """As plain values, for a saved model."""
        kept = asdict(self)
        if kept["roles"] is not None:
            del kept["roles"]["of_model"]  # always true for a model
        for feature in (*kept["features"], *kept["statics"]):
            if feature["missing"] is None:
                del feature["missing"]
        return kept

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Preparation:
        """What `as_json` gave, also after JSON made lists of its tuples.

        Raises:
            ValueError: it is something else.
        """
        try:
            roles = value["roles"]
            made = Preparation(
                tuple(feature_from(f) for f in value["features"]),
                tuple(feature_from(f) for f in value["statics"]),
                value["missing"],
                None if roles is None else Roles(**{k: as_tuple(v) for k, v in roles.items()}),
                value["reads_words"],
            )
        except (TypeError, KeyError, ValueError) as problem:
            raise ValueError(f"this is not a saved preparation of data ({problem})") from None
        if made.missing not in get_args(Missing) or set(value) != {f.name for f in fields(made)}:
            raise ValueError("this is not a preparation of data that this version can read")
        return made

    def _columns(self, features: Iterable[Feature]) -> tuple[str, ...]:
        names: list[str] = []
        for feature in features:
            names += feature.columns
            if self._how(feature) == "mask" and not self.reads_words:
                names.append(f"{feature.name} is missing")
        return tuple(names)

    def _inputs(self, feature: Feature, values: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
        """The columns that a feature becomes, each `[ΣT]` float32.

        Args:
            values: `[ΣT]` float64; for words, their places among the trained ones, −1 if unknown;
                NaN if missing.
            starts: the begins of the sequences.
        """
        absent, how = np.isnan(values), self._how(feature)
        some = absent.any()
        if how == "forward" and some:
            values = _forward(values, absent, starts)
        if feature.words is None:
            # A masked value becomes 0 when it is scaled.
            fill = {"mask": feature.mean, "zero": 0.0}.get(how, feature.fill)
            filled = np.where(np.isnan(values), fill, values) if some else values
            with np.errstate(over="ignore"):
                columns = [((filled - feature.mean) / feature.scale).astype(np.float32)]
        else:
            columns = [(values == i).astype(np.float32) for i in range(len(feature.words))]
        if how == "mask":
            columns.append(absent.astype(np.float32))
        return columns

    def _finite(self, values: np.ndarray, examples: Examples) -> Sequences:
        finite = np.isfinite(values)
        if not finite.all():
            row, column = np.argwhere(~finite)[0].tolist()
            name = self.columns[column]
            place = examples.place(row, examples.features.index(name))
            raise ValueError(
                f"{place}: the value is too far from those of the training part to be scaled in "
                "float32; wanted values of a similar size"
            )
        if isinstance(examples.sequences, Ragged):
            return Ragged(values, examples.sequences.offsets)
        return values.reshape(*examples.sequences.shape[:2], len(self.columns))


def _is_words(examples: Examples) -> bool:
    """Whether steps are words of a vocabulary: to be tagged, of a text, or too many for columns."""
    roles = examples.roles
    if roles is None or len(examples.features) != 1 or not examples.categories:
        return False
    if roles.task == "tag":
        return True
    (words,) = examples.categories.values()
    of_sequences = roles.task in ("classify", "regress")
    return of_sequences and (roles.shape == "wide" or len(words) > MAX_WORDS)


def _words_of(examples: Examples, unseen: bool = False) -> Words:
    """The words, none of which may be missing; those in a file stay there."""
    for block in () if unseen else examples.blocks():
        _refuse_missing(block, 0, hint="")
    words = examples.categories[examples.features[0]]
    order = sorted(range(len(words)), key=words.__getitem__)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    if isinstance(examples.sequences, Mapped):
        column = examples.sequences.column(0)
        places = Integers(column.stored, column.lengths, column.starts, rank)
    else:
        places = Integers(rank[examples.values[:, 0].astype(np.int64)], examples.lengths)
    return Words(tuple(words[i] for i in order), places)


def _lacks(values: np.ndarray) -> np.ndarray:
    """Of each column of `values` whether one is missing."""
    return np.isnan(values).any(axis=0)


def _each(
    add: Callable[[Moments, np.ndarray], None], of: Mapping[int, Moments], values: np.ndarray
) -> None:
    """Add the columns of `values` to their moments."""
    rows = max(1, PIECE // max(1, values.shape[1]))
    for start in range(0, len(values), rows):
        for i, moments in of.items():
            add(moments, values[start : start + rows, i])


def _words(examples: Examples, i: int) -> set[str]:
    """The words that there are in feature i."""
    column = examples.values[:, i]
    words = examples.categories[examples.features[i]]
    return {words[place] for place in np.unique(column[~np.isnan(column)]).astype(int).tolist()}


def _positions(features: Iterable[Feature], examples: Examples) -> list[int]:
    at = {name: i for i, name in enumerate(examples.features)}
    for feature in features:
        if feature.name not in at:
            raise ValueError(
                f"{examples.source or 'examples'}: there is no feature {feature.name!r}, with "
                f"which the model was trained; there are {', '.join(map(repr, at)) or 'none'}"
            )
    return [at[feature.name] for feature in features]


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


def _refuse_missing(examples: Examples, i: int, hint: str = _REMEDY) -> None:
    """No value of feature i is missing; of a series' future only what is known ahead is wanted."""
    absent = np.isnan(examples.values[:, i])
    if absent.any() and examples.roles and examples.features[i] not in examples.roles.known:
        absent &= ~examples.ahead
    if absent.any():
        n = int(absent.sum())
        is_wide = examples.roles is not None and examples.roles.shape == "wide"
        where = "all columns" if is_wide else "the column"
        also = f" ({n:,} such values in {where})" if n > 1 else ""
        message = (
            f"{examples.place(int(np.argmax(absent)), i)}: the value is missing{also}; wanted "
            f"one{hint}"
        )
        raise OpenQuestion(message, missing="mask") if hint == _REMEDY else ValueError(message)


def _refuse_missing_static(
    examples: Examples, name: str, values: np.ndarray, hint: str = _REMEDY
) -> None:
    absent = np.isnan(values)
    if absent.any():
        raise ValueError(
            f"{_place_static(examples, name, int(np.argmax(absent)))}: the value is missing; "
            f"wanted one{hint}"
        )


def _place_static(examples: Examples, name: str, sequence: int) -> str:
    return (
        f"{examples.source or 'examples'}, sequence {examples.ids[sequence]}, static column "
        f"{name!r}"
    )
