"""Plain text as documents."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any, Literal, get_args

from ostinato_learn.data.formats.content import TABLES, as_text, ending, read_content
from ostinato_learn.data.formats.dialect import Dialect
from ostinato_learn.data.formats.recognize import DELIMITED, recognised
from ostinato_learn.data.tables.frames import is_frame, is_path
from ostinato_learn.data.tables.read_examples import parse_table, read_table, table_in
from ostinato_learn.data.tables.table import Table, Text

_log = logging.getLogger(__name__)

TUNES = ".abc"  # a tune ends at a blank line (ABC standard 2.1)
_ENDINGS = (*TABLES, ".txt", TUNES)
Documents = Literal["blank", "line", "file"]


def read_documents(
    path: str | os.PathLike[str], each: Documents = "blank", column: str | None = None
) -> list[str]:
    """Read the documents of a text file, or of a column of a table.

    Args:
        path: UTF-8 text, also packed with gzip; or, if `column` is given, a table.
        each: how a document ends: "blank", at one or more blank lines (in a file in ABC, `.abc`,
            only tunes are documents); "line", at each line end; "file", with the file.
        column: of the table, whose rows are documents.

    Returns:
        The documents, stripped, none of them empty; lines inside are joined by "\\n".

    Raises:
        ValueError: the file is not text or not UTF-8; a row has no text; the column does not exist.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> from ostinato_learn.data import read_documents
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "mine.txt")
        ...     _ = path.write_text("One line.\\nAnother.\\n\\n\\nA second document.\\n")
        ...     read_documents(path), len(read_documents(path, each="line"))
        (['One line.\\nAnother.', 'A second document.'], 3)
    """
    path = Path(path)
    if each not in get_args(Documents):
        raise ValueError(f"each={each!r} is not known; wanted 'blank', 'line' or 'file'")
    if ending(path) in TABLES:
        return _column(path, column)
    if column is not None:
        raise ValueError(f"{path}: a text has no columns; wanted a table, or no column")
    text = _text(path)
    if each == "file":
        return [text.strip()]
    if each == "blank":
        return tunes(text) if ending(path) == TUNES else at_blank_lines(text)
    return [line.strip() for line in text.split("\n") if line.strip()]


def documents_in(X: Any, column: str | None = None, **dialect: Any) -> Any:
    """The documents of a file or a table, as the command line has them; anything else unchanged.

    A text is one document, and each tune of a collection, and each row of a table.

    Args:
        X: the path of a file, a table in memory, or a list of texts.
        column: of the table; None: its only column of texts.
        dialect: how a CSV file is written; see `Dialect`.

    Raises:
        ValueError: the file is damaged, or the table has not one such column.
    """
    if is_frame(X):
        table = table_in(X)
    elif not is_path(X) or (isinstance(X, str) and ending(Path(X)) not in _ENDINGS):
        return X
    elif ending(Path(X)) in TABLES:
        path = Path(X)
        content, kind, written = read_content(path), ending(path), Dialect(**dialect)
        if kind in DELIMITED:
            written = recognised(content, kind, str(path), written, dialect)
        table = parse_table(content, kind, str(path), written)
    elif column is not None:
        raise ValueError(f"{X}: a text has no column {column!r}; leave it out")
    else:
        text = _text(Path(X))
        return tunes(text) if ending(Path(X)) == TUNES else [text.strip()]
    return table[text_column(table, column)].texts()


def text_column(table: Table, column: str | None) -> str:
    """The column of the texts; None: the only column of texts, which the log names.

    Raises:
        ValueError: there is no such column, or there are several.
    """
    if column is not None:
        return table.exact(column, "the texts")
    found = [n for n in table.names if isinstance(table[n], Text) and not table[n].is_numbers()]
    if len(found) != 1:
        raise ValueError(
            f"{table.source}: which column holds the texts? Wanted a single one, or its name "
            f"(--language COLUMN, label=); the columns are "
            f"{', '.join(map(repr, table.names[:20]))}"
        )
    _log.warning("%s: the column of texts is %r", table.source, found[0])
    return found[0]


def at_blank_lines(text: str) -> list[str]:
    """The documents of a text, which blank lines separate."""
    pieces = re.split(r"\n[^\S\n]*\n\s*", text)
    return [piece.strip() for piece in pieces if piece.strip()]


def tunes(text: str) -> list[str]:
    """The tunes of a file in ABC: each from its field X:, with its number, to the next blank line.

    The file's header, and texts between tunes, are not tunes. Without any X: all documents are.

    Example:
        >>> tunes("%abc-2.1\\nM:4/4\\n\\nX:1\\nK:G\\nGABc\\n\\nSome text.\\n\\nX:2\\nK:D\\nd2\\n")
        ['X:1\\nK:G\\nGABc', 'X:2\\nK:D\\nd2']
    """
    pieces = at_blank_lines(text)
    found = [piece[match.start() :] for piece in pieces if (match := _TUNE.search(piece))]
    return found or pieces


_TUNE = re.compile(r"^X:\s*\d", re.MULTILINE)


def _text(path: Path) -> str:
    return as_text(read_content(path), str(path)).decode("utf-8")


def _column(path: Path, name: str | None) -> list[str]:
    table = read_table(path)
    if name is None:
        shown = ", ".join(map(repr, table.names[:20]))
        raise ValueError(f"{path}: which column holds the text? Name it; the columns are {shown}")
    return table[table.exact(name, "text")].texts()
