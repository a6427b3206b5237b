"""Decompositions of what is done to small images, beside convolutions; ranks; distances."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ostinato.compiler.capture.decompositions import DECOMPOSITIONS, Function, named
from ostinato.compiler.errors import Unsupported

aten = torch.ops.aten


# ---- a transposed convolution is the gradient of one, and the other way about


def _of_input(d: Tensor, shape: Any, kernel: Tensor, *how: Any) -> Tensor:
    """The gradient of the input of a convolution."""
    like = d.new_zeros(shape)
    out: Tensor = aten.convolution_backward(d, like, kernel, None, *how, [True, False, False])[0]
    return out


@named("convolution")
def _transposed_convolution(
    x: Tensor, kernel: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, beyond: Any, groups: int,
) -> Any:  # fmt: skip
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
    d: Tensor, x: Tensor, kernel: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, beyond: Any, groups: int, wanted: Any,
) -> Any:  # fmt: skip
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


# ---- pooling to a size


def _pool_of(x: Tensor, sizes: Any) -> list[int]:
    """The window that leaves so many places along each of the last axes."""
    given = x.shape[-len(sizes) :]
    if any(n % size for n, size in zip(given, sizes, strict=True)):
        raise Unsupported("an adaptive pooling to a size that does not divide the image")
    return [n // size for n, size in zip(given, sizes, strict=True)]


@named("adaptive_max_pool2d")
def _adaptive_max_pool(x: Tensor, sizes: Any) -> Any:
    return aten.max_pool2d_with_indices(x, _pool_of(x, sizes))


@named("adaptive_max_pool2d_backward")
def _adaptive_max_pool_backward(d: Tensor, x: Tensor, places: Tensor) -> Any:
    window = _pool_of(x, d.shape[-2:])
    return aten.max_pool2d_with_indices_backward(
        d, x, window, window, [0, 0], [1, 1], False, places
    )


# ---- functions that are replaced above autograd


def interpolate(
    x: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:  # fmt: skip
    """Along each axis by itself: elements by their places, or a product with a matrix.

    Both are found by interpolating 0, 1, … and the identity.
    """
    if mode not in ("nearest", "nearest-exact", "linear", "bilinear") or antialias:
        return NotImplemented
    n = x.dim() - 2
    sizes = size if isinstance(size, (tuple, list)) else [size] * n
    factors = scale_factor if isinstance(scale_factor, (tuple, list)) else [scale_factor] * n
    for i in range(n):
        axis, length = i + 2, x.shape[i + 2]
        if mode.startswith("nearest"):
            numbers = torch.arange(length, dtype=torch.float64).view(1, 1, -1)
            places = F.interpolate(numbers, sizes[i], factors[i], mode).flatten().long()
            x = x.index_select(axis, places)
        else:
            unit = torch.eye(length, dtype=x.dtype).unsqueeze(0)
            by = F.interpolate(
                unit, sizes[i], factors[i], "linear", align_corners, recompute_scale_factor
            )[0]
            x = (x.transpose(axis, -1) @ by).transpose(axis, -1)
    return x


def cdist(a: Tensor, b: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
    """‖a_i − b_j‖ of all pairs."""
    return torch.linalg.vector_norm(a.unsqueeze(-2) - b.unsqueeze(-3), p, -1)


def embedding_bag(
    x: Tensor, weight: Tensor, offsets: Any = None, max_norm: Any = None, norm_type: float = 2,
    scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: Any = None, include_last_offset: bool = False, padding_idx: Any = None,
) -> Any:  # fmt: skip
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
    F.embedding_bag: embedding_bag,
    F.interpolate: interpolate,
    torch.cdist: cdist,
    torch.linalg.multi_dot: multi_dot,
}


# ---- ranks, and columns that are set


def _ranked(x: Tensor, rank: int, dim: int, keepdim: bool) -> Any:
    values, places = x.sort(dim)
    both = values.narrow(dim, rank, 1), places.narrow(dim, rank, 1)
    return tuple([t.clone() if keepdim else t.squeeze(dim) for t in both])


DECOMPOSITIONS.update({
    "kthvalue": lambda x, k, dim=-1, keepdim=False: _ranked(x, k - 1, dim, keepdim),
    "median.dim": lambda x, dim=-1, keepdim=False: _ranked(
        x, (x.shape[dim] - 1) // 2, dim, keepdim),
    "index_copy": lambda x, dim, index, source: aten.index_put(
        x,
        [None] * (dim % x.dim()) + [index], source),
    "index_fill.int_Scalar": lambda x, dim, index, value: aten.index_put(
        x,
        [None] * (dim % x.dim()) + [index], x.new_full((), value)),
})  # fmt: skip
