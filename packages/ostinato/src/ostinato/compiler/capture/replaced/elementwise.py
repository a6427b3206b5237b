"""Operations as compositions of others, by which the recorder replaces them.

`DECOMPOSITIONS` has them by ATen's name, with the overload if only that one is meant. They run
below autograd, so that a gradient is PyTorch's own formula, whose calls are looked up here in turn:
there is `gelu_backward` besides `gelu`. This file has the elementwise ones, other files those of
axes, norms, losses and images; `functions.py` has replacements above autograd.

A composition equals the operation up to rounding, also at infinities, NaN and 0. Second derivatives
are those of the composition (`recorded_step`): if the operation has a gradient, no branch that
`where` discards may have a pole.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ostinato.compiler import torch_compat, torch_private

Function = Callable[..., Any]

DECOMPOSITIONS: dict[str, Function] = {}
# PyTorch's own compositions, as its compilers use them, of operations by ATen's name.
OF_PYTORCH = frozenset({
    # activations
    "_prelu_kernel", "_prelu_kernel_backward", "celu", "glu", "glu_backward", "hardshrink",
    "hardsigmoid", "hardswish", "leaky_relu", "leaky_relu_backward", "mish", "mish_backward",
    "silu", "softplus_backward", "threshold", "threshold_backward",
    # functions
    "copysign", "deg2rad", "floor_divide", "frac", "heaviside", "isinf", "isnan", "isneginf",
    "isposinf", "logaddexp", "logical_xor", "logit", "logit_backward", "nan_to_num", "rad2deg",
    "special_entr", "special_xlog1py", "xlogy",
    # over axes
    "aminmax", "count_nonzero", "diag_embed", "logsumexp", "nansum", "norm", "tril", "triu",
    # by an index
    "index_add", "index_copy", "index_fill", "index_select",
    # of images
    "pixel_shuffle", "pixel_unshuffle",
    # losses
    "binary_cross_entropy", "binary_cross_entropy_backward", "binary_cross_entropy_with_logits",
    "mse_loss", "soft_margin_loss", "soft_margin_loss_backward",
})  # fmt: skip


def rows_of(table: dict[str, Function]) -> Callable[..., Callable[[Function], Function]]:
    """A decorator that enters a function into a table by names."""

    def named(*names: str) -> Callable[[Function], Function]:
        def register(function: Function) -> Function:
            table.update(dict.fromkeys(names, function))
            return function

        return register

    return named


named = rows_of(DECOMPOSITIONS)


@functools.lru_cache(maxsize=1024)
def decomposition(name: str) -> Function | None:
    """The composition of a call by ATen's full name, `aten.mish.default`; in place or not."""
    namespace, packet, overload = name.split(".")
    if namespace == "prims":  # of which PyTorch's compositions consist
        return torch_compat.meaning_of_prim(packet)
    if packet in OF_PYTORCH:
        return torch_compat.composition(packet, overload)
    found = DECOMPOSITIONS.get(f"{packet}.{overload}") or DECOMPOSITIONS.get(packet)
    if found is None and packet.endswith("_") and not packet.endswith("__"):
        in_place = decomposition(f"aten.{packet.removesuffix('_')}.{overload}")
        return None if in_place is None else functools.partial(_in_place, in_place)
    return found


def _in_place(function: Function, target: Tensor, *args: Any, **kwargs: Any) -> Any:
    out = function(target, *args, **kwargs)
    return out if out is NotImplemented else target.copy_(out)


# ---- parts


def zero(x: Tensor) -> Tensor:
    """A constant, to be selected where a product with 0 would pass NaN on."""
    return x.new_zeros(())


def columns(x: Tensor, dim: int) -> Tensor:
    """0, 1, … along an axis, to be compared with: `[N, 1, …]`."""
    n, axes = x.shape[dim], x.dim() - dim % x.dim()
    return torch.arange(n).view(n, *[1] * (axes - 1))


def _is_negative(x: Tensor) -> Tensor:
    """Whether the sign is set: that of −0, too."""
    return (x < 0) | ((x == 0) & (1 / x < 0))


# ---- activations and their gradients. Where one is 0 it is selected, never multiplied: a gradient
# that is infinite, or NaN, does not pass a closed gate.


DECOMPOSITIONS.update(
    {
        # The slope is PyTorch's: float32's sixth, also in float64.
        "hardsigmoid_backward": lambda g, x: torch.where(
            (x > -3) & (x < 3), g * float(np.float32(1 / 6)), 0
        ),
        "hardswish_backward": lambda g, x: torch.where(
            x <= -3, 0, torch.where(x >= 3, g, g * (x / 3 + 0.5))
        ),
        "hardtanh_backward": lambda g, x, low, high: torch.where((x > low) & (x < high), g, 0),
        "log_sigmoid_backward": lambda g, x, _: g * (-x).sigmoid(),
        "softshrink": lambda x, size=0.5: torch.where(x.abs() <= size, 0, x - size * x.sign()),
    }
)


@named("hardshrink_backward", "softshrink_backward")
def _shrink_backward(g: Tensor, x: Tensor, size: float) -> Tensor:
    return torch.where(x.abs() > size, g, 0)  # 0 at NaN


@named("elu")
def _elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    below = (x.clamp(max=0) * input_scale).expm1() * (alpha * scale)
    return torch.where(x > 0, x * scale, below)


@named("elu_backward")
def _elu_backward(
    g: Tensor, alpha: float, scale: float, input_scale: float, is_result: bool, x: Tensor
) -> Tensor:
    """Also of a result; PyTorch's own composition was once wrong there."""
    below = x + alpha * scale if is_result else (x * input_scale).exp() * (alpha * scale)
    return torch.where(x > 0, g * scale, g * (below * input_scale))


@named("gelu")
def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """x · Φ(x), or ½x · (1 + tanh(√(2/π) · (x + 0.044715 x³)))."""
    return x * _normal_cdf(x) if approximate == "none" else 0.5 * x * (1 + _tanh_of_cubic(x))


@named("gelu_backward")
def _gelu_backward(g: Tensor, x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate == "none":
        density = (x * x * -0.5).exp() * (1 / math.sqrt(2 * math.pi))
        return g * (_normal_cdf(x) + x * density)
    t = _tanh_of_cubic(x)
    inner = _SLOPE * (1 + 3 * 0.044715 * (x * x))
    return g * (0.5 * (1 + t) + 0.5 * x * torch.ops.aten.tanh_backward(inner, t))


_SLOPE = math.sqrt(2 / math.pi)


def _tanh_of_cubic(x: Tensor) -> Tensor:
    return (_SLOPE * (x + 0.044715 * (x * x * x))).tanh()


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x * math.sqrt(0.5)))


# ---- arithmetic and rounding


@named("addmm", "baddbmm", "addmv")
def _plus_product(c: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Any:
    if beta == 0 or alpha == 0:  # PyTorch does not read the other part, which may be NaN
        return NotImplemented
    c = c if beta == 1 else beta * c  # a captured one stays itself
    return c + alpha * (a @ b)


named("matmul")(torch_private.composite_kernel(torch.ops.aten.matmul.default))


@named("remainder")
def _remainder(a: Any, b: Any) -> Tensor:
    """The rest of a division that rounds down: it has the sign of b."""
    rest = torch.fmod(a, b) if isinstance(a, Tensor) else torch.fmod(torch.full_like(b, a), b)
    return torch.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)


@named("div.Tensor_mode", "div.Scalar_mode")
def _floor_divide(a: Tensor, b: Any, rounding_mode: str | None = None) -> Any:
    """(a − rest) / b is next to a whole number, where a / b may have been rounded up to one."""
    if rounding_mode != "floor" or not torch.result_type(a, b).is_floating_point:
        return NotImplemented
    rest, quotient = torch.fmod(a, b), a / b
    whole = (a - rest) / b
    b = b + zero(whole)
    whole = torch.where((rest != 0) & ((rest < 0) != (b < 0)), whole - 1, whole)
    down = whole.floor()
    down = torch.where(whole - down > 0.5, down + 1, down)
    down = torch.where(whole == 0, quotient * 0, down)  # with the quotient's sign
    return torch.where(b == 0, quotient, down)


DECOMPOSITIONS.update(
    {
        "addcdiv": lambda a, x, y, *, value=1: a + value * (x / y),
        "addcmul": lambda a, x, y, *, value=1: a + value * (x * y),
        "__lshift__.Scalar": lambda a, n: a * 2**n,
        "__rshift__.Scalar": lambda a, n: torch.div(a, 2**n, rounding_mode="floor"),
        "hypot": lambda a, b: (a * a + b * b).sqrt(),
        "round.decimals": lambda x, decimals: (x * 10**decimals).round() / 10**decimals,
        "signbit": _is_negative,
        "_neg_view": lambda x: -x,
    }
)


# ---- exponentials, logarithms, angles


@named("logaddexp2")
def _logaddexp2(a: Tensor, b: Tensor) -> Tensor:
    """max(a, b) + log₂(1 + 2^−|a − b|); infinities that are equal have no difference."""
    apart = torch.where(a == b, zero(a), a - b).abs()
    return torch.maximum(a, b) + F.softplus(apart * -math.log(2)) / math.log(2)


@named("asinh")
def _asinh(x: Tensor) -> Tensor:
    """±log(1 + |x| + x² / (1 + √(1 + x²))), where the square of a large x would be infinite."""
    size = x.abs()
    is_large = size > 1
    large, small = torch.where(is_large, size, 1), torch.where(is_large, 0, size)
    inverse = 1 / large
    of_large = large / (inverse + (1 + inverse * inverse).sqrt())
    of_small = small * small / (1 + (1 + small * small).sqrt())
    found = x.sign() * (size + torch.where(is_large, of_large, of_small)).log1p()
    return torch.where(x == 0, x, found)


@named("sinc")
def _sinc(x: Tensor) -> Tensor:
    """sin(πx) / (πx), or 1."""
    angle = torch.where(x == 0, 1, x * math.pi)
    return torch.where(x == 0, 1, angle.sin() / angle)


@named("special_log_ndtr")
def _log_ndtr(x: Tensor) -> Tensor:
    """log Φ(x): by erfcx below 1, where Φ(x) may vanish; above by erfc."""
    below, t = x < 1, x * math.sqrt(0.5)
    left, right = torch.where(below, t, 0), torch.where(below, 0, t)
    of_left = (torch.special.erfcx(-left) / 2).log() - left * left
    return torch.where(below, of_left, (-torch.erfc(right) / 2).log1p())


DECOMPOSITIONS.update(
    {
        "acos": lambda x: torch.atan2(((1 - x) * (1 + x)).sqrt(), x),
        "acosh": lambda x: ((x - 1) + (x - 1).sqrt() * (x + 1).sqrt()).log1p(),
        "asin": lambda x: torch.atan2(x, ((1 - x) * (1 + x)).sqrt()),
        "atanh": lambda x: 0.5 * (2 * x / (1 - x)).log1p(),
    }
)


# ---- infinities and NaN


DECOMPOSITIONS.update(
    {
        "fmax": lambda a, b: torch.where(a != a, b, torch.where(b != b, a, torch.maximum(a, b))),
        "fmin": lambda a, b: torch.where(a != a, b, torch.where(b != b, a, torch.minimum(a, b))),
        "ldexp": lambda a, b: a * 2.0**b,
    }
)
