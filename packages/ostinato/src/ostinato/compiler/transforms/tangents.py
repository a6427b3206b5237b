"""The step's jvp as a step: the scan of it gives the outputs of a scan and their tangents.

    (h, h'), (x, x')  ->  (f(h, x; W),  f_h h' + f_x x' + f_W W')

It is recorded as every step, with a backward pass of its own. This is all that derivatives of
higher order need (`functions.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato import tree
from ostinato.arguments import Arguments
from ostinato.compiler.capture import wrapped
from ostinato.compiler.capture.recording import Recording, recorded_step
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.play.autograd import ScanCall
from ostinato.compiler.verify import verified
from ostinato.eager import RowSpans

if TYPE_CHECKING:
    from ostinato.compiler.play.step import CompiledStep

Flags = tuple[bool, ...]
Places = list[int | None]


@dataclass(frozen=True)
class Tangents:
    """Which tensors of a recording have tangents: captured tensors, leaves of the carry and of xs.

    The tensors of the step's jvp are the captured ones with their tangents behind them, then the
    leaves of the carry with theirs, and those of xs; its outputs are ordered in the same way.
    """

    captured: Flags
    states: Flags
    xs: Flags
    ys: Flags  # of the outputs: those that are floating-point numbers

    @staticmethod
    def of(recording: Recording, given: Flags, handed_on: Sequence[int]) -> Tangents:
        """The tangents that follow if these tensors of a call have one."""
        r = recording
        a, b = len(r.captured), len(r.captured) + len(r.states)
        floats = [r.dtypes[i].is_floating_point for i in r.states]
        states = [
            g or (is_float and i not in handed_on)
            for i, (g, is_float) in enumerate(zip(given[a:b], floats, strict=True))
        ]
        ys = tuple([r.dtypes[i].is_floating_point for i in r.ys])
        return Tangents(given[:a], tuple(states), given[b:], ys)

    def joined(
        self, tensors: Sequence[Any], tangents: Sequence[Any], zeros: dict[int, Tensor]
    ) -> list[Any]:
        """The tensors of the jvp; a leaf of the carry without a tangent gets one of zeros.

        Args:
            zeros: those made earlier, by number of the leaf: a tape is of the same tensors.
        """
        a, b = len(self.captured), len(self.captured) + len(self.states)
        states = [
            zeros.setdefault(i, torch.zeros(t.shape, dtype=t.dtype)) if has and v is None else v
            for i, (t, v, has) in enumerate(
                zip(tensors[a:b], tangents[a:b], self.states, strict=True)
            )
        ]
        parts = (
            (tensors[:a], compress(tangents[:a], self.captured)),
            (tensors[a:b], compress(states, self.states)),
            (tensors[b:], compress(tangents[b:], self.xs)),
        )
        return [t for primals, more in parts for t in (*primals, *more)]

    def primal_places(self) -> tuple[list[int], Places]:
        """The places, among the tensors of the jvp, of the tensors and of their tangents."""
        return _places((self.captured, self.states, self.xs))

    def output_places(self) -> tuple[list[int], Places]:
        """The places of outputs and last carry, and of their tangents, among the jvp's."""
        return _places((self.ys, self.states))

    def step(self, recording: Recording, captured: list[Tensor], tangents: list[Tensor]) -> Any:
        """The jvp of the recorded step, of lists of leaves."""
        n, m = len(self.states), len(self.xs)
        flags = (*self.captured, *self.states, *self.xs)

        def step(carry: list[Tensor], x: list[Tensor]) -> Any:
            primals = [*captured, *carry[:n], *x[:m]]
            moving = [i for i, has in enumerate(flags) if has]

            def moved(*duals: Tensor) -> Any:
                of = list(primals)
                for i, dual in zip(moving, duals, strict=True):
                    of[i] = dual
                a, b = len(captured), len(captured) + n
                new_states, ys = recorded_step(recording, of[:a], [])(of[a:b], of[b:])
                floats = [*compress(ys, self.ys), *compress(new_states, self.states)]
                return floats, (ys, new_states)

            duals = tuple([primals[i] for i in moving])
            along = *tangents, *carry[n:], *x[m:]
            _, *rest = torch.func.jvp(moved, duals, along, has_aux=True)
            found, (ys, states) = rest
            k = sum(self.ys)
            return [*states, *found[k:]], [*ys, *found[:k]]

        return step


def _places(parts: tuple[Flags, ...]) -> tuple[list[int], Places]:
    first: list[int] = []
    second: Places = []
    at = 0
    for flags in parts:
        first += range(at, at + len(flags))
        at += len(flags)
        for has in flags:
            second.append(at if has else None)
            at += has
    return first, second


def tangent_call(call: ScanCall, of: Tangents, tensors: list[Tensor]) -> ScanCall:
    """The scan of the step's jvp, without a budget of memory.

    Args:
        tensors: those of the jvp, as `joined` orders them; their values are used if it has to be
            recorded.

    Raises:
        Unsupported: the engine cannot play it.
    """
    primal = call.compiled
    found = primal.tangents.get((of, call.arguments.of_layer))
    if found is None:
        # Of all tensors, so that their gradients are recorded whoever wants them later.
        leaves = wrapped.plain(tensors, wrapped.depth())
        with wrapped.outside():
            leaves = [t.requires_grad_(wrapped.can_move(t)) for t in leaves]
            found = _recorded(_with_arguments(call, of, leaves), primal.planner.recording)
        primal.tangents[of, call.arguments.of_layer] = found
    if isinstance(found, Unsupported):
        raise found.bare()
    # The call keeps no tensors: they may be computed from a graph that holds the call.
    kept = [torch.empty(0) for _ in tensors]
    return replace(_with_arguments(call, of, kept), compiled=found)


def _with_arguments(call: ScanCall, of: Tangents, tensors: list[Tensor]) -> ScanCall:
    """The call of the step's jvp on these tensors, as yet without the recording of it."""
    a = call.arguments
    n = len(of.captured) + sum(of.captured)
    m = n + len(of.states) + sum(of.states)
    captured, leaves, xs = tensors[:n], tensors[n:m], tensors[m:]
    k = len(of.captured)
    step = of.step(call.compiled.planner.recording, captured[:k], captured[k:])
    ragged = RowSpans(a.ragged.lengths, None, [], a.ragged.n_steps)
    arguments = Arguments(
        step,
        step,
        leaves,
        tree.flatten(leaves)[1],
        xs,
        tree.flatten(xs)[1],
        0,
        a.reverse,
        ragged,
        a.of_layer,
        weights=captured,
    )
    return replace(
        call,
        arguments=arguments,
        taken=captured,
        captured=captured,
        per_row=[],
        unchanged=None,
        drawn=None,
    )


# Their tangents are computed from a factorization that autograd takes for a constant: PyTorch 2.13.
_WRONG = {
    "aten._linalg_det.default",
    "aten._linalg_slogdet.default",
    "aten._linalg_solve_ex.default",
}


def _recorded(call: ScanCall, of: Recording) -> CompiledStep | Unsupported:
    """The recording of the step of a call, which is the jvp of another one; verified once."""
    from ostinato.compiler import compile_step  # not a part of every start

    try:
        for call_of_aten in of.calls[: of.n_forward]:
            if call_of_aten.name in _WRONG:
                raise Unsupported("autograd's gradient of its tangent is wrong", call_of_aten.name)
        compiled = compile_step(call.arguments, call.captured, None, call.compiled.engine)
        return verified(replace(call, compiled=compiled), None) or compiled
    except Unsupported as refusal:
        return refusal.bare()
