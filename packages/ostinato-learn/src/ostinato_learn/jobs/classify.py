"""The job of a classifier: a file with X and y, a table with `--classify COLUMN`, mnist, vowels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.jobs.base import gathered
from ostinato_learn.jobs.dry_run import of_sequences
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs.built_in import known_of
from ostinato_learn.jobs.output import predictions_csv
from ostinato_learn.jobs.parts import Inputs, PartsJob
from ostinato_learn.jobs.runs import paired
from ostinato_learn.jobs.runs.summaries import Rows

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ostinato_learn.jobs.runs.paired import Measured
    from ostinato_learn.report.page import PageData, RunFacts
    from ostinato_learn.tasks.classify.model import Classifier
    from ostinato_learn.training.distributed import Ranks
    from ostinato_learn.training.history import History


class ClassAnswers(NamedTuple):
    """The answers of a network to the test part."""

    proba: np.ndarray  # [N, C] float32
    n_right: np.ndarray | None  # see `report.collect`; None without a report, or in two directions


@dataclass(frozen=True)
class ClassifyJob(PartsJob):
    """To classify: one label for each sequence, or several."""

    labels_sequences = True

    @property
    def several(self) -> np.ndarray | None:
        """The labels `[C]`, if a sequence may have several; None: each has one."""
        roles = self.parts.train.roles
        return None if roles is None or not roles.labels else np.array(roles.labels)

    def check(self) -> None:
        from ostinato_learn.data import LabelEncoder

        settings, parts = self.settings, self.parts
        if self.several is not None:
            self._check_several(self.several)
            return
        encoder = LabelEncoder.fit(parts.train.y)[0]
        name = settings.data.test or f"{settings.data.source}, the test part"
        encoder.encode(parts.test.y, name=f"{name}: y")
        parsed_weights(settings.training.class_weight, parts.train.y)
        if len(encoder) < 2:
            raise BadInput(
                f"{settings.data.source} has one class only, {encoder.classes.tolist()[0]!r}, to "
                "learn from; wanted two or more"
            )

    def _check_several(self, labels: np.ndarray) -> None:
        y = self.parts.train.y
        if (y == y[0]).all():
            raise BadInput(
                f"{self.settings.data.source}: all sequences to learn from have the same labels "
                f"({', '.join(map(repr, labels[y[0] > 0].tolist())) or 'none'}); wanted "
                "labels that differ between sequences"
            )
        if self.settings.training.class_weight is not None:
            raise BadInput(
                "--class-weight is for one label a sequence, and these may have several; leave it "
                "out"
            )

    @classmethod
    def measured(cls, model: Classifier, part: Examples) -> dict[str, Any]:
        return measure(model, part)

    @classmethod
    def csv(cls, model: Classifier, part: Examples, proba: bool, with_header: bool) -> str:
        return _csv(model, part, model.predict_proba(part), proba, with_header)

    @classmethod
    def compared(cls, a: Measured, b: Measured) -> paired.PairedResult:
        return paired.classify(*paired.predictions(a, b))

    @property
    def aim(self) -> str:
        target = self.settings.task.classify
        return "classify" + ("" if target is None else f" by {target!r}")

    def shown(self) -> dict[str, Rows]:
        return of_sequences(self, ("RBF-SVM, logistic regression", "measured with a training"))

    def training(
        self, inputs: Inputs, began: Classifier | None, origin: Path | None
    ) -> Callable[..., tuple[Classifier, History]]:
        from ostinato_learn.jobs.inputs import start
        from ostinato_learn.tasks.classify.fit import Labelled, fit

        settings, train, validation = self.settings, self.parts.train, self.parts.validation
        if began is not None and origin is not None:
            start.check_several(origin, began, self.several)
        given = Labelled.of_parts(train, validation, inputs, began)
        weights = parsed_weights(settings.training.class_weight, train.y)
        return partial(fit, given, settings.model, self._plan(), class_weight=weights)

    def answers(self, model: Classifier, ranks: Ranks, report: bool) -> ClassAnswers | None:
        import torch

        from ostinato_learn.tasks.classify.by_step import reads_both_ways, right_by_step

        part, n_right = self._share(ranks), None
        proba = np.zeros((0, len(model.classes)), np.float32)
        if len(part):
            proba = model.predict_proba(part)
        every = gathered(ranks, proba)
        if report and not model.multilabel and not reads_both_ways(model.net):
            own = right_by_step(model, part, part.y) if len(part) else np.zeros(1, np.int64)
            n_right = ranks.at_first(torch.from_numpy(own))
        if every is None:
            return None
        return ClassAnswers(every, None if n_right is None else _added(n_right))

    def evaluate(self, model: Classifier, answers: ClassAnswers) -> dict[str, Any]:
        from ostinato_learn.tasks.classify.compared import compared

        test = self.parts.test
        evaluation: dict[str, Any] = {"test": measure(model, test, answers.proba)}
        if not known_of(self.settings.data.source).studied:
            seed = self.settings.training.seed
            evaluation |= compared(model, self.parts.train, test, answers.proba, seed)
        return evaluation

    def lines(self, model: Classifier, answers: ClassAnswers) -> Iterator[str]:
        yield _csv(model, self.parts.test, answers.proba)

    def page(self, model: Classifier, answers: ClassAnswers, facts: RunFacts) -> PageData:
        from ostinato_learn.report.classify import collect
        from ostinato_learn.report.classify_several import collect_several

        test, proba = self.parts.test, answers.proba
        if model.multilabel:
            return collect_several(model, test, test.y, facts, proba=proba)
        n_right = answers.n_right
        return collect(model, test, test.y, facts, proba=proba, n_right=n_right)

    def parameters(self, model: Classifier) -> dict[str, Any]:
        settings = self.settings
        parameters = asdict(settings.model) | asdict(settings.training)
        parameters["random_state"] = parameters.pop("seed")
        del parameters["window"]  # of taggers
        weights = parsed_weights(settings.training.class_weight, model.classes)
        return parameters | {"class_weight": weights}


def measure(model: Classifier, part: Examples, proba: np.ndarray | None = None) -> dict[str, Any]:
    """The result of the model's `evaluate`, and the share of the part's most frequent class.

    Always answering this class has that accuracy. If a sequence may have several labels, the
    measures of `metrics.label_sets` come instead; "accuracy" is then the share of sequences with
    all labels right.

    Args:
        proba: `[N, C]`, the answers, if they are known.
    """
    from ostinato_learn.metrics import label_sets

    proba = model.predict_proba(part) if proba is None else proba
    by_measure = model.measured(proba, part.y)
    if model.multilabel:
        return {**by_measure, **label_sets.measure(part.y, model.likeliest(proba))}
    counts = np.unique(part.y, return_counts=True)[1]
    return {**by_measure, "most_frequent_class": float(counts.max() / len(part.y))}


def _csv(
    model: Classifier,
    part: Examples,
    answers: np.ndarray,
    proba: bool = False,
    with_header: bool = True,
) -> str:
    names = part.ids if part.roles is not None else None
    classes, several = model.classes, model.multilabel
    return predictions_csv(classes, answers, part.y, proba, names, with_header, several)


def _added(counts: Sequence[Tensor]) -> np.ndarray:
    """The sum of counts by step, `[T_r]` each; the last count of each is repeated."""
    longest = max(map(len, counts))
    each = [np.pad(c.numpy(), (0, longest - len(c)), mode="edge") for c in counts]
    return np.sum(each, axis=0)


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
