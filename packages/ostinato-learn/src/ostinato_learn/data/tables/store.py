"""`store_examples`: examples whose sequences lie on disk.

The steps of all sequences are written once, end to end, into temporary files without names, an
array each: the features, the answers (to tag, the number of a label; to forecast, the value of the
series), and the times of steps with answers. Memory holds the begin of each sequence. A batch reads
its sequences from the mapped arrays, so that examples are shuffled like those in memory, and
training gives the same bits.

Words and labels are numbered in the order in which they come. When all are known, they get the
numbers of their sorted order, which do not depend on the blocks of a table. The type of labels does
not depend on them either: a CSV file has texts, and whether the label 1.50 is a number is decided
when all labels are known.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.examples import Examples, Places
from ostinato_learn.data.sequences.mapped import GrowingArray, Mapped, Series
from ostinato_learn.data.sequences.step_labels import CodedLabels
from ostinato_learn.data.tables.text_column import typed

AT_ONCE = 1 << 20  # rows that are read at a time to renumber words
MOST_WORDS = 1 << 24  # words of a feature: float32 is exact for whole numbers up to this
MIXED_TIMES = "{}: the times are dates in some rows and numbers in others; wanted one of the two"

Words = Mapping[str, Sequence[Any]]  # column of words or labels → number → word


def store_examples(
    parts: Iterable[Examples], directory: str | os.PathLike[str] | None = None
) -> Examples:
    """Keep examples that come in parts: the sequences on disk, everything else in memory.

    To classify, times are left out, and for a long table the lines of all steps but the first.

    Args:
        parts: the examples of `stream_examples`.
        directory: the directory of the files; by default that of temporary files.

    Returns:
        Examples whose X is `Mapped`, and y and times a `Series` where each step has one; `select`
        and `Preparation` leave them on disk.

    Raises:
        ValueError: the source of the parts raises it; or there are no parts.
        OSError: the disk is full.

    Example:
        >>> import io
        >>> from ostinato_learn.data import Preparation, Roles, store_examples, stream_examples
        >>> file = io.BytesIO(b"id,x\\na,1\\na,2\\nb,3\\n")
        >>> examples = store_examples(stream_examples(file, Roles(id="id", features=("x",))))
        >>> examples.X, examples.X[1]
        (Ragged(2 sequences of 1 to 2 steps, 1 features), array([[3.]], dtype=float32))
        >>> Preparation.fit(examples).apply(examples)[[0]].values.ravel().round(2).tolist()[1]
        0.0
    """
    kept: list[Examples] = []
    files: dict[str, GrowingArray] = {}
    lengths: list[np.ndarray] = [np.zeros(0, np.int64)]
    words: dict[str, dict[Any, int]] = {}
    numbers: set[str] = set()
    untyped: str | None = None  # the column of the labels of steps
    for part in parts:
        for name in part.categories:
            words.setdefault(name, {})
        numbers.update(_numbers(part))
        _check_kinds(numbers, words.keys())
        for name, rows in _arrays(part, words).items():
            if name not in files:
                files[name] = GrowingArray(rows.dtype, *rows.shape[1:], directory=directory)
            if files[name].dtype != rows.dtype:
                raise ValueError(MIXED_TIMES.format(part.source))
            files[name].append(rows)
        _check_counts(words)
        lengths.append(part.lengths)
        kept.append(_without_steps(part))
        untyped = tagged(part) if part.written is not None else None
    if not kept:
        raise ValueError("there are no examples to store; wanted at least one")
    named = {name: list(known) for name, known in words.items()}
    if untyped is not None:
        named[untyped] = typed(np.array(named[untyped])).tolist()
    steps = np.concatenate(lengths)
    ordered = _in_order(named)
    _renumber(files, int(steps.sum()), kept[0], named, ordered)
    return _joined(_with_typed_labels(kept), files, steps, ordered)


def _numbers(part: Examples) -> list[str]:
    """The features of a part that are numbers and have at least one value."""
    there = ~np.isnan(part.values).all(0)
    return [
        name
        for name, some in zip(part.features, there, strict=True)
        if some and name not in part.categories
    ]


def _check_kinds(numbers: Set[str], words: Set[str]) -> None:
    """Check that no feature is numbers in one part of a table and words in another.

    Raises:
        ValueError: a feature is both.
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


def _arrays(part: Examples, words: dict[str, dict[Any, int]]) -> dict[str, np.ndarray]:
    """The steps of a part as they are stored, words and labels numbered in the order they come."""
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
    arrays, tags = {"X": values} if part.features else {}, tagged(part)
    if tags is not None:
        known = words.setdefault(tags, {})
        labels = np.concatenate(part.y if part.written is None else part.written).tolist()
        numbers = [known.setdefault(label, len(known)) for label in labels]
        arrays["y"] = np.array(numbers, np.int32)
    elif _has_series(part):
        arrays["y"] = np.concatenate(part.y)
    if "y" in arrays and part.times:
        arrays["times"] = np.concatenate(part.times)
    return arrays


def tagged(part: Examples) -> str | None:
    """The column with the label of each step; None: there is none."""
    return part.roles.target if part.roles is not None and part.roles.task == "tag" else None


def _has_series(part: Examples) -> bool:
    """Whether each step has a value to be forecast."""
    roles = part.roles
    if roles is None or roles.task != "forecast":
        return False
    return roles.target is not None or roles.shape == "wide"


def _in_order(found: Words) -> dict[str, tuple[Any, ...]]:
    """The words and labels of each column, sorted.

    If only some labels of a column are numbers, all its labels are texts.
    """
    every = {name: set(words) for name, words in found.items()}
    for name, known in every.items():
        if len({isinstance(each, str) for each in known}) > 1:
            every[name] = {str(each) for each in known}
    return {name: tuple(sorted(known)) for name, known in every.items()}


def _renumber(
    files: Mapping[str, GrowingArray], n_steps: int, first: Examples, found: Words, ordered: Words
) -> None:
    """Replace the numbers of words and labels on disk by their places in the `ordered` words.

    Args:
        first: a part, which has the names of the columns.
        found: the meaning of each number; two may mean one label, such as 1 and 1.0.
    """
    tables: dict[str, dict[int, np.ndarray]] = {"X": {}, "y": {}}
    for i, name in enumerate((*first.features, tagged(first) or "")):
        place = {word: n for n, word in enumerate(ordered.get(name, ()))}
        places = [place[w] if w in place else place[str(w)] for w in found.get(name, ())]
        if places != list(range(len(places))):
            is_feature = i < len(first.features)
            tables["X" if is_feature else "y"][i if is_feature else 0] = np.array(places)
    for array, changed in tables.items():
        for rows in _blocks(n_steps) if changed else ():
            values = np.array(files[array].mapped()[rows])
            for i, table in changed.items():
                column = values.reshape(len(values), -1)[:, i]
                present = ~np.isnan(column)
                column[present] = table[column[present].astype(np.int64)]
            files[array].write_at(rows.start, values)


def _blocks(n: int) -> Iterator[slice]:
    """The rows 0…n−1, some at a time."""
    for start in range(0, n, AT_ONCE):
        yield slice(start, min(n, start + AT_ONCE))


def _without_steps(part: Examples) -> Examples:
    """The part with the values of each sequence, without the values of each step."""
    places = part.places
    if places is not None and places.shape == "long":
        starts = np.cumsum(part.lengths) - part.lengths
        places = Places(places.unit, places.numbers[starts], places.columns, "rows")
    y = None if tagged(part) is not None or _has_series(part) else part.y
    written = None if y is None else part.written
    return replace(
        part,
        X=np.zeros((len(part), 0, len(part.features)), np.float32),
        y=y,
        times=None,
        places=places,
        written=written,
    )


def _with_typed_labels(parts: list[Examples]) -> list[Examples]:
    """Parts without their steps whose sequences have labels of the type that all of them have."""
    if not parts or parts[0].written is None:
        return parts
    labels = typed(np.concatenate([part.written for part in parts]))
    ends = np.cumsum([len(part) for part in parts])
    return [
        replace(part, y=y, written=None)
        for part, y in zip(parts, np.split(labels, ends[:-1]), strict=True)
    ]


def _joined(
    parts: Sequence[Examples], files: Mapping[str, GrowingArray], lengths: np.ndarray, words: Words
) -> Examples:
    """Parts without their steps as one, with the steps in files: "X", "y" and "times"."""
    parts = _with_labels_of_all(parts)
    first, tags = parts[0], tagged(parts[0])
    starts = np.cumsum(lengths) - lengths

    def one(values: list[Any]) -> Any:
        if values[0] is None:
            return None
        if any(some.dtype == object for some in values):
            values = [some.astype(object) for some in values]
        return np.concatenate(values)

    places = first.places
    if places is not None:
        places = replace(places, numbers=one([p.places.numbers for p in parts if p.places]))
    X = files["X"].mapped() if "X" in files else np.zeros((int(lengths.sum()), 0), np.float32)
    y: Any = one([part.y for part in parts])
    if tags is not None:
        y = CodedLabels(files["y"].mapped(), lengths, starts, np.array(words[tags]))
    elif "y" in files:
        y = Series(files["y"].mapped(), lengths, starts)
    return replace(
        first,
        times=Series(files["times"].mapped(), lengths, starts) if "times" in files else None,
        X=Mapped(X, starts, lengths),
        y=y,
        ids=one([part.ids for part in parts]),
        groups=one([part.groups for part in parts]),
        parts=one([part.parts for part in parts]),
        statics={name: one([p.statics[name] for p in parts]) for name in first.statics},
        categories={name: tuple(known) for name, known in words.items() if name != tags},
        places=places,
    )


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
