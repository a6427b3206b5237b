"""Functions that layers and cells share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler import torch_private

_PLAIN, _DTYPES = (Tensor, torch.nn.Parameter), (torch.float32, torch.float64)
# torch.compiler.is_exporting exists since PyTorch 2.7.
is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)
Hidden = Any  # a hidden state, as torch.nn's hx: a tensor h, or for the LSTM a pair (h, c)


def playable(x: Tensor, weight: Tensor) -> bool:
    """Whether `scan` should run this input; otherwise torch.nn's own forward does.

    torch.nn runs

        * if the engine has no kernel for the processor,
        * on devices other than the CPU,
        * in dtypes other than float32 and float64,
        * under autocast, which would change the dtype of the carry,
        * while a graph is traced, since the loop would be unrolled into it,
        * for subclasses of Tensor, which may give torch's operations another meaning,
        * if the weight is empty.
    """
    return (
        not is_exporting()  # first, since torch.export cannot trace the other conditions
        and torch_private.unavailable() is None
        and type(x) in _PLAIN
        and type(weight) in _PLAIN
        and weight.numel() > 0
        and x.is_cpu
        and weight.is_cpu
        and x.dtype is weight.dtype
        and x.dtype in _DTYPES
        and not torch.is_autocast_enabled("cpu")
        and not torch_private.is_tracing()  # as torch.jit.is_tracing(), with one call less
    )


def map_hidden(f: Callable[[Tensor], Tensor], hidden: Hidden) -> Hidden:
    """f(h), or for a pair (f(h), f(c))."""
    return f(hidden) if isinstance(hidden, Tensor) else tuple(f(leaf) for leaf in hidden)


def scriptable(module: Any) -> torch.nn.Module:
    """The module that torch.jit.script compiles in place of a layer or cell.

    For our classes it is a copy with torch.nn's class. A subclass is returned as it is, since it
    may compute something else.
    """
    if "torch_class" not in vars(type(module)):
        return module
    twin = copy.copy(module)
    twin.__class__ = module.torch_class
    return twin
