"""Decompositions of operations along an axis: sums, movements, maxima and their places."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.capture.replaced.elementwise import DECOMPOSITIONS, Function, columns, named

# ---- over an axis


DECOMPOSITIONS.update(
    {
        "all": lambda x, *a, **k: (x != 0).amin(*a, **k),
        "any": lambda x, *a, **k: (x != 0).amax(*a, **k),
    }
)


@named("sum")
def _sum(x: Tensor, *axes: Any, dtype: Any = None) -> Any:
    """A sum of floats as whole numbers: each is rounded towards 0 before it is added."""
    whole = not (dtype in (None, torch.bool) or dtype.is_floating_point or dtype.is_complex)
    if not whole or not x.is_floating_point():
        return NotImplemented
    return x.to(dtype).sum(*axes)


@named("cumsum")
def _cumsum(x: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """In log₂ N sums: of 2 neighbours, of 4, of 8, …"""
    x = x if x.is_floating_point() or dtype is not None else x.long()
    return scanned(torch.add, x if dtype is None else x.to(dtype), dim, 0)


def scanned(combine: Function, x: Tensor, dim: int, neutral: float) -> Tensor:
    """Element i of the result combines elements 0 … i of x along dim, in log₂ n rounds."""
    n, k = x.shape[dim], 1
    while k < n:
        first = torch.full_like(x.narrow(dim, 0, k), neutral)
        x = combine(x, torch.cat([first, x.narrow(dim, 0, n - k)], dim))
        k *= 2
    return x


# ---- moving


@named("roll")
def _roll(x: Tensor, shifts: list[int], dims: list[int] = []) -> Tensor:  # noqa: B006
    if not dims:
        return x.reshape(-1).roll(shifts, 0).view(x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        k = shift % x.shape[dim]
        if k:
            n = x.shape[dim] - k
            x = torch.cat([x.narrow(dim, n, k), x.narrow(dim, 0, n)], dim)
    return x.clone()


@named("slice_scatter")
def _slice_scatter(
    x: Tensor, src: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    n = x.shape[dim]
    taken = range(*slice(start, end, step).indices(n))
    if len(taken) == n:
        return src.clone()
    if step != 1:
        return NotImplemented
    parts = [x.narrow(dim, 0, taken.start), src, x.narrow(dim, taken.stop, n - taken.stop)]
    return torch.cat([part for part in parts if part.shape[dim]], dim)


@named("select_scatter")
def _select_scatter(x: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    index = index % x.shape[dim]
    return _slice_scatter(x, src.unsqueeze(dim), dim, index, index + 1)


@named("index_put")
def _mask_put(x: Tensor, indices: list[Any], values: Tensor, accumulate: bool = False) -> Any:
    """x[mask] = number."""
    masks = [i for i in indices if i is not None and i.dtype is torch.bool]
    if len(indices) != 1 or not masks or accumulate or values.numel() != 1:
        return NotImplemented
    (mask,) = masks
    mask = mask.reshape(mask.shape + (1,) * (x.dim() - mask.dim()))
    return torch.where(mask, values.reshape(()) if values.dim() else values, x)


# ---- the largest and the smallest elements, and their places


def _first(x: Tensor, top: Tensor, dim: int, taken: Tensor | None = None) -> Tensor:
    """The first place of `top`, kept along `dim`, in x, without those already taken."""
    n = x.shape[dim]
    places = torch.where(x == top, columns(x, dim), n)
    if taken is not None:
        places = torch.where(taken, n, places)
    return places.amin(dim, True)


def _extreme(extreme: str, x: Tensor, dim: int, keepdim: bool = False) -> Any:
    top = getattr(x, extreme)(dim, True)
    both = top, _first(x, top, dim)
    return both if keepdim else tuple([t.squeeze(dim) for t in both])


def _place(extreme: str, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    return NotImplemented if dim is None else _extreme(extreme, x, dim, keepdim)[1]


DECOMPOSITIONS.update(
    {
        "argmax": functools.partial(_place, "amax"),
        "argmin": functools.partial(_place, "amin"),
        "max.dim": functools.partial(_extreme, "amax"),
        "min.dim": functools.partial(_extreme, "amin"),
    }
)
MOST_RANKED = 16  # elements that topk may find one after the other


@named("topk")
def _topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, _: bool = True) -> Any:
    if k > MOST_RANKED:
        return NotImplemented
    rest = x
    if x.is_floating_point():
        gone: float = -math.inf if largest else math.inf
    else:
        gone = torch.iinfo(x.dtype).min if largest else torch.iinfo(x.dtype).max
    values, places = [], []
    taken: Tensor | None = None
    for _i in range(k):
        top = rest.amax(dim, True) if largest else rest.amin(dim, True)
        place = _first(rest, top, dim, taken)
        values.append(top)
        places.append(place)
        here = columns(x, dim) == place
        taken = here if taken is None else taken | here
        rest = torch.where(here, gone, rest)
    return torch.cat(values, dim), torch.cat(places, dim)


def _places(bounds: Tensor, x: Tensor, right: bool) -> Any:
    """How many boundaries lie below each element, or at it."""
    if bounds.dim() != 1 or bounds.shape[0] > 4 * MOST_RANKED:
        return NotImplemented
    below = [(b <= x) if right else (b < x) for b in bounds.unbind()]
    return sum(part.long() for part in below)


@named("bucketize.Tensor")
def _bucketize(x: Tensor, bounds: Tensor, *, out_int32: bool = False, right: bool = False) -> Any:
    return _places(bounds, x, right)


@named("searchsorted.Tensor")
def _searchsorted(
    bounds: Tensor,
    x: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    return NotImplemented if sorter is not None else _places(bounds, x, right or side == "right")


@named("sort")
def _sort(x: Tensor, dim: int = -1, descending: bool = False) -> Any:
    return _topk(x, x.shape[dim], dim, descending)


def _ranked(x: Tensor, rank: int, dim: int, keepdim: bool) -> Any:
    both = [t.narrow(dim, rank, 1) for t in x.sort(dim)]
    return tuple([t.clone() if keepdim else t.squeeze(dim) for t in both])


DECOMPOSITIONS.update(
    {
        "kthvalue": lambda x, k, dim=-1, keepdim=False: _ranked(x, k - 1, dim, keepdim),
        "median.dim": lambda x, dim=-1, keepdim=False: _ranked(
            x, (x.shape[dim] - 1) // 2, dim, keepdim
        ),
    }
)
