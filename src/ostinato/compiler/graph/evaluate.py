"""Tensors without a batch: what a step computes from captured tensors alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.graph.node import Node, Slot


def evaluate(
    node: Node, captured: Sequence[Tensor], known: dict[Node, Tensor], dtype: torch.dtype
) -> Tensor:
    """A tensor without batch: ATen calls that the recording left to PyTorch."""
    if node in known:
        return known[node]
    if node.op == "captured":
        value = captured[node.attrs[0]].detach()
    elif node.op == "full":
        number, truth = node.attrs
        kind = torch.bool if truth else dtype
        value = torch.full(node.shape, number, dtype=kind, device="cpu")
    elif node.op == "zeros":
        value = torch.zeros(node.shape, dtype=dtype, device="cpu")
    elif node.op == "part":
        start = node.attrs[0]
        value = evaluate(node.inputs[0], captured, known, dtype)[start : start + node.width]
    elif node.op == "block":
        r, c = node.attrs
        whole = evaluate(node.inputs[0], captured, known, dtype)
        value = whole[r : r + node.shape[0], c : c + node.shape[1]]
    else:
        inputs = [evaluate(n, captured, known, dtype) for n in node.inputs]
        (args, kwargs), out = node.attrs
        _, name, overload = node.op.split(".")
        result = getattr(getattr(torch.ops.aten, name), overload)(
            *(_filled(a, inputs) for a in args), **{k: _filled(v, inputs) for k, v in kwargs}
        )
        value = result[out] if isinstance(result, (tuple, list)) else result
    known[node] = value
    return value


def _filled(leaf: Any, inputs: list[Tensor]) -> Any:
    # Not inside `evaluate`: a function that names itself there is a cycle, which holds the tensors.
    if isinstance(leaf, Slot):
        return inputs[leaf.index]
    return [_filled(x, inputs) for x in leaf] if isinstance(leaf, tuple) else leaf
