"""Training a tagger: a table with `--tag COLUMN`, a label for each step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.mapped import Mapped, stretches
from ostinato_learn.data.sequences.step_labels import as_labels, label_counts
from ostinato_learn.hyperparameters import FEW_SEQUENCES
from ostinato_learn.jobs.answer_columns import label_columns, share
from ostinato_learn.jobs.base import gathered
from ostinato_learn.jobs.dry_run import of_sequences
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs import partition
from ostinato_learn.jobs.inputs.config import Config
from ostinato_learn.jobs.output import csv_text, time_type, times_as_text
from ostinato_learn.jobs.parts import Inputs, PartsJob
from ostinato_learn.jobs.runs import paired
from ostinato_learn.jobs.runs.summaries import Rows

if TYPE_CHECKING:
    from pathlib import Path

    from ostinato_learn.jobs.runs.paired import Measured
    from ostinato_learn.report.page import PageData, RunFacts
    from ostinato_learn.tasks.tag.model import TagAnswers, Tagger
    from ostinato_learn.training.distributed import Ranks
    from ostinato_learn.training.history import History

# The number of values that are read from a file of sequences:
AT_ONCE = 1 << 17  # at a time, to write answers
SHOWN = 1 << 20  # of the test part, for the report

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TagJob(PartsJob):
    """To tag: a label for each step of a sequence."""

    @classmethod
    def steps_in_windows(cls, settings: Config, train: Examples) -> int | None:
        is_words = len(train.features) == 1 and bool(train.categories)
        return None if settings.task.crf or is_words or train.on_disk else int(train.lengths.sum())

    def check(self) -> None:
        parts, source = self.parts, self.settings.data.source
        known = label_counts(parts.train.y)[0]
        remedy = "more sequences with it, or another --seed"
        if self.settings.data.test_time is not False and len(parts.train) < FEW_SEQUENCES:
            remedy = "another --test-fraction, or --no-test-time, which tests on whole sequences"
        if len(known) < 2:
            raise BadInput(
                f"{source} has one label only, {known.tolist()[0]!r}, to learn from; wanted two or "
                "more"
            )
        for name, part in {"validation": parts.validation, "test": parts.test}.items():
            new = [] if part is None else np.setdiff1d(label_counts(part.y)[0], known).tolist()
            if new:
                raise BadInput(
                    f"{source}: the label {new[0]!r} is in the {name} part and not in the training "
                    f"part; wanted it in both: {remedy}"
                )

    @classmethod
    def csv(cls, model: Tagger, part: Examples, proba: bool, with_header: bool) -> str:
        best, shares = zip(*model.predict_with_proba(part), strict=True)
        sure = [
            row[np.arange(len(row)), model.encoder.encode(labels)]
            for row, labels in zip(shares, best, strict=True)
        ]
        return _csv(model, part, best, sure, shares if proba else None, with_header)

    @classmethod
    def compared(cls, a: Measured, b: Measured) -> paired.PairedResult:
        return paired.tag(*paired.predictions(a, b))

    @property
    def aim(self) -> str:
        return f"tag each step with {self.settings.task.tag!r}"

    def shown(self) -> dict[str, Rows]:
        return of_sequences(self)

    def training(
        self, inputs: Inputs, began: Tagger | None, origin: Path | None
    ) -> Callable[..., tuple[Tagger, History]]:
        from ostinato_learn.tasks.tag.fit import Tagged, fit, recognised
        from ostinato_learn.tasks.tag.loss import TaggerSettings

        settings, train, validation = self.settings, self.parts.train, self.parts.validation
        scheme = recognised(train)
        if began is not None:
            if began.scheme and scheme is None:
                raise BadInput(
                    f"--from {origin} tags spans, and the labels of {settings.data.source} do not "
                    "write any as B-, I- and the like; wanted the same"
                )
            scheme = scheme if began.scheme else None
        given = Tagged.of_parts(train, validation, inputs, scheme, began)
        own: Any = {"crf": settings.task.crf, "scheme": scheme, "standardize": False}
        return partial(fit, given, settings.network, TaggerSettings(**own), self._plan())

    def answers(self, model: Tagger, ranks: Ranks, report: bool) -> TagAnswers | None:
        from ostinato_learn.tasks.tag.model import TagAnswers

        part, none, numbers = self._share(ranks), np.zeros(0), np.zeros(0, np.int64)
        own = TagAnswers(part.lengths, none.astype(np.int32), none, 0.0, numbers)
        if len(part):
            own = model.answers(partition.inputs(model.preparation, part), part.y, sure=report)
        best, sure = gathered(ranks, own.best), gathered(ranks, own.sure)
        right, losses = gathered(ranks, own.right), gathered(ranks, np.array([own.loss]))
        if best is None or sure is None or right is None or losses is None:
            return None
        return TagAnswers(self.parts.test.lengths, best, sure, float(losses.sum()), right)

    def evaluate(self, model: Tagger, answers: TagAnswers) -> dict[str, Any]:
        from ostinato_learn.tasks.tag.compared import compared

        train, test = self.parts.train, self.parts.test
        X = partition.inputs(model.preparation, test)
        measured = model.measured(X, test.y, answers)
        return {"task": "tag", "test": measured} | compared(model, train, test, answers, measured)

    def parameters(self, model: Tagger) -> dict[str, Any]:
        settings = self.settings
        parameters = {"crf": settings.task.crf, "scheme": model.scheme, "standardize": False}
        return parameters | {n: v for n, v in asdict(settings.network).items() if n != "init"}

    def page(self, model: Tagger, answers: TagAnswers, facts: RunFacts) -> PageData:
        from ostinato_learn.report.tag import collect_tagging

        drawn, shown = self.parts.test.drawn(SHOWN), self.parts.test.some(SHOWN)
        words, known = _words(shown), answers.of(drawn)
        return collect_tagging(
            model, shown, shown.y, facts, ids=shown.ids, words=words, answers=known
        )

    def lines(self, model: Tagger, answers: TagAnswers) -> Iterator[str]:
        test, decode = self.parts.test, model.encoder.decode
        dtype = None if test.times is None else time_type(test.times)
        pieces: Iterable[np.ndarray] = [np.arange(len(test))]
        if isinstance(test.sequences, Mapped):
            pieces = stretches(test.sequences.sizes, AT_ONCE)
        for i, chosen in enumerate(pieces):
            part = test.select(chosen).loaded() if isinstance(test.sequences, Mapped) else test
            best, sure = answers.of(chosen)
            labels = [decode(each) for each in best]
            yield _csv(model, part, labels, sure, with_header=i == 0, dtype=dtype)


def _words(part: Examples) -> list[list[str]] | None:
    """The words of each sequence, if a step is one."""
    if len(part.features) != 1 or part.features[0] not in part.categories:
        return None
    words, ends = (*part.categories[part.features[0]], "–"), np.cumsum(part.lengths)
    numbers = np.nan_to_num(part.values[:, 0], nan=-1).astype(np.int64)  # –: it is missing
    return [[words[i] for i in each] for each in np.split(numbers, ends[:-1])]


def _csv(
    model: Tagger,
    part: Examples,
    best: Sequence[np.ndarray],
    sure: Sequence[np.ndarray],
    shares: Sequence[np.ndarray] | None = None,
    with_header: bool = True,
    dtype: str | None = None,
) -> str:
    """A line for each step: id, time or step, label if known, prediction, its probability.

    Args:
        model, part: what answers, and what is answered.
        best, sure: the likeliest labels of each sequence, and their probabilities, `[T_i]`.
        shares: the probabilities of all labels, `[T_i, C]`, which get columns; None: they do not.
        with_header: whether the names of the columns stand above.
        dtype: in which times are written; see `times_as_text`.
    """
    known = None if part.y is None else as_labels(part.y, part.lengths, model.scheme)
    columns = label_columns(known=known is not None, classes=model.classes if shares else ())
    header = ["id", "step" if part.times is None else "time", *columns]
    times = None if part.times is None else times_as_text(part.times, dtype)
    rows = []
    for i, labels in enumerate(best):
        when = range(1, len(labels) + 1) if times is None else times[i]
        for t, label in enumerate(labels):
            rows.append(
                [
                    part.ids[i],
                    when[t],
                    *([known[i][t]] if known is not None else []),
                    label,
                    share(sure[i][t]),
                    *(map(share, shares[i][t]) if shares else ()),
                ]
            )
    return csv_text(header if with_header else None, rows)
