"""`Plan`: the hyperparameters of a training, in one frozen value."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from ostinato_learn.hyperparameters import DEFAULT_ITERATIONS, EXTENDABLE, Training, documented


@documented
@dataclass(frozen=True)
class Plan(Training):
    """How to train. The defaults are those of docs/tutorial/rnn_mnist.ipynb.

    Args:
        {hyperparameters}

    Raises:
        ValueError: a value of another type or out of its range, or a combination that contradicts
            itself.

    Example:
        >>> Plan(epochs=2, batch_size=50).total_iterations(n_examples=270)
        11
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations is not None and self.epochs is not None:
            raise ValueError(
                f"iterations={self.iterations} and epochs={self.epochs:g} were both given; "
                "wanted one of them"
            )
        if self.momentum and self.optimizer in ("adam", "adamw"):
            raise ValueError(
                f"momentum={self.momentum} with optimizer={self.optimizer!r}, which has its own; "
                "leave momentum at 0, or use 'rmsprop' or 'sgd'"
            )

        if self.memory is not None:
            from ostinato.internal import bytes_in  # imports torch

            bytes_in(self.memory)

    def total_iterations(self, n_examples: int) -> int:
        """The number of updates that the plan makes on `n_examples` examples."""
        if self.epochs is not None:
            return math.ceil(self.epochs * n_examples / self.batch_size)
        return self.iterations if self.iterations is not None else DEFAULT_ITERATIONS

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, for JSON."""
        return asdict(self)

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Where a saved plan differs from this one, in words: ["learning_rate: 0.1, not 0.2"].

        How long to train, and when to report, may differ: the training so far stays valid. A field
        that an earlier version did not have is taken at its default.
        """
        saved = {f.name: other.get(f.name, f.default) for f in fields(self)}
        return [
            f"{name}: {value!r}, not {getattr(self, name)!r}"
            for name, value in saved.items()
            if name not in EXTENDABLE and value != getattr(self, name)
        ]
