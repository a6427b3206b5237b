"""What `scan` was given, checked and taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ostinato import tree
from ostinato._loop import (
    Ragged,
    Step,
    Tree,
    check_carry,
    check_tensors,
    split_result,
    time_length,
)


@dataclass(slots=True)  # made with every call: a frozen one takes five times as long
class Arguments:
    """The arguments of one call."""

    step: Step
    init: Tree
    init_leaves: list[Tensor]
    carry_spec: Any
    xs_leaves: list[Tensor]  # time along `dim`
    xs_spec: Any
    dim: int
    reverse: bool
    ragged: Ragged
    hx: list[Tensor] | None = None  # of a layer: `[1, B, …]`, of which init is the only row

    def first_x(self) -> Tree:
        """The first element of xs."""
        return tree.unflatten([leaf.select(self.dim, 0) for leaf in self.xs_leaves], self.xs_spec)

    def split(self, result: Any) -> tuple[list[Tensor], Tree]:
        """What the step returned, as (leaves of the new carry, output)."""
        return split_result(result, self.init, self.carry_spec)

    def check(self, result: Any) -> None:
        """Raise where what the step returned does not fit init."""
        check_carry(self.init_leaves, self.split(result)[0])


def checked(
    step: Step,
    init: Tree,
    xs: Tree,
    dim: int,
    reverse: bool,
    lengths: Any = None,
    resets: Any = None,
    restart: Any = None,
) -> Arguments:
    init_leaves, carry_spec = tree.flatten(init)
    check_tensors("init", init_leaves)
    xs_leaves, xs_spec = tree.flatten(xs)
    check_tensors("xs", xs_leaves)
    n_steps = time_length(xs_leaves, dim)
    ragged = Ragged.of(init, init_leaves, n_steps, lengths, resets, restart, reverse)
    return Arguments(step, init, init_leaves, carry_spec, xs_leaves, xs_spec, dim, reverse, ragged)
