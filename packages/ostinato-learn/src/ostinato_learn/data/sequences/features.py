"""`Feature`: what a preparation remembers of one column, and its values in these terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.moments import Moments

Missing = Literal["error", "mask", "fill", "forward", "zero"]


@dataclass(frozen=True)
class Feature:
    """What is remembered of one feature.

    Attributes:
        name: of its column.
        words: those of the training part, if it holds names: each becomes a column of zeros and
            ones.
        mean, scale: the number x becomes (x − mean) / scale.
        fill: the replacement of a missing number, before scaling.
        missing: how missing values are treated; None: as in the other features.
    """

    name: str
    words: tuple[str, ...] | None = None
    mean: float = 0.0
    scale: float = 1.0
    fill: float = 0.0
    missing: Missing | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of what it becomes."""
        if self.words is None:
            return (self.name,)
        return tuple(f"{self.name}={word}" for word in self.words)


def learnt(
    name: str,
    words: set[str] | None,
    moments: Moments,
    standardize: bool,
    examples: Examples,
    missing: Missing | None,
) -> Feature:
    """What is remembered of a feature."""
    if not (moments.n if words is None else words):
        raise ValueError(
            f"{examples.source or 'examples'}: the column {name!r} has no value in the training "
            "part; leave it out of the features"
        )
    if words is not None:
        return Feature(name, tuple(sorted(words)), missing=missing)
    if not standardize:
        return Feature(name, fill=moments.mean, missing=missing)
    scale = moments.deviation or 1.0
    return Feature(name, mean=moments.mean, scale=scale, fill=moments.mean, missing=missing)


def as_trained(
    feature: Feature,
    values: np.ndarray,
    words: tuple[str, ...] | None,
    place: Callable[[int], str],
    unknown: dict[str, Unknown],
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
    strange = known == -1
    if strange.any():
        first = words[int(values[np.argmax(strange)])]
        found = unknown.setdefault(feature.name, Unknown(first))
        found.n += int(strange.sum())
    return known


@dataclass
class Unknown:
    """Words that were not trained: the first of them, and how many values they are."""

    first: str
    n: int = 0

    def tell(self, name: str, source: str) -> None:
        """Log how many there were; `name` is the column's."""
        import logging  # takes 3 ms, which reading a saved model should not cost

        logging.getLogger(__name__).warning(
            "%s: %s values of %r were not in the training part (%r is the first) and are taken as "
            "unknown",
            source or "examples",
            f"{self.n:,}",
            name,
            self.first,
        )


def feature_from(value: Mapping[str, Any]) -> Feature:
    """A feature from the JSON values that `Preparation.as_json` gave."""
    return Feature(**{key: as_tuple(item) for key, item in value.items()})


def as_tuple(value: Any) -> Any:
    """A list, which JSON makes of a tuple, as a tuple; anything else as it is."""
    return tuple(value) if isinstance(value, list) else value
