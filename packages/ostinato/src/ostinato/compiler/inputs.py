"""The properties of a call that its recording depends on: active modes, and kinds of tensors.

`native/python/cache_key.h` has the fast way for usual calls. It gives None for all others, which
are described or refused here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato.compiler import torch_private
from ostinato.compiler.errors import Elsewhere, Transformed, Unsupported
from ostinato.compiler.torch_compat import default_devices, in_transforms, seen_by_others
from ostinato.engine import native

if TYPE_CHECKING:
    from ostinato.arguments import Arguments
    from ostinato.compiler.transforms.stand_ins import StandIns


def modes(stand_ins: StandIns | None = None) -> Any:
    """The active modes that a recording depends on, hashable.

    Args:
        stand_ins: plain tensors in place of those that transforms have wrapped; see `transforms/`.

    Raises:
        Transformed: there are transforms, and these tensors are not given.
        Elsewhere: under these modes every step must run in the Python loop.
    """
    reason = torch_private.unavailable()
    if reason is not None:
        raise Elsewhere(reason)
    usual = native.modes()
    if usual is not None:
        return usual, torch.get_autocast_dtype("cpu")  # also of an autocast within the step
    reason = seen_by_others()
    if reason is not None:
        raise Elsewhere(reason)
    reason = in_transforms()
    if reason is not None and stand_ins is None:
        raise Transformed(reason)
    return (
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_default_dtype(),
        default_devices(),
    )


def unplayable(init: list[Tensor], xs: list[Tensor], axis: int) -> Unsupported:
    """Why the engine can play no step on these leaves; `axis` is the batch axis of init."""
    try:
        check_tensors([*init, *xs])
    except Elsewhere as reason:
        return reason
    n_rows = {leaf.shape[axis] if leaf.dim() > axis else None for leaf in init}
    if None in n_rows or len(n_rows) > 1:
        return Unsupported("a leaf of init without the batch as its first axis")
    if n_rows == {0}:
        return Elsewhere("there are no rows")
    if any(x.dim() < 2 or x.shape[1] not in n_rows for x in xs):
        return Unsupported("a leaf of xs without the batch as its first axis beside time")
    return Elsewhere("a tensor has a kind that the engine does not know")


def described(tensors: list[Any], a: Arguments, rows: Sequence[Tensor] = ()) -> Any:
    """Everything that a recording depends on of the leaves of init and xs, and of other tensors.

    Their kinds and shapes, and which of `tensors` are one and the same object. An element of
    `tensors` may have become another object; it is then left out. For `rows`, as for the leaves,
    all but the size of the batch.

    Raises:
        Unsupported: no step can be played on the leaves; see `unplayable`.
    """
    init, xs = (a.leaves, a.xs_leaves) if a.shared is None else a.rows
    if rows:
        init = [*init, *rows]
    found = native.described(tensors, init, xs, int(a.of_layer))
    if found is not None:
        return found
    leaves = native.described([], init, xs, int(a.of_layer))
    if leaves is None:
        raise unplayable(init, xs, int(a.of_layer))
    first: dict[int, int] = {}
    kinds = [
        (
            type(t),
            t.shape,
            t.dtype,
            t.device,
            t.layout,
            t.requires_grad,
            t.is_neg(),
            first.setdefault(id(t), i),
        )
        for i, t in enumerate(tensors)
        if isinstance(t, Tensor)
    ]
    return leaves, tuple(kinds)


def check_tensors(tensors: Sequence[Any]) -> None:
    """Raise Unsupported if the engine can play no step on these tensors."""
    for t in tensors:
        if type(t) is not Tensor and type(t) is not torch.nn.Parameter:
            raise Elsewhere(f"a {type(t).__name__} is not a plain tensor")
        if not t.is_cpu:
            raise Elsewhere(f"a tensor is on {t.device}")
        if t.layout is not torch.strided:
            raise Elsewhere(f"a tensor has the layout {t.layout}")
        if torch_private.is_functorch_wrapped_tensor(t):
            raise Unsupported(
                "a tensor comes from inside a torch.func transform: one of the step, or one that "
                "has ended"
            )
        if t._is_zerotensor():
            raise Elsewhere("a tensor is of zeros that PyTorch does not store")
        if t.is_neg():
            raise Elsewhere("a tensor has other signs than its memory, as .conj().imag has")
