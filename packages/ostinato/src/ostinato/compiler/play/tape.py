"""The results of a forward pass for its backward pass: the tape, and the order of the rows.

It is separate from `step.py`, so that importing ostinato does not import the recording and lowering
of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ostinato.eager import integers_of
from ostinato.engine.rows import dealt

if TYPE_CHECKING:
    from ostinato.compiler.backward.liveness import Liveness
    from ostinato.compiler.backward.weight_grads import WeightGradients
    from ostinato.compiler.graph.node import Node
    from ostinato.compiler.plan import ForwardPlan
    from ostinato.compiler.play.bindings import Bound

Tensors = Sequence[Tensor]
Flags = tuple[bool, ...]


@dataclass(frozen=True)
class RowOrder:
    """The order of the rows of a ragged batch in the engine: by length, dealt to groups like
    cards."""

    lengths: Tensor  # [B], the lengths of the caller's rows
    order: list[int]  # the engine's row → the caller's row; empty: the same
    ordered_lengths: list[int]  # the lengths of the engine's rows

    @staticmethod
    def of(lengths: Tensor) -> RowOrder:
        return RowOrder(lengths, *dealt(integers_of(lengths)))

    def silenced(self, y: Tensor) -> Tensor:
        """The carries before each step `[T, B, …]` as outputs of a scan in reverse.

        A row's first carry is just beyond its last element, where outputs are zero; the backward
        pass reads it there, so that these are copies.
        """
        y = y.clone()
        short = (self.lengths < y.shape[0]).nonzero().flatten()
        y[self.lengths[short], short] = 0
        return y


class BoundForward(NamedTuple):
    """One way of playing a step forward, and the backward passes that read its tape."""

    plan: ForwardPlan
    bound: Bound
    played: Any  # the native pass
    # by which gradients are given, which wanted, and whether the batch is ragged
    backward: dict[tuple[Flags, Flags, bool], BoundBackward]


class BoundBackward(NamedTuple):
    """A backward program, its arguments, and the places of its results."""

    bound: Bound
    played: Any
    gradients: WeightGradients
    flow: Liveness


class SavedForward(NamedTuple):
    """The tensors that the backward pass needs from the forward pass, and how that ran."""

    held: Any  # tensors, and the memory of saved values
    once: dict[Node, Tensor]
    forward: BoundForward
    divisors: dict[int, Tensor]  # for outputs that are quotients of two sums over the batch
