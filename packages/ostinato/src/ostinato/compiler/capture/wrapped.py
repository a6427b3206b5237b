"""Tensors within a transform of torch.func that a step uses: wrappers of other tensors.

Each level of transforms (`grad`, `vjp`, `jvp`, `vmap`) has wrappers of its own around the tensors
of the level below. Operations of ATen are recorded on the innermost tensors, so that a transform
disappears from the recording. PyTorch wraps and unwraps without a call that a mode sees.
"""

from __future__ import annotations

import torch
from torch import Tensor

_functorch = torch._C._functorch
is_wrapped = _functorch.is_functorch_wrapped_tensor
depth = _functorch.get_dynamic_layer_stack_depth  # of the transforms that are active


def is_active(outside: int) -> bool:
    """Whether a transform within that level is active."""
    return depth() > outside


def within(t: Tensor, outside: int) -> Tensor | None:
    """The tensor within a wrapper of a level above `outside`; None if it is no such wrapper."""
    if not is_wrapped(t) or not _functorch.maybe_get_level(t) > outside:
        return None
    return _functorch.get_unwrapped(t)


def chain(t: Tensor, outside: int) -> list[Tensor]:
    """The tensor, the one within it, and so on; the last one is of the level `outside`."""
    found = [t]
    while (inner := within(found[-1], outside)) is not None:
        found.append(inner)
    return found


def kind(t: Tensor, outside: int) -> tuple[int, int | None]:
    """The level of a wrapper above `outside`, and the axis that vmap has taken from it."""
    batched = _functorch.is_batchedtensor(t)
    axis = _functorch.maybe_get_bdim(t) if batched else None
    return _functorch.maybe_get_level(t) - outside, axis


def like(wrapper: Tensor, inner: Tensor) -> Tensor:
    """A wrapper of the same kind around another tensor."""
    at, axis = kind(wrapper, 0)
    if axis is not None:
        return _functorch._add_batch_dim(inner, axis, at)
    return _functorch._wrap_for_grad(inner, at)
