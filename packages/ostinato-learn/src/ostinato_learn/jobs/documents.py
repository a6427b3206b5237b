"""The documents of a source for the command line, and their parts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ostinato_learn.data.sequences.splits import PART_NAMES
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import sources
from ostinato_learn.jobs.inputs.config import ONLY, Config
from ostinato_learn.jobs.runs.runs import Trained

if TYPE_CHECKING:
    import numpy as np


_log = logging.getLogger(__name__)

HELD_OUT = "Persuasion"  # the novel on which a model of the others is measured


@dataclass(frozen=True)
class TextParts:
    """The training, validation and test documents."""

    train: list[str]
    test: list[str]
    validation: list[str] | None = None


@dataclass(frozen=True)
class Documents:
    """The documents of a file: a text, each row of a table, or each tune of a collection.

    Attributes:
        texts: N of them.
        groups: `[N]`, the group of each (a book, an author), if a column has it.
        parts: `[N]`, the part of each, if a column has it.
    """

    texts: list[str]
    groups: np.ndarray | None = None
    parts: np.ndarray | None = None

    def select(self, indices: Sequence[int] | np.ndarray) -> Documents:
        """The documents of these indices, in their order, with their groups and parts."""
        return Documents(
            [self.texts[i] for i in indices],
            None if self.groups is None else self.groups[indices],
            None if self.parts is None else self.parts[indices],
        )

    def held_out(self, fraction: float, seed: int) -> tuple[Documents, Documents]:
        """All but a share of the documents, and that share; for a single document, its end."""
        from ostinato_learn.data.sequences import splits

        if len(self.texts) == 1:
            (text,) = self.texts
            cut = round(len(text) * (1 - fraction))
            return Documents([text[:cut]]), Documents([text[cut:]])
        found = splits.split(len(self.texts), fraction, seed, groups=self.groups)
        return self.select(found["train"]), self.select(found["test"])


def to_check(settings: Config, as_trained: bool) -> tuple[Documents, TextParts | None]:
    """The documents of a source, and their parts; None: many documents without a division.

    Args:
        as_trained: whether the parts are those of a training, even if it draws them.
    """
    settings = with_column(settings)
    data = settings.data
    if not as_trained and data.split is None and data.test is None and data.source != "austen":
        whole = _learnable(settings)
        if len(whole.texts) > 1:
            return whole, None
    parts = parts_of(settings)
    return Documents(parts.train), parts


def parts_of(settings: Config) -> TextParts:
    """The documents of a source, in parts.

    A single document is divided: its end is the test part. Of many documents, whole ones are held
    out.
    """
    config = settings.data
    if config.split is not None:
        return _divided(settings)
    train = _learnable(settings)
    if config.source == "austen":
        from ostinato_learn import datasets

        test = [datasets.austen()[HELD_OUT]]
    elif config.test is not None:
        test = _given_documents(config.test, settings)
    else:
        train, held_out = train.held_out(config.test_fraction, settings.training.seed)
        test = held_out.texts
    return _with_validation(train, test, settings)


def _with_validation(train: Documents, test: list[str], settings: Config) -> TextParts:
    fraction = settings.training.validation_fraction
    if not fraction:
        return TextParts(train.texts, test)
    rest, validation = train.held_out(fraction, settings.training.seed + 1)
    return TextParts(rest.texts, test, validation.texts)


def _learnable(settings: Config) -> Documents:
    """The documents of a source outside of its own test part."""
    if settings.data.source != "austen":
        read = _read(str(settings.data.source), settings, settings.task.language)
        if read.parts is None:
            return read
        is_test = [str(part).strip().lower() in PART_NAMES["test"] for part in read.parts]
        return read.select([i for i, apart in enumerate(is_test) if not apart])
    from ostinato_learn import datasets

    return Documents([text for name, text in datasets.austen().items() if name != HELD_OUT])


def _divided(settings: Config) -> TextParts:
    """The documents of a table in the parts that a column names."""
    from ostinato_learn.data.sequences import splits

    read = _read(str(settings.data.source), settings, settings.task.language)
    assert read.parts is not None
    found = splits.split(len(read.texts), read.parts, groups=read.groups)
    if "test" not in found:
        raise BadInput(
            f"--split {settings.data.split}: no document is in the part test; wanted some, or "
            "--test FILE"
        )
    parts = {name: read.select(indices) for name, indices in found.items()}
    if "validation" not in parts:
        return _with_validation(parts["train"], parts["test"].texts, settings)
    return TextParts(parts["train"].texts, parts["test"].texts, parts["validation"].texts)


def with_column(settings: Config) -> Config:
    """The settings with the name of the column of texts, if it was not given."""
    sources.check(settings.data)
    if settings.task.language != ONLY or not sources.is_table(settings.data.source or ""):
        return settings
    from ostinato_learn.data.formats.documents import text_column

    table = sources.table(str(settings.data.source), settings.data)
    return settings.updated({"task.language": text_column(table, None)})


def of_file(file: str, trained: Trained) -> list[str]:
    """The documents of another file than that of a run: a text, or a table with its column."""
    settings = trained.settings()
    if file != sources.STDIN and not sources.is_table(file):
        settings = settings.updated({"task.language": None})
    return _given_documents(file, settings)


def _given_documents(file: str, settings: Config) -> list[str]:
    """The documents of a file without a division."""
    settings = settings.updated({"data.split": None, "data.group": None})
    return _read(file, settings, settings.task.language).texts


def folds(settings: Config, k: int) -> list[TextParts]:
    """The documents of each fold; a single one is cut into k stretches, each tested on once."""
    from ostinato_learn.data.sequences import splits

    documents, source = _learnable(settings), settings.data.source
    if len(documents.texts) == 1:
        folds = _stretches(documents.texts[0], k, settings)
    else:
        pairs = splits.folds(
            len(documents.texts), k, settings.training.seed, groups=documents.groups
        )
        folds = [
            _with_validation(documents.select(a), documents.select(b).texts, settings)
            for a, b in pairs
        ]
    if not all(any(part.train) and any(part.test) for part in folds):
        raise BadInput(f"{source} has too little text for {k} folds; wanted fewer --folds")
    return folds


def _stretches(text: str, k: int, settings: Config) -> list[TextParts]:
    """k stretches of a text, each tested on once.

    The text before and after the tested stretch is kept apart; the end of each validates.
    """
    cuts = [len(text) * j // k for j in range(k + 1)]
    folds = []
    for a, b in pairwise(cuts):
        beside = [Documents([rest]) for rest in (text[:a], text[b:]) if rest]
        found = [_with_validation(rest, [], settings) for rest in beside]
        train = list(chain(*(each.train for each in found)))
        held_out = [each.validation for each in found if each.validation is not None]
        folds.append(TextParts(train, [text[a:b]], list(chain(*held_out)) if held_out else None))
    return folds


def _read(source: str, settings: Config, column: str | None) -> Documents:
    """Read a file, or standard input.

    Args:
        column: the column of the texts; `ONLY` or None: the only column of texts.
    """
    from ostinato_learn.data.formats.content import as_text, ending
    from ostinato_learn.data.formats.documents import TUNES, text_column, tunes

    alike = source
    if source == sources.STDIN:  # read like the training file
        alike = settings.data.source or ""
    else:
        sources.known(source)
    if not sources.is_table(alike):
        if column not in (None, ONLY):
            raise BadInput(f"{source} is a text and has no column {column!r}; leave it out")
        name, content = sources.content(source)
        text = as_text(content, name).decode()
        return Documents(tunes(text) if ending(Path(alike)) == TUNES else [text.strip()])
    table = sources.table(source, settings.data)
    column = text_column(table, None if column == ONLY else column)
    split, group = settings.data.split, settings.data.group
    parts = table[table.exact(split, "split")].labels() if split else None
    groups = table[table.exact(group, "group")].labels() if group else None
    return Documents(table[column].texts(), groups, parts)
