"""From recorded ATen calls to the step graph.

In: a `Recording`, which is the ATen calls of one step and of its gradients, on numbered values.
Out: a `StepGraph`, which is the same step as nodes: `Forward`, and a `Backward` for each choice of
outputs from which gradients come.

A call goes one of two ways. If it has rows, or makes them, its rule in `RULES` says which nodes it
means. If it has none, it depends on captured tensors alone and is left to PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

# Imported for the rules that they enter into RULES.
import ostinato.compiler.graph.aten_elementwise
import ostinato.compiler.graph.aten_reductions
import ostinato.compiler.graph.aten_shapes  # noqa: F401
from ostinato.compiler.capture.recording import Batch, Call, Recording, Ref, refs_in
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.left_to_torch import fixed, is_linear, left_to_torch
from ostinato.compiler.graph.node import ONCE, ROWS, SUM, Node
from ostinato.compiler.graph.rules import RULES, Context, Value, columns, functional


@dataclass(frozen=True)
class Forward:
    """One step: what it computes, and from what."""

    states: tuple[Node, ...]
    xs: tuple[Node, ...]
    new_states: tuple[Node, ...]
    ys: tuple[Node, ...]


@dataclass(frozen=True)
class Backward:
    """The gradients of one step, from those of its new carry and its outputs."""

    d_new_states: tuple[Node, ...]  # absent where none is given
    d_ys: tuple[Node, ...]
    d_captured: tuple[Node | None, ...]  # sums; None where no gradient flows
    d_states: tuple[Node, ...]  # absent where no gradient flows
    d_xs: tuple[Node | None, ...]
    absent: frozenset[int]  # recorded values that are


class StepGraph:
    """The graph of a recorded step. Its backward part depends on where gradients come from.

    Args:
        dtype: the floating-point type that every value must have (or bool).

    Raises:
        Unsupported: the engine cannot play the step; so does `backward`.
    """

    def __init__(self, recording: Recording, dtype: Any):
        _check_dtypes(recording, dtype)
        self.recording = r = recording
        self.dtype = dtype
        self._values = values = _Values(recording, Builder(), {})
        values.take_from_outside()
        states = values.inputs("state", r.states)
        xs = values.inputs("x", r.xs)
        for call in r.calls[: r.n_forward]:
            values.translate(call)
        new_states, ys = (tuple(map(values.whole, given)) for given in (r.new_states, r.ys))
        self.forward = Forward(states, xs, new_states, ys)

    def backward(self, y_used: tuple[bool, ...], leaves_used: tuple[bool, ...]) -> Backward:
        """The gradients, where those of the other outputs and leaves of the carry are absent."""
        r, there = self.recording, self._values
        values = _Values(r, there.b, dict(there.known))
        d_new_states = values.inputs("d_state", r.d_new_states, leaves_used)
        d_ys = values.inputs("d_y", r.d_ys, y_used)
        gradients = {*r.d_new_states, *r.d_ys}  # and what is computed of them
        for call in r.calls[r.n_forward :]:
            read = gradients.intersection(refs_in(call))
            given = [i for i in call.outs if i is not None]
            if read and all(values.is_absent(i) for i in read):  # autograd would not get here
                values.set_absent(given)
            else:
                values.translate(call)
            if read:
                gradients.update(given)
        d_captured = tuple([values.sum_of(i) for i in r.d_captured])
        d_states = tuple(
            values.b.absent(state.width) if i is None else values.whole(i)
            for state, i in zip(self.forward.states, r.d_states, strict=True)
        )
        d_xs = [None if i is None or values.is_absent(i) else values.whole(i) for i in r.d_xs]
        absent = frozenset(filter(values.is_absent, values.known))
        return Backward(d_new_states, d_ys, d_captured, d_states, tuple(d_xs), absent)


def _check_dtypes(r: Recording, dtype: torch.dtype) -> None:
    """Every value is of the step's type, or bool.

    A sum of truth values may be a whole number: it is small enough to be exact in the step's type.
    """
    usual = (dtype, torch.bool)
    for call in r.calls:
        counts = call.name.startswith("aten.sum.") and r.dtypes[call.args[0].index] is torch.bool
        for i in call.outs:
            if i is not None and r.dtypes[i] not in usual and not counts:
                raise Unsupported(f"the step computes in {r.dtypes[i]} beside {dtype}", call.name)
    for i in (*r.captured, *r.states, *r.xs):
        if r.dtypes[i] not in usual:
            raise Unsupported(
                f"a tensor of {r.dtypes[i]} beside {dtype}; give the carry, xs and the parameters "
                "one floating-point type"
            )


# Arguments of where and how a tensor lies: the engine has but one way.
_PLACEMENT = {"dtype", "device", "layout", "pin_memory", "memory_format", "non_blocking"}


class _Values:
    """The recorded values that are translated so far, by number."""

    def __init__(self, recording: Recording, b: Builder, known: dict[int, Value]):
        self.recording = recording
        self.b = b
        self.known = known

    # ---- what goes in

    def take_from_outside(self) -> None:
        """Captured tensors, and numbers that the step makes tensors of."""
        r = self.recording
        for position, i in enumerate(r.captured):
            self.known[i] = Value(self.b.captured(position, fixed(r.shapes[i])), r.shapes[i])
        for i, tensor in r.constants.items():
            if tensor.dim() != 0:
                raise Unsupported(
                    "the step makes a tensor from Python values other than one number"
                )
            self.known[i] = Value(self.b.const(float(tensor)), ())

    def inputs(
        self, name: str, numbers: tuple[int, ...], used: tuple[bool, ...] | None = None
    ) -> tuple[Node, ...]:
        """Rows that are given at every step; absent where they are not `used`."""
        for position, i in enumerate(numbers):
            if used is not None and not used[position]:
                self.set_absent([i])
                continue
            shape = self.recording.shapes[i]
            if not shape or shape[0] != Batch(1) or any(isinstance(n, Batch) for n in shape[1:]):
                raise Unsupported(
                    f"{name} {position} has the shape {list(shape)}; the batch must be its first "
                    "axis"
                )
            node = self.b.node(name, (), (position,), ROWS, (columns(shape),))
            self.known[i] = Value(node, shape)
        return tuple([self.known[i].node for i in numbers])

    def set_absent(self, numbers: Iterable[int]) -> None:
        for i in numbers:
            shape = self.recording.shapes[i]
            self.known[i] = Value(self.b.absent(columns(shape)), shape)

    # ---- what comes out

    def is_absent(self, i: int) -> bool:
        return self.known[i].node.op == "absent"

    def whole(self, i: int) -> Node:
        """An output: rows of their full width."""
        v = self.known[i]
        if not v.shape or v.shape[0] != Batch(1) or v.transposed or v.node.kind == SUM:
            raise Unsupported(
                f"the step returns {list(v.shape)}; every output needs the batch as its first axis"
            )
        return self.b.widen(v.node, v.width)

    def sum_of(self, i: int | None) -> Node | None:
        """The gradient of a captured tensor."""
        if i is None or self.is_absent(i):
            return None
        v = self.known[i]
        if v.node.kind == SUM:
            return v.node
        if v.node.op == "const" and v.node.s == 0:
            return self.b.node("zeros", (), v.shape, SUM, v.shape)
        raise Unsupported("the gradient of a captured tensor is not a sum over the batch")

    # ---- one call

    def translate(self, call: Call) -> None:
        """Find the nodes of what a call gives, from those of what it reads."""
        name = functional(call.name.removeprefix("aten.").rsplit(".", 1)[0])
        shapes = [None if i is None else self.recording.shapes[i] for i in call.outs]
        read = [self.known[i].node for i in refs_in(call)]
        kinds = {n.kind for n in read if n.op not in ("const", "absent")}  # these have none yet
        makes_rows = any(isinstance(n, Batch) for shape in shapes for n in shape or ())
        makes_constant = not kinds and name in RULES  # zeros, full …
        by_rule = ROWS in kinds or makes_rows or makes_constant
        known = name in RULES if by_rule else call.name.startswith("aten.")
        if not known:
            raise Unsupported(f"the engine has no {call.name.removesuffix('.default')}", call.name)
        if by_rule:
            outs = self._by_rule(call, name, shapes, kinds)
        else:
            outs = self._left_to_torch(call, name, shapes, SUM if SUM in kinds else ONCE)
        for i, shape, out in zip(call.outs, shapes, outs, strict=False):
            if i is not None and out is not None:
                self.known[i] = out if isinstance(out, Value) else Value(out, shape or ())

    def _by_rule(self, call: Call, name: str, shapes: list[Any], kinds: set[str]) -> list[Any]:
        if SUM in kinds:
            raise Unsupported("a sum over the batch flows back into the rows", call.name)
        dtypes, first = self.recording.dtypes, call.outs[0]
        truths = [isinstance(a, Ref) and dtypes[a.index] is torch.bool for a in call.args]
        gives_truths = first is not None and dtypes[first] is torch.bool
        context = Context(self.b, shapes, call.name, tuple(truths), gives_truths)
        args = [self._value(a) for a in call.args]
        kwargs = {k: self._value(v) for k, v in call.kwargs.items() if k not in _PLACEMENT}
        try:
            outs = RULES[name](context, *args, **kwargs)
        except Unsupported:
            raise
        except Exception as error:  # arguments that nobody thought of: the loop knows them
            raise Unsupported(
                f"the engine has no {name} of such arguments ({error})", call.name
            ) from error
        return outs if isinstance(outs, list) else [outs]

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, Ref):
            return self.known[argument.index]
        if isinstance(argument, (list, tuple)):
            return [self._value(a) for a in argument]
        return argument

    def _left_to_torch(self, call: Call, name: str, shapes: list[Any], kind: str) -> list[Any]:
        r = self.recording
        if r.runs_python_backward and not is_linear(name, [self.known[i] for i in refs_in(call)]):
            raise Unsupported(
                "a custom backward pass, or a hook, is not linear in a gradient that is summed "
                "over the steps before",
                call.name,
            )
        return left_to_torch(self.b, call, self.known, kind, shapes, r.dtypes)
