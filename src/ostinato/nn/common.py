"""What layers and cells share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ostinato.engine import native

_PLAIN, _DTYPES = (Tensor, torch.nn.Parameter), (torch.float32, torch.float64)
is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)  # 2.7
Hidden = Any  # what torch.nn calls hx: a tensor h, or for the LSTM a pair (h, c)


def playable(x: Tensor, weight: Tensor) -> bool:
    """Whether `scan` is the way to play this input; if not, torch's own kernels are.

    They are where the engine has no kernel for the processor, on other devices, in half precision,
    under autocast (a carry keeps its dtype, autocast would change it), while a graph is traced
    (the loop would be unrolled into it), for subclasses of Tensor, which have a meaning of their
    own for torch's operations, and where there is nothing to compute.
    """
    return (
        not is_exporting()  # first: what follows cannot be traced
        and native.unavailable() is None
        and type(x) in _PLAIN
        and type(weight) in _PLAIN
        and weight.numel() > 0
        and x.is_cpu
        and weight.is_cpu
        and x.dtype is weight.dtype
        and x.dtype in _DTYPES
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._is_tracing()  # torch.jit.is_tracing, but a function less
    )


def map_hidden(f: Callable[[Tensor], Tensor], hidden: Hidden) -> Hidden:
    """f of h, or of both h and c."""
    return f(hidden) if isinstance(hidden, Tensor) else tuple(f(leaf) for leaf in hidden)


def scriptable(module: Any) -> torch.nn.Module:
    """What torch.jit.script is to compile in place of a layer or cell: torch's own.

    A subclass has no such twin: only its author knows what it computes.
    """
    if "torch_class" not in vars(type(module)):
        return module
    twin = copy.copy(module)
    twin.__class__ = module.torch_class
    return twin
