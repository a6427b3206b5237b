"""Calls without a batch: PyTorch computes them, once a scan.

`left_to_torch` makes nodes for a recorded call that reads no rows. They are named after the call
and hold its arguments, with a `Slot` in the place of each tensor. evaluate.py computes their
tensors.

    once   reads captured tensors alone, as `V - V.t()`: computed before the first step
    sum    reads a sum over the batch, as the gradient `dW.t()`: computed after the last step of the
           backward pass. Autograd's operations on such gradients are linear, so they may be applied
           to the sum over the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ostinato import tree
from ostinato.compiler.capture.recording import Batch, Call, Recording, Ref
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.graph import elements
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.identities import is_zero
from ostinato.compiler.graph.node import ONCE, SUM, Node
from ostinato.compiler.graph.rules import HALF, Shape, Value, functional, name_of


def fixed(shape: Shape) -> tuple[int, ...]:
    """The shape of a tensor without a batch."""
    if any(isinstance(n, Batch) for n in shape):
        raise Unsupported("a captured tensor changes its shape with the batch")
    return tuple(shape)


def left_to_torch(
    b: Builder, r: Recording, call: Call, values: Mapping[int, Value], kind: str
) -> list[Node]:
    """The nodes of the results, of kind once or sum.

    Args:
        values: the recorded values, by number.
    """
    read = [values[i].node for i in call.refs]
    if r.runs_python_backward and not _is_linear(call, read):
        raise Unsupported(
            "a custom backward pass, or a hook, is not linear in a gradient that is summed "
            "over the steps before",
            call.name,
        )
    shapes: list[Any] = [() if i is None else r.shapes[i] for i in call.outs]
    if call.name in _SHORT_CUTS and not call.kwargs:
        short_cut = _SHORT_CUTS[call.name](b, read, shapes[0])
        if short_cut is not None:
            return [short_cut]
    if call.name == "aten.select.int":
        found = elements.selected(b, read, call)
    else:
        found = elements.of_element(b, r, call, read) if kind == ONCE else None
    if found is not None:
        return [found]
    if call.name == "aten._to_copy.default" and call.kwargs.get("dtype") in HALF:
        return read  # half precision is not rounded in between

    def node(leaf: Any) -> Any:
        if not isinstance(leaf, Ref):
            return leaf
        value = values[leaf.index]
        if not value.rows:
            return value.node
        return b.node("full", (), (value.node.s, r.dtypes[leaf.index]), kind, value.shape)

    args, kwargs = tree.mapped(node, (call.args, call.kwargs))
    # Not in place: another call may need the tensor as it was.
    name = ".".join([functional(part) for part in call.name.split(".")])
    return [
        b.call(name, *args, shape=tuple(shape), kind=kind, kwargs=kwargs, out=out)
        for out, shape in enumerate(shapes)
    ]


# ---- calls that need no new node; each function returns None where it does not apply


def _transposed(b: Builder, read: list[Node], shape: Any) -> Node | None:
    """The operand of a transposed transpose; an outer product with its factors swapped."""
    (node,) = read
    if node.op == "aten.t.default":
        return node.inputs[0]
    return b.transposed(node) if node.op == "outer" else None


def _view_of_sum(b: Builder, read: list[Node], shape: Any) -> Node | None:
    return b.view(read[0], fixed(shape)) if read[0].kind == SUM else None


def _sum_of_sums(b: Builder, read: list[Node], shape: Any) -> Node | None:
    """The only term that is not zero, or both terms in one accumulator."""
    there = [n for n in read if not is_zero(n)]
    if len(read) != 2 or all(n.kind != SUM for n in there):
        return None
    return b.add_sums(*there) if len(there) == 2 else there[0]


_SHORT_CUTS: dict[str, Callable[[Builder, list[Node], Any], Node | None]] = {
    "aten._unsafe_view.default": _view_of_sum,
    "aten.add.Tensor": _sum_of_sums,
    "aten.alias.default": lambda b, read, shape: read[0],
    "aten.detach.default": lambda b, read, shape: read[0],
    "aten.lift_fresh.default": lambda b, read, shape: read[0],
    "aten.t.default": _transposed,
    "aten.view.default": _view_of_sum,
}


# ---- operations of a custom backward pass that may be applied to a sum

# Calls that are linear in their first tensor (_LINEAR), in each of their tensors (_PRODUCTS), in
# all of them together (_SUMS).
_LINEAR = {
    "div", "view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "sum", "mean",
    "slice", "select", "narrow", "split", "unbind", "detach", "alias", "clone", "neg", "squeeze",
    "unsqueeze", "cumsum", "flip", "diagonal", "triu", "tril", "index",
}  # fmt: skip
_PRODUCTS = {"mul", "mm", "matmul", "bmm", "mv", "dot", "outer"}
_SUMS = {"add", "sub", "cat", "stack", "where"}


def _is_linear(call: Call, read: list[Node]) -> bool:
    """Whether a call on a sum gives the sum of the call's results. Autograd's own calls always do.

    A term added to a sum must be a sum, too: any other term would be added once, not at every step.
    """
    name, sums = name_of(call), [node.kind == SUM for node in read]
    if not any(sums):
        return True
    if call.kwargs.get("rounding_mode") is not None:
        return False
    if name in _SUMS:
        added = read[1:] if name == "where" else read
        a_number = name in ("add", "sub") and len(read) == 1
        return not a_number and all(n.kind == SUM or is_zero(n) for n in added)
    if name == "masked_fill":
        return sums[0] and (is_zero(read[2]) if len(read) == 3 else call.args[2] == 0)
    if sum(sums) != 1:
        return False
    return name in _PRODUCTS or (sums[0] and (name in _LINEAR or "backward" in name))
