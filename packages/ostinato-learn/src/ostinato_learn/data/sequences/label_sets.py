"""Several labels a sequence: read from a table as rows of zeros and ones, and written again.

Each label has a column of zeros and ones; or one column holds the labels of a sequence: as a list,
or as a text in which `|` or `;` separates them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ostinato_learn.data.tables.column import Column, Nested

if TYPE_CHECKING:
    from ostinato_learn.data.tables.roles import Roles
    from ostinato_learn.data.tables.table import Table

SEPARATORS = ("|", ";")
JOINED = ";"  # between the labels of a sequence in written answers

Once = Callable[[str], np.ndarray]  # the name of a column → its value for each sequence, `[N]`


def found(column: Column) -> tuple[tuple[str, ...], str | None] | None:
    """The labels in a column that holds several a row, and their separator.

    A text is split if one of its labels also occurs in another text:
    "drama|comedy" and "drama"; otherwise the texts are names that happen to have such a sign.

    Returns:
        The labels, sorted, and None for lists; None: the column holds single labels.
    """
    if isinstance(column, Nested):
        return tuple(sorted({str(label) for label in column.inner.labels().tolist()})), None
    texts = column.factor()[1]
    if texts.dtype != object:
        return None
    for separator in SEPARATORS:
        parts = [_parts(text, separator) for text in texts.tolist()]
        counts = Counter(label for each in parts for label in each)
        several = [each for each in parts if len(each) > 1]
        if any(counts[label] > 1 for each in several for label in each):
            return tuple(sorted(counts)), separator
    return None


def with_further(roles: Roles, table: Table) -> Roles:
    """The roles, with the labels in the target of further rows as well."""
    column = table[roles.target or ""]
    if isinstance(column, Nested):
        further = {str(label) for label in column.inner.labels().tolist()}
    else:
        texts = column.factor()[1].tolist()
        further = {label for text in texts for label in _known_parts(str(text), roles)}
    return replace(roles, labels=tuple(sorted({*roles.labels, *further})))


def read(table: Table, roles: Roles, once: Once, place: Callable[[str, int], str]) -> np.ndarray:
    """The labels of each sequence, `[N, C]` int64 zeros and ones in the order of `roles.labels`.

    Args:
        table: with the columns of the labels, or the one of their lists.
        roles: resolved, with labels.
        once: the values of a column, one per sequence; None where one is missing.
        place: gives the place of a column's value for sequence i, in words.

    Raises:
        ValueError: a value is neither 0 nor 1, or a label is not among `roles.labels`.
    """
    if roles.target is None:
        columns = [_flags(once(name), name, place) for name in roles.labels]
        return np.stack(columns, axis=1)
    target = roles.target
    column = table[target]
    lists: Iterable[Sequence[str]]
    if isinstance(column, Nested):
        labels = [str(label) for label in column.inner.labels().tolist()]
        bounds = column.offsets.tolist()
        lists = [labels[start:end] for start, end in pairwise(bounds)]
    else:
        texts = once(target).tolist()
        lists = [_known_parts("" if text is None else str(text), roles) for text in texts]
    return _rows(lists, roles.labels, lambda i: place(target, i))


def joined(y: np.ndarray, labels: Iterable[object]) -> np.ndarray:
    """The labels of each sequence in words, `[N]` strings.

    Args:
        y: `[N, C]` zeros and ones.
        labels: C names.

    Example:
        >>> import numpy as np
        >>> joined(np.array([[1, 0, 1], [0, 0, 0]]), ["rain", "snow", "wind"])
        array(['rain;wind', ''], dtype='<U9')
    """
    names = [str(label) for label in labels]
    return np.array([JOINED.join(names[i] for i in np.flatnonzero(row)) for row in y], str)


def rarest(y: np.ndarray) -> np.ndarray:
    """The rarest label of each sequence, `[N]`; −1 of one without labels.

    A split that shares these out evenly gives every part some of each label; a split by whole sets
    of labels, most of which are rare, cannot.

    Args:
        y: `[N, C]` zeros and ones.

    Example:
        >>> import numpy as np
        >>> rarest(np.array([[1, 1], [1, 0], [0, 0]]))
        array([ 1,  0, -1])
    """
    counts = np.where(y > 0, y.sum(axis=0), np.iinfo(np.int64).max)
    return np.where(y.any(axis=1), counts.argmin(axis=1), -1)


def _flags(values: np.ndarray, name: str, place: Callable[[str, int], str]) -> np.ndarray:
    """A column of zeros and ones, `[N]` int64."""
    wrong = ~np.isin(values, (0, 1)) if values.dtype.kind in "biuf" else np.ones(len(values), bool)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"{place(name, i)}: {values[i].item()!r}; wanted 0 or 1 in the column of one label "
            "among several: whether the sequence has it"
        )
    return values.astype(np.int64)


def _known_parts(text: str, roles: Roles) -> list[str]:
    """The labels in a text, also where another sign separates them than in the training file.

    The first split with known labels only counts: by the sign of the training file, then by each of
    `SEPARATORS`. If the training file had lists, the whole text is tried before, as a single label.
    """
    ways = [_parts(text, separator) for separator in (roles.between, *SEPARATORS) if separator]
    if roles.between is None:
        ways.insert(0, [text.strip()] if text.strip() else [])
    known = set(roles.labels)
    return next((way for way in ways if known.issuperset(way)), ways[0])


def _parts(text: str, separator: str) -> list[str]:
    """The labels in a text, each once."""
    labels = [label.strip() for label in text.split(separator)]
    return list(dict.fromkeys(label for label in labels if label))


def _rows(
    lists: Iterable[Sequence[str]], labels: Sequence[str], place: Callable[[int], str]
) -> np.ndarray:
    """Lists of labels as `[N, C]` zeros and ones."""
    number = {label: i for i, label in enumerate(labels)}
    lists = list(lists)
    y = np.zeros((len(lists), len(labels)), np.int64)
    for i, each in enumerate(lists):
        for label in each:
            if label not in number:
                shown = ", ".join(map(repr, labels[:10])) + ", …" * (len(labels) > 10)
                raise ValueError(
                    f"{place(i)}: the label {label!r} is not among the known ones: {shown}"
                )
            y[i, number[label]] = 1
    return y
