"""The job of a language model: a text, a column of texts with `--language COLUMN`, or austen."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostinato.cli.failures import BadInput
from ostinato.cli.many.paired import Apart, PairedResult
from ostinato.cli.output import csv_text
from ostinato.cli.run import answering, defaults, limits, sources
from ostinato.cli.run.config import ONLY, Config, Given
from ostinato.cli.run.rundir import RunDir
from ostinato.cli.run.runs import Trained
from ostinato.cli.run.summaries import Rows
from ostinato.data.sequences.splits import PART_NAMES
from ostinato.hyperparameters import DEFAULT_WINDOW
from ostinato.tasks.job import Job

if TYPE_CHECKING:
    import numpy as np

    from ostinato.cli.compare import Measured
    from ostinato.data.tables.table import Table
    from ostinato.data.text.vocabulary import Vocabulary
    from ostinato.tasks.language.model import LanguageModel
    from ostinato.training.callbacks import Callback
    from ostinato.training.distributed import Ranks
    from ostinato.training.history import History

_log = logging.getLogger(__name__)

HELD_OUT = "Persuasion"  # the novel on which a model of the others is measured
CHARACTERS = 5  # per word or word piece, about, to estimate the length of a training
# The recipe by the size of a text; see `_sized`.
UNITS = ((2_000_000, 512), (300_000, 256), (0, 128))  # from so many tokens on
UPDATES_AN_EPOCH = 20  # at least, if the rows of a batch allow it
ROWS = (8, 32)
CHARACTERS_READ = 12e6  # in all epochs together
EPOCHS = (4, 30)
ORDERS = {"character": 8, "word": 5, "piece": 5}  # of the n-gram baseline


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
        from ostinato.data.sequences import splits

        if len(self.texts) == 1:
            (text,) = self.texts
            cut = round(len(text) * (1 - fraction))
            return Documents([text[:cut]]), Documents([text[cut:]])
        found = splits.split(len(self.texts), fraction, seed, groups=self.groups)
        return self.select(found["train"]), self.select(found["test"])


def read(settings: Config, given: Given) -> LanguageJob:
    """The job of a configuration; see `jobs.read`."""
    settings = _with_column(settings)
    return _job(settings, given, _texts(settings))


def folds(settings: Config, given: Given, k: int) -> Iterator[LanguageJob]:
    """The jobs of a cross-validation; see `jobs.folds`."""
    settings = _with_column(settings)
    return (_job(settings, given, texts) for texts in _folded(settings, k))


def _job(settings: Config, given: Given, texts: TextParts) -> LanguageJob:
    characters = sum(map(len, texts.train))
    tokens = characters / (1 if settings.task.level == "character" else CHARACTERS)
    if settings.data.source != "austen":
        settings = _sized(settings, given, characters, tokens)
    training = settings.training
    total = training.iterations
    if total is None:
        total = round((training.epochs or 0) * tokens / (training.batch_size * window(settings)))
    _check_whole(settings, texts)
    return LanguageJob(defaults.with_warm_up(settings, given, total), texts)


def _sized(settings: Config, given: Given, characters: float, tokens: float) -> Config:
    """The settings with a recipe by the size of the text, where nothing else is given.

    A small text is learnt better, and sooner, by a small network that reads it often: of 160 kB of
    tunes an LSTM of 512 units reached 1.811 bits a character in 4 epochs, one of 128 units 1.537
    in 30 epochs and less time.
    """
    units = next((units for least, units in UNITS if tokens >= least))
    rows = 2 ** int(math.log2(max(1.0, tokens / (UPDATES_AN_EPOCH * window(settings)))))
    epochs = min(max(round(CHARACTERS_READ / max(1.0, characters)), EPOCHS[0]), EPOCHS[1])
    chosen: Given = {
        "model.hidden_size": units,
        "training.batch_size": min(max(rows, ROWS[0]), ROWS[1]),
    }
    if settings.training.epochs is not None:
        chosen["training.epochs"] = float(epochs)
    return settings.updated({key: v for key, v in chosen.items() if given.get(key) is None})


def to_check(settings: Config, as_trained: bool) -> tuple[Documents, TextParts | None]:
    """The documents of a source, and their parts; None: many documents without a division.

    Args:
        as_trained: whether the parts are those of a training, even if it draws them.
    """
    settings = _with_column(settings)
    data = settings.data
    if not as_trained and data.split is None and data.test is None and data.source != "austen":
        whole = _learnable(settings)
        if len(whole.texts) > 1:
            return whole, None
    parts = _texts(settings)
    return Documents(parts.train), parts


def window(settings: Config) -> int:
    """The number of tokens that the network reads before each update."""
    return settings.training.truncate or DEFAULT_WINDOW


def evaluated(trained: Trained, file: str | None) -> dict[str, Any]:
    """The measures of a saved model, on a file or on the test part of its run."""
    if file is not None:
        documents = documents_of(file, trained)
    elif trained.config is not None:
        documents = _texts(trained.config).test
    else:
        raise BadInput(f"{trained.model} is a model without a run; name the FILE to evaluate it on")

    found: dict[str, Any] = answering.model_of(trained).evaluate(documents)
    return found


def predicted(trained: Trained, file: str, proba: bool) -> Iterator[str]:
    """The likeliest next token after each document of a file, as CSV.

    Raises:
        BadInput: with `proba`: it would be a column for each word.
    """
    if proba:
        raise BadInput("--proba is not for language models; complete, or suggest(n), shows several")
    documents = documents_of(file, trained)

    model = answering.model_of(trained)
    found = [model.suggest(document, 1, complete=False)[0] for document in documents]
    rows = [(i, best.text, f"{best.probability:.6f}") for i, best in enumerate(found)]
    yield csv_text(["index", "prediction", "probability"], rows)


def compared(a: Measured, b: Measured) -> PairedResult:
    """Raise Apart: there is no test for language models."""
    raise Apart("the stretches of a text are not independent; compare the measures")


@dataclass(frozen=True)
class LanguageJob(Job):
    """To model a language: it learns from some documents and is tested on others."""

    settings: Config
    texts: TextParts

    @property
    def order(self) -> int:
        """The order of the n-grams that the network is compared with."""
        return ORDERS[self.settings.task.level]

    @property
    def aim(self) -> str:
        task = self.settings.task
        column = "" if task.language in (None, ONLY) else f" of {task.language!r}"
        return f"predict the next {task.level}{column}"

    def shown(self) -> dict[str, Rows]:
        texts, first = self.texts, self.texts.train[0]
        parts = {"training": texts.train, "validation": texts.validation, "test": texts.test}
        return {
            "first text": [("begins", repr(first[:70]) + ("…" if len(first) > 70 else ""))],
            "parts": [
                (name, f"{len(part):,} texts of {sum(map(len, part)):,} characters")
                for name, part in parts.items()
                if part is not None
            ],
            "baselines on the test part": [
                (f"modified Kneser-Ney, {self.order}-grams", "measured with a training")
            ],
        }

    def description(self) -> dict[str, Any]:
        train, test = self.texts.train, self.texts.test
        return {
            "n_train": len(train),
            "n_test": len(test),
            "characters": sum(map(len, train)),
            "sha256": sources.digest(self.settings.data),
        }

    def redrawn(self, draw: int) -> None:
        return None

    def least_memory(self) -> int:
        settings = self.settings
        n_tokens = 2 if settings.task.level == "character" else settings.task.vocabulary
        sizes = {
            "n_train": settings.training.batch_size,
            "max_length": window(settings),
            "n_features": 1,
            "n_classes": n_tokens,
        }
        return limits.least_memory(settings, sizes)

    def fit(
        self, callbacks: Sequence[Callback], resume: str | None, origin: Path | None = None
    ) -> tuple[LanguageModel, History]:
        from ostinato.cli.run import start
        from ostinato.tasks.language.fit import Reading, fit
        from ostinato.tasks.language.net import LanguageArchitecture
        from ostinato.training import Plan

        settings = self.settings
        words = settings.task.level != "character"
        architecture = LanguageArchitecture(
            **asdict(settings.network),
            embedding_size=min(256, settings.model.hidden_size),
            tied=words,
        )
        # All characters are kept, unless a number was asked for.
        size = settings.task.vocabulary if words else None
        reading = Reading(settings.task.level, size)
        given = asdict(settings.training)
        return fit(
            self.texts.train,
            architecture,
            reading,
            Plan(**{f.name: given[f.name] for f in fields(Plan)}),
            validation=self.texts.validation,
            start=None if origin is None else start.origin(origin),
            callbacks=callbacks,
            resume=resume,
        )

    def answers(
        self, model: LanguageModel, ranks: Ranks, report: bool
    ) -> dict[str, Any] | None:
        import torch

        from ostinato.tasks.language.model import Counts

        test = self.texts.test
        own = model.counted(test, ranks.rank, ranks.size)
        every = ranks.at_first(torch.tensor([own], dtype=torch.float64))
        if every is None:
            return None
        return model.measured(Counts(*torch.cat(every).sum(0).tolist()), test)

    def evaluate(self, model: LanguageModel, answers: dict[str, Any]) -> dict[str, Any]:
        order = self.order
        return {
            "task": "language",
            "test": answers,
            "baselines": {
                f"modified Kneser-Ney, {order}-grams": _n_grams(self.texts, model.vocabulary, order)
            },
        }

    def parameters(self, model: LanguageModel) -> dict[str, Any]:
        settings, names = self.settings, ("cell", "hidden_size", "num_layers", "dropout")
        parameters = {name: getattr(settings.model, name) for name in names}
        parameters |= {"level": settings.task.level, "truncate": window(settings)}
        return parameters

    def keep(
        self,
        run: RunDir,
        model: LanguageModel,
        history: History,
        evaluation: dict[str, Any],
        answers: dict[str, Any],
    ) -> None:
        from ostinato import report
        from ostinato.cli.run import reported
        from ostinato.training import saved_model

        saved_model.save(model, run.model, self.parameters(model), history.iterations)
        facts = reported.facts(self.settings, run, history, evaluation)
        report.write_report(run.report, report.collect_language(model, self.texts.test, facts))


def _texts(settings: Config) -> TextParts:
    """The documents of a source, in parts.

    A single document is divided: its end is the test part. Of many documents, whole ones are held
        out.
    """
    config = settings.data
    if config.split is not None:
        return _divided(settings)
    train = _learnable(settings)
    if config.source == "austen":
        from ostinato import datasets

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


def _check_whole(settings: Config, texts: TextParts) -> None:
    """Raise BadInput if there is nothing to learn from, or nothing to measure on."""
    for name, part in {"training": texts.train, "validation": texts.validation,
                       "test": texts.test}.items():  # fmt: skip
        if part is not None and not any(len(text) > 1 for text in part):
            raise BadInput(
                f"{settings.data.source}: the {name} part has no text of two characters; wanted "
                "more text, or another --test-fraction"
            )


def _learnable(settings: Config) -> Documents:
    """The documents of a source outside of its own test part."""
    if settings.data.source != "austen":
        read = _read(str(settings.data.source), settings, settings.task.language)
        if read.parts is None:
            return read
        is_test = [str(part).strip().lower() in PART_NAMES["test"] for part in read.parts]
        return read.select([i for i, apart in enumerate(is_test) if not apart])
    from ostinato import datasets

    return Documents([text for name, text in datasets.austen().items() if name != HELD_OUT])


def _divided(settings: Config) -> TextParts:
    """The documents of a table in the parts that a column names."""
    from ostinato.data.sequences import splits

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


def _with_column(settings: Config) -> Config:
    """The settings with the name of the column of texts, if it was not given."""
    sources.check(settings.data)
    if settings.task.language != ONLY or not sources.is_table(settings.data.source or ""):
        return settings
    table = sources.table(str(settings.data.source), settings.data)
    return settings.updated({"task.language": _text_column(table, ONLY)})


def documents_of(file: str, trained: Trained) -> list[str]:
    """The documents of another file than that of a run: a text, or a table with its column."""
    settings = trained.settings()
    if file != sources.STDIN and not sources.is_table(file):
        settings = settings.updated({"task.language": None})
    return _given_documents(file, settings)


def _given_documents(file: str, settings: Config) -> list[str]:
    """The documents of a file without a division."""
    settings = settings.updated({"data.split": None, "data.group": None})
    return _read(file, settings, settings.task.language).texts


def _folded(settings: Config, k: int) -> list[TextParts]:
    """The documents of each fold; a single one is cut into k stretches, each tested on once."""
    from ostinato.data.sequences import splits

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


def _n_grams(texts: TextParts, vocabulary: Vocabulary, order: int) -> dict[str, float]:
    """The measures of an n-gram model of the training part on the test part."""
    from ostinato.data.text.ngram import KneserNey

    learnt = [vocabulary.encode(text) for text in texts.train]
    model = KneserNey(learnt, order, len(vocabulary))
    found = [model.log_probabilities(vocabulary.encode(text)) for text in texts.test]
    nats = -sum(float(each.sum()) for each in found)
    return {
        "bits_per_character": nats / math.log(2) / max(1, sum(map(len, texts.test))),
        "perplexity": math.exp(nats / sum(map(len, found))),
    }


def _read(source: str, settings: Config, column: str | None) -> Documents:
    """Read a file, or standard input.

    Args:
        column: the column of the texts; `ONLY` or None: the only column of texts.
    """
    from ostinato.data.formats.content import as_text, ending
    from ostinato.data.formats.documents import TUNES, tunes

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
    column = _text_column(table, column)
    split, group = settings.data.split, settings.data.group
    parts = table[table.exact(split, "split")].labels() if split else None
    groups = table[table.exact(group, "group")].labels() if group else None
    return Documents(table[column].texts(), groups, parts)


def _text_column(table: Table, column: str | None) -> str:
    from ostinato.data.tables.table import Text

    if column not in (None, ONLY):
        return table.exact(column, "the texts")
    found = [n for n in table.names if isinstance(table[n], Text) and not table[n].is_numbers()]
    if len(found) != 1:
        raise BadInput(
            f"{table.source}: which column holds the texts? Wanted a single one, or that which a "
            f"training names (--language COLUMN); the columns are "
            f"{', '.join(map(repr, table.names[:20]))}"
        )
    _log.warning("%s: the column of texts is %r", table.source, found[0])
    return found[0]
