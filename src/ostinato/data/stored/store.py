"""`store_examples`: examples whose sequences lie in a file.

The values of all sequences are written once, end to end, into a temporary file without a name; it
is gone when the program ends. Behind the values of each step stand its answer (to tag, the number
of its label; to forecast, the value of the series) and its time, if there are both. Memory holds
where each sequence begins. A batch reads its sequences from the file, so that examples are shuffled
as those in memory are, and training gives the same bits.

Words and labels are numbered as they come, and by their sorted order when all are known: numbers do
not depend on the way in which a table was cut. Nor do labels, of which a CSV file has only texts:
whether 1.50 is a number is decided when all are known.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, Any, cast

import numpy as np

from ostinato.data.sequences.examples import Examples, Places
from ostinato.data.sequences.ragged import Ragged
from ostinato.data.stored.labels import StoredIntegers, StoredLabels
from ostinato.data.stored.sequences import Files, HeldFile, Stored
from ostinato.data.stored.series import WIDTH, StoredSeries, as_columns
from ostinato.data.tables.text_column import typed

AT_ONCE = 1 << 20  # values that are read at a time to number words anew: 4 MB
MIXED_TIMES = "{}: the times are dates in some rows and numbers in others; wanted one of the two"
MOST_WORDS = 1 << 24  # of a feature: a float32 tells so many whole numbers apart


def store_examples(
    parts: Iterable[Examples], directory: str | os.PathLike[str] | None = None
) -> Examples:
    """Keep examples that come in parts: the sequences in a file, everything else in memory.

    To classify, times are left out; of a long table, the lines of all steps but the first.

    Args:
        parts: as `stream_examples` gives them.
        directory: where the file lies; by default where temporary files do.

    Returns:
        Examples whose X is a `Stored`, and y `StoredLabels` to tag, `StoredSeries` to forecast;
        `select` and `Preparation` leave both in the file.

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
    words = in_order([kept.words])
    renumber(kept, words)
    return joined(kept.parts, Files([kept.file]), kept.lengths, words, kept.times)


@dataclass(frozen=True)
class Kept:
    """Examples in parts, their sequences in a file.

    Attributes:
        parts: without their steps.
        file: the values of all sequences, end to end, float32.
        lengths: of the sequences, `[N]`.
        words: of each column that is words or labels, what each number in the file stands for; two
            may stand for one label, as 1 and 1.0 do.
        times: the kind of the times in the file; None: it has none.
    """

    parts: list[Examples]
    file: IO[bytes]
    lengths: np.ndarray
    words: dict[str, list[Any]]
    times: str | None


def keep(parts: Iterable[Examples], directory: str | os.PathLike[str] | None) -> Kept:
    """Write the sequences of examples that come in parts into a file."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as temporary:
        file = HeldFile(os.dup(temporary.fileno()), "r+")
    kept: list[Examples] = []
    lengths: list[np.ndarray] = [np.zeros(0, np.int64)]
    words: dict[str, dict[Any, int]] = {}
    numbers: set[str] = set()
    times: str | None = None
    untyped: str | None = None  # the column of the labels of steps
    for part in parts:
        times = _check_times(part, times)
        for name in part.categories:
            words.setdefault(name, {})
        numbers.update(_numbers(part))
        _check_kinds(numbers, words.keys())
        _write(file, _with_codes(part, words))
        _check_counts(words)
        lengths.append(part.lengths)
        kept.append(_without_steps(part))
        untyped = tagged(part) if part.written is not None else None
    named = {name: list(known) for name, known in words.items()}
    if untyped is not None:
        named[untyped] = typed(np.array(named[untyped])).tolist()
    return Kept(_with_typed_labels(kept), file, np.concatenate(lengths), named, times)


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


def _check_counts(words: Mapping[str, Mapping[Any, int]]) -> None:
    for name, known in words.items():
        if len(known) > MOST_WORDS:
            raise ValueError(
                f"the column {name!r} has more than {MOST_WORDS:,} different names; wanted fewer, "
                "or numbers"
            )


def _with_codes(part: Examples, words: dict[str, dict[Any, int]]) -> np.ndarray:
    """The rows of a part, with words and labels as numbers in the order in which they come."""
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
    tags = tagged(part)
    if tags is not None:
        known = words.setdefault(tags, {})
        labels = np.concatenate(part.y if part.written is None else part.written).tolist()
        numbers = [known.setdefault(label, len(known)) for label in labels]
        values = np.column_stack([values, np.array(numbers, np.float32)])
    elif _has_series(part):
        values = np.column_stack([values, as_columns(part.y)])
    if _has_times(part):
        values = np.column_stack([values, as_columns(part.times or [])])
    return np.ascontiguousarray(values)


def tagged(part: Examples) -> str | None:
    """The column with the label of each step; None: there is none."""
    return part.roles.target if part.roles is not None and part.roles.task == "tag" else None


def _has_series(part: Examples) -> bool:
    """Whether each step has a value to be forecast."""
    roles = part.roles
    if roles is None or roles.task != "forecast":
        return False
    return roles.target is not None or roles.shape == "wide"


def _has_times(part: Examples) -> bool:
    """Whether each step has an answer and a time."""
    answers = tagged(part) is not None or _has_series(part)
    return answers and part.roles is not None and part.roles.time is not None


def _check_times(part: Examples, dtype: str | None) -> str | None:
    """The kind of times of a part, which is that of the parts before.

    Raises:
        ValueError: it is another.
    """
    found = part.times[0].dtype.str if part.times and _has_times(part) else None
    if dtype is not None and found != dtype:
        raise ValueError(MIXED_TIMES.format(part.source))
    return found


def in_order(found: Iterable[Mapping[str, Iterable[Any]]]) -> dict[str, tuple[Any, ...]]:
    """The words and labels of all shares of a table, each column's sorted.

    Labels of which some are numbers and some are not are texts.
    """
    every: dict[str, set[Any]] = {}
    for share in found:
        for name, known in share.items():
            every.setdefault(name, set()).update(known)
    for name, known in every.items():
        if len({isinstance(each, str) for each in known}) > 1:
            every[name] = {str(each) for each in known}
    return {name: tuple(sorted(known)) for name, known in every.items()}


def renumber(kept: Kept, words: Mapping[str, tuple[Any, ...]]) -> None:
    """Write the words and labels of a file by their places among all, which are in order."""
    if not kept.parts:
        return
    tables, tags = {}, tagged(kept.parts[0])
    for i, name in enumerate((*kept.parts[0].features, *([] if tags is None else [tags]))):
        place = {word: n for n, word in enumerate(words.get(name, ()))}
        places = [place[w] if w in place else place[str(w)] for w in kept.words.get(name, ())]
        if places != list(range(len(places))):
            tables[i] = np.array(places, np.float32)
    if not tables:
        return
    file, width, n_steps = kept.file, _width(kept.parts[0]), int(kept.lengths.sum())
    rows = max(1, AT_ONCE // width)
    for start in range(0, n_steps, rows):
        values = np.empty((min(rows, n_steps - start), width), np.float32)
        position = start * width * values.itemsize
        Files([file]).read_into(cast(memoryview, values.reshape(-1).view(np.uint8).data), position)
        for i, table in tables.items():
            column = values[:, i]
            present = ~np.isnan(column)
            column[present] = table[column[present].astype(np.int64)]
        file.seek(position)
        _write(file, values)


def _width(part: Examples) -> int:
    """Columns of a row of the file."""
    answer = WIDTH if _has_series(part) else int(tagged(part) is not None)
    return len(part.features) + answer + WIDTH * _has_times(part)


def _without_steps(part: Examples) -> Examples:
    """What belongs to each sequence, and nothing that belongs to each step."""
    places = part.places
    if places is not None and places.shape == "long":
        starts = np.cumsum(part.lengths) - part.lengths
        places = Places(places.unit, places.numbers[starts], places.columns, "rows")
    y = None if tagged(part) is not None or _has_series(part) else part.y
    written = None if y is None else part.written
    return replace(part, X=np.zeros((len(part), 0, len(part.features)), np.float32), y=y,
                   times=None, places=places, written=written)  # fmt: skip


def _with_typed_labels(parts: list[Examples]) -> list[Examples]:
    """Parts without their steps whose sequences have labels of the type that all of them have."""
    if not parts or parts[0].written is None:
        return parts
    labels = typed(np.concatenate([part.written for part in parts]))
    ends = np.cumsum([len(part) for part in parts])
    return [replace(part, y=y, written=None)
            for part, y in zip(parts, np.split(labels, ends[:-1]), strict=True)]  # fmt: skip


def joined(
    parts: Sequence[Examples],
    file: Files,
    lengths: np.ndarray,
    words: Mapping[str, tuple[Any, ...]],
    times: str | None,
) -> Examples:
    """Parts without their steps as one, with the sequences in a file; see `Kept`.

    Args:
        parts, file, lengths: of the table.
        words: of each column that is words or labels, in the order of their numbers.
        times: see `Kept`.
    """
    parts = _with_labels_of_all(parts)
    first, tags = parts[0], tagged(parts[0])

    def one(values: list[Any]) -> Any:
        if values[0] is None:
            return None
        if any(some.dtype == object for some in values):
            values = [some.astype(object) for some in values]
        return np.concatenate(values)

    places = first.places
    if places is not None:
        places = replace(places, numbers=one([p.places.numbers for p in parts if p.places]))
    n = len(first.features)
    rows = Stored(file, np.cumsum(lengths) - lengths, lengths, _width(first))
    y: Any = one([part.y for part in parts])
    if tags is not None:
        y = StoredLabels(np.array(words[tags]), StoredIntegers(rows, n))
    elif _has_series(first):
        y = StoredSeries(rows, n)
    return replace(
        first,
        times=None if times is None else StoredSeries(rows, rows.n_features - WIDTH, times),
        X=rows if rows.n_features == n else rows.prepared(partial(_first_columns, n), n),
        y=y,
        ids=one([part.ids for part in parts]),
        groups=one([part.groups for part in parts]),
        parts=one([part.parts for part in parts]),
        statics={name: one([p.statics[name] for p in parts]) for name in first.statics},
        categories={name: known for name, known in words.items() if name != tags},
        places=places,
    )


def _first_columns(n: int, rows: Ragged) -> Ragged:
    return Ragged(np.ascontiguousarray(rows.values[:, :n]), rows.offsets)


def _with_labels_of_all(parts: Sequence[Examples]) -> Sequence[Examples]:
    """Parts whose sequences may have several labels, with a column for each label of any part."""
    labels = [part.roles.labels if part.roles else () for part in parts]
    if len(set(labels)) == 1:
        return parts
    every = tuple(sorted({label for of_part in labels for label in of_part}))
    place, result = {label: i for i, label in enumerate(every)}, []
    for part, of_part in zip(parts, labels, strict=True):
        y = np.zeros((len(part), len(every)), part.y.dtype)
        y[:, [place[label] for label in of_part]] = part.y
        result.append(replace(part, y=y, roles=part.roles and replace(part.roles, labels=every)))
    return result


def _write(file: IO[bytes], values: np.ndarray) -> None:
    content = memoryview(values.tobytes())
    while len(content):
        content = content[file.write(content) :]
