"""The job of a classifier: a file with X and y, a table with `--classify COLUMN`, mnist, vowels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.cli.failures import BadInput
from ostinato.cli.many import paired
from ostinato.cli.output import predictions_csv
from ostinato.cli.run import answering, defaults, partition, sources
from ostinato.cli.run.config import Config, Given
from ostinato.cli.run.dry_run import of_sequences
from ostinato.cli.run.rundir import RunDir
from ostinato.cli.run.runs import Trained
from ostinato.cli.run.summaries import Rows
from ostinato.data.sequences.examples import Examples
from ostinato.data.sequences.preparation import Preparation
from ostinato.tasks.classify import several
from ostinato.tasks.parts_job import PartsJob, measured_part

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ostinato.cli.compare import Measured
    from ostinato.report import RunFacts
    from ostinato.tasks.classify.model import Classifier
    from ostinato.training.callbacks import Callback
    from ostinato.training.distributed import Ranks
    from ostinato.training.history import History

NOTEBOOK_IMAGES = 128


def read(settings: Config, given: Given) -> ClassifyJob:
    """The job of a configuration; see `jobs.read`."""
    return _job(settings, given, partition.load(settings))


def folds(settings: Config, given: Given, k: int) -> Iterator[ClassifyJob]:
    """The jobs of a cross-validation; see `jobs.folds`."""
    return (_job(settings, given, parts) for parts in partition.folds(settings, k))


def _job(settings: Config, given: Given, parts: partition.Parts) -> ClassifyJob:
    if settings.data.source != "mnist":
        settings = defaults.for_file(settings, given, len(parts.train))
    _check_labels(settings, parts)
    return ClassifyJob(settings, parts)


def evaluated(trained: Trained, file: str | None) -> dict[str, Any]:
    """The measures of a saved classifier, on a file or on the test part of its run."""
    part = measured_part(trained, file)
    model = answering.model_of(trained)
    sources.check_fits(file or str(trained.model), part, model, labels=True)
    return measure(model, part)


def predicted(trained: Trained, file: str, proba: bool) -> Iterator[str]:
    """The likeliest class of each sequence in a file, as pieces of CSV."""
    settings, preparation = trained.settings(), trained.preparation()
    parts = sources.blocks(file, settings, preparation, trained.reading_of(file))
    parts = sources.begun(parts)

    model = answering.model_of(trained)
    for i, part in enumerate(parts):
        sources.check_fits(file, part, model, labels=False)
        names = part.ids if part.roles is not None else None
        answers = model.predict_proba(part)
        yield predictions_csv(
            model.classes, answers, part.y, proba, names, i == 0, model.multilabel
        )


def compared(a: Measured, b: Measured) -> paired.PairedResult:
    """The test of run B against run A on the same test part.

    Raises:
        Apart: their predictions cannot be paired.
    """
    return paired.classify(*paired.predictions(a, b))


@dataclass(frozen=True)
class ClassAnswers:
    """The answers of a network to the test part.

    Attributes:
        proba: `[N, C]` float32.
        n_right: see `report.collect`; None without a report, or if the network reads in two
            directions.
    """

    proba: np.ndarray
    n_right: np.ndarray | None


@dataclass(frozen=True)
class ClassifyJob(PartsJob):
    """To classify: one label for each sequence, or several."""

    @property
    def aim(self) -> str:
        target = self.settings.task.classify
        return "classify" + ("" if target is None else f" by {target!r}")

    def shown(self) -> dict[str, Rows]:
        return of_sequences(self, ("RBF-SVM, logistic regression", "measured with a training"))

    def fit(
        self, callbacks: Sequence[Callback], resume: str | None, origin: Path | None = None
    ) -> tuple[Classifier, History]:
        from ostinato.cli.run import start
        from ostinato.data import LabelEncoder
        from ostinato.data.sequences.step_labels import as_texts_or_sequences
        from ostinato.tasks.classify.fit import fit
        from ostinato.tasks.classify.labelled import Labelled

        settings, train, validation = self.settings, self.parts.train, self.parts.validation
        names, began = several.names(train), None
        if origin is None:
            preparation = self._preparation()
        else:
            began = start.origin(origin)
            start.check_several(origin, began, names)
            preparation = start.preparation(origin, began, train)
        X = as_texts_or_sequences(partition.inputs(preparation, train))
        if names is not None:
            given = Labelled(X, train.y, LabelEncoder(names))
        elif began is not None:
            encoder = LabelEncoder(began.classes)
            given = Labelled(X, encoder.encode(train.y, f"{settings.data.source}: y"), encoder)
        else:
            given = Labelled.of(X, train.y)
        if validation is not None:
            X, y = as_texts_or_sequences(partition.inputs(preparation, validation)), validation.y
            if names is None:
                y = given.encoder.encode(y, name="validation: y")
            given = replace(given, validation=(X, y))
        as_texts_or_sequences(partition.inputs(preparation, self.parts.test))  # errors now
        model, history = fit(
            given,
            settings.model,
            self._plan(),
            class_weight=parsed_weights(settings.training.class_weight, train.y),
            start=began,
            callbacks=callbacks,
            resume=resume,
        )
        return replace(model, preparation=preparation), history

    def answers(self, model: Classifier, ranks: Ranks, report: bool) -> ClassAnswers | None:
        import torch

        from ostinato.tasks.classify.by_step import reads_both_ways, right_by_step

        part, n_right = self._share(ranks), None
        proba = np.zeros((0, len(model.classes)), np.float32)
        if len(part):
            proba = model.predict_proba(part)
        every = ranks.at_first(torch.from_numpy(proba))
        if report and not model.multilabel and not reads_both_ways(model.net):
            own = right_by_step(model, part, part.y) if len(part) else np.zeros(1, np.int64)
            n_right = ranks.at_first(torch.from_numpy(own))
        if every is None:
            return None
        return ClassAnswers(
            torch.cat(every).numpy(), None if n_right is None else _added(n_right)
        )

    def evaluate(self, model: Classifier, answers: ClassAnswers) -> dict[str, Any]:
        test = self.parts.test
        evaluation: dict[str, Any] = {"test": measure(model, test, answers.proba)}
        if self.settings.data.source == "mnist":
            evaluation["notebook_128"] = measure(model, test.select(np.arange(NOTEBOOK_IMAGES)))
        else:
            evaluation |= self._baselines(model, answers)
        return evaluation

    def _baselines(self, model: Classifier, answers: ClassAnswers) -> dict[str, Any]:
        """The results of the baselines, and a comparison of the network with the best in words."""
        from ostinato import baselines

        train, test = self.parts.train, self.parts.test
        if model.multilabel:
            seed = self.settings.training.seed
            return several.baselines(model, train, test, seed, answers.proba)
        if model.vocabulary is not None:
            words = model.words(train), train.y, model.words(test), test.y
            found = baselines.words(*words)
        else:
            X, X_test = model.prepared(train), model.prepared(test)
            seed = self.settings.training.seed
            found = baselines.classification(X, train.y, X_test, test.y, seed)
        right = model.likeliest(answers.proba) == test.y
        simple = {each.name: {"accuracy": each.accuracy} for each in found[1:]}
        return {"baselines": simple, "verdict": baselines.verdict(right, found)}

    def keep(
        self,
        run: RunDir,
        model: Classifier,
        history: History,
        evaluation: dict[str, Any],
        answers: ClassAnswers,
    ) -> None:
        from ostinato import files, report
        from ostinato.cli.run import reported
        from ostinato.training import saved_model

        settings, test = self.settings, self.parts.test
        saved_model.save(model, run.model, self.parameters(model), history.iterations)
        proba = answers.proba
        names = test.ids if test.roles is not None else None
        lines = predictions_csv(model.classes, proba, test.y, ids=names, several=model.multilabel)
        files.write_text(run.predictions, lines)
        facts = reported.facts(settings, run, history, evaluation)
        contents: RunFacts
        if model.multilabel:
            contents = report.collect_several(model, test, test.y, facts, proba=proba)
        else:
            contents = report.collect(
                model, test, test.y, facts, proba=proba, n_right=answers.n_right
            )
        report.write_report(run.report, contents)

    def _preparation(self) -> Preparation | None:
        data = self.settings.data
        if data.source == "mnist":  # its values are already between 0 and 1
            return None
        return partition.preparation(self.parts.train, data.missing, data.standardize)

    def parameters(self, model: Classifier) -> dict[str, Any]:
        """The configuration as arguments of `SequenceClassifier`."""
        settings = self.settings
        parameters = asdict(settings.model) | asdict(settings.training)
        parameters["random_state"] = parameters.pop("seed")
        weights = parsed_weights(settings.training.class_weight, model.classes)
        return parameters | {"class_weight": weights}


def measure(
    model: Classifier, part: Examples, proba: np.ndarray | None = None
) -> dict[str, Any]:
    """The result of the model's `evaluate`, and the share of the part's most frequent class.

    Always answering this class has that accuracy. If a sequence may have several labels, see
    `metrics.label_sets.measure` instead.

    Args:
        proba: `[N, C]`, the answers, if they are known.
    """
    if model.multilabel:
        return several.measure(model, part, proba)
    counts = np.unique(part.y, return_counts=True)[1]
    most_frequent = float(counts.max() / len(part.y))
    proba = model.predict_proba(part) if proba is None else proba
    told = model.measured(proba, part.y)
    return {**told, "most_frequent_class": most_frequent}


def _added(counts: Sequence[Tensor]) -> np.ndarray:
    """The sum of counts by step, `[T_r]` each; the last count of each is repeated."""
    longest = max(map(len, counts))
    each = [np.pad(c.numpy(), (0, longest - len(c)), mode="edge") for c in counts]
    return np.sum(each, axis=0)


def _check_labels(settings: Config, parts: partition.Parts) -> None:
    """Raise BadInput if the test or validation part has a label that is not learnt."""
    from ostinato.data import LabelEncoder

    if several.names(parts.train) is not None:
        several.check(settings, parts)
        return
    encoder = LabelEncoder.fit(parts.train.y)[0]
    name = settings.data.test or f"{settings.data.source}, the test part"
    encoder.encode(parts.test.y, name=f"{name}: y")
    parsed_weights(settings.training.class_weight, parts.train.y)
    if len(encoder) < 2:
        raise BadInput(
            f"{settings.data.source} has one class only, {encoder.classes.tolist()[0]!r}, to learn "
            "from; wanted two or more"
        )


def parsed_weights(given: str | None, labels: np.ndarray) -> str | dict[Any, float] | None:
    """`--class-weight`: `balanced`, or the mapping meant by "cat=1,dog=2.5".

    Args:
        given: the text from the command line.
        labels: all labels, repeated or not.

    Raises:
        BadInput: it is neither, or names a class that is not among the labels.
    """
    if given is None or given == "balanced":
        return given
    by_name = {str(label): label for label in np.unique(labels).tolist()}
    weights: dict[Any, float] = {}
    for pair in given.split(","):
        name, equals, number = pair.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            equals, weight = "", 0.0
        if not equals:
            raise BadInput(f"--class-weight {given}: wanted balanced, or label=weight,label=weight")
        if not 0 <= weight < math.inf:
            raise BadInput(f"--class-weight: {pair.strip()}; wanted a number, 0 or more")
        if name.strip() not in by_name:
            known = ", ".join(by_name)
            raise BadInput(f"--class-weight: there is no class {name.strip()!r}; there are {known}")
        label = by_name[name.strip()]
        if label in weights:
            raise BadInput(f"--class-weight: {name.strip()} is there twice; wanted one weight")
        weights[label] = weight
    return weights
