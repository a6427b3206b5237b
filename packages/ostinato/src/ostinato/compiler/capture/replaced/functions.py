"""Functions of torch that the recorder replaces above autograd.

Their implementation, or that of their gradient, reads values; or autograd's gradient of the
replacement is as short as a formula of our own. Autograd differentiates the replacement, which
gives NotImplemented if it does not take the arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ostinato.compiler import torch_private
from ostinato.compiler.capture.replaced import images, matrices
from ostinato.compiler.capture.replaced.axes import scanned
from ostinato.compiler.capture.replaced.elementwise import Function
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.lock import one_at_a_time


def _prod(x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The halves multiplied with each other until one column is left: exact at zeros, too."""
    if dim is None or dtype is not None or x.shape[dim] == 0:
        return NotImplemented
    while x.shape[dim] > 1:
        n = x.shape[dim] // 2
        halves = x.narrow(dim, 0, n) * x.narrow(dim, n, n)
        odd = x.shape[dim] - 2 * n
        x = torch.cat([halves, x.narrow(dim, 2 * n, odd)], dim) if odd else halves
    return x if keepdim else x.squeeze(dim)


def _cumprod(x: Tensor, dim: int, *, dtype: Any = None) -> Any:
    return NotImplemented if dtype is not None else scanned(torch.mul, x, dim, 1)


def _logcumsumexp(x: Tensor, dim: int) -> Tensor:
    return scanned(torch.logaddexp, x, dim, -math.inf)


def _padded(x: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    """Padding with the last element, with those before it, or with those of the other end."""
    if mode not in _BEYOND:
        return NotImplemented
    for i in range(0, len(pad), 2):
        dim = x.dim() - 1 - i // 2
        n = x.shape[dim]
        index = [_BEYOND[mode](j, n) for j in range(-pad[i], n + pad[i + 1])]
        x = x[(slice(None),) * dim + (index,)]
    return x


_BEYOND: dict[str, Callable[[int, int], int]] = {
    "circular": lambda j, n: j % n,
    "reflect": lambda j, n: n - 1 - abs(n - 1 - abs(j)),
    "replicate": lambda j, n: min(max(j, 0), n - 1),
}


def _bilinear(a: Tensor, b: Tensor, weight: Tensor, bias: Any = None) -> Any:
    """y_o = a W_o b: the product of a with all W_o, then with b."""
    n, k, m = weight.shape
    products = (a @ weight.permute(1, 0, 2).reshape(k, n * m)).unflatten(-1, (n, m))
    out = (products * b.unsqueeze(-2)).sum(-1)
    return out if bias is None else out + bias


def _one_hot(x: Tensor, num_classes: int = -1) -> Any:
    if num_classes < 1:
        raise Unsupported("one_hot looks for the largest index: give it num_classes")
    return (x.unsqueeze(-1) == torch.arange(num_classes)).long()


def _gaussian_nll(
    input: Tensor,
    target: Tensor,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Any:
    """½ (log max(σ², ε) + (x − μ)² / max(σ², ε)); no gradient through the maximum."""
    if not isinstance(var, Tensor) or var.dim() != input.dim():
        return NotImplemented
    var = var + (var.clamp(min=eps) - var).detach()
    loss = 0.5 * (var.log() + (input - target) ** 2 / var)
    loss = loss + 0.5 * math.log(2 * math.pi) if full else loss
    return {"none": loss, "mean": loss.mean(), "sum": loss.sum()}[reduction]


def _by_channel(x: Tensor, weight: Any, bias: Any) -> Tensor:
    """x · w + b, where w and b have an element for each channel of x `[B, C, …]`."""
    shape = (-1, *[1] * (x.dim() - 2))
    x = x if weight is None else x * weight.view(shape)
    return x if bias is None else x + bias.view(shape)


def _group_norm(
    x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    """Of groups of channels: Wu and He 2018, arXiv:1803.08494."""
    rows = x.reshape(x.shape[0], groups, -1)
    z = F.layer_norm(rows, rows.shape[2:], eps=eps).view(x.shape)
    return _by_channel(z, weight, bias).to(x.dtype)


def _batch_norm(
    x: Tensor,
    mean: Any,
    var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """With running statistics."""
    if training:
        return NotImplemented
    scale = (var + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    return _by_channel(_by_channel(x, None, -mean), scale, bias).to(x.dtype)


def _lstm(*arguments: Any) -> Any:
    """As operations that can be recorded, also in float32, where PyTorch calls oneDNN's layer."""
    with one_at_a_time:  # the switch is one for all threads
        enabled = torch_private.get_mkldnn_enabled()
        torch_private.set_mkldnn_enabled(False)
        try:
            return torch.lstm(*arguments)
        finally:
            torch_private.set_mkldnn_enabled(enabled)


def _written(view: Tensor, value: Any) -> Any:
    """`copy_`, whose functional form has no gradient in autograd."""
    if view.dtype is torch.bool:
        return NotImplemented
    if isinstance(value, Tensor):  # may be a view of the same tensor: x[0] += 1 writes it back
        value = value.clone()
    return view.masked_fill_(torch.ones((), dtype=torch.bool), 0).add_(value)


def _item_set(x: Tensor, index: Any, value: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    if not all(p is None or p is ... or type(p) in (int, slice) for p in parts):
        return NotImplemented
    return _written(x[index], value)


# For a step that is made functional, in which changed views are computed anew.
CHANGES_IN_PLACE: dict[Any, Function] = {
    Tensor.__setitem__: _item_set,
    Tensor.copy_: lambda view, value, *_: _written(view, value),
}


FUNCTIONS: dict[Any, Function] = {
    F.batch_norm: _batch_norm,
    F.bilinear: _bilinear,
    F.gaussian_nll_loss: _gaussian_nll,
    F.group_norm: _group_norm,
    F.pad: _padded,
    F.one_hot: _one_hot,
    torch.cumprod: _cumprod,
    Tensor.cumprod: _cumprod,
    torch.logcumsumexp: _logcumsumexp,
    Tensor.logcumsumexp: _logcumsumexp,
    torch.batch_norm: lambda x, weight, bias, mean, var, training, momentum, eps, _: _batch_norm(
        x, mean, var, weight, bias, training, momentum, eps
    ),
    torch.group_norm: _group_norm,
    # vmap, under which a step without a batch runs, knows what a cell consists of, not the cell.
    torch.gru_cell: torch.ops.aten.gru_cell.default.decompose,
    torch.lstm: _lstm,
    torch.lstm_cell: torch.ops.aten.lstm_cell.default.decompose,
    torch.rnn_relu_cell: torch.ops.aten.rnn_relu_cell.default.decompose,
    torch.rnn_tanh_cell: torch.ops.aten.rnn_tanh_cell.default.decompose,
    torch.prod: _prod,
    Tensor.prod: _prod,
    **images.FUNCTIONS,
    **matrices.FUNCTIONS,
}
