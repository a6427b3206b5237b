"""`read_examples`: the sequences in a user's file or data frame, whatever its format and shape."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from ostinato.internal import needs
from ostinato_learn.data.formats import arrays, conll, spreadsheet
from ostinato_learn.data.formats.arrow import arrow_table, parse_arrow, parse_parquet
from ostinato_learn.data.formats.content import (
    KINDS,
    TABLES,
    as_text,
    ending,
    kind_of,
    read_content,
)
from ostinato_learn.data.formats.delimited import parse_delimited
from ostinato_learn.data.formats.dialect import SEPARATOR_OF, Dialect
from ostinato_learn.data.formats.json_lines import parse_json_lines
from ostinato_learn.data.formats.recognize import DELIMITED, recognised
from ostinato_learn.data.questions import asked_together
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.tables.roles import Roles
from ostinato_learn.data.tables.shapes import to_examples
from ostinato_learn.data.tables.table import Table

_JSON = (".jsonl", ".ndjson")


def parse_table(content: bytes, kind: str, source: str, dialect: Dialect | None = None) -> Table:
    """The table in a file's content.

    Args:
        content: unpacked.
        kind: one of `TABLES`.
        source: the file's name, for messages.
        dialect: how CSV is written.

    Raises:
        ValueError: it is damaged, or has another dialect; the message names place and remedy.
    """
    dialect = dialect or Dialect()
    dialect.check(kind, source)
    if kind == spreadsheet.ENDING:
        content = spreadsheet.as_csv(content, source)
    if kind in SEPARATOR_OF:
        text = as_text(dialect.utf8(content, source), source)
        between = dialect.between(kind)
        text = dialect.without_head(text, between)
        return parse_delimited(text, source, between, dialect=dialect)
    if kind in _JSON:
        return parse_json_lines(as_text(content, source), source)
    if kind in conll.ENDINGS:
        return conll.parse_conll_table(content, source)
    if kind == ".parquet":
        return parse_parquet(content, source)
    return parse_arrow(content, source)


def read_table(path: str | os.PathLike[str]) -> Table:
    """A table from a CSV, TSV, JSON Lines, Parquet or Arrow file, also packed with gzip.

    Raises:
        ValueError: the file is damaged, or its name has another ending.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if ending(path) not in TABLES:
        raise ValueError(f"{path}: no table; wanted the ending {', '.join(TABLES)}")
    return parse_table(read_content(path), ending(path), str(path))


def read_examples(source: Any, roles: Roles | None = None, **columns: Any) -> Examples:
    """Read the sequences of a file or a data frame, with their answers and names.

    Args:
        source: the path of a table (.csv, .tsv, .xlsx, .jsonl, .parquet, .arrow; words with tags,
            .conll, .conllu), or of arrays (.npz, .npy, .ts, IDX with its labels beside it), also
            packed with gzip (.gz). Or a table in memory: a data frame of pandas, with its named
            index as columns, or of polars; a table of pyarrow's; a dataset of Hugging Face's.
        roles: the roles of its columns; by default they are found, if they are unambiguous.
        columns: attributes of `Roles`, one by one: `id="trip", target="mode", task="classify"`.

    Raises:
        ValueError: the file is damaged, a column is missing or does not fit its role, or rows are
            out of order; the message names file, row, column and remedy.
        TypeError: `source` is neither a path nor a table, or a role is not known.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> from ostinato_learn.data import Roles, read_examples
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "mine.csv")
        ...     _ = path.write_text("trip,x,mode\\na,1,car\\na,2,car\\nb,3,bus\\n")
        ...     roles = Roles(id="trip", features=("x",), target="mode", task="classify")
        ...     examples = read_examples(path, roles)
        >>> examples.X, examples.y, examples.ids
        (Ragged(2 sequences of 1 to 2 steps, 1 features), array(['car', 'bus'], dtype='<U3'), \
array(['a', 'b'], dtype='<U1'))
    """
    named = Roles.given(**columns)
    given = replace(roles or Roles(), **{name: getattr(named, name) for name in columns})
    return read_to_learn(source, given, fixed=columns)


def read_to_learn(
    source: Any,
    roles: Roles,
    then: Callable[[Examples], object] | None = None,
    fixed: Collection[str] = (),
) -> Examples:
    """`read_examples`, which asks all open questions at once.

    Args:
        source, roles: as for `read_examples`.
        then: see `asked_together`.
        fixed: the roles that the user gave, which may be the defaults.

    Raises:
        OpenQuestion, ValueError, TypeError, FileNotFoundError: see `read_examples`.
    """
    if not isinstance(source, (str, os.PathLike)):
        table = table_in(source)
        return asked_together(partial(to_examples, table), roles, table.source, then)
    path = Path(source)
    if ending(path) not in KINDS:
        raise ValueError(
            f"{path}: unknown kind of file; wanted a table ({', '.join(TABLES)}) or arrays "
            f"({', '.join(arrays.ENDINGS)}), also with .gz after it"
        )
    content = read_content(path)
    written = _recognised(content, ending(path), path, roles, fixed)
    return asked_together(partial(parse_examples, content, str(path)), written, str(path), then)


def _recognised(
    content: bytes, kind: str, path: Path, roles: Roles, fixed: Collection[str]
) -> Roles:
    """The roles with the dialect of a CSV file; that of a model's files is known."""
    if kind not in DELIMITED or roles.of_model:
        return roles
    return replace(roles, **asdict(recognised(content, kind, str(path), roles.dialect, fixed)))


def table_in(frame: Any) -> Table:
    """A table in memory; errors as of `as_arrow`."""
    return arrow_table(as_arrow(frame), "the data frame")


def as_arrow(frame: Any) -> Any:
    """A table in memory as pyarrow's.

    Raises:
        ValueError: a column holds objects of several kinds, or there are several tables in it.
        TypeError: it is not a table.
    """
    with needs("ostinato-learn[tables]", "pyarrow"):
        import pyarrow as pa
    if isinstance(frame, dict):
        parts = ", ".join(f"[{name!r}]" for name in frame)
        raise ValueError(f"the data are several tables, {parts}; wanted one of them")
    if hasattr(frame, "with_format") and hasattr(frame, "column_names"):  # of Hugging Face
        return frame.with_format("arrow")[:]
    if hasattr(frame, "collect") and hasattr(frame, "lazy"):  # polars, not yet computed
        frame = frame.collect()
    if hasattr(frame, "reset_index"):  # pandas
        named = [name for name in frame.index.names if name is not None]
        frame = frame.reset_index(named) if named else frame
        frame = frame.set_axis([str(name) for name in frame.columns], axis="columns")
        try:
            return pa.Table.from_pandas(frame, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as problem:
            raise ValueError(
                f"the data frame: {', '.join(map(str, problem.args))}; wanted values of one kind "
                "in each column"
            ) from None
    if isinstance(frame, pa.Table):
        return frame
    if hasattr(frame, "__arrow_c_stream__"):  # polars, DuckDB, …
        return pa.table(frame)
    raise TypeError(
        f"the data are {type(frame).__name__}; wanted the path of a file, or a table: of pandas, "
        "polars, pyarrow or Hugging Face"
    )


def parse_examples(content: bytes, source: str, roles: Roles | None = None) -> Examples:
    """`read_examples` of content that came another way, as from standard input.

    Args:
        content: unpacked.
        source: its name in errors. If it has no known ending, the first bytes give the kind: CSV,
            JSON Lines, Parquet, Arrow, .npz, .npy or .ts.
    """
    roles = roles or Roles()
    kind = kind_of(content, source)
    if kind in arrays.ENDINGS:
        return arrays.parse_arrays(content, kind, source, roles)
    knows = roles.of_model and kind not in SEPARATOR_OF  # the dialect of the model's CSV files
    return to_examples(parse_table(content, kind, source, None if knows else roles.dialect), roles)
