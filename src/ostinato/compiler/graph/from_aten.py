"""From recorded ATen calls to the step graph.

`values.py` says what a value is, `aten_*.py` what each call means.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch

from ostinato.compiler.capture.recording import Batch, Call, Recording, Ref, refs_in
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph import aten_elementwise, aten_reductions, aten_shapes
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.node import ONCE, ROWS, SUM, Node, Slot
from ostinato.compiler.graph.rules import RULES, Context, Shape, Value, fixed

__all__ = ["StepGraph", "aten_elementwise", "aten_reductions", "aten_shapes"]


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


# Calls that are linear in the first tensor they are given, the others left as they are; and in all.
_LINEAR = {
    "mul", "div", "mm", "matmul", "bmm", "mv", "dot", "view", "_unsafe_view", "reshape", "t",
    "transpose", "permute", "expand", "sum", "mean", "slice", "select", "narrow", "split", "unbind",
    "slice_backward", "select_backward", "detach", "alias", "clone", "neg", "squeeze", "unsqueeze",
    "masked_fill", "cumsum", "flip", "diagonal", "outer", "triu", "tril", "index_select",
}  # fmt: skip
_LINEAR_IN_ALL = {"add", "sub", "cat", "stack"}


def _is_linear(name: str, read: list[Value]) -> bool:
    """Whether a call on sums gives the sum of what it gives of each: autograd's own always do."""
    name = name.rstrip("_")  # in place or not
    sums = [v.node.kind == SUM for v in read]
    if not any(sums) or name in _LINEAR_IN_ALL or (name == "where" and not sums[0]):
        return True
    return sum(sums) == 1 and (name in _LINEAR or ("backward" in name and sums[0]))


class StepGraph:
    """The graph of a recorded step. Its backward part depends on where gradients come from.

    Args:
        dtype: the floating-point type that every value must have (or bool).
    """

    def __init__(self, recording: Recording, dtype: Any):
        self.recording = recording
        self.dtype = dtype
        self.b = Builder()
        self.values: dict[int, Value] = {}
        self.forward = self._forward()

    def _forward(self) -> Forward:
        r = self.recording
        self._check_dtypes()
        for position, i in enumerate(r.captured):
            self.values[i] = Value(self.b.captured(position, fixed(r.shapes[i])), r.shapes[i])
        states = tuple(self._input("state", p, i) for p, i in enumerate(r.states))
        xs = tuple(self._input("x", p, i) for p, i in enumerate(r.xs))
        for i, tensor in r.constants.items():
            if tensor.dim() != 0:
                raise Unsupported(
                    "the step makes a tensor from Python values other than one number"
                )
            self.values[i] = Value(self.b.const(float(tensor)), ())
        for call in r.calls[: r.n_forward]:
            self._translate(call)
        new_states = tuple(self._whole(i) for i in r.new_states)
        return Forward(states, xs, new_states, tuple(self._whole(i) for i in r.ys))

    def backward(self, y_used: tuple[bool, ...], leaves_used: tuple[bool, ...]) -> Backward:
        """The gradients, where those of the other outputs and leaves of the carry are absent."""
        graph = copy.copy(self)
        graph.values = dict(self.values)
        return graph._backward(y_used, leaves_used)

    def _backward(self, y_used: tuple[bool, ...], leaves_used: tuple[bool, ...]) -> Backward:
        r = self.recording
        d_new, d_ys = (
            tuple(
                self._input(name, p, i) if used else self._absent(i)
                for p, (i, used) in enumerate(zip(numbers, uses, strict=True))
            )
            for name, numbers, uses in (
                ("d_state", r.d_new_states, leaves_used),
                ("d_y", r.d_ys, y_used),
            )
        )
        gradients = {*r.d_new_states, *r.d_ys}  # and what is computed of them
        for call in r.calls[r.n_forward :]:
            read = gradients.intersection(refs_in(call))
            if read and all(self.values[i].node.op == "absent" for i in read):
                for i in call.outs:  # autograd would not get here
                    if i is not None:
                        self._absent(i)
            else:
                self._translate(call)
            if read:
                gradients.update(i for i in call.outs if i is not None)
        return Backward(
            d_new_states=d_new,
            d_ys=d_ys,
            d_captured=tuple(self._sum(i) for i in r.d_captured),
            d_states=tuple(
                self.b.absent(state.width) if i is None else self._whole(i)
                for state, i in zip(self.forward.states, r.d_states, strict=True)
            ),
            d_xs=tuple(self._flowing(i) for i in r.d_xs),
            absent=frozenset(i for i, v in self.values.items() if v.node.op == "absent"),
        )

    def _check_dtypes(self) -> None:
        for call in self.recording.calls:
            for i in call.outs:
                if i is None or self._is_ours(self.recording.dtypes[i]) or self._counts(call):
                    continue
                raise Unsupported(
                    f"the step computes in {self.recording.dtypes[i]} beside {self.dtype}",
                    call.name,
                )
        for i in (*self.recording.captured, *self.recording.states, *self.recording.xs):
            if not self._is_ours(self.recording.dtypes[i]):
                raise Unsupported(
                    f"a tensor of {self.recording.dtypes[i]} beside {self.dtype}; give the carry, "
                    "xs and the parameters one floating-point type"
                )

    def _is_ours(self, dtype: torch.dtype) -> bool:
        return dtype in (self.dtype, torch.bool)

    def _counts(self, call: Call) -> bool:
        """A sum of truth values: a whole number, but small enough to be one of our type."""
        return (
            call.name.startswith("aten.sum.")
            and self.recording.dtypes[call.args[0].index] is torch.bool
        )

    def _input(self, name: str, position: int, i: int) -> Node:
        shape: Shape = self.recording.shapes[i]
        if not shape or shape[0] != Batch(1) or any(isinstance(n, Batch) for n in shape[1:]):
            raise Unsupported(
                f"{name} {position} has the shape {list(shape)}; the batch must be its first axis"
            )
        node = self.b.node(name, (), (position,), ROWS, (math.prod(shape[1:]),))
        self.values[i] = Value(node, shape)
        return node

    def _absent(self, i: int) -> Node:
        shape: Shape = self.recording.shapes[i]
        node = self.b.absent(math.prod(n for n in shape if isinstance(n, int)))
        self.values[i] = Value(node, shape)
        return node

    def _whole(self, i: int) -> Node:
        """A value as rows of its full width: an output."""
        v = self.values[i]
        if not v.shape or v.shape[0] != Batch(1) or v.transposed or v.node.kind == SUM:
            raise Unsupported(
                f"the step returns {list(v.shape)}; every output needs the batch as its first axis"
            )
        return self.b.widen(v.node, v.width)

    def _flowing(self, i: int | None) -> Node | None:
        return None if i is None or self.values[i].node.op == "absent" else self._whole(i)

    def _sum(self, i: int | None) -> Node | None:
        if i is None or self.values[i].node.op == "absent":
            return None
        v = self.values[i]
        if v.node.kind != SUM:
            if v.node.op == "const" and v.node.s == 0:
                return self.b.node("zeros", (), v.shape, SUM, v.shape)
            raise Unsupported("the gradient of a captured tensor is not a sum over the batch")
        return v.node

    # ---- one call

    def _translate(self, call: Any) -> None:
        name = call.name.removeprefix("aten.").rsplit(".", 1)[0]
        read: list[Value] = []

        def get(leaf: Any) -> Any:
            if isinstance(leaf, Ref):
                read.append(self.values[leaf.index])
                return self.values[leaf.index]
            if isinstance(leaf, (list, tuple)):
                return type(leaf)(get(x) for x in leaf)
            return leaf

        args = [get(a) for a in call.args]
        kwargs = {k: get(v) for k, v in call.kwargs.items()}
        shapes = [None if i is None else self.recording.shapes[i] for i in call.outs]
        kinds = {v.node.kind for v in read if v.node.op not in ("const", "absent")}
        batched = any(isinstance(n, Batch) for s in shapes if s is not None for n in s)
        rule = RULES.get(name)
        if ROWS not in kinds and not batched and (kinds or rule is None):
            if self.recording.runs_python_backward and not _is_linear(name, read):
                raise Unsupported(
                    "a custom backward pass, or a hook, is not linear in a gradient that is summed "
                    "over the steps before",
                    call.name,
                )
            outs: list[Any] = self._left_to_torch(call, read, shapes, SUM if SUM in kinds else ONCE)
        elif rule is None:
            raise Unsupported(f"the engine has no {call.name.removesuffix('.default')}", call.name)
        else:
            if SUM in kinds and name not in ("add", "mul"):
                raise Unsupported("a sum over the batch flows back into the rows", call.name)
            kwargs = _without_placement(kwargs)
            dtypes = self.recording.dtypes
            of_args = [dtypes[a.index] if isinstance(a, Ref) else None for a in call.args]
            truths = tuple([dtype is torch.bool for dtype in of_args])
            gives_truths = call.outs[0] is not None and dtypes[call.outs[0]] is torch.bool
            context = Context(self.b, shapes, call.name, truths, gives_truths)
            try:
                call_outs = rule(context, *args, **kwargs)
            except Unsupported:
                raise
            except Exception as error:  # arguments that nobody thought of: the loop knows them
                raise Unsupported(
                    f"the engine has no {name} of such arguments ({error})", call.name
                ) from error
            outs = call_outs if isinstance(call_outs, list) else [call_outs]
        for i, shape, out in zip(call.outs, shapes, outs, strict=False):
            if i is None or out is None:
                continue
            self.values[i] = out if isinstance(out, Value) else Value(out, shape)  # type: ignore[arg-type]

    def _left_to_torch(
        self, call: Any, read: list[Value], shapes: list[Any], kind: str
    ) -> list[Node]:
        if kind == SUM and call.name == "aten.add.Tensor":
            there = [v.node for v in read if v.node.op != "absent"]
            if len(there) == 1 and len(read) == 2 and not call.kwargs:
                return there
            both = (
                self.b.add_sums(read[0].node, read[1].node)
                if len(read) == 2 and not call.kwargs
                else None
            )
            if both is not None:
                return [both]
        only = read[0].node if len(read) == 1 else None
        if only is not None and call.name in ("aten.detach.default", "aten.alias.default"):
            return [only]
        if only is not None and call.name == "aten.t.default":
            if only.op == "aten.t.default":
                return [only.inputs[0]]
            if only.op == "outer":
                return [self.b.transposed(only)]
        if call.name in ("aten.view.default", "aten._unsafe_view.default") and kind == SUM:
            return [self.b.view(read[0].node, fixed(shapes[0]), kind)]
        nodes: list[Node] = []

        def slot(leaf: Any) -> Any:
            if isinstance(leaf, Ref):
                value = self.values[leaf.index]
                node = value.node
                if node.kind == ROWS:  # a constant
                    truth = self.recording.dtypes[leaf.index] is torch.bool
                    number = node.s if node.op == "const" else 0.0
                    node = self.b.node("full", (), (number, truth), kind, value.shape)
                nodes.append(node)
                return Slot(len(nodes) - 1)
            if isinstance(leaf, (list, tuple)):
                return tuple(slot(x) for x in leaf)
            return leaf

        args = slot(tuple(call.args)), tuple((k, slot(v)) for k, v in call.kwargs.items())
        # Not in place: another may need what was there, too.
        _, base, overload = call.name.split(".")
        name = call.name if base.endswith("__") else f"aten.{base.removesuffix('_')}.{overload}"
        return [
            self.b.call(name, tuple(nodes), args, out, kind, tuple(shape or ()))
            for out, shape in enumerate(shapes)
        ]


def _without_placement(kwargs: dict[str, Any]) -> dict[str, Any]:
    placement = ("dtype", "device", "layout", "pin_memory", "memory_format", "non_blocking")
    return {k: v for k, v in kwargs.items() if k not in placement}
