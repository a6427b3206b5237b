"""Whole numbers of a step, which the engine computes in floats: whether they stay exact.

A float32 holds every whole number up to M = 2²⁴, a float64 up to 2⁵³. Rounding is monotone: a
result beyond M is at least M after rounding, too. While a step is recorded, each call that
gives whole numbers gets a bound. Comparisons, indices, remainders by a number, and sums of a few
of these have a small one. Where no bound below M is known, the size |n| of the result is recorded
as well, and the largest size so far is a further leaf of the carry. If that leaf reaches M, some
number of the run may be inexact, and the call runs in the Python loop.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ostinato import tree
from ostinato.compiler.capture.recording import Call, Ref
from ostinato.compiler.errors import Unsupported
from ostinato.eager import is_integer

SMALL = 1 << 24  # exact in float32, and in float64
_SUMS = {"add", "rsub", "sub"}
_ADDED_UP = {"bmm", "dot", "mm", "mv", "sum"}  # partial sums may be larger than the sum
# The result is no larger than the first operand.
_NO_LARGER = {"abs", "ceil", "div", "floor", "fmod", "neg", "round", "sgn", "sign", "trunc"}
# Calls that choose among numbers, some of which may be arguments.
_CHOOSING = {
    "clamp",
    "clamp_max",
    "clamp_min",
    "constant_pad_nd",
    "fill",
    "index_put",
    "masked_fill",
    "maximum",
    "minimum",
    "scatter",
    "where",
}
# Calls that move numbers, or give their places.
_MOVING = {
    "_reshape_alias", "_to_copy", "_unsafe_view", "alias", "amax", "amin", "argmax", "argmin",
    "argsort", "as_strided", "bucketize", "cat", "clone", "copy", "detach", "diagonal", "expand",
    "flip", "gather", "index", "index_select", "kthvalue", "max", "median", "min", "permute",
    "repeat", "roll", "select", "select_scatter", "slice", "slice_scatter", "sort", "split",
    "split_with_sizes", "squeeze", "stack", "t", "topk", "transpose", "tril", "triu", "unbind",
    "unfold", "unsqueeze", "view",
}  # fmt: skip
_FILLED = {"full_like", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like"}


class WholeNumbers:
    """The bounds of a recorded step's whole numbers, and the sizes that a run has to check.

    Args:
        recorder: numbers the values, and records the sizes.
        captured, rows: the numbers of the captured values, and of those with rows.
        n_rows: B.
    """

    def __init__(self, recorder: Any, captured: range, rows: range, n_rows: int):
        self.recorder, self.n_rows = recorder, n_rows
        self.captured, self.rows = {*captured}, {*rows}
        self.bounds: dict[int, float] = dict.fromkeys((*captured, *rows), math.inf)
        self.looked_at: set[int] = set()  # captured values already checked
        self.sizes: list[Tensor] = []  # [B, 1], or [] of captured numbers

    def see(self, func: Any, args: Any, kwargs: Any, call: Call) -> None:
        """Bound the result of a call that was just recorded."""
        name = call.name.split(".")[1]
        name = name if name.endswith("__") else name.removesuffix("_")
        made = [i for i in call.outs if i is not None]
        for known in (self.captured, self.rows):
            if not known.isdisjoint(call.refs):
                known.update(made)
        whole = [i for i in made if is_integer(self.recorder.values[i].dtype)]
        if not whole:
            return
        if self.rows.isdisjoint(call.refs):  # PyTorch computes it
            if not self.captured.isdisjoint(call.refs):
                self.bounds.update(dict.fromkeys(whole, math.inf))
            return
        for i in set(call.refs) & self.captured - self.rows - self.looked_at:
            captured = self.recorder.values[i]
            if is_integer(captured.dtype):  # it is rounded when combined with rows
                self.looked_at.add(i)
                self._look_at(functools.partial(_largest_of, captured))
        bound = self._bound_of_result(name, call, self.recorder.values[whole[0]])
        if bound >= SMALL and not self._is_exact(name, call):
            if name in _ADDED_UP:
                self._look_at(
                    lambda: func(*[a.abs() if torch.is_tensor(a) else a for a in args], **kwargs)
                )
            else:
                self._look_at(self.recorder.values[whole[0]].abs)
        self.bounds.update(dict.fromkeys(whole, bound if bound < SMALL else math.inf))

    def largest(self, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """A leaf of the carry, `[B, 1]`, and its next value: the largest size so far.

        None if no size has to be checked. To be called while calls are recorded.
        """
        if not self.sizes:
            return None
        so_far = largest = torch.zeros(self.n_rows, 1, dtype=dtype, device="cpu")
        self.recorder.new(so_far)
        for size in self.sizes:
            # An int32 wraps around at 2³¹, which is 2⁵³ / 2²².
            wraps = dtype is torch.float64 and size.dtype is torch.int32
            number = size.to(dtype) * 2**22 if wraps else size.to(dtype)
            largest = torch.maximum(largest, number)
        return so_far, largest

    def _look_at(self, size: Callable[[], Tensor]) -> None:
        """Record a size: the largest element of each row."""
        self.recorder.whole = None
        with self.recorder:
            found = size()
            axis = next((i for i, n in enumerate(found.shape) if n == self.n_rows), None)
            if axis is None:
                found = found.amax() if found.dim() else found
            elif found.numel() > self.n_rows:
                found = found.movedim(axis, 0).reshape(self.n_rows, -1).amax(1, keepdim=True)
            else:
                found = found.view(self.n_rows, 1)
        self.sizes.append(found)
        self.recorder.whole = self

    def _is_exact(self, name: str, call: Call) -> bool:
        """Whether a result is exact if the operands are."""
        if name == "_to_copy":
            return not self._value(call.args[0]).is_floating_point()
        if name == "sum":  # over the batch alone, which is summed in float64
            return self._value(call.args[0]).numel() == self.n_rows
        if name in ("div", "fmod"):  # a division by 0 gives infinity or NaN
            return isinstance(call.args[1], int) and call.args[1] != 0
        return name in _NO_LARGER or name in _CHOOSING or name in _MOVING

    def _bound_of_result(self, name: str, call: Call, out: Tensor) -> float:
        """A number that no element of the result exceeds.

        Raises:
            Unsupported: the call is unknown here.
        """
        first, *others = call.args
        if name in _FILLED:
            return _largest_number(out)
        if name == "_to_copy" and self._value(first).is_floating_point():
            return math.inf
        if name in _SUMS and call.kwargs.get("alpha", 1) == 1:
            return self._bound(first) + self._bound(others[0])
        if name == "mul":
            return _product(self._bound(first), self._bound(others[0]))
        if name == "pow" and isinstance(others[0], int):
            return _product(*[self._bound(first)] * others[0])
        if name == "bitwise_not":
            return self._bound(first) + 1
        if name == "sum":
            return _product(self._bound(first), self._value(first).numel() / out.numel())
        if name in _ADDED_UP:
            n = self._value(first).shape[-1]
            return _product(self._bound(first), self._bound(others[0]), n)
        if name in _NO_LARGER:
            most = self._bound(first)
            return min(most, self._bound(others[0])) if name == "fmod" else most
        added_up = "reduce" in call.kwargs or (name == "index_put" and call.args[3:] == (True,))
        if name in _CHOOSING and not added_up:
            ends = [a for a in others if isinstance(a, int)]
            if name == "clamp" and len(ends) == 2:
                return max(map(abs, ends))
            return max(self._bound(a) for a in tree.leaves(call.args))
        if name in _MOVING:
            given = [a for a in tree.leaves(call.args) if isinstance(a, Ref)]
            return max(max(self._value(a).numel(), self._bound(a)) for a in given)
        raise Unsupported(f"the engine has no {name} of whole numbers", call.name)

    def _bound(self, operand: Any) -> float:
        """A number that no element of an argument exceeds; 0 for floats."""
        if not isinstance(operand, Ref):
            return abs(operand) if isinstance(operand, int) else 0
        t = self._value(operand)
        if not is_integer(t.dtype):
            return int(t.dtype is torch.bool)
        if operand.index not in self.bounds:  # the step made it from numbers
            self.bounds[operand.index] = _largest_number(t)
        return self.bounds[operand.index]

    def _value(self, ref: Ref) -> Tensor:
        value: Tensor = self.recorder.values[ref.index]
        return value


def _largest_of(captured: Tensor) -> Tensor:
    return captured.abs().amax()


def _largest_number(t: Tensor) -> int:
    return int(t.abs().max()) if t.numel() else 0


def _product(*bounds: float) -> float:
    return 0 if 0 in bounds else math.prod(bounds)
