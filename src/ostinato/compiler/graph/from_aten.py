"""From recorded ATen calls to the step graph.

In: a `Recording`, which is the ATen calls of one step and of its gradients, on numbered values.
Out: a `DifferentiableGraph`, which is the same step as nodes: `Forward`, and a `Backward` for each
choice of outputs from which gradients come.

A call goes one of two ways. If it has rows, or makes them, its rule in `RULES` says which nodes it
means. If it has none, it depends on captured tensors alone and is left to PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# Imported for the rules that they enter into RULES.
import ostinato.compiler.graph.aten_convolutions
import ostinato.compiler.graph.aten_elementwise
import ostinato.compiler.graph.aten_indices
import ostinato.compiler.graph.aten_products
import ostinato.compiler.graph.aten_reductions
import ostinato.compiler.graph.aten_shapes  # noqa: F401
from ostinato.compiler.capture.recording import Batch, Call, Recording, Ref, refs_in
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph.aten_reductions import axes_of, reduced
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.left_to_torch import fixed, is_linear, left_to_torch
from ostinato.compiler.graph.node import ONCE, QUOTIENT, ROWS, SUM, Literal, Node
from ostinato.compiler.graph.rules import (
    RULES,
    Context,
    Shape,
    Value,
    batch_axis,
    columns,
    functional,
)


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


class DifferentiableGraph:
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
        self._values = values = _Values(recording, Builder(), {}, dtype)
        values.take_from_outside()
        states = values.inputs("state", r.states)
        xs = values.inputs("x", r.xs)
        for call in r.calls[: r.n_forward]:
            values.translate(call)
        totals = values.totals or {}
        self.total_ys = tuple([totals.get(i) for i in r.ys])  # None: an output with the batch
        if any(i in totals for i in r.new_states):
            raise Unsupported("the carry becomes a sum over the batch")
        new_states, ys = (tuple(map(values.whole, given)) for given in (r.new_states, r.ys))
        self.forward = Forward(states, xs, new_states, ys)

    def backward(self, y_used: tuple[bool, ...], leaves_used: tuple[bool, ...]) -> Backward:
        """The gradients, where those of the other outputs and leaves of the carry are absent."""
        r, there = self.recording, self._values
        values = _Values(r, there.b, dict(there.known), self.dtype)
        values.totals, values.below, values.of_forward = None, there.below, set(there.totals or ())
        values.divides = any(total is not None for total in self.total_ys)
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


# Whole numbers are computed in the step's type, in which they are exact up to 2²⁴ or 2⁵³.
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


# Half precision, as under torch.autocast: computed in float32, and rounded where it is returned.
HALF = (torch.bfloat16, torch.float16)


def _check_dtypes(r: Recording, dtype: torch.dtype) -> None:
    """The carry and xs are of the step's type, whole numbers or truth values.

    A captured tensor may be of any type that PyTorch converts when it meets rows.
    """
    for i in (*r.states, *r.xs):
        if r.dtypes[i] not in (dtype, torch.bool, *_WHOLE, *_halves(dtype)):
            raise Unsupported(_other_type("a tensor is", r.dtypes[i], dtype))
    for i in r.captured:
        found = r.dtypes[i]
        if not (found.is_floating_point or found.is_complex or found in (torch.bool, *_WHOLE)):
            raise Unsupported(f"a captured tensor is {found}; wanted numbers")


def _halves(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    return HALF if dtype is torch.float32 else ()


def _other_type(what: str, found: torch.dtype, dtype: torch.dtype) -> str:
    if found.is_complex:
        return f"{what} {found}: write complex numbers as pairs of real tensors, (a, b) for a + ib"
    if not found.is_floating_point:
        return f"{what} {found}: of whole numbers the engine computes int64 and int32"
    return (
        f"{what} {found} beside {dtype}; give the carry, xs and the parameters one "
        "floating-point type"
    )


_TRUTHS = {"eq", "eq_s", "ge_s", "gt_s", "le", "le_s", "lt", "lt_s", "ne"}


def _is_exact(node: Node) -> bool:
    """Whether float64 gives what float32 would: a choice among numbers that float32 has."""
    if node.op == "const":
        return float(np.float32(node.s)) == node.s or node.s != node.s
    if node.op in ("select", "select_s", "select_else_s"):
        branches = node.inputs[1:]
        return all(map(_is_exact, branches)) and float(np.float32(node.s)) == node.s
    if node.op in ("mul", "max"):  # of truth values: both, or one of them
        return all(n.op in _TRUTHS for n in node.inputs)
    return node.op in _TRUTHS or node.op == "sign"


_LINEAR_IN_TOTALS = {
    "add", "alias", "clone", "detach", "div", "mul", "neg", "squeeze", "sub", "unsqueeze", "view",
}  # fmt: skip
# Arguments of where and how a tensor lies: the engine has but one way.
_PLACEMENT = {"dtype", "device", "layout", "pin_memory", "memory_format", "non_blocking"}


class _Values:
    """The recorded values that are translated so far, by number."""

    def __init__(
        self, recording: Recording, b: Builder, known: dict[int, Value], dtype: torch.dtype
    ):
        self.recording, self.dtype = recording, dtype
        self.b = b
        self.known = known
        self.totals: dict[int, int] | None = {}  # of a forward pass: value → 0 for a sum, −1 for a
        # mean over the batch. The node has what each row adds to it
        self.below: dict[int, int] = {}  # a quotient of two sums → its divisor
        self.of_forward: set[int] = set()  # totals that a backward pass must not read as rows
        self.divides = False  # a backward pass of means over the batch, which divides by B

    # ---- what goes in

    def take_from_outside(self) -> None:
        """Captured tensors, and tensors that the step makes of numbers."""
        r = self.recording
        for position, i in enumerate(r.captured):
            self.known[i] = Value(self.b.captured(position, fixed(r.shapes[i])), r.shapes[i])
        for i, tensor in r.constants.items():
            if tensor.is_complex():  # its parts, which are constants too, are what calls read
                continue
            if tensor.dim() != 0:
                node = self.b.node("literal", (), (Literal(i, tensor),), ONCE, tuple(tensor.shape))
                self.known[i] = Value(node, tuple(tensor.shape))
            else:
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
            # The gradient of a sum over the batch is the same for all rows.
            of_sum = name == "d_y" and self.divides and batch_axis(shape) is None
            by_rows = shape[:1] == (Batch(1),) and batch_axis(shape[1:]) is None
            if not (of_sum or by_rows):
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
        if self.totals is not None and i in self.totals:
            above = self.b.widen(v.node, v.width)
            if i not in self.below:
                return above
            return self.b.concat([above, self.b.widen(self.known[self.below[i]].node, 1)])
        if not v.shape or v.shape[0] != Batch(1) or v.node.kind == SUM:
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
        call = self._without_batch_size(call)
        if self.totals is not None and self._is_total(call):
            return
        if self.totals is None and self._is_by_total(call):
            return
        self._translate(call)

    def _without_batch_size(self, call: Call) -> Call:
        """A call that divides by the batch size, as one that leaves it to whoever adds the rows."""
        if "div" not in call.name or not any(isinstance(x, Batch) for x in call.args):
            return call
        total = self.totals is not None and call.args[0].index in self.totals
        if not (self.divides or total) or not isinstance(call.args[1], Batch):
            raise Unsupported("the step computes with the batch size", call.name)
        if self.totals is not None:
            self.totals[call.outs[0]] = self.totals[call.args[0].index] - 1  # type: ignore[index]
        return Call(call.name, (call.args[0], float(call.args[1].times)), call.kwargs, call.outs)

    def _is_by_total(self, call: Call) -> bool:
        """A gradient by the divisor of a quotient, which is given divided."""
        read = self.of_forward.intersection(refs_in(call))
        if not read:
            return False
        by = call.args[1] if "div" in call.name else None
        if not (isinstance(by, Ref) and read == {by.index} <= set(self.below.values())):
            raise Unsupported("a gradient is computed with a sum over the batch", call.name)
        self.known[call.outs[0]] = self.known[call.args[0].index]  # type: ignore[index]
        return True

    def _is_quotient(self, call: Call) -> bool:
        """Translate a sum over the batch by another, each one number."""
        assert self.totals is not None
        out = call.outs[0]
        if "div" not in call.name or len(call.args) != 2 or call.kwargs or out is None:
            return False
        above, below = call.args
        if not (isinstance(above, Ref) and isinstance(below, Ref)):
            return False
        are_sums = self.totals.get(above.index) == self.totals.get(below.index) == 0
        if not are_sums or self.recording.shapes[out] != ():
            return False
        self.known[out] = self.known[above.index]
        self.totals[out], self.below[out] = QUOTIENT, below.index
        return True

    def _is_total(self, call: Call) -> bool:
        """Translate a sum or mean over the batch, or a linear function of such."""
        assert self.totals is not None
        name = functional(call.name.removeprefix("aten.").rsplit(".", 1)[0])
        read, (out, *_) = refs_in(call), call.outs
        totals = {self.totals[i] for i in read if i in self.totals}
        if self._is_quotient(call):
            return True
        if totals:
            if QUOTIENT in totals:
                raise Unsupported(
                    "the step computes with a mean over the rows that are not ignored: return it "
                    "as it is, or take reduction='none' and the mean of that",
                    call.name,
                )
            others = [self.known[i].node.op for i in read if i not in self.totals]
            linear = name in _LINEAR_IN_TOTALS and set(others) <= {"const"} and len(totals) == 1
            if name in ("mul", "div"):  # of one total by a constant
                are_totals = [isinstance(x, Ref) and x.index in self.totals for x in call.args[:2]]
                linear = linear and (
                    are_totals == [True, False] or (name == "mul" and are_totals == [False, True])
                )
            affine = name not in ("add", "sub") or -1 in totals or (len(read) == 2 and not others)
            if not (linear and affine):
                raise Unsupported("the step computes with a sum over the batch", call.name)
            self._translate(call)
            self.totals.setdefault(out, totals.pop())  # type: ignore[arg-type]
            return True
        if name not in ("sum", "mean") or not self.known[read[0]].rows:
            return False
        a = self.known[read[0]]
        axes = axes_of(a, call.args[1] if len(call.args) > 1 else None)
        batch = batch_axis(a.shape)
        if batch is None or batch not in axes or a.shape[batch] != Batch(1):
            return False
        c = Context(self.b, [self.recording.shapes[out]], call.name, (False,), False)  # type: ignore[index]
        node = reduced(c, name, c.as_rows(a), a.shape, [i for i in axes if i != batch])
        self.known[out] = Value(node, self.recording.shapes[out])  # type: ignore[index]
        self.totals[out] = -1 if name == "mean" else 0  # type: ignore[index]
        return True

    def _translate(self, call: Call) -> None:
        name = functional(call.name.removeprefix("aten.").rsplit(".", 1)[0])
        shapes = [None if i is None else self.recording.shapes[i] for i in call.outs]
        read = [self.known[i].node for i in refs_in(call)]
        kinds = {n.kind for n in read if n.op not in ("const", "absent")}  # these have none yet
        makes_rows = any(isinstance(n, Batch) for shape in shapes for n in shape or ())
        makes_constant = not kinds and name in RULES and name != "arange"  # zeros, full …
        by_rule = ROWS in kinds or makes_rows or makes_constant
        known = name in RULES if by_rule else call.name.startswith("aten.")
        given = [self.recording.dtypes[i] for i in (*refs_in(call), *call.outs) if i is not None]
        if by_rule and any(dtype.is_complex for dtype in given):
            found = next(dtype for dtype in given if dtype.is_complex)
            raise Unsupported(_other_type("the step computes in", found, self.dtype), call.name)
        if not known:
            raise Unsupported(f"the engine has no {call.name.removesuffix('.default')}", call.name)
        if by_rule:
            outs = self._by_rule(call, name, shapes, kinds)
        else:
            outs = self._left_to_torch(call, name, shapes, SUM if SUM in kinds else ONCE)
        for i, shape, out in zip(call.outs, shapes, outs, strict=False):
            if i is not None and out is not None:
                outer = self._outer(call, shape or ())
                self.known[i] = out if isinstance(out, Value) else Value(out, shape or (), outer)

    def _outer(self, call: Call, shape: Shape) -> int:
        """Where the batch lies in an axis that it shares with others: as in the arguments."""
        at = batch_axis(shape)
        if at is None or shape[at] == Batch(1):
            return 1
        read = [self.known[i] for i in refs_in(call)]
        outer = {v.outer for v in read if shape[at] in v.shape and not v.anywhere}
        if len(outer) > 1:
            raise Unsupported("combines the batch with another axis", call.name)
        return outer.pop() if outer else 1

    def _by_rule(self, call: Call, name: str, shapes: list[Any], kinds: set[str]) -> list[Any]:
        if SUM in kinds:
            raise Unsupported("a sum over the batch flows back into the rows", call.name)
        dtypes, first = self.recording.dtypes, call.outs[0]
        of_args = [dtypes[a.index] if isinstance(a, Ref) else None for a in call.args]
        gives = None if first is None else dtypes[first]
        context = Context(
            self.b, shapes, call.name,
            tuple([d is torch.bool for d in of_args]), gives is torch.bool,
            tuple([d in _WHOLE for d in of_args]), gives in _WHOLE,
        )  # fmt: skip
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
        outs = outs if isinstance(outs, list) else [outs]
        for i, out in zip(call.outs, outs, strict=False):
            if i is not None and out is not None:
                self._check_type(call, dtypes[i], out.node if isinstance(out, Value) else out)
        return outs

    def _check_type(self, call: Call, found: torch.dtype, node: Node) -> None:
        """Rows are of the step's type, whole numbers or truth values."""
        usual = (self.dtype, torch.bool, *_WHOLE[:2], *_halves(self.dtype))
        if found not in usual and not (found is torch.float32 and _is_exact(node)):
            raise Unsupported(_other_type("the step computes in", found, self.dtype), call.name)

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
