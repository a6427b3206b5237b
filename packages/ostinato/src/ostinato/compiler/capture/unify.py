"""Two recordings of a step, on different batch sizes, as one with a symbolic batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from ostinato import tree
from ostinato.compiler.capture.recording import Batch, Call, Recording
from ostinato.compiler.errors import ANOTHER_COURSE, Unsupported

BATCHES = (3, 5)
# ATen calls whose arguments may contain the batch size, as a part of a shape.
_SHAPED = {
    "view", "_unsafe_view", "reshape", "_reshape_alias", "expand", "slice", "narrow",
    "slice_backward", "select_backward", "zeros", "ones", "full", "empty", "new_zeros", "new_ones",
    "new_full", "new_empty", "unsafe_split", "split", "_efficientzerotensor", "unfold_backward",
    "arange", "diagonal_backward", "div", "div_",
}  # fmt: skip


def without_unused(r: Recording) -> Recording:
    """Without calls whose results are unused: values for a backward pass, for example."""
    outputs = (*r.new_states, *r.ys, *r.d_captured, *r.d_states, *r.d_xs)
    used = {i for i in outputs if i is not None}
    calls: list[Call] = []
    n_forward = 0
    for at, call in reversed(list(enumerate(r.calls))):
        if used.intersection(call.outs):
            used.update(call.refs)
            calls.insert(0, call)
            n_forward += at < r.n_forward
    return replace(r, calls=tuple(calls), n_forward=n_forward)


def unify(small: Recording, large: Recording, n_large: int) -> Recording:
    """Two recordings that differ in the batch alone, as one."""
    if [c.name for c in small.calls] != [c.name for c in large.calls]:
        raise Unsupported(ANOTHER_COURSE)
    both = zip(small.calls, large.calls, strict=True)
    calls = tuple([_same_call(a, b, n_large) for a, b in both])
    shapes = tuple(
        tuple(_same(p, q, "shape", n_large) for p, q in zip(s, t, strict=True))
        for s, t in zip(small.shapes, large.shapes, strict=True)
    )
    for i, value in small.constants.items():
        if i not in large.constants or not torch.equal(value, large.constants[i]):
            raise Unsupported(
                "the step makes a tensor from Python values that change with the data"
            )
    return replace(small, calls=calls, shapes=shapes)


def _same_call(a: Call, b: Call, n_large: int) -> Call:
    if a.args == b.args and a.kwargs == b.kwargs:
        return a
    leaves_a, spec = tree.flatten((a.args, a.kwargs))
    leaves_b, spec_b = tree.flatten((b.args, b.kwargs))
    if spec != spec_b:
        raise Unsupported(ANOTHER_COURSE, a.name)
    both = [_same(p, q, a.name, n_large) for p, q in zip(leaves_a, leaves_b, strict=True)]
    if any(isinstance(v, Batch) for v in both) and a.name.split(".")[1] not in _SHAPED:
        raise Unsupported("the step computes with the batch size", a.name)
    args, kwargs = tree.unflatten(both, spec)
    return Call(a.name, args, kwargs, a.outs)


def _same(a: Any, b: Any, name: str, n_large: int) -> Any:
    if type(a) is int and type(b) is int and a != b:
        if a % BATCHES[0] == 0 and b * BATCHES[0] == a * n_large:
            return Batch(a // BATCHES[0])
        raise Unsupported("the step computes with the batch size", name)
    if a != b and not (a != a and b != b):  # NaN equals itself here
        if type(a) is float and type(b) is float and not _follows_batch(a, b, n_large):
            raise Unsupported(
                "a number that the step computes differs in every run (a clock, say): let xs "
                "hold it",
                name,
            )
        raise Unsupported("the step computes with the batch size", name)
    return a


def _follows_batch(a: float, b: float, n_large: int) -> bool:
    """Whether two numbers relate as the batch sizes, or these less one, or their reciprocals."""
    of_each = n_large / BATCHES[0], (n_large - 1) / (BATCHES[0] - 1)
    return any(math.isclose(b, a * r, rel_tol=1e-9) for q in of_each for r in (q, 1 / q))
