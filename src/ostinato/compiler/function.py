"""`scan` as one differentiable operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ostinato import tree
from ostinato.compiler.graph import Unsupported
from ostinato.compiler.play import Player, Rows
from ostinato.compiler.record import transformed


@dataclass(slots=True)  # made with every call
class Scan:
    """One call of scan, but for its tensors."""

    player: Player
    n_captured: int
    n_states: int
    reverse: bool
    rows: Rows | None
    replay: Callable[..., list[Tensor]]  # the eager loop, from captured, init, xs; or as recorded
    step: Callable[..., Any]
    xs_spec: Any

    def element(self, tensors: Any) -> Any:
        """The first element of xs."""
        return tree.unflatten([x[0] for x in self.split(tensors)[2]], self.xs_spec)

    def split(self, tensors: Any) -> tuple[Any, Any, Any]:
        a, b = self.n_captured, self.n_captured + self.n_states
        return tensors[:a], tensors[a:b], tensors[b:]


def play(call: Scan, tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and last carry, differentiable in `tensors` (captured, init, xs)."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        outs: Any = _ScanFunction.apply(call, *tensors)
        n = len(outs) - call.n_states
        return list(outs[:n]), list(outs[n:])
    captured, init, xs = call.split(tensors)
    ys, finals, _ = call.player.forward(captured, init, xs, call.reverse, call.rows, train=False)
    return _typed(call, ys), finals


def _typed(call: Scan, ys: list[Tensor]) -> list[Tensor]:
    """The engine computes truth values as 0 and 1; give back what the step returned."""
    dtypes = call.player.y_dtypes
    return [y if y.dtype is d else y.to(d) for y, d in zip(ys, dtypes, strict=True)]


class _ScanFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Scan, *tensors: Tensor) -> Any:
        captured, init, xs = call.split(tensors)
        ys, finals, tape = call.player.forward(
            captured, init, xs, call.reverse, call.rows, train=True
        )
        ys = _typed(call, ys)
        ctx.call, ctx.tape = call, tape
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        needs = call.player.y_needs_grad
        if not all(needs):
            fixed = [y for y, need in zip(ys, needs, strict=True) if not need]
            ctx.mark_non_differentiable(*fixed)
        return (*ys, *finals)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        call: Scan = ctx.call
        n = call.n_captured + call.n_states
        needed = ctx.needs_input_grad[1:]
        tensors = ctx.saved_tensors
        vectorised = any(
            g is not None and torch._C._functorch.is_legacy_batchedtensor(g) for g in grads
        )
        if torch.is_grad_enabled() or vectorised or transformed():  # itself being differentiated
            return (None, *_replayed(call, tensors, grads))
        n_ys = len(grads) - call.n_states
        captured, init, xs = call.split(tensors)
        tape = ctx.tape
        if not tape.holds():  # an output was changed in place, as those of a loop may be
            _, _, tape = call.player.forward(
                captured, init, xs, call.reverse, call.rows, train=True
            )
        try:
            d_captured, d_init, d_xs = call.player.backward(
                tape,
                captured,
                grads[:n_ys],
                grads[n_ys:],
                needed[call.n_captured : n],
                needed[n:],
                call.reverse,
            )
        except Unsupported:  # with these outputs unused the graph has another form
            return (None, *_replayed(call, tensors, grads))
        found = [*d_captured, *d_init, *d_xs]
        return (None, *[g if need else None for g, need in zip(found, needed, strict=True)])


def _replayed(
    call: Scan, tensors: tuple[Tensor, ...], grads: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """The gradients by the eager loop, themselves differentiable: slower, never wrong."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [t.view_as(t) if t.requires_grad else t for t in tensors]
        outs = call.replay(*call.split(inputs), recorded=True)
    pairs = [(o, g) for o, g in zip(outs, grads, strict=True) if g is not None and o.requires_grad]
    wanted = [i for i, t in enumerate(inputs) if t.requires_grad]
    results: list[Tensor | None] = [None] * len(inputs)
    if pairs:
        found = torch.autograd.grad(
            [o for o, _ in pairs], [inputs[i] for i in wanted], [g for _, g in pairs],
            create_graph=differentiable, allow_unused=True,
        )  # fmt: skip
        for i, g in zip(wanted, found, strict=True):
            results[i] = g
    return results
