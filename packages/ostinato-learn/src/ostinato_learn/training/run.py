"""A training in progress: everything that callbacks may read and checkpoints keep."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ostinato_learn.training.distributed import Ranks
from ostinato_learn.training.history import History
from ostinato_learn.training.plan import Plan
from ostinato_learn.training.task import Measured, Task


class Diverged(ArithmeticError):  # noqa: N818  it says what happened, as KeyboardInterrupt does
    """The loss became NaN or infinite.

    Attributes:
        iteration: updates made before.
    """

    def __init__(self, what: str, value: float, iteration: int):
        super().__init__(
            f"{what} is {value} at iteration {iteration}: the training has diverged; "
            "lower learning_rate, or set clip_norm (1.0 is a common choice)"
        )
        self.iteration = iteration


@dataclass
class Best:
    """The report with the lowest validation loss so far."""

    loss: float | None = None
    iteration: int | None = None
    waited: int = 0  # reports since then
    weights: dict[str, Tensor] = field(default_factory=dict)

    def update(self, loss: float, iteration: int, net: torch.nn.Module, keep: bool) -> None:
        """Record a validation loss.

        Args:
            loss: mean over the validation part.
            iteration: the iteration after which it was measured.
            net: the network.
            keep: whether to copy its weights, if it is the best so far.
        """
        if self.loss is not None and loss >= self.loss:
            self.waited += 1
            return
        self.loss, self.iteration, self.waited = loss, iteration, 0
        if keep:
            self.weights = {name: w.clone() for name, w in net.state_dict().items()}


@dataclass
class Run:
    """A training in progress.

    Attributes:
        net, optimizer, task, plan: the network, and how it is trained.
        total: the number of updates in the plan.
        iteration: updates made. Between two iterations all attributes are consistent.
        loss, learning_rate: those of the last batch; NaN before the first.
        measured: further measures of the last batch, such as {"train_accuracy": 0.5}.
        best: the best report so far; empty without a validation set.
        history: the reports so far.
        resumed: whether this run goes on from a checkpoint.
    """

    net: torch.nn.Module
    optimizer: torch.optim.Optimizer
    task: Task
    plan: Plan
    total: int
    iteration: int = 0
    loss: float = float("nan")
    learning_rate: float = float("nan")
    measured: Measured = field(default_factory=dict)
    best: Best = field(default_factory=Best)
    history: History = field(default_factory=History)
    resumed: bool = False
    elapsed_before: float = 0.0  # of the runs that this one resumes
    _started: float = field(default_factory=time.perf_counter)

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return self.task.ranks

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self.elapsed_before + time.perf_counter() - self._started

    @property
    def ended(self) -> bool:
        """Whether the training is complete."""
        return self.iteration >= self.total or self.history.outcome in ("finished", "stopped early")
