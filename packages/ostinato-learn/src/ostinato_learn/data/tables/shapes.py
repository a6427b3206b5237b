"""Tables as sequences: a row may be a step, or a sequence of lists, or a sequence of columns."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from typing import Any

import numpy as np

from ostinato_learn.data.questions import OpenQuestion
from ostinato_learn.data.sequences import label_sets
from ostinato_learn.data.sequences.as_sequences import Sequences
from ostinato_learn.data.sequences.examples import Examples, Places
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.sequences.splits import PART_OF
from ostinato_learn.data.tables.column import as_strings, such
from ostinato_learn.data.tables.names import as_name
from ostinato_learn.data.tables.resample import resampled
from ostinato_learn.data.tables.roles import Roles, resolve
from ostinato_learn.data.tables.row_order import (
    check_times,
    likely_id,
    rows_in_order,
    times_in_order,
)
from ostinato_learn.data.tables.table import Column, Nested, Table, Text, Typed
from ostinato_learn.data.text.words import MAX_WORDS, words_of

_WHOLE = 1 << 24  # whole numbers up to this are exact in float32

OF_SEQUENCES = ("classify", "regress")  # tasks with one answer for a sequence


def to_examples(table: Table, roles: Roles) -> Examples:
    """The sequences in a table.

    Raises:
        ValueError: a column does not fit its role; the rows of a sequence are not together, or not
            in the order of time; the place is named.
    """
    return resampled(build(table, resolve(roles, table)))


def build(table: Table, roles: Roles) -> Examples:
    """`to_examples` with roles that name all columns."""
    make = {"long": _long, "nested": _nested, "wide": _wide}[roles.shape or "long"]
    examples = make(table, roles)
    statics = [name for name, values in examples.statics.items() if values.dtype == object]
    return replace(examples, roles=replace(roles, categories=(*examples.categories, *statics)))


def _long(table: Table, roles: Roles) -> Examples:
    """A row is a step."""
    order = rows_in_order(table, roles)
    rows, codes, times = order.rows, order.codes, order.times
    if order.is_sorted and not roles.sort:
        _tell_sorted(table, roles)
        roles = replace(roles, sort=True)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    offsets = np.append(starts, len(codes))
    if times is not None:
        time = table[roles.time or ""]
        place_of = lambda i: time.place(int(rows[i]))  # noqa: E731
        check_times(times, offsets, place_of, roles, partial(likely_id, table, roles))
    columns = [table[name] for name in roles.features]
    values, categories = _matrix(columns, len(table), roles)

    def once(name: str, missing: bool = False) -> np.ndarray:
        return _once(table[name], rows, codes, starts, missing)

    parts = None
    if roles.split:
        place = table[roles.split].place
        parts = part_names(once(roles.split), lambda i: place(int(rows[starts[i]])))
    y: Any = None
    if roles.task == "regress":
        y = _targets(table, roles, rows, codes, starts)
    elif roles.labels:
        y = label_sets.read(
            table,
            roles,
            lambda name: once(name, missing=roles.target is not None),
            lambda name, i: table[name].place(int(rows[starts[i]])),
        )
    elif roles.target and roles.task == "classify":
        y = once(roles.target)
    elif roles.target and roles.task == "tag":
        y = _split(table[roles.target].labels()[rows], offsets)
    elif roles.target:
        y = _split(table[roles.target].numbers()[rows], offsets)
    return Examples(
        X=_sequences(values[rows], offsets),
        y=y,
        features=roles.features,
        ids=order.ids,
        groups=once(roles.group) if roles.group else None,
        parts=parts,
        times=None if times is None else _split(times, offsets),
        statics={name: _static(once(name, missing=True), name, roles) for name in roles.static},
        categories=categories,
        roles=roles,
        places=Places(table.unit, table.lines[rows], roles.features, "long"),
        source=table.source,
    )


def _nested(table: Table, roles: Roles) -> Examples:
    """A row is a sequence, whose features are lists."""
    target = table[roles.target] if roles.target else None
    lists = [_lists(table[name]) for name in roles.features]
    if target is not None and roles.task not in OF_SEQUENCES:
        lists = [*lists, _lists(target)]
    times = _lists(table[roles.time]) if roles.time else None
    offsets = _same_lengths([*lists, *([times] if times else [])])
    columns = [column for nested in lists[: len(roles.features)] for column in _flat(nested)]
    values, categories = _matrix(columns, int(offsets[-1]), roles)
    features = tuple(column.name for column in columns)
    stamps = None
    steps = np.arange(int(offsets[-1]))
    if times:
        stamps = times.inner.times(roles.time_format)
        if (by_time := times_in_order(stamps, offsets, roles)) is not None:
            steps, stamps = by_time, stamps[by_time]
            if not roles.sort:
                _tell_sorted(table, roles)
                roles = replace(roles, sort=True)
        place_of = lambda i: times.inner.place(int(steps[i]))  # noqa: E731
        check_times(stamps, offsets, place_of, roles)
    y: Any = None
    if roles.task in OF_SEQUENCES or roles.labels:
        y = _label_of_each(table, roles)
    elif target is not None:
        inner = lists[-1].inner
        answers = inner.labels() if roles.task == "tag" else inner.numbers()
        y = _split(answers[steps], offsets)
    return Examples(
        X=_sequences(values[steps], offsets),
        y=y,
        features=features,
        times=None if stamps is None else _split(stamps, offsets),
        categories=categories,
        places=Places(table.unit, table.lines, features, "nested"),
        **_of_rows(table, roles),
    )


def _tell_sorted(table: Table, roles: Roles) -> None:
    """Say by which column rows were sorted that were out of order."""
    import logging  # not needed to read a saved model

    logging.getLogger(__name__).warning("%s: read as: sorted by %s", table.source, roles.time)


def _wide(table: Table, roles: Roles) -> Examples:
    """A row is a sequence of one feature, and a column is a step."""
    if roles.task == "tag" or (roles.task == "forecast" and roles.target):
        raise ValueError(
            f"{table.source}: a wide table, in which a row is a sequence, has no column with an "
            f"answer for each step, as {roles.task} wants; write a row for each step (shape "
            "'long')" + ", or no target: the steps are the series" * (roles.task == "forecast")
        )
    if roles.time:
        raise ValueError(
            f"{table.source}: a wide table has its steps in the order of its columns, and no "
            "column of times"
        )
    if roles.task == "forecast":
        return _wide_series(table, roles)
    column = table[roles.features[0]]
    if len(roles.features) == 1 and isinstance(column, Text) and not column.is_numbers():
        return _texts(table, column, roles)
    columns = [table[name] for name in roles.features]
    for column in columns:
        if column.name in roles.categories or _holds_words(column):
            raise ValueError(
                f"{column.place(0)}: a text; wanted numbers in all columns of a wide table that "
                "are steps: name them with features (--features), or the column of a text alone "
                f"(--features {shlex.quote(column.name)})"
            )
    values = _matrix(columns, len(table), roles)[0]
    return Examples(
        X=values[:, :, None],
        y=_label_of_each(table, roles),
        features=("value",),
        places=Places(table.unit, table.lines, roles.features, "wide"),
        **_of_rows(table, roles),
    )


def _texts(table: Table, column: Text, roles: Roles) -> Examples:
    """A row is a text, and its words are the steps."""
    words = [words_of(text) for text in column.texts()]
    offsets = np.append(0, np.cumsum([len(each) for each in words]))
    different, places = np.unique(list(chain.from_iterable(words)), return_inverse=True)
    return Examples(
        X=_sequences(places.astype(np.float32)[:, None], offsets),
        y=_label_of_each(table, roles),
        features=roles.features,
        categories={column.name: tuple(different.tolist())},
        places=Places(table.unit, table.lines, roles.features, "nested"),
        **_of_rows(table, roles),
    )


def _wide_series(table: Table, roles: Roles) -> Examples:
    """A row is a series; values that are missing at its end are after it."""
    steps = np.stack([table[name].numbers() for name in roles.features], axis=1)
    present = ~np.isnan(steps)
    if not present.any(axis=1).all():
        row = int(np.argmin(present.any(axis=1)))
        raise ValueError(f"{table.place(row)}: a series without a value; wanted at least one")
    lengths = steps.shape[1] - np.argmax(present[:, ::-1], axis=1)
    offsets = np.append(0, np.cumsum(lengths))
    return Examples(
        X=Ragged(np.zeros((offsets[-1], 0), np.float32), offsets),
        y=[series[:length] for series, length in zip(steps, lengths.tolist(), strict=True)],
        **_of_rows(table, roles),
    )


def _label_of_each(table: Table, roles: Roles) -> np.ndarray | None:
    """The label of each row, `[N]`, or its labels, `[N, C]`; None without a target."""
    every = np.arange(len(table))
    if roles.task == "regress":
        return _targets(table, roles, every, every, every)
    if not roles.labels:
        return table[roles.target].labels() if roles.target else None

    def once(name: str) -> np.ndarray:
        if roles.target is None:
            return table[name].labels()
        return _once(table[name], every, every, every, missing=True)

    return label_sets.read(table, roles, once, lambda name, i: table[name].place(i))


def _targets(
    table: Table, roles: Roles, rows: np.ndarray, codes: np.ndarray, starts: np.ndarray
) -> np.ndarray | None:
    """The numbers of each sequence to learn, `[N, K]` float64; None without a target.

    Args:
        rows, codes, starts: see `_once`.

    Raises:
        ValueError: one is missing, infinite, not a number, or changes within a sequence.
    """
    names = [roles.target] if roles.target else roles.labels
    if not names:
        return None
    found = np.empty((len(starts), len(names)))
    for k, name in enumerate(names):
        column = table[name]
        numbers = column.numbers()[rows]
        found[:, k] = numbers[starts]
        of_sequence = found[:, k][np.cumsum(np.diff(codes, prepend=-1) != 0) - 1]
        wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers != of_sequence))
        if len(wrong):
            place, value = column.place(int(rows[wrong[0]])), numbers[wrong[0]]
            why = f"{value:g} is another value than the sequence's {of_sequence[wrong[0]]:g}"
            if not np.isfinite(value):
                n = int((~np.isfinite(numbers)).sum())
                why = f"the target is missing, or infinite{such(n, len(numbers))}"
            raise ValueError(
                f"{place}: {why}; wanted one number for each sequence: remove those without one"
            )
    return found


def _of_rows(table: Table, roles: Roles) -> dict[str, Any]:
    """What belongs to each sequence, where a row is one."""
    ids = None
    if roles.id:
        codes, values = table[roles.id].factor()
        ids = table[roles.id].labels()
        if len(values) < len(codes):
            row = int(np.flatnonzero(np.diff(np.maximum.accumulate(codes), prepend=-1) == 0)[0])
            first = int(np.argmax(codes == codes[row]))
            raise ValueError(
                f"{table[roles.id].place(row)}: {values.tolist()[codes[row]]!r} is the id of "
                f"{table.unit} {table.lines[first]} too; wanted each id once"
            )
    every = np.arange(len(table))

    def once(name: str) -> np.ndarray:
        return _once(table[name], every, every, every, missing=True)

    parts = None
    if roles.split:
        parts = part_names(table[roles.split].labels(), table[roles.split].place)
    return {
        "ids": ids,
        "groups": table[roles.group].labels() if roles.group else None,
        "parts": parts,
        "statics": {name: _static(once(name), name, roles) for name in roles.static},
        "roles": roles,
        "source": table.source,
    }


def _matrix(
    columns: Sequence[Column], n: int, roles: Roles
) -> tuple[np.ndarray, Mapping[str, tuple[str, ...]]]:
    """Columns as features `[n, F]` float32, words as their places among the sorted ones."""
    values = np.empty((n, len(columns)), np.float32)
    named = set(roles.categories)
    categories = {}
    for i, column in enumerate(columns):
        if column.name in named or _holds_words(column):
            # Words that are the only feature have a vocabulary, however many they are.
            # Names that all occur once, like ids, would teach a classifier nothing.
            different = len(column.names()[1])
            repeated = different < n or column.name in named
            reads_words = roles.task == "tag" or (roles.task in OF_SEQUENCES and repeated)
            most = different if reads_words and len(columns) == 1 else MAX_WORDS
            alone = f"; or this feature alone (--features {shlex.quote(column.name)})"
            values[:, i], categories[column.name] = _words(column, most, alone * reads_words)
        else:
            values[:, i] = _float32(column)
    return values, categories


def _holds_words(column: Column) -> bool:
    """Whether a column is texts; if most of them are numbers, the others are mistakes."""
    if not isinstance(column, Text) or column.is_numbers():
        return False
    return column.share_of_numbers() < 0.5


def _words(column: Column, most: int, hint: str) -> tuple[np.ndarray, tuple[str, ...]]:
    codes, values = column.names()
    words = values.tolist()
    if len(words) > most:
        raise ValueError(
            f"{column.place(0)}: a feature of {len(words):,} different names; wanted numbers, or "
            f"at most {most:,} names{hint}"
        )
    order = sorted(range(len(words)), key=words.__getitem__)
    ranks = np.full(len(words) + 1, np.nan)  # the last is that of −1, a missing one
    ranks[order] = np.arange(len(words))
    return ranks[codes], tuple(words[i] for i in order)


def _float32(column: Column) -> np.ndarray:
    try:
        numbers = column.numbers()
    except OpenQuestion:
        raise
    except ValueError as problem:
        if not isinstance(column, Text) or column.is_numbers():
            raise
        raise ValueError(
            f"{problem}; if the column holds names, list it in categories (--categories)"
        ) from None
    too_large = np.abs(numbers) > np.finfo(np.float32).max
    if too_large.any():
        row = int(np.argmax(too_large))
        raise ValueError(
            f"{column.place(row)}: {numbers[row]:g} overflows float32 (at most 3.4e+38); scale the "
            "column down"
        )
    rounded = numbers.astype(np.float32)
    changes = np.diff(numbers) != 0  # False or NaN beside a missing value
    lost = changes & (np.diff(rounded) == 0) & (np.abs(numbers[1:]) > _WHOLE)
    if 2 * np.count_nonzero(lost) > np.count_nonzero(changes):
        row = int(np.argmax(lost)) + 1
        raise ValueError(
            f"{column.place(row)}: {numbers[row]:.17g} and {numbers[row - 1]:.17g} before it are "
            "the same number in float32, as are most of this column; if it is a time, name it so "
            "(--time), else leave it out or subtract its least value"
        )
    return rounded


def _sequences(values: np.ndarray, offsets: np.ndarray) -> Sequences:
    """Steps end to end as an array, if the lengths are equal, or as a `Ragged`."""
    lengths = np.diff(offsets)
    if len(lengths) and (lengths == lengths[0]).all():
        return values.reshape(len(lengths), int(lengths[0]), values.shape[1])
    return Ragged(values, offsets)


def _split(values: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """Values end to end as one array for each sequence."""
    places = offsets.tolist()
    return [values[start:end] for start, end in pairwise(places)]


def _once(
    column: Column, rows: np.ndarray, codes: np.ndarray, starts: np.ndarray, missing: bool
) -> np.ndarray:
    """The value that a column has in all rows of a sequence, for each sequence.

    Args:
        rows: the rows in order.
        codes: the sequence of each of them.
        starts: the first of each sequence among them.
        missing: whether a value may be missing.
    """
    numbers, values = column.factor()
    numbers = numbers[rows]
    first = numbers[starts]
    differs = numbers != np.repeat(first, np.diff(starts, append=len(rows)))
    if differs.any():
        i = int(np.argmax(differs))
        start = int(starts[np.searchsorted(starts, i, side="right") - 1])

        def said(number: int) -> str:
            return "nothing" if number < 0 else repr(values[number : number + 1].tolist()[0])

        raise ValueError(
            f"{column.place(int(rows[i]))}: {said(numbers[i])}, and {said(numbers[start])} earlier "
            "in the same sequence; wanted one value for a whole sequence"
        )
    if not missing and (first < 0).any():
        i = int(starts[np.argmax(first < 0)])
        raise ValueError(
            f"{column.place(int(rows[i]))}: the value is missing"
            f"{such(int((numbers < 0).sum()), len(rows))}; wanted one for each sequence: write one "
            "in its rows, or remove them"
        )
    if values.dtype == object:
        return np.append(values, np.array([None]))[first] if missing else as_strings(values)[first]
    if missing:
        return np.append(values.astype(np.float64), np.nan)[first]
    return values[first]


def _static(values: np.ndarray, name: str, roles: Roles) -> np.ndarray:
    """Static numbers; or names, as objects."""
    if name not in roles.categories and values.dtype != object:
        return values
    there = [value is not None and value == value for value in values.tolist()]
    names = [as_name(v) if is_ else None for v, is_ in zip(values.tolist(), there, strict=True)]
    return np.array(names, object)


def part_names(names: np.ndarray, place: Callable[[int], str]) -> np.ndarray:
    """The names of parts `[N]` as "train", "validation" and "test"; `place` says where one is.

    Raises:
        ValueError: a name is not that of a part.
    """
    parts = [PART_OF.get(str(name).casefold()) for name in names.tolist()]
    if None in parts:
        i = parts.index(None)
        raise ValueError(
            f"{place(i)}: {names.tolist()[i]!r} is not a part: wanted train, validation or test"
        )
    return np.array(parts)


def _lists(column: Column) -> Nested:
    if isinstance(column, Nested):
        return column
    column.factor()  # raises the error if it is not a single value
    raise ValueError(
        f"{column.place(0)}: a single value; wanted a list, since a row is a whole sequence; a "
        "value that a sequence has once is static (--static)"
    )


def _same_lengths(lists: Sequence[Nested]) -> np.ndarray:
    """The offsets that all lists have."""
    offsets = lists[0].offsets
    for column in lists:
        wrong = np.flatnonzero(np.diff(column.offsets) != np.diff(offsets))
        if len(wrong):
            row = int(wrong[0])
            came, wanted = np.diff(column.offsets)[row], np.diff(offsets)[row]
            raise ValueError(
                f"{column.place(row)}: {came} values, and {wanted} in {lists[0].name!r}; wanted "
                "as many in all lists of a row"
            )
    empty = np.flatnonzero(np.diff(offsets) == 0)
    if len(empty):
        raise ValueError(
            f"{lists[0].place(int(empty[0]))}: an empty list; wanted at least one step"
        )
    return offsets


def _flat(column: Nested) -> list[Column]:
    """The features of a list: one; or, of a list of steps that are lists, one for each place."""
    inner = column.inner
    if not isinstance(inner, Nested):
        inner.name = column.name
        return [inner]
    lengths = np.diff(inner.offsets)
    n_features = int(lengths[0])
    wrong = np.flatnonzero(lengths != n_features)
    if len(wrong) or not n_features:
        i = int(wrong[0]) if len(wrong) else 0
        raise ValueError(
            f"{inner.place(i)}: {lengths[i]} numbers in a step, and {n_features} in the first one; "
            "wanted as many in all steps, and at least one"
        )
    numbers = inner.inner.numbers().reshape(-1, n_features)

    def place(feature: int) -> Callable[[int], str]:
        return lambda step: inner.inner.place(step * n_features + feature)

    return [Typed(f"{column.name}[{f}]", place(f), numbers[:, f]) for f in range(n_features)]
