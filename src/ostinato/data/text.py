"""Plain text as documents, and words with tags in columns (CoNLL)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ostinato.data.column import shortened
from ostinato.data.content import as_text, ending, read_content
from ostinato.data.tables import ENDINGS, read_table

Documents = Literal["blank", "line", "file"]
_DOCUMENT = "-DOCSTART-"
# The columns of the Universal Dependencies: the word's number, the word, and its part of speech.
_UNIVERSAL_WORD, _UNIVERSAL_TAG, _UNIVERSAL_COLUMNS = 1, 3, 10


def read_documents(
    path: str | os.PathLike[str], each: Documents = "blank", column: str | None = None
) -> list[str]:
    """The documents in a file of text, or in a column of a table.

    Args:
        path: UTF-8 text, also packed with gzip; or, if `column` is given, a table.
        each: how a document ends: "blank", at one or more blank lines; "line", at each line end;
            "file", with the file.
        column: of the table, whose rows are documents.

    Returns:
        Documents without blanks at their ends, none of them empty. Their lines end with a newline.

    Raises:
        ValueError: the file is no text or not UTF-8; a row has no text; the column does not exist.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> from ostinato.data.text import read_documents
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "mine.txt")
        ...     _ = path.write_text("One line.\\nAnother.\\n\\n\\nA second document.\\n")
        ...     read_documents(path), len(read_documents(path, each="line"))
        (['One line.\\nAnother.', 'A second document.'], 3)
    """
    path = Path(path)
    if each not in get_args(Documents):
        raise ValueError(f"each={each!r} is not known; wanted 'blank', 'line' or 'file'")
    if ending(path) in ENDINGS:
        return _column(path, column)
    if column is not None:
        raise ValueError(f"{path}: a text has no columns; wanted a table, or no column")
    text = _text(path)
    if each == "file":
        return [text.strip()]
    pieces = re.split(r"\n[^\S\n]*\n\s*", text) if each == "blank" else text.split("\n")
    return [piece.strip() for piece in pieces if piece.strip()]


@dataclass(frozen=True)
class TaggedWords:
    """Sentences of words, each word with a tag.

    Attributes:
        words: of each sentence.
        tags: of each sentence, as many.
        documents: the number of the document that each sentence is from, `[N]`, from 0; it groups
            sentences that a split should keep together.
        source: the file's name.
    """

    words: list[list[str]]
    tags: list[np.ndarray]
    documents: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.words)


def read_conll(
    path: str | os.PathLike[str], word: int | None = None, tag: int | None = None
) -> TaggedWords:
    """Words and tags from a file in columns: a word a line, sentences told apart by blank lines.

    Columns are separated by tabs if the first line has one, else by blanks. Lines of -DOCSTART-
    begin a document. A file whose name ends with .conllu has the columns of the Universal
    Dependencies: comments, and lines for contractions and omitted words, are left out.

    Args:
        path: UTF-8 text, also packed with gzip.
        word, tag: the columns, from 0, or from the last one, −1; by default the first and the
            last (in .conllu, the word and its part of speech).

    Raises:
        ValueError: a line has another number of columns than the first, or too few.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> from ostinato.data.text import read_conll
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "mine.conll")
        ...     _ = path.write_text("Jane B-PER\\nslept O\\n\\nBath B-LOC\\n")
        ...     sentences = read_conll(path)
        >>> sentences.words, sentences.tags[0].tolist()
        ([['Jane', 'slept'], ['Bath']], ['B-PER', 'O'])
    """
    path = Path(path)
    universal = ending(path) == ".conllu"
    word = word if word is not None else _UNIVERSAL_WORD if universal else 0
    tag = tag if tag is not None else _UNIVERSAL_TAG if universal else -1
    words: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    documents = [0]
    document = 0
    for fields in _rows(path, universal, max(_needed(word), _needed(tag))):
        begins = fields is not None and fields[0] == _DOCUMENT
        if (fields is None or begins) and words[-1]:
            words.append([])
            tags.append([])
            documents.append(document)
        if begins:
            document += bool(words[:-1])
            documents[-1] = document
        elif fields is not None:
            words[-1].append(fields[word])
            tags[-1].append(fields[tag])
    if not words[-1]:
        words, tags, documents = words[:-1], tags[:-1], documents[:-1]
    if not words:
        raise ValueError(f"{path}: there are no words; wanted a word and its tag on each line")
    return TaggedWords(words, [np.array(t) for t in tags], np.array(documents), str(path))


def _text(path: Path) -> str:
    return as_text(read_content(path), str(path)).decode("utf-8")


def _rows(path: Path, universal: bool, at_least: int) -> Iterator[list[str] | None]:
    """The fields of each line; None for a blank line."""
    separator: str | None = None
    n_columns = first = 0
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            yield None
            continue
        if universal and line.startswith("#"):
            continue
        if not n_columns:
            separator = "\t" if "\t" in line else None
        fields = [field.strip() for field in line.split(separator)]
        if fields[0] == _DOCUMENT:
            yield fields
            continue
        if not n_columns:
            n_columns, first = len(fields), number
            at_least = _UNIVERSAL_COLUMNS if universal else at_least
        if len(fields) < max(at_least, 2):
            raise ValueError(
                f"{path}, line {number}: {len(fields)} columns in {shortened(line)}; wanted at "
                f"least {max(at_least, 2)}, separated by {'tabs' if separator else 'blanks'}: a "
                "word and its tag"
            )
        if len(fields) != n_columns:
            raise ValueError(
                f"{path}, line {number}: {len(fields)} columns in {shortened(line)}; wanted "
                f"{n_columns}, as in line {first}"
            )
        if "" in fields:
            raise ValueError(
                f"{path}, line {number}: column {fields.index('') + 1} is empty in "
                f"{shortened(line)}; wanted a value"
            )
        if not universal or fields[0].isdecimal():
            yield fields


def _needed(column: int) -> int:
    """How many columns there must be for this one."""
    return column + 1 if column >= 0 else -column


def _column(path: Path, name: str | None) -> list[str]:
    table = read_table(path)
    if name is None:
        shown = ", ".join(map(repr, table.names[:20]))
        raise ValueError(f"{path}: which column holds the text? Name it; the columns are {shown}")
    return table[table.exact(name, "text")].texts()
