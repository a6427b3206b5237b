"""The recorded step of a call, with the tensors of the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ostinato.arguments import Arguments
from ostinato.compiler import cache
from ostinato.compiler.capture.captured_rows import parted
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.play.autograd import ScanCall
from ostinato.compiler.play.tape import RowOrder
from ostinato.compiler.verify import verified

if TYPE_CHECKING:
    from ostinato.compiler.capture.draws import Drawn
    from ostinato.compiler.play.step import CompiledStep


def recorded_call(a: Arguments) -> ScanCall | Unsupported:
    """The recorded step with its tensors, verified; or why the call cannot be played."""
    try:
        return _found(a) if a.stand_ins is None else a.stand_ins.found(a, _found)
    except Unsupported as refusal:
        return refusal.bare()


def _found(a: Arguments) -> ScanCall | Unsupported:
    found = cache.find(a)
    call = _verified(a, found)
    if found.lifted and isinstance(call, Unsupported):
        call = _verified(a, cache.find_with_numbers(a))
    return call


def _verified(a: Arguments, found: cache.Found) -> ScanCall | Unsupported:
    if found.compiled is None:
        assert found.refusal is not None
        return found.refusal
    rows = None if a.ragged.lengths is None else RowOrder.of(a.ragged.lengths)
    python = found.compiled.planner.recording.runs_python_backward
    unchanged = found.guards.for_backward(a.given, a.n_rows) if python and found.guards else None
    captured, per_row = parted(found.captured, found.compiled.planner.recording.per_row)
    if per_row and any(len(t) != a.n_rows for t in per_row):
        raise Unsupported("a captured tensor has not as many rows as the batch; give it as many")
    drawn = _drawn(found.compiled, a, per_row)
    call = ScanCall(
        found.compiled,
        a,
        found.captured,
        captured,
        per_row,
        a.n_rows,
        rows,
        unchanged,
        _differentiable_gradients,
        drawn,
    )
    return verified(call, found.guards, found.lifted) or call


def _differentiable_gradients(*given: Any) -> list[Tensor | None]:
    from ostinato.compiler.transforms.functions import gradients_again  # not a part of every start

    return gradients_again(*given)


def _drawn(compiled: CompiledStep, a: Arguments, per_row: list[Tensor]) -> Drawn | None:
    """Room for the random numbers of a step that draws.

    Raises:
        Unsupported: a leaf, like which the step draws, has another memory order than was recorded.
    """
    draws = compiled.planner.recording.draws
    if not draws:
        return None
    from ostinato.compiler.capture.draws import Drawn, in_order  # not a part of every start

    if not all(map(in_order, (*a.leaves, *per_row, *[x[0] for x in a.xs_leaves]))):
        raise Unsupported(
            "the step draws random numbers, in the order in which its tensors lie in memory, and "
            "one of init or xs has its axes in another order: call contiguous() on it"
        )
    return Drawn(draws, a.ragged.n_steps, a.n_rows, a.reverse)
