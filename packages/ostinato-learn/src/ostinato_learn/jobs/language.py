"""The job of a language model: a text, a column of texts with `--language COLUMN`, or austen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.hyperparameters import DEFAULT_WINDOW
from ostinato_learn.jobs import documents
from ostinato_learn.jobs.answer_columns import label_columns, share
from ostinato_learn.jobs.base import Job, gathered, without_run
from ostinato_learn.jobs.documents import TextParts
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import defaults, limits, sources
from ostinato_learn.jobs.inputs.built_in import has_sizes
from ostinato_learn.jobs.inputs.config import ONLY, Config, Given
from ostinato_learn.jobs.output import csv_text
from ostinato_learn.jobs.runs import answering, paired
from ostinato_learn.jobs.runs.runs import Trained
from ostinato_learn.jobs.runs.summaries import Rows
from ostinato_learn.tasks import recipe
from ostinato_learn.tasks.language import TASK
from ostinato_learn.tasks.verdicts import best_of, verdict

if TYPE_CHECKING:
    from pathlib import Path

    from ostinato_learn.data.text.vocabulary import Vocabulary
    from ostinato_learn.jobs.runs.paired import Measured
    from ostinato_learn.report.page import PageData, RunFacts
    from ostinato_learn.tasks.language.model import LanguageModel
    from ostinato_learn.training.callbacks import Callback
    from ostinato_learn.training.distributed import Ranks
    from ostinato_learn.training.history import History

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
        if not has_sizes(settings):
            sized = recipe.for_texts(characters, dict(settings.items()), given)
            settings = settings.updated(sized)
        total = recipe.updates_on_texts(characters, dict(settings.items()))
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
        rows = [(i, best.text, share(best.probability)) for i, best in enumerate(found)]
        yield csv_text(["index", *label_columns()], rows)

    @classmethod
    def compared(cls, a: Measured, b: Measured) -> paired.PairedResult:
        raise paired.NotComparable(
            "runs of language models keep no losses to pair; compare the measures"
        )

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
        from ostinato_learn.jobs.inputs import start
        from ostinato_learn.tasks.language.fit import Reading, fit
        from ostinato_learn.tasks.language.net import LanguageArchitecture

        settings = self.settings
        tokens = recipe.of_tokens(settings.task.level, settings.model.hidden_size)
        # All characters are kept, unless a number was asked for.
        size = tokens.pop("vocabulary_size") and settings.task.vocabulary
        architecture = LanguageArchitecture(**asdict(settings.network), **tokens)
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
        from ostinato_learn.tasks.language.model import FEWEST

        test = self.texts.test
        measured, name = model.measured(answers, test), f"modified Kneser-Ney, {self.order}-grams"
        nats = _n_grams(self.texts, model.vocabulary, self.order)
        n = answers[:, -1].sum()
        baseline = {
            "bits_per_character": nats.sum() / math.log(2) / max(1, sum(map(len, test))),
            "perplexity": math.exp(nats.sum() / n),
        }
        simple = {name: baseline}
        _, best_name = best_of(TASK, measured, simple)
        of = "texts" if len(test) >= FEWEST else "stretches of the text"
        return {
            "task": "language",
            "test": measured,
            "baselines": simple,
            "verdict": verdict(answers[:, 0] - nats, best_name, of),
        }

    def parameters(self, model: LanguageModel) -> dict[str, Any]:
        settings, names = self.settings, ("cell", "hidden_size", "num_layers", "dropout")
        parameters = {name: getattr(settings.model, name) for name in names}
        parameters |= {"level": settings.task.level, "truncate": window(settings)}
        return parameters

    def page(self, model: LanguageModel, answers: np.ndarray, facts: RunFacts) -> PageData:
        from ostinato_learn.report.language import collect_language

        return collect_language(model, self.texts.test, facts)


def window(settings: Config) -> int:
    """The number of tokens that the network reads before each update."""
    return settings.training.truncate or DEFAULT_WINDOW


def _check_whole(settings: Config, texts: TextParts) -> None:
    """Raise BadInput if there is nothing to learn from, or nothing to measure on."""
    for name, part in {
        "training": texts.train,
        "validation": texts.validation,
        "test": texts.test,
    }.items():
        if part is not None and not any(len(text) > 1 for text in part):
            raise BadInput(
                f"{settings.data.source}: the {name} part has no text of two characters; wanted "
                "more text, or another --test-fraction"
            )


def _n_grams(texts: TextParts, vocabulary: Vocabulary, order: int) -> np.ndarray:
    """The nats of an n-gram model of the training part in each unit of the test part, `[U]`."""
    from ostinato_learn.data.text.ngram import KneserNey
    from ostinato_learn.tasks.language.model import units

    model = KneserNey([vocabulary.encode(text) for text in texts.train], order, len(vocabulary))
    tokens = [vocabulary.encode(text) for text in texts.test]
    found = np.concatenate([model.log_probabilities(each) for each in tokens])
    return -np.bincount(units(list(map(len, tokens))), found)
