"""Derivatives of a scan that the engine cannot play: the Python loop of the recorded step, with
PyTorch's own transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato.compiler.capture.wrapped import can_move
from ostinato.compiler.torch_compat import gradients_of

if TYPE_CHECKING:
    from ostinato.compiler.play.autograd import ScanCall
    from ostinato.compiler.play.tape import Flags
    from ostinato.compiler.transforms.functions import Ask

Tensors = Sequence[Tensor]
Optional = Sequence["Tensor | None"]


def outputs(call: ScanCall, tensors: Tensors) -> list[Tensor]:
    """Outputs and last carry."""
    return call.replay(*call.split(tensors), recorded=True)


def plain_gradients(
    call: ScanCall, tensors: Tensors, grads: Optional, wanted: Flags
) -> list[Tensor | None]:
    """The gradients of plain tensors."""
    inputs = [t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
    with torch.enable_grad():
        outs = outputs(call, inputs)
    pairs = zip(outs, grads, strict=False)
    given = [(o, g) for o, g in pairs if g is not None and o.requires_grad]
    if not given:
        return [None] * len(inputs)
    found = iter(gradients_of(given, [t for t in inputs if t.requires_grad]))
    return [next(found) if t.requires_grad else None for t in inputs]


def tangents(call: ScanCall, tensors: Tensors, along: Optional) -> tuple[Tensor | None, ...]:
    """The tangents of outputs and last carry."""
    moving = [i for i, v in enumerate(along) if v is not None]
    places: list[int] = []
    like: list[Tensor] = []

    def moved(*duals: Tensor) -> Any:
        outs = outputs(call, _replaced(tensors, moving, duals))
        like[:], places[:] = outs, [i for i, o in enumerate(outs) if can_move(o)]
        return [outs[i] for i in places]

    duals = tuple([tensors[i] for i in moving])
    found = torch.func.jvp(moved, duals, tuple([v for v in along if v is not None]))[1]
    at = dict(zip(places, found, strict=True))
    # Further leaves of the carry, which only the engine has, are the last outputs.
    init = call.split(tensors)[1]
    outs = [*like, *init[len(like) - call.compiled.n_ys :]]
    return tuple([at[i] if i in at else no_tangent(o) for i, o in enumerate(outs)])


def no_tangent(t: Tensor) -> Tensor | None:
    """A tangent of zeros: PyTorch takes none for an output that could have one for an error."""
    return torch.zeros_like(t) if can_move(t) else None


def gradients(ask: Ask, given: Tensors, directions: Optional) -> Sequence[Tensor | None]:
    """The gradients of the gradients that were asked for."""
    moving, backward = _backward(ask, given)
    pulled = torch.func.vjp(backward, *[given[i] for i in moving])[1]
    pairs = zip(ask.reached, directions, strict=True)
    along = [torch.zeros_like(given[i]) if u is None else u for i, u in pairs]
    found = dict(zip(moving, pulled(along), strict=True))
    return [found.get(i) for i in range(len(given))]


def tangents_of_gradients(ask: Ask, given: Tensors, along: Optional) -> tuple[Tensor, ...]:
    """The tangents of the gradients that were asked for."""
    moving, backward = _backward(ask, given)
    primals = tuple([given[i] for i in moving])
    pairs = zip(primals, [along[i] for i in moving], strict=True)
    of = tuple([torch.zeros_like(t) if v is None else v for t, v in pairs])
    return tuple(torch.func.jvp(backward, primals, of)[1])


def _backward(ask: Ask, given: Tensors) -> tuple[list[int], Any]:
    """The gradients that were asked for as a function of those of `given` that can move."""
    call = ask.run.call
    moving = [i for i, t in enumerate(given) if can_move(t)]

    def backward(*moved: Tensor) -> Any:
        tensors, grads = ask.split(_replaced(given, moving, moved))

        def used(*inputs: Tensor) -> Any:
            outs = outputs(call, _replaced(tensors, ask.reached, inputs))
            return [o for o, g in zip(outs, grads, strict=False) if g is not None]

        pulled = torch.func.vjp(used, *[tensors[i] for i in ask.reached])[1]
        return list(
            pulled(
                [
                    g
                    for g in grads[: call.compiled.n_ys + len(call.arguments.leaves)]
                    if g is not None
                ]
            )
        )

    return moving, backward


def _replaced(of: Sequence[Tensor], at: Sequence[int], by: Sequence[Tensor]) -> list[Tensor]:
    new = list(of)
    for i, t in zip(at, by, strict=True):
        new[i] = t
    return new
