"""Training a tagger: a table with `--tag COLUMN`, a label for each step."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.cli.failures import BadInput
from ostinato.cli.many import paired
from ostinato.cli.output import csv_text, time_type, times_as_text
from ostinato.cli.run import answering, defaults, partition, sources
from ostinato.cli.run.config import Config, Given
from ostinato.cli.run.dry_run import of_sequences
from ostinato.cli.run.rundir import RunDir
from ostinato.cli.run.runs import Trained
from ostinato.cli.run.summaries import Rows
from ostinato.data.sequences.examples import Examples
from ostinato.data.sequences.mapped import Mapped, stretches
from ostinato.data.sequences.preparation import Preparation
from ostinato.data.sequences.step_labels import as_labels, label_counts
from ostinato.data.text.words import Words
from ostinato.metrics.spans import scheme_of, to_iob2, written_in
from ostinato.tasks.parts_job import PartsJob, measured_part

if TYPE_CHECKING:
    from pathlib import Path

    from ostinato.cli.compare import Measured
    from ostinato.tasks.tag.model import TagAnswers, Tagger
    from ostinato.training.callbacks import Callback
    from ostinato.training.distributed import Ranks
    from ostinato.training.history import History

# The number of values that are read from a file of sequences:
AT_ONCE = 1 << 17  # at a time, to write answers
SHOWN = 1 << 20  # of the test part, for the report
LEARNT = 1 << 22  # of the training part, for the baseline of words

_log = logging.getLogger(__name__)


def read(settings: Config, given: Given) -> TagJob:
    """The job of a configuration; see `jobs.read`."""
    return _job(settings, given, partition.load(settings))


def folds(settings: Config, given: Given, k: int) -> Iterator[TagJob]:
    """The jobs of a cross-validation; see `jobs.folds`."""
    return (_job(settings, given, parts) for parts in partition.folds(settings, k))


def _job(settings: Config, given: Given, parts: partition.Parts) -> TagJob:
    settings = defaults.for_file(settings, given, len(parts.train))
    _check_labels(settings, parts)
    return TagJob(settings, parts)


def evaluated(trained: Trained, file: str | None) -> dict[str, Any]:
    """The measures of a saved tagger, on a file or on the test part of its run."""
    part = measured_part(trained, file)
    model = answering.model_of(trained)
    return model.evaluate(part, part.y)


def predicted(trained: Trained, file: str, proba: bool) -> Iterator[str]:
    """The likeliest label of each step of a file, as pieces of CSV."""
    parts = sources.begun(sources.blocks(file, trained.settings(), trained.preparation()))

    model = answering.model_of(trained)
    for i, part in enumerate(parts):
        best, shares = zip(*model.predict_with_proba(part), strict=True)
        number = {label: c for c, label in enumerate(model.classes.tolist())}
        sure = [
            row[np.arange(len(row)), [number[label] for label in labels.tolist()]]
            for row, labels in zip(shares, best, strict=True)
        ]
        yield _csv(model, part, best, sure, shares if proba else None, with_header=i == 0)


def compared(a: Measured, b: Measured) -> paired.PairedResult:
    """The test of run B against run A on the same test part.

    Raises:
        Apart: their predictions cannot be paired.
    """
    return paired.tag(*paired.predictions(a, b))


@dataclass(frozen=True)
class TagJob(PartsJob):
    """To tag: a label for each step of a sequence."""

    @property
    def aim(self) -> str:
        return f"tag each step with {self.settings.task.tag!r}"

    def shown(self) -> dict[str, Rows]:
        return of_sequences(self)

    def fit(
        self, callbacks: Sequence[Callback], resume: str | None, origin: Path | None = None
    ) -> tuple[Tagger, History]:
        from ostinato.cli.run import start
        from ostinato.data import LabelEncoder
        from ostinato.tasks.tag.fit import Tagged, fit
        from ostinato.tasks.tag.loss import TaggerSettings

        settings, train, validation = self.settings, self.parts.train, self.parts.validation
        data, scheme, began, encoder = settings.data, _scheme(train), None, None
        preparation: Preparation | None
        if origin is None:
            preparation = partition.preparation(train, data.missing, data.standardize)
        else:
            began = start.origin(origin)
            preparation = start.preparation(origin, began, train)
            if began.scheme and scheme is None:
                raise BadInput(
                    f"--from {origin} tags spans, and the labels of {data.source} do not write any "
                    "as B-, I- and the like; wanted the same"
                )
            scheme = scheme if began.scheme else None
            encoder = LabelEncoder(began.classes)
        given = Tagged.of(partition.inputs(preparation, train), train.y, scheme, encoder)
        if validation is not None:
            X = partition.inputs(preparation, validation)
            given = given.validated_by(X, validation.y, scheme)
        partition.inputs(preparation, self.parts.test)  # fails now or never
        model, history = fit(
            given,
            settings.network,
            TaggerSettings(
                crf=settings.task.crf,
                scheme=scheme,  # type: ignore[arg-type]  # one of these
                standardize=False,
            ),
            self._plan(),
            start=began,
            callbacks=callbacks,
            resume=resume,
        )
        return replace(model, preparation=preparation), history

    def answers(self, model: Tagger, ranks: Ranks, report: bool) -> TagAnswers | None:
        import torch

        from ostinato.tasks.tag.model import TagAnswers

        part, nothing = self._share(ranks), np.zeros(0)
        own = TagAnswers(part.lengths, nothing.astype(np.int32), nothing, 0.0, 0)
        if len(part):
            own = model.answers(partition.inputs(model.preparation, part), part.y, sure=report)
        best = ranks.at_first(torch.from_numpy(own.best))
        sure = ranks.at_first(torch.from_numpy(own.sure))
        sums = ranks.at_first(torch.tensor([(own.loss, own.n_right)], dtype=torch.float64))
        if best is None or sure is None or sums is None:
            return None
        loss, n_right = torch.cat(sums).sum(0).tolist()
        every = self.parts.test.lengths, torch.cat(best).numpy(), torch.cat(sure).numpy()
        return TagAnswers(*every, loss, int(n_right))

    def evaluate(self, model: Tagger, answers: TagAnswers) -> dict[str, Any]:
        train, test = self.parts.train, self.parts.test
        labels, counts = label_counts(train.y)
        tested, n_tested = label_counts(test.y)
        majority = float(n_tested[tested == labels[counts.argmax()]].sum() / n_tested.sum())
        baselines = {"always the most frequent label": {"accuracy": majority}}
        X = partition.inputs(model.preparation, test)
        if isinstance(X, Words):
            from ostinato.baselines import labels_of_words

            sides = [part.some(LEARNT) for part in (train, test)]
            words = [(partition.inputs(model.preparation, part), part.y) for part in sides]
            found = labels_of_words(*words[0], *words[1])
            baselines[found.name] = {"accuracy": found.accuracy}
        return {"task": "tag", "test": model.measured(X, test.y, answers), "baselines": baselines}

    def parameters(self, model: Tagger) -> dict[str, Any]:
        settings = self.settings
        parameters = {"crf": settings.task.crf, "scheme": model.scheme, "standardize": False}
        parameters |= {n: v for n, v in asdict(settings.network).items() if n != "init"}
        return parameters

    def keep(
        self,
        run: RunDir,
        model: Tagger,
        history: History,
        evaluation: dict[str, Any],
        answers: TagAnswers,
    ) -> None:
        from ostinato import files, report
        from ostinato.cli.run import reported
        from ostinato.training import saved_model

        settings = self.settings
        saved_model.save(model, run.model, self.parameters(model), history.iterations)
        files.write_pieces(
            run.predictions, (piece.encode() for piece in self._lines(model, answers))
        )
        drawn, shown = self.parts.test.drawn(SHOWN), self.parts.test.some(SHOWN)
        contents = report.collect_tagging(
            model,
            shown,
            shown.y,
            reported.facts(settings, run, history, evaluation),
            ids=shown.ids,
            words=_words(shown),
            answers=answers.of(drawn),
        )
        report.write_report(run.report, contents)

    def _lines(self, model: Tagger, answers: TagAnswers) -> Iterator[str]:
        """The predictions for the test part, as pieces of CSV."""
        from ostinato.data import LabelEncoder

        test, encoder = self.parts.test, LabelEncoder(model.classes)
        dtype = None if test.times is None else time_type(test.times)
        pieces: Iterable[np.ndarray] = [np.arange(len(test))]
        if isinstance(test.X, Mapped):
            pieces = stretches(test.X.sizes, AT_ONCE)
        for i, chosen in enumerate(pieces):
            part = test.select(chosen).loaded() if isinstance(test.X, Mapped) else test
            best, sure = answers.of(chosen)
            labels = [encoder.decode(each) for each in best]
            yield _csv(model, part, labels, sure, with_header=i == 0, dtype=dtype)


def _check_labels(settings: Config, parts: partition.Parts) -> None:
    """Raise BadInput if the test or validation part has a label that is not learnt."""
    known = label_counts(parts.train.y)[0]
    if len(known) < 2:
        raise BadInput(
            f"{settings.data.source} has one label only, {known.tolist()[0]!r}, to learn from; "
            "wanted two or more"
        )
    for name, part in {"validation": parts.validation, "test": parts.test}.items():
        new = [] if part is None else np.setdiff1d(label_counts(part.y)[0], known).tolist()
        if new:
            raise BadInput(
                f"{settings.data.source}: the label {new[0]!r} is in the {name} part and not in "
                "the training part; wanted it in both: more sequences with it, or another --seed"
            )


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
    header = ["id", "step" if part.times is None else "time"]
    header += [*(["label"] if part.y is not None else []), "prediction", "probability"]
    header += [f"probability_{label}" for label in model.classes.tolist()] if shares else []
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
                    f"{sure[i][t]:.6f}",
                    *((f"{share:.6f}" for share in shares[i][t]) if shares else ()),
                ]
            )
    return csv_text(header if with_header else None, rows)


def _scheme(train: Examples) -> str | None:
    """The scheme in which the labels write spans; None if they do not.

    The first label that keeps the others from being read as spans is logged.
    """
    scheme = scheme_of(label_counts(train.y)[0].tolist())
    if scheme is None or written_in(train.y) is not None:
        return scheme
    for name, labels in zip(train.ids, train.y, strict=True):
        try:
            to_iob2([str(label) for label in labels], scheme)
        except ValueError as problem:
            _log.warning(
                "%s, sequence %s: %s. Labels are learnt as written, and spans are not measured",
                train.source,
                name,
                problem,
            )
            break
    return None
