"""`Examples`: the sequences of a person's file, with what belongs to each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ostinato.data.ragged import Ragged
from ostinato.data.roles import Roles
from ostinato.data.sequences import Sequences, place


@dataclass(frozen=True)
class Places:
    """Where each step of the examples stands in the file, for messages.

    Attributes:
        unit: "line" of a text file, or "row" of a table; both count from 1.
        numbers: of each step, `[ΣT]`; or, where a row holds a whole sequence, of each row, `[N]`.
        by_step: which of the two.
        columns: the column of each feature, or of each step where a column is a step.
    """

    unit: str
    numbers: np.ndarray
    by_step: bool
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Examples:
    """N sequences of F features, with their answers and their names in the file.

    Attributes:
        X: `[N, T, F]` float32, or a `Ragged` where lengths differ. A missing value is NaN. A word
            of the feature f is its place in `categories[f]`.
        y: to classify: labels `[N]`; to tag: N arrays of labels `[T_i]`; to forecast: N arrays
            `[T_i]` float64, the series itself, NaN where it is missing; None without a target.
        features: the names of the F features.
        ids: `[N]`, the name of each sequence in the file, or its number from 1.
        groups: `[N]`, the group that each sequence belongs to (a person, a machine).
        parts: `[N]`, "train", "validation" or "test", if the file says so.
        times: of each sequence, `[T_i]`, datetime64[ns] or numbers.
        statics: name → `[N]`, inputs that a sequence has once: float64 (NaN if missing) or strings
            (None if missing).
        categories: feature → its words, sorted, for those features that are words.
        roles: of the columns, with every name written out.
        places: of the steps in the file.
        source: the name of the file, for messages.

    Example:
        >>> import numpy as np
        >>> from ostinato.data.examples import Examples
        >>> examples = Examples(np.zeros((3, 5, 1), np.float32), np.array(["a", "b", "a"]), ("x",))
        >>> len(examples), examples.ids, examples.select([2, 0]).y
        (3, array([1, 2, 3]), array(['a', 'a'], dtype='<U1'))
    """

    X: Sequences
    y: Any = None
    features: tuple[str, ...] = ()
    ids: np.ndarray = field(default=None)  # type: ignore[assignment]  # numbers, if not given
    groups: np.ndarray | None = None
    parts: np.ndarray | None = None
    times: list[np.ndarray] | None = None
    statics: Mapping[str, np.ndarray] = field(default_factory=dict)
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    roles: Roles | None = None
    places: Places | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.ids is None:
            object.__setattr__(self, "ids", np.arange(1, len(self.X) + 1))

    def __len__(self) -> int:
        return len(self.X)

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each sequence, `[N]` int64."""
        if isinstance(self.X, Ragged):
            return self.X.lengths
        return np.full(len(self.X), self.X.shape[1], np.int64)

    @property
    def values(self) -> np.ndarray:
        """The steps of all sequences, end to end, `[ΣT, F]` float32."""
        return self.X.values if isinstance(self.X, Ragged) else self.X.reshape(-1, self.X.shape[2])

    def select(self, indices: Any) -> Examples:
        """The examples at positions `[M]`, integers or booleans, in that order."""
        chosen = np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)

        def of(values: Any) -> Any:
            return [values[i] for i in chosen] if isinstance(values, list) else values[chosen]

        def maybe(values: Any) -> Any:
            return None if values is None else of(values)

        return replace(
            self,
            X=self.X[chosen],
            y=maybe(self.y),
            ids=of(self.ids),
            groups=maybe(self.groups),
            parts=maybe(self.parts),
            times=maybe(self.times),
            statics={name: of(values) for name, values in self.statics.items()},
            places=self._places_of(chosen),
        )

    def place(self, row: int, feature: int) -> str:
        """Where entry (row, feature) of `values` stands in the file, in words."""
        starts = np.cumsum(self.lengths) - self.lengths
        i = int(np.searchsorted(starts, row, side="right")) - 1
        while self.lengths[i] == 0:  # an empty sequence starts where the one before it does
            i -= 1
        step = row - int(starts[i])
        if self.places is None:
            return f"{self.source or 'X'}: {place(i, step, feature)}"
        where = self.places
        number = where.numbers[row] if where.by_step else where.numbers[i]
        is_step = len(where.columns) != len(self.features) or self._is_wide
        column = where.columns[step if is_step else feature]
        within = "" if where.by_step or is_step else f", value {step + 1}"
        return f"{self.source}, {where.unit} {number}, column {column!r}{within}"

    @property
    def _is_wide(self) -> bool:
        return self.roles is not None and self.roles.shape == "wide"

    def _places_of(self, chosen: np.ndarray) -> Places | None:
        if self.places is None or not self.places.by_step:
            kept = None if self.places is None else self.places.numbers[chosen]
            return None if kept is None else replace(self.places, numbers=kept)
        ends = np.cumsum(self.lengths)
        starts = ends - self.lengths
        spans = [self.places.numbers[starts[i] : ends[i]] for i in chosen]
        return replace(self.places, numbers=np.concatenate(spans) if spans else np.zeros(0, int))
