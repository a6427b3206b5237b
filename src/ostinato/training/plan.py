"""Everything that decides how a training goes, in one frozen value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

OPTIMIZERS = ("rmsprop", "sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "step")
DEFAULT_ITERATIONS = 5000  # the notebook's


@dataclass(frozen=True)
class Plan:
    """How to train. The defaults are the notebook's experiment.

    Args:
        iterations: number of updates. Default: 5000, if `epochs` is not given either.
        epochs: the same as passes over the data, 1.5 is allowed. Only one of the two may be given.
        batch_size: examples of one update.
        optimizer: "rmsprop" (as TensorFlow 1 has it), "sgd", "adam" or "adamw".
        learning_rate: the step size, before the schedule.
        momentum: for "rmsprop" and "sgd".
        weight_decay: pull of the parameters to zero; decoupled from the gradient for "adamw".
        clip_norm: gradients whose common 2-norm is larger are scaled down to it.
        schedule: "constant"; "cosine", from `learning_rate` to zero; "step", times `step_gamma`
            every `step_size` iterations.
        warmup: over so many first iterations the learning rate grows linearly from nothing.
        step_size, step_gamma: of the schedule "step".
        eval_every: iterations between two reports.
        patience: stop after so many reports in a row without a lower validation loss.
        restore_best: end with the weights of the report with the lowest validation loss.
        seed: of everything random.

    Raises:
        ValueError: a value out of its range, or a combination that contradicts itself.
        TypeError: a value of the wrong type.

    Example:
        >>> Plan(epochs=2, batch_size=50).total_iterations(n_examples=270)
        11
    """

    iterations: int | None = None
    epochs: float | None = None
    batch_size: int = 128
    optimizer: str = "rmsprop"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    schedule: str = "constant"
    warmup: int = 0
    step_size: int = 1000
    step_gamma: float = 0.1
    eval_every: int = 1000
    patience: int | None = None
    restore_best: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (kind, accepts, wanted) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{name}={value!r}: wanted {wanted}")
            if not accepts(value):
                raise ValueError(f"{name}={value!r}: wanted {wanted}")
            # numpy's numbers become Python's, so that a plan always fits into JSON
            object.__setattr__(self, name, int(value) if kind is Integral else float(value))
        if not isinstance(self.restore_best, bool):
            raise TypeError(f"restore_best={self.restore_best!r}: wanted True or False")
        for name, choices in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: wanted one of {choices}")
        if self.iterations is not None and self.epochs is not None:
            raise ValueError(
                f"iterations={self.iterations} and epochs={self.epochs} were both given; "
                "wanted one of them"
            )
        if self.momentum and self.optimizer in ("adam", "adamw"):
            raise ValueError(
                f"momentum={self.momentum} with optimizer={self.optimizer!r}, which has its own; "
                "leave momentum at 0, or use 'rmsprop' or 'sgd'"
            )

    def total_iterations(self, n_examples: int) -> int:
        """How many updates the plan asks for on so many examples."""
        if self.epochs is not None:
            return math.ceil(self.epochs * n_examples / self.batch_size)
        return self.iterations if self.iterations is not None else DEFAULT_ITERATIONS

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, for JSON."""
        return asdict(self)

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Where a saved plan differs from this one, in words: ["learning_rate: 0.1, not 0.2"]."""
        return [
            f"{f.name}: {other.get(f.name)!r}, not {getattr(self, f.name)!r}"
            for f in fields(self)
            if other.get(f.name) != getattr(self, f.name)
        ]


_OPTIONAL = ("iterations", "epochs", "clip_norm", "patience")


def _finite(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: math.isfinite(value) and accepts(value)


_POSITIVE = (Real, _finite(lambda v: v > 0), "a number above 0")
_NOT_NEGATIVE = (Real, _finite(lambda v: v >= 0), "a number, 0 or more")
_COUNT = (Integral, lambda v: v >= 1, "a whole number, 1 or more")

# field → (type, accepts, what was wanted)
_RANGES: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
    "iterations": _COUNT,
    "epochs": _POSITIVE,
    "batch_size": _COUNT,
    "learning_rate": _POSITIVE,
    "momentum": (Real, lambda v: 0 <= v < 1, "a number from 0 to below 1"),
    "weight_decay": _NOT_NEGATIVE,
    "clip_norm": _POSITIVE,
    "warmup": (Integral, lambda v: v >= 0, "a whole number, 0 or more"),
    "step_size": _COUNT,
    "step_gamma": _POSITIVE,
    "eval_every": _COUNT,
    "patience": _COUNT,
    # PyTorch and NumPy both take seeds of 32 bits
    "seed": (Integral, lambda v: 0 <= v < 2**32, "a whole number from 0 to 2**32 − 1"),
}
