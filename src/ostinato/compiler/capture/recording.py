"""A recorded step: its ATen calls, forward and backward, as numbered values."""

from __future__ import annotations

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
    refs: list[int] = field(init=False, compare=False)  # the values that the call is given

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
    needs_grad: tuple[bool, ...]  # whether each value does: not so where a step says no_grad
    # A custom autograd.Function, hooks, or a mode below autograd: what they read is not seen.
    runs_python_backward: bool
    # The code of all that, if it reads nothing but what guards of these functions see.
    backward_code: tuple[CodeType, ...] = ()
    # Which of the tensors taken from outside have a row for each of the batch, and products of
    # these: they are the last states, and not among `captured`.
    per_row: PerRow = ()
    products: Products = ()
    read: tuple[int, ...] = ()  # of those taken from outside: whose values the step read
    sized: bool = False  # the very last state is the largest whole number: see `whole_numbers.py`
    draws: Draws = ()  # of random numbers, which are the last leaves of xs


def overload_of(name: str) -> Any:
    """The function of ATen that has this name, as `aten.mm.default`."""
    _, operation, overload = name.split(".")
    return getattr(getattr(aten, operation), overload)


def recorded_step(recording: Recording, captured: Any, rows: Any) -> Callable[[Any, Any], Any]:
    """The step as it was recorded, as a differentiable function of lists of leaves.

    rows: what the recording holds as its last states: captured tensors that have the batch's rows,
    products of these, and the largest whole number.

    It computes what was computed when the step was recorded, whatever the step has become since.
    Its gradients are autograd's of the recorded calls, so those of a composition where one stands
    for an operation (`decompositions.py`).
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
            out = run(*args, **kwargs)  # what is viewed may lie otherwise now
            outs = out if isinstance(out, (tuple, list)) else [out]
            for i, t in zip(call.outs, outs, strict=True):
                if i is not None:
                    values[i] = t if recording.needs_grad[i] else t.detach()
        new_states = recording.new_states[: len(states)]
        return [values[i] for i in new_states], [values[i] for i in recording.ys]

    return step
