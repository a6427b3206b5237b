"""The values of a recording as nodes: the inputs of a pass, the results of its calls, its outputs.

A call is translated in one of two ways. If it reads or makes rows, its rule in `RULES` gives its
nodes. Otherwise it depends on captured tensors alone, and is left to PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from ostinato import tree
from ostinato.compiler.capture.recording import Batch, Call, Recording, Ref
from ostinato.compiler.errors import BatchNotFirst, Unsupported
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.elements import gathered
from ostinato.compiler.graph.identities import is_zero
from ostinato.compiler.graph.left_to_torch import fixed, left_to_torch
from ostinato.compiler.graph.node import ONCE, QUOTIENT, ROWS, SUM, Literal, Node
from ostinato.compiler.graph.rules import (
    HALF,
    RULES,
    WHOLE,
    Context,
    Shape,
    Value,
    batch_axis,
    columns,
    name_of,
)

# ---- types


def check_dtypes(r: Recording, dtype: torch.dtype) -> None:
    """Raise Unsupported unless the carry and xs have the step's type, or are integers or bools.

    A float32 element of xs may also be beside a float64 carry if it has no gradient, which would be
    rounded. A captured tensor may have any type that PyTorch converts beside rows.
    """
    shorter = [i for i, d in zip(r.xs, r.d_xs, strict=True) if d is None and not r.needs_grad[i]]
    for i in (*r.states, *r.xs):
        usual = (dtype, torch.bool, *WHOLE, *_halves(dtype))
        if r.dtypes[i] not in (*usual, *_shorter(dtype, i in shorter)):
            raise Unsupported(_other_type("a tensor is", r.dtypes[i], dtype))
    for i in r.captured:
        found = r.dtypes[i]
        if not (found.is_floating_point or found.is_complex or found in (torch.bool, *WHOLE)):
            raise Unsupported(f"a captured tensor is {found}; wanted numbers")


def _halves(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    return HALF if dtype is torch.float32 else ()


def _shorter(dtype: torch.dtype, is_exact: bool) -> tuple[torch.dtype, ...]:
    """The types whose every number the step's type represents, for values that are not rounded."""
    return (torch.float32,) if dtype is torch.float64 and is_exact else ()


def _other_type(what: str, found: torch.dtype, dtype: torch.dtype) -> str:
    if found.is_complex:
        return f"{what} {found}: write complex numbers as pairs of real tensors, (a, b) for a + ib"
    if not found.is_floating_point:
        return f"{what} {found}: of whole numbers the engine computes int64 and int32"
    return (
        f"{what} {found} beside {dtype}; give the carry, xs and the parameters one "
        "floating-point type"
    )


# Calls that return elements of their first argument.
_MOVING = {
    "_reshape_alias", "_unsafe_view", "alias", "clone", "detach", "expand", "flip", "permute",
    "select", "slice", "split", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view",
}  # fmt: skip
_TRUTHS = {"eq", "eq_s", "ge_s", "gt_s", "le", "le_s", "lt", "lt_s", "ne"}


def _is_exact(node: Node) -> bool:
    """Whether float64 gives the float32 result: a choice among numbers that float32 represents."""
    if node.op == "const":
        return float(np.float32(node.s)) == node.s or node.s != node.s
    if node.op in ("select", "select_s", "select_else_s"):
        branches = node.inputs[1:]
        return all(map(_is_exact, branches)) and float(np.float32(node.s)) == node.s
    if node.op in ("mul", "max"):  # and, or of truth values
        return all(n.op in _TRUTHS for n in node.inputs)
    return node.op in _TRUTHS or node.op == "sign"


# ---- values

# Arguments for the place and layout of a tensor, which do not apply to the engine.
_PLACEMENT = {"dtype", "device", "layout", "pin_memory", "memory_format", "non_blocking"}


class Values:
    """The recorded values that are translated so far, by number.

    *Absent* is the gradient of an output that the loss does not use, like autograd's undefined
    tensor. An absent gradient is not a zero, since 0 · inf would be NaN: a call that reads absent
    gradients alone is not computed, and its results are absent. In a call that also reads another
    gradient, an absent one is a zero, as in autograd.
    """

    def __init__(
        self, recording: Recording, dtype: torch.dtype, b: Builder, known: dict[int, Value]
    ):
        self.recording, self.dtype, self.b, self.known = recording, dtype, b, known

    # ---- inputs

    def take_from_outside(self) -> None:
        """Enter captured tensors, and tensors that the step makes from numbers."""
        r = self.recording
        for position, i in enumerate(r.captured):
            self.known[i] = Value(self.b.captured(position, fixed(r.shapes[i])), r.shapes[i])
        for i, tensor in r.constants.items():
            if tensor.is_complex():  # calls read its parts, which are constants, too
                continue
            if tensor.dim() != 0:
                node = self.b.node("literal", (), (Literal(i, tensor),), ONCE, tuple(tensor.shape))
                self.known[i] = Value(node, tuple(tensor.shape))
            else:
                self.known[i] = Value(self.b.const(float(tensor)), ())

    def inputs(
        self,
        name: str,
        numbers: tuple[int, ...],
        used: tuple[bool, ...] | None = None,
        of_sums: bool = False,
    ) -> tuple[Node, ...]:
        """The nodes of rows that are given at every step.

        Args:
            used: whether each one is given; otherwise it is absent. None if all are.
            of_sums: whether a value without a batch is allowed: the gradient of a sum over the
                batch, which is the same for all rows.
        """
        for position, i in enumerate(numbers):
            if used is not None and not used[position]:
                self.set_absent([i])
                continue
            shape = self.recording.shapes[i]
            of_sum = of_sums and batch_axis(shape) is None
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
        """Enter these values as absent gradients."""
        for i in numbers:
            shape = self.recording.shapes[i]
            self.known[i] = Value(self.b.absent(columns(shape)), shape)

    # ---- outputs

    def is_absent(self, i: int) -> bool:
        return self.known[i].node.op == "absent"

    def whole(self, i: int) -> Node:
        """An output as rows of its full width. Raise BatchNotFirst if another axis is first."""
        v = self.known[i]
        if v.power == QUOTIENT:
            return v.node
        by_rows = v.shape[:1] == (Batch(1),) and v.node.kind != SUM
        if v.power is None and not by_rows:
            raise BatchNotFirst(
                f"the step returns {list(v.shape)}; every output needs the batch as its first axis"
            )
        return self.b.widen(v.node, v.width)

    def sum_of(self, i: int | None) -> Node | None:
        """The gradient of a captured tensor; None if it is absent."""
        if i is None or self.is_absent(i):
            return None
        v = self.known[i]
        if v.node.kind == SUM:
            by_python = self.recording.runs_python_backward
            return v.node if by_python else gathered(self.b, v.node)
        if is_zero(v.node):
            return self.b.node("full", (), (0.0, self.dtype), SUM, v.shape)
        raise Unsupported("the gradient of a captured tensor is not a sum over the batch")

    # ---- one call

    def translate(self, call: Call) -> None:
        """Enter the nodes of the results of a call, made from the nodes of its arguments."""
        name, r = name_of(call), self.recording
        read = {i: self._present(self.known[i]) for i in call.refs}
        kinds = {v.node.kind for v in read.values() if not v.constant}  # constants have no kind yet
        makes_rows = any(i is not None and batch_axis(r.shapes[i]) is not None for i in call.outs)
        makes_constant = not kinds and name in RULES and name != "arange"  # zeros, full …
        by_rule = ROWS in kinds or makes_rows or makes_constant
        if by_rule:
            self._check_rule(call, name, kinds)
            outs = self._by_rule(call, name, read)
        elif call.name.startswith("aten."):
            outs = left_to_torch(self.b, r, call, read, SUM if SUM in kinds else ONCE)
        else:
            raise _unknown(call)
        for i, out in zip(call.outs, outs, strict=False):
            if i is not None and out is not None:
                outer = _outer(call, read.values(), r.shapes[i])
                v = out if isinstance(out, Value) else Value(out, r.shapes[i], outer)
                if by_rule:
                    self._check_type(call, r.dtypes[i], v.node)
                self.known[i] = v

    def _present(self, v: Value) -> Value:
        """The value; zeros in place of an absent gradient."""
        return Value(self.b.const(0.0), v.shape) if v.node.op == "absent" else v

    def _by_rule(self, call: Call, name: str, read: dict[int, Value]) -> list[Any]:
        def value(leaf: Any) -> Any:
            return read[leaf.index] if isinstance(leaf, Ref) else leaf

        kwargs = {k: v for k, v in call.kwargs.items() if k not in _PLACEMENT}
        args, kwargs = tree.mapped(value, ([*call.args], kwargs))
        try:
            outs = RULES[name](Context(self.b, self.recording, call), *args, **kwargs)
        except Unsupported:
            raise
        except Exception as error:  # unforeseen arguments; the Python loop can run them
            raise Unsupported(
                f"the engine has no {name} of these arguments ({error})", call.name
            ) from error
        return outs if isinstance(outs, list) else [outs]

    def _check_rule(self, call: Call, name: str, kinds: set[str]) -> None:
        """Raise Unsupported if there is no rule, a tensor is complex, or a sum is read as rows."""
        given = [self.recording.dtypes[i] for i in (*call.refs, *call.outs) if i is not None]
        found = next((dtype for dtype in given if dtype.is_complex), None)
        if found is not None:
            raise Unsupported(_other_type("the step computes in", found, self.dtype), call.name)
        if name not in RULES:
            raise _unknown(call)
        if SUM in kinds:
            raise Unsupported("a sum over the batch flows back into the rows", call.name)

    def _check_type(self, call: Call, found: torch.dtype, node: Node) -> None:
        """Raise Unsupported unless rows have the step's type, or are integers or truth values."""
        if not found.is_floating_point and self._compares_rounded(call):
            raise Unsupported(_other_type("a tensor is", torch.float32, self.dtype), call.name)
        usual = (self.dtype, torch.bool, *WHOLE[:2], *_halves(self.dtype))
        moved = name_of(call) in _MOVING and found in (*WHOLE, *_shorter(self.dtype, True))
        if found not in usual and not moved and not (found is torch.float32 and _is_exact(node)):
            raise Unsupported(_other_type("the step computes in", found, self.dtype), call.name)

    def _compares_rounded(self, call: Call) -> bool:
        """Whether PyTorch compares in float32 and the engine in float64."""
        r = self.recording
        if self.dtype is not torch.float64:
            return False
        found = [(r.dtypes[i], len(r.shapes[i]) > 0) for i in call.refs]
        if (torch.float64, True) in found or all(d is not torch.float32 for d, _ in found):
            return False
        numbers = [leaf for leaf in call.args if isinstance(leaf, float)]
        is_short = all(float(np.float32(n)) == n for n in numbers if n == n)
        return not is_short or any(d not in (torch.float32, torch.bool) for d, _ in found)


def _outer(call: Call, read: Iterable[Value], shape: Shape) -> int:
    """`Value.outer` of a result, the same as in the arguments."""
    at = batch_axis(shape)
    if at is None or shape[at] == Batch(1):
        return 1
    outer = {v.outer for v in read if shape[at] in v.shape and not v.constant}
    if len(outer) > 1:
        raise Unsupported("combines the batch with another axis", call.name)
    return outer.pop() if outer else 1


def _unknown(call: Call) -> Unsupported:
    return Unsupported(f"the engine has no {call.name.removesuffix('.default')}", call.name)
