"""Complex numbers as pairs of real tensors, and the replacements of calls on them.

A complex tensor of the step is a `Pair` of recorded real tensors, its real and its imaginary part.
`PAIRED` has the meaning of a call for pairs, by ATen's name; real arguments are passed unchanged.
As in `elementwise.py`, everything runs below autograd, so that gradients are PyTorch's own: for
a complex z, ∂L/∂Re z + i ∂L/∂Im z.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ostinato.compiler.capture.replaced.elementwise import Function, rows_of


class Pair(NamedTuple):
    """a + ib. For a Python number, which has no dtype of its own, the parts are numbers."""

    re: Any
    im: Any


PAIRED: dict[str, Function] = {}
paired = rows_of(PAIRED)


def is_complex(leaf: Any) -> bool:
    """Whether an argument, or a dtype among them, makes a call one on complex numbers."""
    if isinstance(leaf, (Tensor, torch.dtype)):
        return leaf.is_complex if isinstance(leaf, torch.dtype) else leaf.is_complex()
    return isinstance(leaf, complex)


def as_pair(z: Any) -> Pair:
    """A number or a tensor, real or complex, as a pair of its real and its imaginary part."""
    if isinstance(z, Pair):
        return z
    if isinstance(z, Tensor):
        return Pair(z, torch.zeros_like(z))
    return Pair(complex(z).real, complex(z).imag)


# ---- calls that move numbers do the same to both parts

_OF_EACH_PART = (
    "_reshape_alias", "_unsafe_view", "alias", "clone", "cumsum", "detach", "diagonal",
    "diagonal_backward", "expand", "flip", "index", "index_select", "lift_fresh", "mean", "permute",
    "repeat", "reshape", "roll", "select", "select_backward", "slice", "slice_backward", "split",
    "split_with_sizes", "squeeze", "sum", "t", "transpose", "tril", "triu", "unbind",
    "unsafe_split", "unsqueeze", "view", "zeros_like",
)  # fmt: skip


def _each_part(z: Pair, *args: Any, overload: Any, **kwargs: Any) -> Any:
    kwargs.pop("dtype", None)
    if not isinstance(z.re, Tensor):  # a number has no axes to be moved
        return z
    re, im = (overload(part, *args, **kwargs) for part in z)
    if isinstance(re, (tuple, list)):
        return [Pair(*parts) for parts in zip(re, im, strict=True)]
    return Pair(re, im)


PAIRED.update(dict.fromkeys(_OF_EACH_PART, _each_part))


@paired("cat", "stack")
def _joined(parts: list[Any], dim: int = 0, *, overload: Any) -> Pair:
    pairs = [as_pair(part) for part in parts]
    return Pair(overload([p.re for p in pairs], dim), overload([p.im for p in pairs], dim))


@paired("where")
def _where(condition: Tensor, a: Any, b: Any) -> Pair:
    a, b = as_pair(a), as_pair(b)
    return Pair(torch.where(condition, a.re, b.re), torch.where(condition, a.im, b.im))


# ---- real numbers to complex ones, and back


@paired("_to_copy")
def _to_copy(z: Any, **kwargs: Any) -> Any:
    kind = kwargs.get("dtype") or torch.complex64
    if isinstance(z, Pair):
        return z if kind.is_complex else z.re.to(kind)
    return as_pair(z)


@paired("zeros", "new_zeros", "ones", "ones_like", "scalar_tensor", "full", "full_like")
def _filled(*args: Any, overload: Any, **kwargs: Any) -> Any:
    """A tensor of one number, as PyTorch makes for autograd."""
    args = tuple([a.re if isinstance(a, Pair) else a for a in args])
    number = next((a for a in args if isinstance(a, complex)), None)
    args = tuple([a.real if isinstance(a, complex) else a for a in args])
    kind = kwargs.get("dtype") or torch.complex64
    re = overload(*args, **{**kwargs, "dtype": kind.to_real()})
    return Pair(re, torch.full_like(re, 0.0 if number is None else number.imag))


def _conj(z: Any) -> Pair:
    z = as_pair(z)
    return Pair(z.re, -z.im)


PAIRED.update(
    {
        "neg": lambda z: Pair(-z.re, -z.im),
        "_conj": _conj,
        "_conj_physical": _conj,
        "complex": Pair,
        "masked_fill": lambda z, mask, value: _where(mask, value, z),
        "polar": lambda size, angle: Pair(size * angle.cos(), size * angle.sin()),
        "view_as_complex": lambda x: Pair(x.select(-1, 0), x.select(-1, 1)),
        "view_as_real": lambda z: torch.stack(torch.broadcast_tensors(*z), -1),
    }
)


# ---- arithmetic


@paired("add")
def _add(a: Any, b: Any, *, alpha: Any = 1) -> Pair:
    a, b = as_pair(a), as_pair(b)
    if alpha != 1:
        b = _mul(b, alpha)
    return Pair(a.re + b.re, a.im + b.im)


@paired("sub")
def _sub(a: Any, b: Any, *, alpha: Any = 1) -> Pair:
    return _add(a, b, alpha=-alpha)


PAIRED["rsub"] = lambda a, b, *, alpha=1: _add(b, a, alpha=-alpha)


def _product(a: Any, b: Any, by: Callable[[Tensor, Tensor], Tensor]) -> Pair:
    """(a + ib)(c + id) = ac − bd + i (ad + bc); two of the products if one of them is real."""
    if not isinstance(a, Pair):
        return Pair(by(a, b.re), by(a, b.im))
    if not isinstance(b, Pair):
        return Pair(by(a.re, b), by(a.im, b))
    return Pair(by(a.re, b.re) - by(a.im, b.im), by(a.re, b.im) + by(a.im, b.re))


@paired("mul")
def _mul(a: Any, b: Any) -> Pair:
    a, b = (as_pair(x) if isinstance(x, complex) else x for x in (a, b))
    if not (isinstance(a, Pair) or isinstance(b, Pair)):
        a = as_pair(a)
    return _product(a, b, torch.mul)


for _by in (torch.mm, torch.bmm, torch.mv, torch.dot, torch.matmul):
    PAIRED[_by.__name__] = functools.partial(_product, by=_by)


@paired("addmm", "baddbmm")
def _add_product(c: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Pair:
    return _add(_mul(c, beta) if beta != 1 else c, _product(a, b, torch.matmul), alpha=alpha)


@paired("reciprocal")
def _reciprocal(z: Pair) -> Pair:
    """z̄ / |z|²."""
    size = z.re * z.re + z.im * z.im
    return Pair(z.re / size, -z.im / size)


@paired("div")
def _div(a: Any, b: Any) -> Pair:
    b = as_pair(b) if isinstance(b, complex) else b
    if not isinstance(b, Pair):
        return Pair(a.re / b, a.im / b)
    return _mul(a, _reciprocal(b))


@paired("pow")
def _pow(z: Any, n: Any) -> Any:
    """Powers: for an integer n by squaring, else as exp(n log z)."""
    if isinstance(n, (Tensor, Pair, complex)):
        return NotImplemented
    if n != int(n) or not isinstance(z, Pair):
        return _exp(_mul(_log(as_pair(z)), n))
    if n < 0:
        return _reciprocal(_pow(z, -n))
    out = Pair(torch.ones_like(z.re), torch.zeros_like(z.re))
    for bit in bin(int(n))[2:]:
        out = _mul(out, out)
        out = _mul(out, z) if bit == "1" else out
    return out


# ---- functions


@paired("abs")
def _abs(z: Pair) -> Tensor:
    return (z.re * z.re + z.im * z.im).sqrt()


@paired("angle")
def _angle(z: Pair) -> Tensor:
    return torch.atan2(z.im, z.re)


@paired("sgn")
def _sgn(z: Pair) -> Pair:
    """z / |z|, and 0 where z is 0."""
    size = _abs(z)
    size = torch.where(size == 0, 1, size)
    return Pair(z.re / size, z.im / size)


@paired("exp")
def _exp(z: Pair) -> Pair:
    return PAIRED["polar"](z.re.exp(), z.im)


@paired("log")
def _log(z: Pair) -> Pair:
    return Pair(_abs(z).log(), _angle(z))


@paired("tanh")
def _tanh(z: Pair) -> Pair:
    """(sinh 2a + i sin 2b) / (cosh 2a + cos 2b), divided by cosh 2a: no part overflows."""
    sech = 1 / (2 * z.re).cosh()
    below = 1 + (2 * z.im).cos() * sech
    return Pair((2 * z.re).tanh() / below, (2 * z.im).sin() * sech / below)


PAIRED.update(
    {
        "cos": lambda z: Pair(z.re.cos() * z.im.cosh(), -z.re.sin() * z.im.sinh()),
        "cosh": lambda z: Pair(z.re.cosh() * z.im.cos(), z.re.sinh() * z.im.sin()),
        "eq": lambda a, b: (as_pair(a).re == as_pair(b).re) & (as_pair(a).im == as_pair(b).im),
        "ne": lambda a, b: (as_pair(a).re != as_pair(b).re) | (as_pair(a).im != as_pair(b).im),
        "sin": lambda z: Pair(z.re.sin() * z.im.cosh(), z.re.cos() * z.im.sinh()),
        "sinh": lambda z: Pair(z.re.sinh() * z.im.cos(), z.re.cosh() * z.im.sin()),
        "sqrt": lambda z: PAIRED["polar"](_abs(z).sqrt(), _angle(z) / 2),
        "tanh_backward": lambda g, out: _mul(g, _conj(_sub(1, _mul(out, out)))),
    }
)
