"""A part of a tensor as a leaf of xs, whose gradient the engine writes into that of the whole.

PyTorch's slice would make zeros of the whole size, and copy the gradient of the part into these.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LARGE = 1 << 15  # elements; for more, zeros and a copy take longer than a node in Python, 10 µs


class _Part(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, axis: int, begin: int, n: int) -> Tensor:
        ctx.part, ctx.like, ctx.place = (axis, begin, n), whole.detach(), None
        return _of(whole, axis, begin, n)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        place, ctx.place = ctx.place, None
        if place is not None and not torch.is_grad_enabled():
            whole, part = place
            if _lies_there(grad, part):
                return whole, None, None, None
        whole = torch.zeros_like(ctx.like, dtype=grad.dtype)
        _of(whole, *ctx.part).copy_(grad)
        return whole, None, None, None


def part_of(whole: Tensor, axis: int, begin: int, n: int) -> Tensor:
    """The elements begin … begin + n − 1 of an axis, which comes first: `[n, …]`."""
    if whole.requires_grad and torch.is_grad_enabled() and whole.numel() >= LARGE:
        found: Tensor = _Part.apply(whole, axis, begin, n)
        return found
    return _of(whole, axis, begin, n)


def place_of_gradient(leaf: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The place of a part's gradient in a gradient of the whole that is zero elsewhere.

    None for a leaf that is not a part, or whose rows would not be dense there.
    """
    node: Any = leaf.grad_fn
    is_part = type(node) is _Part._backward_cls
    if not is_part or leaf.dtype is not dtype:
        return None
    axis, begin, n = node.part
    whole = torch.empty_like(node.like)
    place = _of(whole, axis, begin, n)
    if not place[0, 0].is_contiguous():
        return None
    whole.narrow(axis, 0, begin).zero_()
    end = begin + n
    whole.narrow(axis, end, whole.shape[axis] - end).zero_()
    node.place = whole, place
    return place


def _of(whole: Tensor, axis: int, begin: int, n: int) -> Tensor:
    return whole.narrow(axis, begin, n).movedim(axis, 0)


def _lies_there(grad: Tensor, place: Tensor) -> bool:
    return (
        grad.data_ptr() == place.data_ptr()
        and grad.shape == place.shape
        and grad.stride() == place.stride()
    )
