"""`read_examples`: the sequences in a person's file, whatever its format and shape."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ostinato.data import arrays
from ostinato.data.arrow_tables import parse_arrow, parse_parquet
from ostinato.data.content import ending, read_content, read_text
from ostinato.data.delimited import parse_delimited
from ostinato.data.examples import Examples
from ostinato.data.json_lines import parse_json_lines
from ostinato.data.roles import Roles
from ostinato.data.shapes import to_examples
from ostinato.data.table import Table

_TEXT: dict[str, Callable[[bytes, str], Table]] = {
    ".jsonl": parse_json_lines,
    ".ndjson": parse_json_lines,
}
_BINARY: dict[str, Callable[[bytes, str], Table]] = {
    ".parquet": parse_parquet,
    ".arrow": parse_arrow,
    ".feather": parse_arrow,
}
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (*_SEPARATORS, *_TEXT, *_BINARY)


def read_table(path: str | os.PathLike[str], separator: str | None = None) -> Table:
    """A table from a CSV, TSV, JSON Lines, Parquet or Arrow file, also packed with gzip.

    Raises:
        ValueError: the file is damaged, or its name has another ending; place and remedy are named.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    kind = ending(path)
    if separator is not None and kind not in _SEPARATORS:
        raise ValueError(f"{path}: a separator is for .csv and .tsv files")
    if kind in _SEPARATORS:
        return parse_delimited(read_text(path), str(path), separator or _SEPARATORS[kind])
    if kind in _TEXT:
        return _TEXT[kind](read_text(path), str(path))
    if kind in _BINARY:
        return _BINARY[kind](read_content(path), str(path))
    raise ValueError(
        f"{path}: unknown kind of file; wanted a table ({', '.join(ENDINGS)}) or arrays "
        f"({', '.join(arrays.ENDINGS)}), also with .gz after it"
    )


def read_examples(path: str | os.PathLike[str], roles: Roles | None = None) -> Examples:
    """The sequences in a file.

    Args:
        path: a table (`read_table`), or a file of arrays (.npz, .npy, .ts).
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
    roles = roles or Roles()
    if ending(Path(path)) in arrays.ENDINGS:
        return arrays.read_arrays(Path(path), roles)
    return to_examples(read_table(path, roles.separator), roles)
