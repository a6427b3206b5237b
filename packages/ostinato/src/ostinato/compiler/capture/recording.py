"""A recorded step: its ATen calls, forward and backward, as numbered values."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ostinato import tree
from ostinato.compiler.capture.captured_rows import PerRow

if TYPE_CHECKING:
    from ostinato.compiler.capture.draws import Draws
    from ostinato.compiler.capture.row_products import Products

aten = torch.ops.aten
VIEWS = ("aten.view.default", "aten._unsafe_view.default")


@dataclass(frozen=True)
class Ref:
    """In recorded arguments: the value of that number."""

    index: int


@dataclass(frozen=True)
class Batch:
    """In recorded arguments and shapes: `times` · B."""

    times: int


@dataclass(frozen=True)
class Call:
    """One recorded ATen call; tensors among its arguments and results are numbers."""

    name: str  # "aten.mm.default"
    args: Any
    kwargs: Any
    outs: tuple[int | None, ...]
    refs: list[int] = field(init=False, compare=False)  # the values among its arguments

    def __post_init__(self) -> None:
        # The lock of a cached_property (until Python 3.11) would stay held in a forked child.
        leaves = tree.leaves((self.args, self.kwargs))
        given = [leaf.index for leaf in leaves if isinstance(leaf, Ref)]
        object.__setattr__(self, "refs", given)


class Sources(NamedTuple):
    """The inputs in which an output of the step is differentiable."""

    outside: bool  # a captured tensor, or an element of xs
    states: frozenset[int]


@dataclass(frozen=True)
class Recording:
    """One step, forward and backward, as numbered values."""

    calls: tuple[Call, ...]
    n_forward: int
    shapes: tuple[tuple[int | Batch, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    constants: dict[int, Tensor]  # values that came from outside without being captured
    captured: tuple[int, ...]
    states: tuple[int, ...]
    xs: tuple[int, ...]
    new_states: tuple[int, ...]
    ys: tuple[int, ...]
    d_new_states: tuple[int, ...]
    d_ys: tuple[int, ...]
    d_captured: tuple[int | None, ...]
    d_states: tuple[int | None, ...]
    d_xs: tuple[int | None, ...]
    y_spec: tree.Spec
    init_needs_grad: tuple[bool, ...]
    differentiable_in: tuple[Sources, ...]  # new states, then ys
    needs_grad: tuple[bool, ...]  # whether each value needs a gradient: not under no_grad
    # A custom autograd.Function, hooks, or a mode below autograd: their reads are not seen.
    runs_python_backward: bool
    # The code of these, if it reads nothing but what guards of these functions see.
    backward_code: tuple[CodeType, ...] = ()
    # Which of the tensors from outside have a row for each row of the batch, and products of these:
    # they are the last states, and not among `captured`.
    per_row: PerRow = ()
    products: Products = ()
    read: tuple[int, ...] = ()  # the tensors from outside whose values the step read
    sized: bool = False  # the very last state is the largest whole number: see `whole_numbers.py`
    draws: Draws = ()  # the random numbers, which are the last leaves of xs


@functools.cache  # a call of scan asks for it for all that is computed once
def overload_of(name: str) -> Any:
    """The function of ATen with this name, such as `aten.mm.default`."""
    _, operation, overload = name.split(".")
    return getattr(getattr(aten, operation), overload)


def recorded_step(recording: Recording, captured: Any, rows: Any) -> Callable[[Any, Any], Any]:
    """The step as it was recorded, as a differentiable function of lists of leaves.

    rows: the last states of the recording: captured tensors with the rows of the batch, products of
        these, and the largest whole number.

    It computes what the step computed when it was recorded, even if the step has changed since. Its
    gradients are autograd's for the recorded calls, including compositions in place of operations
    (`replaced/`).
    """

    def step(states: Any, xs: Any) -> tuple[list[Tensor], list[Tensor]]:
        n_rows = states[0].shape[0]
        values: dict[int, Any] = dict(recording.constants)
        numbers = (*recording.captured, *recording.states, *recording.xs)
        values.update(zip(numbers, (*captured, *states, *rows, *xs), strict=True))

        def filled(leaf: Any) -> Any:
            if isinstance(leaf, Ref):
                return values[leaf.index]
            return leaf.times * n_rows if isinstance(leaf, Batch) else leaf

        for call in recording.calls[: recording.n_forward]:
            args, kwargs = tree.mapped(filled, (call.args, call.kwargs))
            run = aten.reshape if call.name in VIEWS else overload_of(call.name)
            out = run(*args, **kwargs)  # the viewed tensor may have another memory layout now
            outs = out if isinstance(out, (tuple, list)) else [out]
            for i, t in zip(call.outs, outs, strict=True):
                if i is not None:
                    values[i] = t if recording.needs_grad[i] else t.detach()
        new_states = recording.new_states[: len(states)]
        return [values[i] for i in new_states], [values[i] for i in recording.ys]

    return step
