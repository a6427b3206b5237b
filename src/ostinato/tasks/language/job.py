"""The job of a language model: a text, a column of texts with `--language COLUMN`, or austen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.cli.failures import BadInput
from ostinato.cli.many import paired
from ostinato.cli.output import csv_text
from ostinato.cli.run import answering, defaults, limits, sources
from ostinato.cli.run.config import ONLY, Config, Given
from ostinato.cli.run.runs import Trained
from ostinato.cli.run.summaries import Rows
from ostinato.hyperparameters import DEFAULT_WINDOW
from ostinato.tasks.job import Job, best_of, gathered, without_run
from ostinato.tasks.language import TASK, documents
from ostinato.tasks.language.documents import TextParts

if TYPE_CHECKING:
    from pathlib import Path

    from ostinato.cli.many.paired import Measured
    from ostinato.data.text.vocabulary import Vocabulary
    from ostinato.report.page import PageData, RunFacts
    from ostinato.tasks.language.model import LanguageModel
    from ostinato.training.callbacks import Callback
    from ostinato.training.distributed import Ranks
    from ostinato.training.history import History

CHARACTERS = 5  # per word or word piece, about, to estimate the length of a training
# The recipe by the size of a text; see `_sized`.
UNITS = ((2_000_000, 512), (300_000, 256), (0, 128))  # from so many tokens on
UPDATES_AN_EPOCH = 20  # at least, if the rows of a batch allow it
ROWS = (8, 32)
CHARACTERS_READ = 12e6  # in all epochs together
EPOCHS = (4, 30)
ORDERS = {"character": 8, "word": 5, "piece": 5}  # of the n-gram baseline


@dataclass(frozen=True)
class LanguageJob(Job):
    """To model a language: it learns from some documents and is tested on others."""

    settings: Config
    texts: TextParts

    @classmethod
    def read(cls, settings: Config, given: Given) -> LanguageJob:
        settings = documents.with_column(settings)
        return cls._of(settings, given, documents.parts_of(settings))

    @classmethod
    def folds(cls, settings: Config, given: Given, k: int) -> Iterator[LanguageJob]:
        settings = documents.with_column(settings)
        return (cls._of(settings, given, texts) for texts in documents.folds(settings, k))

    @classmethod
    def _of(cls, settings: Config, given: Given, texts: TextParts) -> LanguageJob:
        characters = sum(map(len, texts.train))
        tokens = characters / (1 if settings.task.level == "character" else CHARACTERS)
        if settings.data.source != "austen":
            settings = _sized(settings, given, characters, tokens)
        training = settings.training
        total = training.iterations
        if total is None:
            update = training.batch_size * window(settings)
            total = round((training.epochs or 0) * tokens / update)
        _check_whole(settings, texts)
        return cls(defaults.with_warm_up(settings, given, total), texts)

    @classmethod
    def evaluated(cls, trained: Trained, file: str | None) -> dict[str, Any]:
        if file is not None:
            tested = documents.of_file(file, trained)
        elif trained.config is not None:
            tested = documents.parts_of(trained.config).test
        else:
            raise without_run(trained)
        found: dict[str, Any] = answering.model_of(trained).evaluate(tested)
        return found

    @classmethod
    def predicted(cls, trained: Trained, file: str, proba: bool) -> Iterator[str]:
        """The likeliest next token after each document; `proba` would be a column for each word."""
        if proba:
            raise BadInput(
                "--proba is not for language models; complete, or suggest(n), shows several"
            )
        texts = documents.of_file(file, trained)

        model = answering.model_of(trained)
        found = [model.suggest(text, 1, complete=False)[0] for text in texts]
        rows = [(i, best.text, f"{best.probability:.6f}") for i, best in enumerate(found)]
        yield csv_text(["index", "prediction", "probability"], rows)

    @classmethod
    def compared(cls, a: Measured, b: Measured) -> paired.PairedResult:
        raise paired.Apart("runs of language models keep no losses to pair; compare the measures")

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
        return fit(
            self.texts.train,
            architecture,
            reading,
            self._plan(),
            validation=self.texts.validation,
            start=None if origin is None else start.origin(origin),
            callbacks=callbacks,
            resume=resume,
        )

    def answers(self, model: LanguageModel, ranks: Ranks, report: bool) -> np.ndarray | None:
        own = model.counted(self.texts.test, ranks.rank, ranks.size)
        every = gathered(ranks, own[None])
        return None if every is None else every.sum(0)

    def evaluate(self, model: LanguageModel, answers: np.ndarray) -> dict[str, Any]:
        from ostinato.tasks.language.model import FEWEST

        test = self.texts.test
        measured, name = model.measured(answers, test), f"modified Kneser-Ney, {self.order}-grams"
        nats = _n_grams(self.texts, model.vocabulary, self.order)
        n = answers[:, -1].sum()
        baseline = {
            "bits_per_character": nats.sum() / math.log(2) / max(1, sum(map(len, test))),
            "perplexity": math.exp(nats.sum() / n),
        }
        simple = {name: baseline}
        _, told = best_of(TASK, measured, simple)
        of = "texts" if len(test) >= FEWEST else "stretches of the text"
        return {
            "task": "language",
            "test": measured,
            "baselines": simple,
            "verdict": paired.verdict(answers[:, 0] - nats, told, of),
        }

    def parameters(self, model: LanguageModel) -> dict[str, Any]:
        settings, names = self.settings, ("cell", "hidden_size", "num_layers", "dropout")
        parameters = {name: getattr(settings.model, name) for name in names}
        parameters |= {"level": settings.task.level, "truncate": window(settings)}
        return parameters

    def page(self, model: LanguageModel, answers: np.ndarray, facts: RunFacts) -> PageData:
        from ostinato import report

        return report.collect_language(model, self.texts.test, facts)


JOB = LanguageJob


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


def window(settings: Config) -> int:
    """The number of tokens that the network reads before each update."""
    return settings.training.truncate or DEFAULT_WINDOW


def _check_whole(settings: Config, texts: TextParts) -> None:
    """Raise BadInput if there is nothing to learn from, or nothing to measure on."""
    for name, part in {"training": texts.train, "validation": texts.validation,
                       "test": texts.test}.items():  # fmt: skip
        if part is not None and not any(len(text) > 1 for text in part):
            raise BadInput(
                f"{settings.data.source}: the {name} part has no text of two characters; wanted "
                "more text, or another --test-fraction"
            )


def _n_grams(texts: TextParts, vocabulary: Vocabulary, order: int) -> np.ndarray:
    """The nats of an n-gram model of the training part in each unit of the test part, `[U]`."""
    from ostinato.data.text.ngram import KneserNey
    from ostinato.tasks.language.model import units

    model = KneserNey([vocabulary.encode(text) for text in texts.train], order, len(vocabulary))
    tokens = [vocabulary.encode(text) for text in texts.test]
    found = np.concatenate([model.log_probabilities(each) for each in tokens])
    return -np.bincount(units(list(map(len, tokens))), found)
