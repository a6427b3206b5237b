"""`PartsJob`: a job that learns from the training part of a file's sequences."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ostinato_learn.data.sequences.step_labels import as_texts_or_sequences
from ostinato_learn.jobs.base import Job, without_run
from ostinato_learn.jobs.inputs import defaults, limits, partition, sources
from ostinato_learn.jobs.inputs.config import Config, Given
from ostinato_learn.jobs.runs import answering
from ostinato_learn.jobs.runs.runs import Trained

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Self

    from ostinato_learn.data.sequences.examples import Examples
    from ostinato_learn.data.sequences.preparation import Preparation
    from ostinato_learn.training.callbacks import Callback
    from ostinato_learn.training.distributed import Ranks
    from ostinato_learn.training.history import History

Inputs = Callable[["Examples"], Any]  # prepares a part as the network reads it


@dataclass(frozen=True)
class PartsJob(Job):
    """A job whose data are the training, validation and test part of a file."""

    labels_sequences: ClassVar[bool] = False  # whether a sequence has one of the model's labels

    settings: Config
    parts: partition.Parts

    @classmethod
    def read(cls, settings: Config, given: Given) -> Self:
        return cls._of(settings, given, partition.load(settings))

    @classmethod
    def folds(cls, settings: Config, given: Given, k: int) -> Iterator[Self]:
        return (cls._of(settings, given, parts) for parts in partition.folds(settings, k))

    @classmethod
    def _of(cls, settings: Config, given: Given, parts: partition.Parts) -> Self:
        settings = defaults.for_file(
            settings,
            given,
            len(parts.train),
            parts.validation is not None,
            cls.steps_in_windows(settings, parts.train),
        )
        job = cls(settings, parts)
        job.check()
        return job

    @classmethod
    def steps_in_windows(cls, settings: Config, train: Examples) -> int | None:
        """The steps to learn from, if they may be learnt in windows."""
        return None

    @abstractmethod
    def check(self) -> None:
        """Raise BadInput if the answers in the parts cannot be learnt, or not be measured."""

    @classmethod
    def evaluated(cls, trained: Trained, file: str | None) -> dict[str, Any]:
        part, where = _measured_part(trained, file), file or str(trained.model)
        model = answering.model_of(trained)
        sources.check_fits(where, part, model, labels=cls.labels_sequences)
        return cls.measured(model, part)

    @classmethod
    def measured(cls, model: Any, part: Examples) -> dict[str, Any]:
        """The measures of a model on labelled examples."""
        found: dict[str, Any] = model.evaluate(part, part.y)
        return found

    @classmethod
    def predicted(cls, trained: Trained, file: str, proba: bool) -> Iterator[str]:
        settings, preparation = trained.settings(), trained.preparation()
        blocks = sources.blocks(file, settings, preparation, trained.reading_of(file))
        parts = sources.begun(blocks)

        model = answering.model_of(trained)
        for i, part in enumerate(parts):
            sources.check_fits(file, part, model, labels=False)
            yield cls.csv(model, part, proba, with_header=i == 0)

    @classmethod
    @abstractmethod
    def csv(cls, model: Any, part: Examples, proba: bool, with_header: bool) -> str:
        """The answers of a model to some examples; with `proba` in full."""

    def description(self) -> dict[str, Any]:
        return partition.describe(self.parts) | {"sha256": sources.digest(self.settings.data)}

    def redrawn(self, draw: int) -> Self | None:
        parts = partition.redrawn(self.parts, self.settings, draw)
        return None if parts is None else replace(self, parts=parts)

    def least_memory(self) -> int:
        return limits.least_memory(self.settings, partition.describe(self.parts))

    def fit(
        self, callbacks: Sequence[Callback], resume: str | None, origin: Path | None = None
    ) -> tuple[Any, History]:
        from ostinato_learn.jobs.inputs import start

        began = None if origin is None else start.origin(origin)
        if origin is None:
            preparation = self._preparation()
        else:
            preparation = start.preparation(origin, began, self.parts.train)

        def inputs(part: Examples) -> Any:
            return as_texts_or_sequences(partition.inputs(preparation, part))

        training = self.training(inputs, began, origin)
        inputs(self.parts.test)  # an error in the test part appears before the training
        model, history = training(start=began, callbacks=callbacks, resume=resume)
        return replace(model, preparation=preparation), history

    @abstractmethod
    def training(
        self, inputs: Inputs, began: Any, origin: Path | None
    ) -> Callable[..., tuple[Any, History]]:
        """The training, but for `start`, `callbacks` and `resume`.

        Args:
            inputs: prepares a part.
            began, origin: the model with whose weights it begins, and its directory, if any.

        Raises:
            BadInput, ValueError: the data cannot be learnt, or not with these weights.
        """

    def _preparation(self) -> Preparation | None:
        data = self.settings.data
        return partition.preparation(self.parts.train, data.missing, data.standardize)

    def _share(self, ranks: Ranks) -> Examples:
        """The test sequences of this process; empty if there are too few for all processes."""
        test = self.parts.test
        return test if ranks.alone else test.select(np.arange(len(test))[ranks.rows(len(test))])


def _measured_part(trained: Trained, file: str | None) -> Examples:
    """The examples that a saved model is measured on: those of a file, or its run's test part."""
    settings, preparation = trained.settings(), trained.preparation()
    if file is not None:
        task = trained.task()
        if settings.get(task.target) is None and not sources.is_table(file):
            settings = settings.updated({task.target: "y"})  # arrays say it themselves
        columns = sources.trained_roles(preparation, settings, answers=True)
        found: Examples = sources.read_labelled(file, settings, trained.reading_of(file), columns)
        return found
    if trained.config is None:
        raise without_run(trained)
    return partition.load(settings, preparation).test
