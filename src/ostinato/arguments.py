"""What `scan` was given, checked and taken apart."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ostinato import tree
from ostinato.eager import (
    RowSpans,
    Step,
    Tree,
    check_tensors,
    describe,
    split_result,
    time_length,
)


@dataclass(slots=True)  # made with every call: a frozen one takes five times as long
class Arguments:
    """The arguments of one call."""

    step: Step
    given: Step  # the caller's: of `step`, with resets, a part
    leaves: list[Tensor]  # of init, as given
    carry_spec: Any
    xs_leaves: list[Tensor]  # time along `dim`
    xs_spec: Any
    dim: int
    reverse: bool
    ragged: RowSpans
    of_layer: bool  # leaves are `[1, B, …]`
    # Of a layer's step: the tensors that it takes from outside, and all else that it depends on.
    weights: list[Tensor] | None = None
    variant: Any = None

    @property
    def init_leaves(self) -> list[Tensor]:
        """`[B, …]`."""
        return [leaf.squeeze(0) for leaf in self.leaves] if self.of_layer else self.leaves

    @property
    def init(self) -> Tree:
        return tree.unflatten(self.init_leaves, self.carry_spec)

    @property
    def first_x(self) -> list[Tensor]:
        """The leaves of the first element of xs."""
        return [leaf.select(self.dim, 0) for leaf in self.xs_leaves]

    def flat(self, states: list[Tensor], xs: list[Tensor]) -> tuple[list[Tensor], Tree]:
        """The step on leaves: the leaves of the new carry, and the output."""
        carry, x = tree.unflatten(states, self.carry_spec), tree.unflatten(xs, self.xs_spec)
        like = tree.unflatten(self.leaves, self.carry_spec)  # no operation, which would be recorded
        return split_result(self.step(carry, x), like, self.carry_spec)


def checked(
    step: Step,
    init: Tree,
    xs: Tree,
    dim: int,
    reverse: bool,
    lengths: Any = None,
    resets: Any = None,
    restart: Any = None,
    of_layer: bool = False,
) -> Arguments:
    try:
        dim = operator.index(dim)
    except TypeError:
        raise TypeError(f"scan: dim is {describe(dim)}; wanted the number of an axis") from None
    leaves, carry_spec = tree.flatten(init)
    check_tensors("init", leaves)
    xs_leaves, xs_spec = tree.flatten(xs)
    check_tensors("xs", xs_leaves)
    n_steps = time_length(xs_leaves, dim)
    ragged = RowSpans(None, None, [], n_steps)
    a = Arguments(
        step, step, leaves, carry_spec, xs_leaves, xs_spec, dim, reverse, ragged, of_layer
    )
    if lengths is not None or resets is not None or restart is not None:
        a.ragged = RowSpans.of(a.init, a.init_leaves, n_steps, lengths, resets, restart, reverse)
    return a
