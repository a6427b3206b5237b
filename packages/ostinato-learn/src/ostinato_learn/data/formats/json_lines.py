"""Tables as JSON Lines: an object a line, whose keys are the columns."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from ostinato.internal import needs
from ostinato_learn.data.formats.arrow import MAX_DEPTH, nested_column, too_deep
from ostinato_learn.data.formats.content import check_width
from ostinato_learn.data.tables.column import Place, exact, place_of, shortened
from ostinato_learn.data.tables.table import Column, Table, Text, Typed, Unusable, unnamed

# Empty cells of a table: keys that most lines lack make a table that is empty but large. A cell
# takes some 100 bytes and a microsecond.
MAX_EMPTY = 1 << 23
MAX_EMPTY_RATIO = 100
MAX_NAME = 1000  # characters of a key with those of the objects that it lies in

_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}


def parse_json_lines(
    content: bytes, source: str, skipped: int = 0, columns: tuple[str, ...] = ()
) -> Table:
    """A table; a key that a line lacks, and null, are a missing value.

    The keys of an object within an object are columns of their own, "site.name"; those of a list of
    objects, lists of their own.

    Args:
        content: UTF-8, an object a line.
        source: the file's name, for messages.
        skipped: the number of lines of the file before `content`.
        columns: columns that exist even if no line has them.

    Raises:
        ValueError: a line is not a JSON object, or has a key twice.

    Example:
        >>> from ostinato_learn.data.formats.json_lines import parse_json_lines
        >>> table = parse_json_lines(b'{"id": 7, "x": [1, 2.5]}', "inline")
        >>> table["x"].inner.numbers(), table["id"].labels()
        (array([1. , 2.5]), array([7]))
    """
    rows: list[dict[str, Any]] = []
    lines = []
    for number, line in enumerate(content.decode("utf-8").split("\n"), 1 + skipped):
        if line.strip():
            rows.append(flat(_object(line, source, number), f"{source}, line {number}"))
            lines.append(number)
    names = dict.fromkeys(chain(columns, chain.from_iterable(rows)))
    check_width(len(names), source)
    _check_filled(sum(map(len, rows)), len(rows), len(names), source, "lines")
    _fill_empty_lists(rows, list(names))
    keys = _keys(names, source)
    numbers = np.array(lines)

    def place(row: int) -> str:
        return f"{source}, line {numbers[row]}"

    made = {
        name: _column(name, place_of(place, name), [row.get(key) for row in rows])
        for name, key in keys.items()
    }
    return Table(source, "line", numbers, unnamed(made, source))


def flat(row: dict[str, Any], place: str) -> dict[str, Any]:
    """The row with the values that lie within objects, by names such as "site.name"."""
    if not any(_has_keys(value) for value in row.values()):
        return row
    pairs: list[tuple[str, Any]] = []
    waiting = list(reversed(row.items()))
    while waiting:
        name, value = waiting.pop()
        if not _has_keys(value):
            pairs.append((name, value))
            continue
        if len(name) > MAX_NAME:
            raise ValueError(
                f"{place}: objects within objects, {name[:20]!r}…, whose keys have more than "
                f"{MAX_NAME:,} characters together; wanted shorter keys, or fewer objects"
            )
        within = []
        objects = value if isinstance(value, list) else [value]
        keys = dict.fromkeys(chain.from_iterable(objects))
        _check_filled(sum(map(len, objects)), len(objects), len(keys), place, "objects")
        for key in keys:
            found = [each.get(key) for each in objects]
            within.append((f"{name}.{key.strip()}", found if isinstance(value, list) else found[0]))
        waiting.extend(reversed(within))
    try:
        return _unique(pairs)
    except ValueError as problem:
        raise ValueError(f"{place}: {problem}") from None


def _check_filled(n_values: int, n_rows: int, n_keys: int, source: str, unit: str) -> None:
    """Raise ValueError if objects with these keys would leave most cells of a table empty."""
    if n_rows * n_keys > max(MAX_EMPTY, MAX_EMPTY_RATIO * n_values):
        raise ValueError(
            f"{source}: {n_keys:,} different keys in {n_rows:,} {unit}, each of which has "
            f"{n_values / n_rows:,.3g} of them; wanted the same keys in each: write what differs "
            'as a value, such as {"name": "k17", "value": 1}'
        )


def _fill_empty_lists(rows: list[dict[str, Any]], names: list[str]) -> None:
    """An empty list, where other rows have a list of objects, is an empty list of each key."""
    empty = {key for row in rows for key, value in row.items() if value == []}
    if not empty:
        return
    order = {name: i for i, name in enumerate(names)}
    names = sorted(names)  # names with the same beginning are adjacent
    inner = {}
    for key in empty:
        begin, end = bisect_left(names, f"{key}."), bisect_left(names, f"{key}/")
        inner[key] = sorted(names[begin:end], key=order.__getitem__)
    for row in rows:
        for key in empty & row.keys():
            if row[key] == [] and inner[key]:
                del row[key]
                row.update({name: [] for name in inner[key]})


def _has_keys(value: Any) -> bool:
    """Whether it is an object, or a list of objects."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, dict) for each in value)
    return isinstance(value, dict)


def _keys(found: Iterable[str], source: str) -> dict[str, str]:
    """The names of the columns, which are the keys without blanks around them."""
    keys: dict[str, str] = {}
    for key in dict.fromkeys(found):
        if keys.setdefault(key.strip(), key) != key:
            raise ValueError(
                f"{source}: the keys {keys[key.strip()]!r} and {key!r} differ in blanks alone; "
                "wanted one spelling"
            )
    return keys


def _object(line: str, source: str, number: int) -> dict[str, Any]:
    try:
        value = _decode(line.strip())
    except RecursionError:
        raise ValueError(
            f"{source}, line {number}: the lists are nested too deeply; wanted an object"
        ) from None
    except ValueError as problem:
        hint = ""
        if line.lstrip().startswith("[") or line.strip() == "{":
            hint = "; one value over several lines is not JSON Lines: write an object on each line"
        raise ValueError(f"{source}, line {number}: {problem}{hint}") from None
    if not isinstance(value, dict):
        raise ValueError(
            f"{source}, line {number}: found {_KINDS.get(type(value), 'null')}; wanted an object "
            'such as {"id": 1, "x": 0.5}'
        )
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the key {twice!r} comes twice; wanted each once")
    return values


_decode = json.JSONDecoder(object_pairs_hook=_unique).decode


def _column(name: str, place: Place, values: list[Any], depth: int = 0) -> Column:
    """A column of these values, which lie within `depth` lists."""
    present = {type(value) for value in values}
    kinds = present - {type(None)}
    if kinds <= {bool} and kinds == present:
        return Typed(name, place, np.array(values, bool))
    whole = [value for value in values if value is not None] if kinds == {int} else []
    if whole and not exact(min(whole), max(whole), len(whole) < len(values)):
        written = [value if value is None else str(value) for value in values]
        return Text(name, place, _strings(written), untyped=True)
    if kinds <= {int, float} or kinds == {bool}:
        return Typed(name, place, _numbers(values, present))
    if kinds == {str}:
        return Text(name, place, _strings(values), untyped=False)
    if present == {list} and depth == MAX_DEPTH:
        return Unusable(name, place, partial(too_deep, place))
    if present == {list}:
        offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(int)
        inner = list(chain.from_iterable(values))
        return nested_column(name, place, offsets, partial(_column, values=inner, depth=depth + 1))
    return Unusable(name, place, _mixture(place, values))


def _strings(values: list[str | None]) -> Any:
    """Pyarrow's strings."""
    with needs("ostinato-learn[tables]", "pyarrow"):
        import pyarrow as pa
    return pa.chunked_array([pa.array(values, pa.large_string())])


def _numbers(values: list[Any], present: set[type]) -> np.ndarray:
    if present == {int}:
        return np.array(values, np.int64)
    return np.array([np.nan if value is None else _float(value) for value in values], np.float64)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return np.inf


def _mixture(place: Place, values: list[Any]) -> Callable[[], str]:
    """What is wrong with values of several kinds: the first of a rarer one."""

    def kind(value: Any) -> str:
        missing = "null" if value is None else "an object"
        return _KINDS.get(type(value), missing)

    def problem() -> str:
        counts: dict[str, int] = {}
        for value in values:
            counts[kind(value)] = counts.get(kind(value), 0) + 1
        usual = max(counts, key=lambda k: counts[k])
        if usual == "an object":
            return f"{place(0)}: an object; wanted numbers, texts, or lists of them"
        row = next(i for i, value in enumerate(values) if kind(value) != usual)
        came = f"{shortened(values[row])} is {kind(values[row])}"
        if values[row] is None:
            came = "the value is missing"
        share = f"{counts[usual]:,} of {len(values):,} values"
        return f"{place(row)}: {came}; wanted {usual}, as in {share}"

    return problem
