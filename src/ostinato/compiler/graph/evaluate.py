"""The tensors of nodes without a batch: ATen calls that the step graph leaves to PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.capture.recording import VIEWS
from ostinato.compiler.graph.node import Node, Slot


def evaluate(
    node: Node, captured: Sequence[Tensor], known: dict[Node, Tensor], dtype: torch.dtype
) -> Tensor:
    """The tensor of a node, and in `known` those of all that it is computed from."""
    if node not in known:
        inputs = [evaluate(n, captured, known, dtype) for n in node.inputs]
        known[node] = _computed(node, inputs, captured, dtype)
    return known[node]


def _computed(
    node: Node, inputs: list[Tensor], captured: Sequence[Tensor], dtype: torch.dtype
) -> Tensor:
    if node.op == "captured":
        return captured[node.attrs[0]].detach()
    if node.op == "full":
        number, kind = node.attrs
        return torch.full(node.shape, number, dtype=kind, device="cpu")
    if node.op == "literal":
        return node.attrs[0].tensor
    if node.op == "whole_numbers":
        return torch.tensor(node.attrs, device="cpu")
    if node.op == "zeros":
        return torch.zeros(node.shape, dtype=dtype, device="cpu")
    if node.op == "part":
        start = node.attrs[0]
        return inputs[0][start : start + node.width]
    if node.op == "block":
        row, column = node.attrs
        n_rows, n_columns = node.shape
        return inputs[0][row : row + n_rows, column : column + n_columns]
    if node.op in VIEWS:  # of a transposed sum, too, which PyTorch does not view
        return inputs[0].reshape(node.shape)
    (args, kwargs), out = node.attrs
    _, name, overload = node.op.split(".")
    result = getattr(getattr(torch.ops.aten, name), overload)(
        *(_filled(a, inputs) for a in args), **{k: _filled(v, inputs) for k, v in kwargs}
    )
    return result[out] if isinstance(result, (tuple, list)) else result


def _filled(leaf: Any, inputs: list[Tensor]) -> Any:
    """An argument of the call, with the inputs in their slots."""
    # Not inside `_computed`: a function that names itself there is a cycle, and holds the tensors.
    if isinstance(leaf, Slot):
        return inputs[leaf.index]
    return [_filled(x, inputs) for x in leaf] if isinstance(leaf, tuple) else leaf
