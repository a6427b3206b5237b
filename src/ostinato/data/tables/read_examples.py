"""`read_examples`: the sequences in a user's file, whatever its format and shape."""

from __future__ import annotations

import os
from pathlib import Path

from ostinato.data.formats import arrays, conll
from ostinato.data.formats.arrow import parse_arrow, parse_parquet
from ostinato.data.formats.content import KINDS, as_text, ending, kind_of, read_content
from ostinato.data.formats.delimited import parse_delimited
from ostinato.data.formats.dialect import SEPARATOR_OF, Dialect
from ostinato.data.formats.json_lines import parse_json_lines
from ostinato.data.sequences.examples import Examples
from ostinato.data.tables.roles import Roles
from ostinato.data.tables.shapes import to_examples
from ostinato.data.tables.table import Table

_JSON = (".jsonl", ".ndjson")
ENDINGS = (*SEPARATOR_OF, *_JSON, ".parquet", ".arrow", ".feather", *conll.ENDINGS)


def parse_table(content: bytes, kind: str, source: str, dialect: Dialect | None = None) -> Table:
    """The table in a file's content.

    Args:
        content: unpacked.
        kind: one of `ENDINGS`.
        source: the file's name, for messages.
        dialect: how CSV is written.

    Raises:
        ValueError: it is damaged, or not written so; place and remedy are named.
    """
    dialect = dialect or Dialect()
    dialect.check(kind, source)
    if kind in SEPARATOR_OF:
        text = as_text(dialect.utf8(content, source), source)
        return parse_delimited(text, source, dialect.between(kind), decimal=dialect.decimal)
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
    if ending(path) not in ENDINGS:
        raise ValueError(f"{path}: no table; wanted the ending {', '.join(ENDINGS)}")
    return parse_table(read_content(path), ending(path), str(path))


def read_examples(path: str | os.PathLike[str], roles: Roles | None = None) -> Examples:
    """Read the sequences of a file, with their answers and names.

    Args:
        path: a table (.csv, .tsv, .jsonl, .parquet, .arrow; words with tags, .conll, .conllu), or
            arrays (.npz, .npy, .ts, IDX with its labels beside it), also packed with gzip (.gz).
        roles: what its columns are for; by default, what is unambiguous.

    Raises:
        ValueError: the file is damaged, a column is missing or does not fit its role, or rows are
            out of order; the message names file, row, column and remedy.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> from ostinato.data import Roles, read_examples
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "mine.csv")
        ...     _ = path.write_text("trip,x,mode\\na,1,car\\na,2,car\\nb,3,bus\\n")
        ...     roles = Roles(id="trip", features=("x",), target="mode", task="classify")
        ...     examples = read_examples(path, roles)
        >>> examples.X, examples.y, examples.ids
        (Ragged(2 sequences of 1 to 2 steps, 1 features), array(['car', 'bus'], dtype='<U3'), \
array(['a', 'b'], dtype='<U1'))
    """
    path = Path(path)
    if ending(path) not in KINDS:
        raise ValueError(
            f"{path}: unknown kind of file; wanted a table ({', '.join(ENDINGS)}) or arrays "
            f"({', '.join(arrays.ENDINGS)}), also with .gz after it"
        )
    return parse_examples(read_content(path), str(path), roles)


def parse_examples(content: bytes, source: str, roles: Roles | None = None) -> Examples:
    """`read_examples` of content that came another way, as from standard input.

    Args:
        content: unpacked.
        source: what errors call it. If it does not end like a file's name, the first bytes tell
            the kind: CSV, JSON Lines, Parquet, Arrow, .npz, .npy or .ts.
    """
    roles = roles or Roles()
    kind = kind_of(content, source)
    if kind in arrays.ENDINGS:
        return arrays.parse_arrays(content, kind, source, roles)
    return to_examples(parse_table(content, kind, source, roles.dialect), roles)
