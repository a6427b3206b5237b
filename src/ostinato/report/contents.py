"""What a report is made of: plain NumPy arrays, lists and dicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ostinato.anatomy import Anatomy


@dataclass(frozen=True)
class StepView:
    """One example, seen step by step.

    Args:
        x: `[T, F]` the sequence as the network read it.
        label: the true class, as shown.
        prediction: the class the network chose after the last step, as shown.
        beliefs: `[T, C]` class probabilities after each step, or None where a network has none
            (a bidirectional one reads from both ends).
        states: `[T, H]` hidden states of the top layer, or None.
        words: T of them, if the steps are words; x is then their numbers, `[T, 1]`.
    """

    x: np.ndarray
    label: str
    prediction: str
    beliefs: np.ndarray | None
    states: np.ndarray | None
    words: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or len(self.x) == 0:
            raise ValueError(f"StepView: x has shape {list(self.x.shape)}; wanted [T, F], T ≥ 1")
        for name, steps in (("beliefs", self.beliefs), ("states", self.states)):
            if steps is not None and (steps.ndim != 2 or len(steps) != len(self.x)):
                raise ValueError(
                    f"StepView: {name} has shape {list(steps.shape)}; wanted one row for each of "
                    f"the {len(self.x)} steps of x"
                )


class LabelledAnswers(Protocol):
    """Labels that were given, and the true ones: class numbers, indices into `classes`."""

    @property
    def classes(self) -> list[str]: ...
    @property
    def y_true(self) -> np.ndarray: ...
    @property
    def y_pred(self) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What the report says of a run, whatever its task; it leaves out empty fields and says why.

    Args:
        title: the heading, for example "mnist, rnn, 128 units".
        metrics: the reports of the training, in order: dicts with `iteration`, `loss`, further
            measures of the batch, as `train_accuracy`, and, where there was a validation set,
            `validation_loss` and others, as `validation_accuracy`.
        losses: (iteration, loss of its batch), finer than the metrics: `History.course`.
        evaluation: what `evaluation.json` holds: `{"test": {…}, "baselines": {name: {…}},
            "elapsed_s", "iterations", "findings"}`; each may be absent.
        config: the run's resolved configuration, nested as in `config.toml`.
        environment: what `environment.json` holds.
    """

    title: str
    metrics: list[dict[str, Any]] = field(default_factory=list)
    losses: list[tuple[int, float]] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReportData(RunFacts):
    """The contents of a classifier's report; it leaves out empty fields and says why.

    Args:
        title, metrics, losses, evaluation, config, environment: see `RunFacts`. Of the evaluation,
            "test" has accuracy, loss and n; "notebook_128" has the accuracy on the notebook's part.
        classes: the C class labels, as shown.
        y_true: `[N]` integers, indices into `classes`: the true class of each test example.
        proba: `[N, C]` the class probabilities that the network gave.
        hardest: the test examples to show step by step, the hardest first.
        accuracy_by_step: `[T]` test accuracy when only the first t + 1 steps are read, or None.
        n_cut: of how many sequences, if they were cut after each step and read anew; 0 if a network
            answered after every step.
        network: the sizes of the network, or None.
        lengths: steps of the shortest and of the longest test sequence, or None.
        each_length: `[N]`, steps of each test sequence, or None.

    Raises:
        ValueError: the shapes do not fit each other, or y_true names a class that is not there.

    Example:
        >>> import numpy as np
        >>> data = ReportData(
        ...     title="coin", classes=["heads", "tails"], y_true=np.array([0, 1, 1]),
        ...     proba=np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
        >>> data.y_pred.tolist()
        [0, 1, 0]
    """

    classes: list[str]
    y_true: np.ndarray
    proba: np.ndarray
    hardest: list[StepView] = field(default_factory=list)
    accuracy_by_step: np.ndarray | None = None
    n_cut: int = 0
    network: Anatomy | None = None
    lengths: tuple[int, int] | None = None
    each_length: np.ndarray | None = None

    def __post_init__(self) -> None:
        n_classes = len(self.classes)
        if self.y_true.ndim != 1 or len(self.y_true) == 0:
            raise ValueError(
                f"ReportData: y_true has shape {list(self.y_true.shape)}; wanted [N], N ≥ 1"
            )
        if self.proba.shape != (len(self.y_true), n_classes):
            raise ValueError(
                f"ReportData: proba has shape {list(self.proba.shape)}; wanted "
                f"[{len(self.y_true)}, {n_classes}], a row for each of y_true and a column for "
                "each of classes"
            )
        if not np.issubdtype(self.y_true.dtype, np.integer):
            raise ValueError(
                f"ReportData: y_true is {self.y_true.dtype}; wanted integers, indices into classes"
            )
        if self.y_true.min() < 0 or self.y_true.max() >= n_classes:
            raise ValueError(
                f"ReportData: y_true runs from {self.y_true.min()} to {self.y_true.max()}; wanted "
                f"0 to {n_classes - 1}, indices into classes"
            )
        for view in self.hardest:
            for name in (view.label, view.prediction):
                if name not in self.classes:
                    raise ValueError(
                        f"ReportData: a hardest example is of class {name!r}, which is not among "
                        "classes"
                    )
            if view.beliefs is not None and view.beliefs.shape[1] != n_classes:
                raise ValueError(
                    f"ReportData: a hardest example has beliefs of shape "
                    f"{list(view.beliefs.shape)}; wanted {n_classes} columns, one for each class"
                )

    @property
    def y_pred(self) -> np.ndarray:
        """`[N]` the most probable class of each example."""
        return self.proba.argmax(axis=1)
