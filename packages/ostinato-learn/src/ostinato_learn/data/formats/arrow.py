"""Tables in Parquet and Arrow files, and pyarrow's columns as ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.internal import needs
from ostinato_learn.data.formats.content import check_memory, check_width
from ostinato_learn.data.tables.column import Place, exact, place_of
from ostinato_learn.data.tables.table import Column, Nested, Table, Text, Typed, Unusable, unnamed

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DEPTH = 2  # of lists within lists: the steps of a sequence, and the features of a step
_BYTES = 8  # of a value: all numbers become float64
_INDEX = re.compile(r"__index_level_\d+__")  # the index of a data frame, which is not data


def parse_parquet(content: bytes, source: str) -> Table:
    """The table of a Parquet file.

    Raises:
        ValueError: it is damaged, has no rows, needs more memory than there is, or has two columns
            of one name.
    """
    with needs("ostinato-learn[tables]", "pyarrow"):
        import pyarrow as pa
        from pyarrow import parquet
    reader = pa.BufferReader(owned(content))
    with whole(source):
        file = parquet.ParquetFile(reader)
        check_width(len(file.schema_arrow), source)
        check_memory(_BYTES * file.metadata.num_rows * len(file.schema_arrow), source)
        table = _within_memory(file.iter_batches(), file.schema_arrow, source)
    return arrow_table(table, source)


def parse_arrow(content: bytes, source: str) -> Table:
    """The table of an Arrow file, of a stream of Arrow's, or of a Feather file.

    Raises:
        ValueError: it is damaged, has no rows, needs more memory than there is, or has two columns
            of one name.
    """
    with needs("ostinato-learn[tables]", "pyarrow"):
        import pyarrow as pa
        from pyarrow import feather, ipc
    reader = pa.BufferReader(owned(content))
    with whole(source):
        if content.startswith(b"FEA1"):  # the first version, of one batch that is not packed
            table = feather.read_table(reader)
        elif content.startswith(b"ARROW1"):
            file = ipc.open_file(reader)
            batches = map(file.get_batch, range(file.num_record_batches))
            table = _within_memory(batches, file.schema, source)
        else:
            stream = ipc.open_stream(reader)
            table = _within_memory(stream, stream.schema, source)
    return arrow_table(table, source)


def _within_memory(batches: Iterable[Any], schema: Any, source: str) -> Any:
    """The table of all batches; a few packed bytes may expand to any number of values."""
    import pyarrow as pa

    kept, size = [], 0
    for batch in batches:
        kept.append(batch)
        size += batch.nbytes
        check_memory(size, source)
    return pa.Table.from_batches(kept, schema)


def owned(content: bytes | memoryview) -> pa.Buffer:
    """A copy in memory of Arrow's own.

    Arrow frees the input of a parse in a thread of its own, maybe after the result exists. If that
    memory were Python's and the interpreter was ending, the process would abort.
    """
    import pyarrow as pa

    copy = pa.allocate_buffer(len(content))
    with pa.FixedSizeBufferWriter(copy) as writer:
        writer.write(content)
    return copy


def arrow_table(table: pa.Table, source: str, skipped: int = 0) -> Table:
    """A pyarrow table as a `Table`; `skipped` rows of the file come before it.

    Raises:
        ValueError: it contradicts itself, as a damaged file may; has no rows, or two columns of
            one name.
    """
    check_whole(table, source)
    table = _flat(table)
    if len(table) == 0:
        raise ValueError(f"{source}: the table has no rows; wanted at least one")
    names = [name.strip().strip("\ufeff") for name in table.column_names]
    check_width(len(names), source)
    first: dict[str, int] = {}
    for i, name in enumerate(names, 1):
        if first.setdefault(name, i) != i:
            raise ValueError(
                f"{source}: the columns {first[name]} and {i} have the same name "
                f"{name!r}; wanted a name of its own for each"
            )

    def place(row: int) -> str:
        return f"{source}, row {skipped + row + 1}"

    columns = {
        name: arrow_column(name, place_of(place, name), values)
        for name, values in zip(names, table.columns, strict=True)
        if not _INDEX.fullmatch(name)
    }
    return Table(source, "row", skipped + np.arange(1, len(table) + 1), unnamed(columns, source))


def _flat(table: pa.Table) -> pa.Table:
    """The fields of structs as columns, "site.name"; those of a list of structs as lists."""
    import pyarrow as pa

    while True:
        while any(pa.types.is_struct(kind) for kind in table.schema.types):
            table = table.flatten()
        names: list[str] = []
        columns: list[pa.ChunkedArray] = []
        for name, column in zip(table.column_names, table.columns, strict=True):
            kind = column.type
            is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
            if not is_list or not pa.types.is_struct(kind.value_type) or column.null_count:
                names.append(name)
                columns.append(column)
                continue
            for i, field in enumerate(kind.value_type):
                parts = [_field(chunk, i) for chunk in column.chunks]
                names.append(f"{name}.{field.name}")
                columns.append(pa.chunked_array(parts, pa.large_list(field.type)))
        if names == table.column_names:  # a list of structs has become lists of other names
            return table
        table = pa.table(columns, names)


def _field(lists: pa.ListArray | pa.LargeListArray, i: int) -> pa.LargeListArray:
    """Lists of structs as lists of their field i; no list is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return pa.LargeListArray.from_arrays(offsets, pc.struct_field(pc.list_flatten(lists), [i]))


def check_whole(table: Any, source: str) -> None:
    """Raise ValueError if lengths and offsets do not fit: pyarrow trusts the file, and would crash.

    Args:
        table: a table or a batch of pyarrow's.
        source: the name of the file, for messages.

    Raises:
        ValueError: they do not.
    """
    try:
        table.validate(full=True)
        _ = table.schema.names  # whether they are UTF-8
    except _damages() as problem:
        raise ValueError(f"{source}: the file is damaged ({_first_line(problem)})") from None


@contextmanager
def whole(source: str) -> Iterator[None]:
    """What pyarrow says of a damaged file becomes a ValueError."""
    try:
        yield
    except _damages() as problem:
        raise ValueError(f"{source}: not a whole file ({_first_line(problem)})") from None


def _damages() -> tuple[type[Exception], ...]:
    """What pyarrow raises on damaged files; some promise more than there is memory."""
    import pyarrow as pa

    return pa.ArrowException, OSError, MemoryError, UnicodeDecodeError


def arrow_column(name: str, place: Place, values: pa.ChunkedArray, depth: int = 0) -> Column:
    """A column of pyarrow's as ours; its values lie within `depth` lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    is_ = pa.types
    if is_.is_dictionary(kind):
        return arrow_column(name, place, values.cast(kind.value_type), depth)
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind):
        return _nested(name, place, values, depth)
    if is_.is_string(kind) or is_.is_large_string(kind) or str(kind) == "string_view":
        return Text(name, place, values.cast(pa.large_string()), untyped=False)
    if is_.is_timestamp(kind) or is_.is_date(kind):
        try:
            dates = values.cast(pa.timestamp("ns", getattr(kind, "tz", None)))
        except pa.ArrowInvalid:
            return Unusable(name, place, partial(_beyond_dates, place))
        return Typed(name, place, dates.to_numpy().astype("datetime64[ns]"))
    if is_.is_boolean(kind) and values.null_count == 0:
        return Typed(name, place, values.to_numpy().astype(bool))
    if is_.is_integer(kind) and not _fit(values):
        return Text(name, place, values.cast(pa.large_string()), untyped=True)
    if is_.is_integer(kind) and values.null_count == 0:
        return Typed(name, place, values.cast(pa.int64()).to_numpy().astype(np.int64))
    if is_.is_boolean(kind):
        values, kind = values.cast(pa.int8()), pa.int8()
    if is_.is_null(kind) or is_.is_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind):
        numbers = pc.cast(values, pa.float64(), safe=False)
        return Typed(name, place, numbers.to_numpy().astype(np.float64))
    return Unusable(name, place, partial(_no_kind, place, str(kind)))


def _fit(values: pa.ChunkedArray) -> bool:
    """Whether integers are exact in the type that they get."""
    import pyarrow.compute as pc

    bounds = pc.min_max(values).as_py()  # None if all are missing
    return exact(bounds["min"] or 0, bounds["max"] or 0, values.null_count > 0)


def _nested(name: str, place: Place, values: pa.ChunkedArray, depth: int) -> Column:
    import pyarrow as pa
    import pyarrow.compute as pc

    if depth == MAX_DEPTH:
        return Unusable(name, place, partial(too_deep, place))
    if values.null_count:
        row = pc.index(pc.is_null(values), True).as_py()
        return Unusable(name, place, partial(_no_list, place, row))
    lengths = pc.list_value_length(values).to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = pc.list_flatten(values)
    if not isinstance(flat, pa.ChunkedArray):
        flat = pa.chunked_array([flat])
    return nested_column(name, place, offsets, partial(arrow_column, values=flat, depth=depth + 1))


def nested_column(name: str, place: Place, offsets: np.ndarray, inner: partial[Column]) -> Nested:
    """A column of lists; `inner(name, place)` makes that of their values."""

    def within(i: int) -> str:
        row = int(np.searchsorted(offsets, i, side="right")) - 1
        return f"{place(row)}, value {i - int(offsets[row]) + 1}"

    return Nested(name, place, inner(name, within), offsets)


def too_deep(place: Place) -> str:
    """What is wrong with a column of lists of lists of lists."""
    return (
        f"{place(0)}: lists within lists within lists; wanted a list of steps, each a number or a "
        "list of numbers"
    )


def _no_kind(place: Place, kind: str) -> str:
    return f"{place(0)}: values of the type {kind}; wanted numbers, texts, dates, or lists of them"


def _no_list(place: Place, row: int) -> str:
    return f"{place(row)}: the list is missing; wanted one in each row"


def _beyond_dates(place: Place) -> str:
    return f"{place(0)}: dates before 1677 or after 2262, which are not supported"


def _first_line(problem: Exception) -> str:
    return str(problem).splitlines()[0] if str(problem) else type(problem).__name__
