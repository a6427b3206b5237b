"""Decompositions of operations on small images, beside convolutions; distances; bags."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ostinato.compiler.capture.replaced.elementwise import Function, named
from ostinato.compiler.errors import Unsupported

aten = torch.ops.aten


# ---- a transposed convolution is the gradient of a convolution, and the reverse


def _of_input(d: Tensor, shape: Any, kernel: Tensor, *how: Any) -> Tensor:
    """The gradient of the input of a convolution."""
    like = d.new_zeros(shape)
    out: Tensor = aten.convolution_backward(d, like, kernel, None, *how, [True, False, False])[0]
    return out


@named("convolution")
def _transposed_convolution(
    x: Tensor,
    kernel: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    beyond: Any,
    groups: int,
) -> Any:
    if not transposed:
        return NotImplemented
    sizes = [
        (n - 1) * s - 2 * p + d * (k - 1) + more + 1
        for n, s, p, d, k, more in zip(
            x.shape[2:], stride, padding, dilation, kernel.shape[2:], beyond, strict=True
        )
    ]
    shape = [x.shape[0], kernel.shape[1] * groups, *sizes]
    how = stride, padding, dilation, False, [0] * len(sizes), groups
    out = _of_input(x, shape, kernel, *how)
    return out if bias is None else out + bias.view(-1, *[1] * len(sizes))


@named("convolution_backward")
def _transposed_convolution_backward(
    d: Tensor,
    x: Tensor,
    kernel: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    beyond: Any,
    groups: int,
    wanted: Any,
) -> Any:
    if not transposed:
        return NotImplemented
    how = stride, padding, dilation, False, [0] * (x.dim() - 2), groups
    dx = dw = db = None
    if wanted[0]:
        dx = aten.convolution(d, kernel, None, *how)
    if wanted[1]:
        dw = aten.convolution_backward(x, d, kernel, None, *how, [False, True, False])[1]
    if wanted[2]:
        db = d.sum([0, *range(2, d.dim())])
    return dx, dw, db


# ---- functions that are replaced above autograd: pooling


def _each(given: Any, n: int) -> list[Any]:
    """A value for each of n axes, given one for all or one for each."""
    values = list(given) if isinstance(given, (list, tuple)) else [given]
    return values * (n // len(values))


def _windows(
    n: int, x: Tensor, size: list[int], stride: list[int], dilation: list[int], padding: list[int]
) -> Any:
    """`[…, places, elements]`: windows of the last n axes.

    An element of the padding is replaced by the nearest element of its window. So each window has
    only its own elements, the first of equal ones stays the first, and −∞ is never padding.
    NotImplemented if a whole window lies in the padding.
    """
    for i in range(n):
        width, whole = x.shape[-n], dilation[i] * (size[i] - 1) + 1
        first = np.arange(-padding[i], width + padding[i] - whole + 1, stride[i])[:, None]
        before, last = -(first // dilation[i]), (width - 1 - first) // dilation[i]
        numbers = np.clip(np.arange(size[i]), np.maximum(before, 0), last)
        places = first + dilation[i] * numbers
        if (places < 0).any():
            return NotImplemented
        x = x.index_select(-n, torch.from_numpy(places.ravel()))
        x = x.unflatten(-n, places.shape).movedim(-n, -1)
    return x.flatten(-n)


def _mean_pool(
    n: int,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Any:
    if ceil_mode or (any(_each(padding, n)) and not count_include_pad):
        return NotImplemented
    size, padding = _each(kernel_size, n), _each(padding, n)
    if any(padding):
        x = F.pad(x, [p for p in reversed(padding) for _ in range(2)])
    windows = _windows(n, x, size, _each(stride, n) if stride else size, [1] * n, [0] * n)
    return windows.sum(-1) * (1 / (divisor_override or windows.shape[-1]))


def _max_pool(
    n: int,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if ceil_mode or return_indices:
        return NotImplemented
    size, padding, dilation = (_each(v, n) for v in (kernel_size, padding, dilation))
    windows = _windows(n, x, size, _each(stride, n) if stride else size, dilation, padding)
    return windows if windows is NotImplemented else windows.max(-1).values


def _adaptive_max_pool(n: int, x: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """With the window size that gives the wanted number of places."""
    sizes = [m or old for m, old in zip(_each(output_size, n), x.shape[-n:], strict=True)]
    if any(old % m for m, old in zip(sizes, x.shape[-n:], strict=True)):
        raise Unsupported("an adaptive pooling to a size that does not divide the image")
    window = [old // m for m, old in zip(sizes, x.shape[-n:], strict=True)]
    return _max_pool(n, x, window, return_indices=return_indices)


_POOLS: dict[str, Function] = {
    "avg_pool": _mean_pool,
    "max_pool": _max_pool,
    "adaptive_max_pool": _adaptive_max_pool,
}


# ---- other functions


def interpolate(
    x: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """Along each axis by itself: elements selected by place, or a product with a matrix.

    Both are found by interpolating 0, 1, … and the identity.
    """
    if mode not in ("nearest", "nearest-exact", "linear", "bilinear") or antialias:
        return NotImplemented
    n = x.dim() - 2
    sizes, factors = _each(size, n), _each(scale_factor, n)
    for axis, to, factor in zip(range(2, n + 2), sizes, factors, strict=True):
        length = x.shape[axis]
        if mode.startswith("nearest"):
            numbers = torch.arange(length, dtype=torch.float64).view(1, 1, -1)
            places = F.interpolate(numbers, to, factor, mode).flatten().long()
            x = x.index_select(axis, places)
        else:
            unit = torch.eye(length, dtype=x.dtype).unsqueeze(0)
            by = F.interpolate(unit, to, factor, "linear", align_corners, recompute_scale_factor)[0]
            x = (x.transpose(axis, -1) @ by).transpose(axis, -1)
    return x


def cdist(a: Tensor, b: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
    """‖a_i − b_j‖ of all pairs."""
    return torch.linalg.vector_norm(a.unsqueeze(-2) - b.unsqueeze(-3), p, -1)


def embedding_bag(
    x: Tensor,
    weight: Tensor,
    offsets: Any = None,
    max_norm: Any = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: Any = None,
) -> Any:
    """Σ or mean of the rows of a table, of bags of one size `[B, n]`."""
    plain = offsets is None and max_norm is None and padding_idx is None
    if x.dim() != 2 or not plain or scale_grad_by_freq or sparse or mode not in ("sum", "mean"):
        return NotImplemented
    rows = F.embedding(x, weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    return rows.sum(1) if mode == "sum" else rows.mean(1)


def multi_dot(tensors: Any, *, out: Any = None) -> Any:
    """From the left, where PyTorch's order depends on the size of the batch."""
    if out is not None:
        return NotImplemented
    product = tensors[0]
    for factor in tensors[1:]:
        product = product @ factor
    return product


FUNCTIONS: dict[Any, Function] = {
    getattr(of, f"{name}{n}d"): functools.partial(pool, n)
    for name, pool in _POOLS.items()
    for n in (1, 2, 3)
    for of in (F, torch)
    if hasattr(of, f"{name}{n}d")
} | {
    F.embedding_bag: embedding_bag,
    F.interpolate: interpolate,
    torch.cdist: cdist,
    torch.linalg.multi_dot: multi_dot,
}
