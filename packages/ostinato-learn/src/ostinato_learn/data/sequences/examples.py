"""`Examples`: the sequences of a user's file, with what belongs to each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NoReturn

import numpy as np

from ostinato_learn.data.sequences.as_sequences import Sequences, place
from ostinato_learn.data.sequences.mapped import Mapped, Series, stretches
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.tables.roles import Roles, Shape

BLOCK = 1 << 22  # values in memory at a time, if not all are


@dataclass(frozen=True)
class Places:
    """The place of each value of the examples in the file, for messages.

    Attributes:
        unit: "line" of a text file, or "row" of a table; both count from 1.
        numbers: the number of each step, `[ΣT]`, in a long table; else of each sequence, `[N]`.
        columns: the columns of the features; those of the steps in a wide table.
        shape: the shape of the table; or "rows" for a long table if only the first row of each
            sequence is known, `[N]`.
    """

    unit: str
    numbers: np.ndarray
    columns: tuple[str, ...]
    shape: Shape | Literal["rows"]

    def of(self, sequence: int, step: int, row: int, feature: int) -> str:
        """The place of a value in words; `row` counts the steps of all sequences."""
        if self.shape == "wide":
            return f"{self.unit} {self.numbers[sequence]}, column {self.columns[step]!r}"
        column = f"column {self.columns[feature]!r}"
        if self.shape == "nested":
            return f"{self.unit} {self.numbers[sequence]}, {column}, value {step + 1}"
        if self.shape == "rows":
            return f"step {step + 1} from {self.unit} {self.numbers[sequence]} on, {column}"
        return f"{self.unit} {self.numbers[row]}, {column}"

    def select(self, chosen: np.ndarray, lengths: np.ndarray) -> Places:
        """The places of the sequences at positions `chosen`; `lengths` are those of all."""
        if self.shape != "long":
            return replace(self, numbers=self.numbers[chosen])
        ends = np.cumsum(lengths)
        spans = [self.numbers[ends[i] - lengths[i] : ends[i]] for i in chosen]
        return replace(self, numbers=np.concatenate([self.numbers[:0], *spans]))


class Coded:
    """N sequences of which some features are names, each held as its place in a table of names.

    The table belongs to these sequences: in another file the same code is another name. So this is
    no array, and nothing computes with it. Estimators take it as it is, and learn the names.

    Args:
        sequences: `[N, T, F]` float32, or a `Ragged`; with codes where features are names.
        features: the names of the F features.
        categories: feature → its names, for those features that hold some.
        roles: of the columns of their file, if they have one.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn.data.sequences.examples import Coded
        >>> X = Coded(np.array([[[0.0], [1.0]]], np.float32), ("ward",), {"ward": ("A", "B")})
        >>> X, X[0].tolist()
        (Coded(1 sequences, names in 'ward'), [['A'], ['B']])
        >>> np.asarray(X)
        Traceback (most recent call last):
        ...
        TypeError: X holds names ('ward') as codes of its own file, which are no numbers; wanted X \
itself, which the estimators take, or features without names
    """

    __hash__ = None  # type: ignore[assignment]  # as an array

    def __init__(
        self,
        sequences: Sequences,
        features: tuple[str, ...],
        categories: Mapping[str, tuple[str, ...]],
        roles: Roles | None = None,
    ):
        self.sequences = sequences
        self.features = features
        self.categories = categories
        self.roles = roles

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, chosen: Any) -> Any:
        """Sequence i as an array of objects `[T, F]`, with its names; or several, again `Coded`."""
        found = self.sequences[chosen]
        if not isinstance(chosen, (int, np.integer)):
            return Coded(found, self.features, self.categories, self.roles)
        shown = np.array(found, dtype=object)
        for i, name in enumerate(self.features):
            words = (*self.categories.get(name, ()), None)  # None: it is missing
            if name in self.categories:
                shown[:, i] = [words[-1 if np.isnan(code) else int(code)] for code in found[:, i]]
        return shown

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Coded({len(self)} sequences, names in {', '.join(map(repr, self.categories))})"

    def __eq__(self, other: object) -> Any:
        self._refuse()

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError(
            f"X holds names ({', '.join(map(repr, self.categories))}) as codes of its own file, "
            "which are no numbers; wanted X itself, which the estimators take, or features without "
            "names"
        )

    def examples(self) -> Examples:
        """The sequences as examples, whose features have their names."""
        return Examples(self, features=self.features, categories=self.categories, roles=self.roles)


@dataclass(frozen=True, eq=False, repr=False)
class Examples:
    """N sequences of F features, with their answers and their names in the file.

    Attributes:
        X: `[N, T, F]` float32, or a `Ragged` where lengths differ. A missing value is NaN. If some
            features hold words, `Coded`: a word of the feature f is its place in `categories[f]`.
        y: to classify: labels `[N]`; to tag: N arrays of labels `[T_i]`; to forecast: N arrays
            `[T_i]` float64, the series itself, NaN where it is missing: a list, or a `Series`; None
            without a target.
        features: the names of the F features.
        ids: `[N]`, the name of each sequence in the file, or its number from 1.
        groups: `[N]`, the group that each sequence belongs to (a patient, a machine).
        parts: `[N]`, "train", "validation" or "test", if the file has them.
        times: for each sequence `[T_i]`, datetime64[ns] or numbers: a list, or a `Series`.
        statics: name → `[N]`, inputs that a sequence has once: float64 (NaN if missing) or strings
            (None if missing).
        categories: feature → its words, for those features that are words.
        roles: the roles of the columns, with every name written out.
        places: the places of the steps in the file.
        source: the name of the file, for messages.
        written: for a part of a CSV file, y as text, since its type depends on the rest; None: y
            belongs to a whole file, or to one with types.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn.data.sequences.examples import Examples
        >>> examples = Examples(np.zeros((3, 5, 1), np.float32), np.array(["a", "b", "a"]), ("x",))
        >>> len(examples), examples.ids, examples.select([2, 0]).y
        (3, array([1, 2, 3]), array(['a', 'a'], dtype='<U1'))
    """

    X: Sequences | Coded
    y: Any = None
    features: tuple[str, ...] = ()
    ids: np.ndarray = field(default=None)  # type: ignore[arg-type]  # 1…N, if not given
    groups: np.ndarray | None = None
    parts: np.ndarray | None = None
    times: Sequence[np.ndarray] | None = None
    statics: Mapping[str, np.ndarray] = field(default_factory=dict)
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    roles: Roles | None = None
    places: Places | None = None
    source: str = ""
    written: Any = None

    def __post_init__(self) -> None:
        if self.categories and not isinstance(self.X, Coded):
            object.__setattr__(self, "X", Coded(self.X, self.features, self.categories, self.roles))
        if self.ids is None:
            object.__setattr__(self, "ids", np.arange(1, len(self.X) + 1))

    def __len__(self) -> int:
        return len(self.X)

    def __repr__(self) -> str:
        lengths = self.lengths
        shortest, longest = (lengths.min(), lengths.max()) if len(self) else (0, 0)
        shown = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        return f"Examples({len(self)} sequences of {shown} steps, {len(self.features)} features)"

    @property
    def sequences(self) -> Sequences:
        """X as numbers, with the codes of words."""
        return self.X.sequences if isinstance(self.X, Coded) else self.X

    @property
    def on_disk(self) -> bool:
        """Whether the sequences are read from a file when they are needed."""
        return isinstance(self.sequences, Mapped)

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each sequence, `[N]` int64."""
        if isinstance(self.sequences, Ragged):
            return self.sequences.lengths
        return np.full(len(self.sequences), self.sequences.shape[1], np.int64)

    @property
    def values(self) -> np.ndarray:
        """The steps of all sequences, end to end, `[ΣT, F]` float32."""
        if isinstance(self.sequences, Ragged):
            return self.sequences.values
        n, steps, width = self.sequences.shape  # of width 0, -1 would have no meaning
        return self.sequences.reshape(n * steps, width)

    @property
    def ahead(self) -> np.ndarray:
        """`[ΣT]`, whether a step lies after the last value of a series to be forecast."""
        steps = np.arange(len(self.values))
        if self.y is None or self.roles is None or self.roles.task != "forecast":
            return np.zeros(len(steps), bool)
        present = np.concatenate([np.isfinite(series) for series in self.y])
        starts = np.cumsum(self.lengths) - self.lengths
        last = np.maximum.reduceat(np.where(present, steps, -1), starts)
        return steps > np.repeat(np.maximum(last, starts - 1), self.lengths)

    def blocks(self) -> Iterator[Examples]:
        """The examples some at a time, with their sequences in memory: all at once if they are."""
        if not isinstance(self.sequences, Mapped):
            yield self
            return
        for chosen in stretches(self.sequences.sizes, BLOCK):
            yield self.select(chosen).loaded()

    def loaded(self) -> Examples:
        """The same examples with all steps in memory."""
        y = list(self.y) if isinstance(self.y, Series) else self.y
        times = list(self.times) if self.times is not None else None
        return replace(self, X=self.sequences[:], y=y, times=times) if self.on_disk else self

    def some(self, most: int) -> Examples:
        """Examples in memory: all that are there already; of those in a file some, drawn.

        Args:
            most: about how many numbers these have.
        """
        return self.select(self.drawn(most)).loaded() if self.on_disk else self

    def drawn(self, most: int) -> np.ndarray:
        """The positions, `[M]`, of what `some` gives."""
        if not isinstance(self.sequences, Mapped):
            return np.arange(len(self))
        n = max(1, most * len(self) // max(1, int(self.sequences.sizes.sum())))
        return np.sort(np.random.default_rng(0).permutation(len(self))[:n])

    def select(self, indices: Any) -> Examples:
        """The examples at positions `[M]`, integers or booleans, in that order."""
        chosen = np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        X = self.sequences

        def of(values: Any) -> Any:
            if isinstance(values, Series):
                return values.take(chosen)
            return [values[i] for i in chosen] if isinstance(values, list) else values[chosen]

        def maybe(values: Any) -> Any:
            return None if values is None else of(values)

        return replace(
            self,
            X=X.take(chosen) if isinstance(X, Mapped) else X[chosen],
            y=maybe(self.y),
            ids=of(self.ids),
            groups=maybe(self.groups),
            parts=maybe(self.parts),
            times=maybe(self.times),
            statics={name: of(values) for name, values in self.statics.items()},
            places=self.places and self.places.select(chosen, self.lengths),
            written=maybe(self.written),
        )

    def between(self, first: np.ndarray, end: np.ndarray) -> Examples:
        """Of each sequence with labelled steps those from `first` on and before `end`, `[N]`."""
        whole = self.loaded()
        steps = whole.lengths
        within = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
        chosen = (within >= np.repeat(first, steps)) & (within < np.repeat(end, steps))
        spans = [slice(a, b) for a, b in zip(first.tolist(), end.tolist(), strict=True)]

        def of(values: Any) -> Any:
            return [values[i][span] for i, span in enumerate(spans)]

        places = whole.places
        if places is not None and places.shape == "long":
            places = replace(places, numbers=places.numbers[chosen])
        elif places is not None and first.any():
            places = None  # which counts steps from the begin
        offsets = np.append(0, np.cumsum(end - first))
        return replace(
            whole,
            X=Ragged(whole.values[chosen], offsets),
            y=of(whole.y),
            times=None if whole.times is None else of(whole.times),
            places=places,
        )

    def place(self, row: int, feature: int) -> str:
        """The place of entry (row, feature) of `values` in the file, in words."""
        ends = np.cumsum(self.lengths)
        i = int(np.searchsorted(ends, row, side="right"))
        step = row - int(ends[i] - self.lengths[i])
        if self.places is None:
            return f"{self.source or 'X'}: {place(i, step, feature)}"
        return f"{self.source}, {self.places.of(i, step, row, feature)}"
