"""Words with tags in columns, as in the tasks of CoNLL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ostinato.internal import needs
from ostinato_learn.data.formats.content import as_text, ending, read_content
from ostinato_learn.data.tables.column import place_of, shortened
from ostinato_learn.data.tables.table import Column, Table, Text, Typed

ENDINGS = (".conll", ".conllu")

_DOCUMENT = "-DOCSTART-"
# The columns of the Universal Dependencies: the word's number, the word, and its part of speech.
_UNIVERSAL_WORD, _UNIVERSAL_TAG, _UNIVERSAL_COLUMNS = 1, 3, 10
_UNIVERSAL = ["number", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc"]


@dataclass(frozen=True)
class TaggedWords:
    """Sentences of words, each word with a tag.

    Attributes:
        words: of each sentence.
        tags: of each sentence, as many.
        documents: `[N]`, the number of each sentence's document, from 0; a split should keep its
            sentences together.
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
    """Read words and tags from a file with a word in each line and blank lines between sentences.

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
        >>> from ostinato_learn.data import read_conll
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "mine.conll")
        ...     _ = path.write_text("Jane B-PER\\nslept O\\n\\nBath B-LOC\\n")
        ...     sentences = read_conll(path)
        >>> sentences.words, sentences.tags[0].tolist()
        ([['Jane', 'slept'], ['Bath']], ['B-PER', 'O'])
    """
    source = str(path)
    universal = ending(Path(path)) == ".conllu"
    word = word if word is not None else _UNIVERSAL_WORD if universal else 0
    tag = tag if tag is not None else _UNIVERSAL_TAG if universal else -1
    content = read_content(Path(path))
    words: list[list[str]] = []
    tags: list[list[str]] = []
    documents: list[int] = []
    at_least = max(_needed(word), _needed(tag), 2)
    for _, fields, sentence, document in _words(content, source, universal, at_least):
        if sentence == len(words):
            words.append([])
            tags.append([])
            documents.append(document)
        words[-1].append(fields[word])
        tags[-1].append(fields[tag])
    if not words:
        raise ValueError(f"{source}: there are no words; wanted a word and its tag on each line")
    return TaggedWords(words, [np.array(t) for t in tags], np.array(documents), source)


def _words(
    content: bytes, source: str, universal: bool, at_least: int
) -> Iterator[tuple[int, list[str], int, int]]:
    """Of each word its line, its fields, and the numbers of its sentence and document, from 0."""
    sentence = document = 0
    begun = any_yet = False
    for line, fields in _rows(content, source, universal, at_least):
        begins = fields is not None and fields[0] == _DOCUMENT
        if (fields is None or begins) and begun:
            sentence, begun = sentence + 1, False
        if begins:
            document += any_yet
        elif fields is not None:
            begun = any_yet = True
            yield line, fields, sentence, document


def _rows(
    content: bytes, source: str, universal: bool, at_least: int
) -> Iterator[tuple[int, list[str] | None]]:
    """The number and the fields of each line; None for a blank line."""
    separator: str | None = None
    n_columns = first = 0
    for number, line in enumerate(as_text(content, source).decode("utf-8").split("\n"), 1):
        if not line.strip():
            yield number, None
            continue
        if universal and line.startswith("#"):
            continue
        if not n_columns:
            separator = "\t" if "\t" in line else None
        fields = [field.strip() for field in line.split(separator)]
        if fields[0] == _DOCUMENT:
            yield number, fields
            continue
        if not n_columns:
            n_columns, first = len(fields), number
            at_least = _UNIVERSAL_COLUMNS if universal else at_least
        if len(fields) < at_least:
            raise ValueError(
                f"{source}, line {number}: {len(fields)} columns in {shortened(line)}; wanted at "
                f"least {at_least}, separated by {'tabs' if separator else 'blanks'}: a "
                "word and its tag"
            )
        if len(fields) != n_columns:
            raise ValueError(
                f"{source}, line {number}: {len(fields)} columns in {shortened(line)}; wanted "
                f"{n_columns}, as in line {first}"
            )
        if "" in fields:
            raise ValueError(
                f"{source}, line {number}: column {fields.index('') + 1} is empty in "
                f"{shortened(line)}; wanted a value"
            )
        if not universal or fields[0].isdecimal():
            yield number, fields


def _needed(column: int) -> int:
    """How many columns there must be for this one."""
    return column + 1 if column >= 0 else -column


def parse_conll_table(content: bytes, source: str) -> Table:
    """The words of a file as the rows of a table.

    Its columns: "id", the number of the sentence, from 1; "document", the number of the document;
    "word" and "tag", as `read_conll` chooses them; and the others, "column 2" and so on, counted
    from 1 (in .conllu, by the names that the Universal Dependencies give them). Words alone, to be
    tagged, have no "tag".

    Raises:
        ValueError: a line has another number of columns than the first.
    """
    with needs("ostinato-learn[tables]", "pyarrow"):
        import pyarrow as pa
    universal = ending(Path(source)) == ".conllu"
    words = list(_words(content, source, universal, 1))
    if not words:
        raise ValueError(f"{source}: there are no words; wanted one on each line, and its tag")
    lines, rows, sentences, documents = zip(*words, strict=True)

    def place(row: int) -> str:
        return f"{source}, line {lines[row]}"

    columns: dict[str, Column] = {
        "id": Typed("id", place_of(place, "id"), np.array(sentences) + 1),
        "document": Typed("document", place_of(place, "document"), np.array(documents)),
    }
    for i, name in enumerate(_names(len(rows[0]), universal)):
        texts = pa.chunked_array([pa.array([fields[i] for fields in rows], pa.large_string())])
        columns[name] = Text(name, place_of(place, name), texts, untyped=False)
    return Table(source, "line", np.array(lines), columns)


def _names(n: int, universal: bool) -> list[str]:
    """The names of n columns."""
    if n == 1:
        return ["word"]
    names = [f"column {i}" for i in range(1, n + 1)]
    word, tag = (_UNIVERSAL_WORD, _UNIVERSAL_TAG) if universal else (0, n - 1)
    if universal:
        names[: len(_UNIVERSAL)] = _UNIVERSAL
    names[word], names[tag] = "word", "tag"
    return names
