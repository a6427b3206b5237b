"""The tensors of nodes without a batch: ATen calls that the step graph leaves to PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.capture.recording import VIEWS, overload_of
from ostinato.compiler.graph.node import Node, Slot


def evaluate(node: Node, captured: Sequence[Tensor], known: dict[Node, Tensor]) -> Tensor:
    """The tensor of a node; it and the tensors of the nodes before it are added to `known`."""
    if node not in known:
        inputs = [evaluate(n, captured, known) for n in node.inputs]
        if node.op == "captured":
            known[node] = captured[node.attrs[0]].detach()
        else:
            known[node] = _COMPUTED.get(node.op, _call)(node, inputs)
    return known[node]


def _full(node: Node, _: list[Tensor]) -> Tensor:
    number, dtype = node.attrs
    return torch.full(node.shape, number, dtype=dtype, device="cpu")


def _part(node: Node, inputs: list[Tensor]) -> Tensor:
    """The part of a vector, or the block of a matrix, that begins at `attrs`."""
    return inputs[0][tuple([slice(i, i + n) for i, n in zip(node.attrs, node.shape, strict=True)])]


def _reshaped(node: Node, inputs: list[Tensor]) -> Tensor:
    return inputs[0].reshape(node.shape)  # a transposed sum has no view, so no .view()


def _call(node: Node, inputs: list[Tensor]) -> Tensor:
    (args, kwargs), out = node.attrs
    result = overload_of(node.op)(
        *(_filled(a, inputs) for a in args), **{k: _filled(v, inputs) for k, v in kwargs}
    )
    return result[out] if isinstance(result, (tuple, list)) else result


def _filled(leaf: Any, inputs: list[Tensor]) -> Any:
    """An argument of the call, with the inputs in their slots."""
    # Not nested in `_call`: a nested recursive function is a cycle that would hold the tensors.
    if isinstance(leaf, Slot):
        return inputs[leaf.index]
    return [_filled(x, inputs) for x in leaf] if isinstance(leaf, tuple) else leaf


_COMPUTED: Mapping[str, Callable[[Node, list[Tensor]], Tensor]] = {
    "block": _part,
    "full": _full,
    "literal": lambda node, _: node.attrs[0].tensor,
    "part": _part,
} | dict.fromkeys(VIEWS, _reshaped)
