"""Tensors within a transform of torch.func that a step uses: wrappers of other tensors.

Each level of transforms (`grad`, `vjp`, `jvp`, `vmap`) has wrappers of its own around the tensors
of the level below. Operations of ATen are recorded on the innermost tensors, so that a transform
disappears from the recording. PyTorch wraps and unwraps without a call that a mode sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler import torch_private
from ostinato.compiler.errors import Elsewhere, Unsupported

_functorch = torch_private.functorch
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


def mapped(tensors: Sequence[Tensor]) -> set[int]:
    """The levels of vmap that map over one of these tensors."""
    wrappers = [w for t in tensors for w in chain(t, 0)[:-1]]
    return {_functorch.maybe_get_level(w) for w in wrappers if _functorch.is_batchedtensor(w)}


def like(wrapper: Tensor, inner: Tensor) -> Tensor:
    """A wrapper of the same kind around another tensor."""
    at, axis = kind(wrapper, 0)
    if axis is not None:
        return _functorch._add_batch_dim(inner, axis, at)
    return _functorch._wrap_for_grad(inner, at)


# ---- the transforms around a call

TransformType = _functorch.TransformType


def kinds() -> set[Any]:
    """The kinds of the transforms that are active."""
    return {layer.key() for layer in _functorch.get_interpreter_stack() or []}


def can_move(t: Tensor) -> bool:
    """Whether a tensor can have a gradient."""
    return t.is_floating_point() or t.is_complex()


def innermost() -> Any:
    """The kind of the transform that began last."""
    layer = _functorch.peek_interpreter_stack()
    return None if layer is None else layer.key()


@contextmanager
def outside() -> Iterator[None]:
    """A context outside of all transforms and of inference mode, with gradients on."""
    inference = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
    with torch_private.clear_interpreter_stack(), inference, torch.enable_grad():
        yield


def outermost(t: Tensor) -> Tensor:
    """The tensor within all wrappers."""
    while is_wrapped(t):
        t = _functorch.get_unwrapped(t)
    return t


def address_of(t: Tensor) -> int:
    """The address of a tensor's first element."""
    return outermost(t).data_ptr()


def plain(tensors: Sequence[Tensor], level: int) -> list[Tensor]:
    """Plain tensors in place of wrapped ones, up to that level: the first rows of those mapped.

    Raises:
        Unsupported: a tensor is of a transform that has ended, or of no rows.
    """
    # Whoever watches or records operations now sees none of these.
    with outside(), torch_private.DisableTorchFunction(), torch_private.disable_current_modes():
        made = []
        for t in tensors:
            inner, in_graph = _unwrapped(t, level)
            new = inner.clone() if inner.is_inference() else inner.detach()
            made.append(new.requires_grad_(in_graph and can_move(inner)))
        return made


def _unwrapped(t: Tensor, level: int) -> tuple[Tensor, bool]:
    """The first row of a tensor, and whether gradients are taken by it."""
    if not is_wrapped(t):
        return t, t.requires_grad
    if not 0 < _functorch.maybe_get_level(t) <= level:
        raise Unsupported("a tensor comes from inside a torch.func transform that has ended")
    inner, in_graph = _unwrapped(_functorch.get_unwrapped(t), level)
    if not _functorch.is_batchedtensor(t):
        return inner, True
    axis = _functorch.maybe_get_bdim(t)
    if not inner.shape[axis]:
        raise Elsewhere("torch.func.vmap maps over nothing")
    return inner.select(axis, 0), in_graph
