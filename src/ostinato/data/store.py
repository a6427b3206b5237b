"""`store_examples`: examples whose sequences lie in a file.

The values of all sequences are written once, end to end, into a temporary file without a name; it
is gone when the program ends. Memory holds where each sequence begins. A batch reads its sequences
from the file, so that examples are shuffled as those in memory are, and training gives the same
bits.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np

from ostinato.data.examples import Examples, Places
from ostinato.data.stored import Files, Stored


def store_examples(
    parts: Iterable[Examples], directory: str | os.PathLike[str] | None = None
) -> Examples:
    """Examples that come in parts, with their sequences in a file and all else in memory.

    Times are left out, and of a long table the lines of all steps but the first.

    Args:
        parts: as `stream_examples` gives them.
        directory: where the file lies; by default where temporary files do.

    Returns:
        Examples whose X is a `Stored`; `select` and `Preparation` leave it in the file.

    Raises:
        ValueError: as the parts' origin; or there are none.
        OSError: the disk is full.

    Example:
        >>> import io
        >>> from ostinato.data import Preparation, Roles, store_examples, stream_examples
        >>> file = io.BytesIO(b"id,x\\na,1\\na,2\\nb,3\\n")
        >>> examples = store_examples(stream_examples(file, Roles(id="id", features=("x",))))
        >>> examples.X, examples.X[1]
        (Ragged(2 sequences of 1 to 2 steps, 1 features), array([[3.]], dtype=float32))
        >>> Preparation.fit(examples).apply(examples)[[0]].values.ravel().round(2).tolist()[1]
        0.0
    """
    kept = keep(parts, directory)
    if not kept.parts:
        raise ValueError("there are no examples to store; wanted at least one")
    return joined(kept.parts, Files([kept.file]), kept.lengths, kept.words)


@dataclass(frozen=True)
class Kept:
    """Examples in parts, their sequences in a file.

    Attributes:
        parts: without their steps.
        file: the values of all sequences, end to end, float32.
        lengths: of the sequences, `[N]`.
        words: of each feature that is words, the place of each word by which the file names it.
    """

    parts: list[Examples]
    file: IO[bytes]
    lengths: np.ndarray
    words: dict[str, dict[str, int]]


def keep(parts: Iterable[Examples], directory: str | os.PathLike[str] | None) -> Kept:
    """Write the sequences of examples that come in parts into a file."""
    file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115  # as long as X lives
    kept: list[Examples] = []
    lengths: list[np.ndarray] = [np.zeros(0, np.int64)]
    words: dict[str, dict[str, int]] = {}
    numbers: set[str] = set()
    for part in parts:
        for name in part.categories:
            words.setdefault(name, {})
        numbers.update(_numbers(part))
        _check_kinds(numbers, words.keys())
        _write(file, _with_codes(part, words))
        lengths.append(part.lengths)
        kept.append(_without_steps(part))
    return Kept(kept, file, np.concatenate(lengths), words)


def _numbers(part: Examples) -> list[str]:
    """The features of a part that are numbers; not those of which no value is there."""
    there = ~np.isnan(part.values).all(0)
    return [name for name, some in zip(part.features, there, strict=True)
            if some and name not in part.categories]  # fmt: skip


def _check_kinds(numbers: Set[str], words: Set[str]) -> None:
    """Refuse a feature that is numbers in one part of a table and words in another.

    Raises:
        ValueError: some feature is both.
    """
    both = sorted(numbers & words)
    if both:
        raise ValueError(
            f"the column {both[0]!r} has numbers in some rows and words in others; wanted one of "
            "the two: name it among the `categories` if its numbers are names, too"
        )


def _with_codes(part: Examples, words: dict[str, dict[str, int]]) -> np.ndarray:
    """The values of a part, its words as their places among those of all parts until now."""
    values = part.values
    for i, name in enumerate(part.features):
        if name not in words:
            continue
        known = words[name]
        places = [known.setdefault(word, len(known)) for word in part.categories.get(name, ())]
        present = ~np.isnan(values[:, i])
        if present.any():
            values = values.copy()
            column = values[:, i]
            column[present] = np.array(places, np.float32)[column[present].astype(np.int64)]
    return np.ascontiguousarray(values)


def _without_steps(part: Examples) -> Examples:
    """What belongs to each sequence, and nothing that belongs to each step but tags and series."""
    places = part.places
    if places is not None and places.shape == "long":
        starts = np.cumsum(part.lengths) - part.lengths
        places = Places(places.unit, places.numbers[starts], places.columns, "rows")
    return replace(part, X=np.zeros((len(part), 0, len(part.features)), np.float32), times=None,
                   places=places)  # fmt: skip


def joined(
    parts: Sequence[Examples], file: Files, lengths: np.ndarray, words: dict[str, dict[str, int]]
) -> Examples:
    """Parts without their steps as one, with the sequences in a file; see `Kept`."""
    first = parts[0]

    def one(values: list[Any]) -> Any:
        if values[0] is None:
            return None
        if isinstance(values[0], list):
            return [each for some in values for each in some]
        if any(some.dtype == object for some in values):
            values = [some.astype(object) for some in values]
        return np.concatenate(values)

    places = first.places
    if places is not None:
        places = replace(places, numbers=one([p.places.numbers for p in parts if p.places]))
    starts = np.cumsum(lengths) - lengths
    return replace(
        first,
        X=Stored(file, starts, lengths, len(first.features)),
        y=one([part.y for part in parts]),
        ids=one([part.ids for part in parts]),
        groups=one([part.groups for part in parts]),
        parts=one([part.parts for part in parts]),
        statics={name: one([p.statics[name] for p in parts]) for name in first.statics},
        categories={name: tuple(known) for name, known in words.items()},
        places=places,
    )


def _write(file: IO[bytes], values: np.ndarray) -> None:
    content = memoryview(values.tobytes())
    while len(content):
        content = content[file.write(content) :]
