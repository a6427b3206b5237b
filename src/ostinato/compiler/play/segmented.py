"""A run that is played in segments: for a budget of memory, or to stop gradients (`segments.py`).

    forward    segment after segment, each from the last carry of the one before. The carry before
               each group of spans is kept, and the tapes of the last span
    backward   span after span from the last one: played forward again from its checkpoint for the
               tapes, then segment after segment backward. The gradient of the carry and the sums of
               weight gradients are handed on from one segment to the next

Without a budget there is one span, whose tapes are all kept.

A segment's outputs are copied into those of the run, so nothing that the caller may change in place
is read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.graph.node import Node
from ostinato.compiler.play.autograd import ScanCall
from ostinato.compiler.play.segments import (
    Cost,
    Group,
    Segment,
    SegmentPlan,
    Span,
    chosen,
    scheduled,
    windows,
)
from ostinato.compiler.play.step import (
    BoundBackward,
    Flags,
    RowOrder,
    SavedForward,
    check_poles,
)
from ostinato.engine import native
from ostinato.engine.program import Code

Tensors = Sequence[Tensor]
Gradients = list[Tensor | None]
Carry = Sequence[Tensor]


@dataclass(slots=True)
class SegmentedCall(ScanCall):
    """A call of scan with `memory=` or `truncate=`."""

    @staticmethod
    def of(call: ScanCall) -> SegmentedCall:
        return SegmentedCall(*[getattr(call, f.name) for f in fields(ScanCall)])

    def forward(self, tensors: Any, train: bool) -> tuple[list[Tensor], Any]:
        if not train:
            return ScanCall.forward(self, tensors, train)
        n_steps, reverse = tensors[-1].shape[0], self.arguments.reverse
        cuts = windows(n_steps, self.arguments.truncate, reverse)
        plan = memory_plan(self, tensors)
        if plan is None or not plan.levels:
            if len(cuts) == 1:
                return ScanCall.forward(self, tensors, train)
            groups = [[cuts]]
        else:
            groups = scheduled(cuts, reverse, plan.segment_steps, plan.levels)
        run = SegmentedRun(self, tensors, cuts, groups)
        return run.forward(tensors), run

    def backward(
        self, tape: Any, tensors: Any, grads: Any, used: Flags, wanted: Flags
    ) -> Gradients:
        if not isinstance(tape, SegmentedRun):
            return ScanCall.backward(self, tape, tensors, grads, used, wanted)
        return _Backward(tape, tensors, grads, used, wanted).played()


def memory_plan(call: ScanCall, tensors: Tensors) -> SegmentPlan | None:
    """How the call keeps within its budget; None without one.

    Raises:
        ValueError: the budget is too small.
    """
    a = call.arguments
    if a.memory is None:
        return None
    n_steps = tensors[-1].shape[0]
    n_windows = len(windows(n_steps, a.truncate, a.reverse))
    return chosen(a.memory, n_steps, n_windows, _cost(call, tensors))


def _cost(call: ScanCall, tensors: Tensors) -> Cost:
    """The bytes of a step, a carry, … of this call.

    Counted as if every output were used, and its gradient had to be copied.
    """
    compiled, n_rows, ragged = call.compiled, call.n_rows, call.rows is not None
    n_steps, reverse = tensors[-1].shape[0], call.arguments.reverse
    way = compiled.forward_way(True, reverse, n_rows)
    wanted = tuple([t.requires_grad for t in tensors])
    used = (True,) * (compiled.n_ys + compiled.n_states)
    back = compiled.backward_way(way, used, wanted, ragged)
    item, f = compiled.dtype.itemsize, compiled.planner.graph.forward
    states = sum(n.width for n in f.new_states)
    kept = zip(f.new_states, way.plan.keeps, strict=True)
    kept_states = sum(n.width for n, is_kept in kept if is_kept)
    hidden = sum(n.width for i, n in enumerate(f.new_states)
                 if way.plan.keeps[i] and i not in way.plan.y_is_carry)  # fmt: skip
    ys = sum(n.width for n in f.ys)
    own_ys = sum(n.width for n, of in zip(f.ys, way.plan.y_is_carry, strict=True) if of is None)
    of_xs = zip(f.xs, tensors[-len(f.xs) :], strict=True)
    copied = sum(n.width for n, t in of_xs if t.dtype is not compiled.dtype or not _is_dense(t))
    d_xs = sum(n.width for n, t in zip(f.xs, wanted[-len(f.xs) :], strict=True) if t)
    again = ys - own_ys if ragged and reverse else 0  # see RowOrder.silenced
    tape = way.bound.tape_width
    threads, isa = native.n_threads(torch.get_num_threads()), native.best_isa()

    def engine(n: int) -> int:
        passes = (way.played, back.played)
        return max(p.needed_bytes(n, n_steps, n_rows, threads, isa) for p in passes)

    of_a_step = item * n_rows
    whole = of_a_step * (n_steps * (tape + hidden + copied) + states) + _PAGE
    return Cost(
        step=of_a_step * (tape + kept_states + own_ys + again + copied + ys + d_xs),
        segment=of_a_step * kept_states + _PAGE,
        carry=of_a_step * states,
        engine=engine,
        unit=_unit(back, n_steps, n_rows),
        kept=whole,
        whole=whole + engine(n_steps),
    )


def _unit(back: BoundBackward, n_steps: int, n_rows: int) -> int:
    """Steps that no segment divides, so that the bits of a sum are those of a single play.

    Each term of a sum is added for all steps of a chunk, then the next term. With one term that is
    the order of the steps, whatever a chunk is.
    """
    program = back.bound.lowered.program
    terms = Counter(x.weight for x in program.instructions if x.code in _SUMS)
    # A sum of products is added up in lanes, for some rows of a chunk at a time.
    in_lanes = any(x.code == Code.PRODUCT_SUM for x in program.instructions)
    if not in_lanes and max(terms.values(), default=1) == 1:
        return 1
    return back.played.chunk_steps(n_steps, n_rows, native.best_isa())


_SUMS = (Code.OUTER, Code.COLUMN_SUM, Code.PRODUCT_SUM)  # these add to a gradient, by its number
_PAGE = 4096  # a tape begins at a page


def _is_dense(x: Tensor) -> bool:
    """Whether the engine reads xs as they lie: every row of every step is dense."""
    return x[0, 0].is_contiguous()


class SegmentedRun:
    """A run in segments, forward, with all that the backward pass needs.

    Args:
        tensors: captured, init and xs.
        windows, groups: the segments, in playing order.

    Attributes:
        checkpoints: the carry before each group but the first; of each leaf `[groups − 1, B, …]`.
        tapes: of the segments of the last span, with the carry before each, until the backward
            pass takes them.
    """

    def __init__(
        self, call: ScanCall, tensors: Tensors, windows: list[Segment], groups: list[Group]
    ):
        self.call, self.windows, self.groups = call, windows, groups
        self.whereabouts = native.whereabouts(list(tensors))
        self.n_steps: int = tensors[-1].shape[0]
        # All segments are played by as many: the sums that they hand on are laid out by threads.
        self.n_threads = native.n_threads(torch.get_num_threads())
        self.checkpoints: list[Tensor] = []
        self.tapes: list[tuple[Carry, SavedForward]] = []

    def forward(self, tensors: Tensors) -> list[Tensor]:
        """Outputs and last carry, in one list."""
        carry: Carry = self.call.split(tensors)[1]
        ys: list[Tensor] = []
        n_ys, last = self.call.compiled.n_ys, self.groups[-1][-1]
        for g, group in enumerate(self.groups):
            if g:
                self.checkpoints = keep(self.checkpoints, carry, g - 1, len(self.groups) - 1)
            for segment, is_last in ((s, span is last) for span in group for s in span):
                outs, tape = self.play(tensors, segment, carry, is_last)
                if is_last:
                    self.tapes.append((carry, tape))
                parts, carry = outs[:n_ys], outs[n_ys:]
                if not ys:
                    dtypes = self.call.compiled.out_dtypes
                    ys = [whole(p, self.n_steps, d) for p, d in zip(parts, dtypes, strict=False)]
                for y, part in zip(ys, parts, strict=True):
                    y[segment.begin : segment.end] = part
        last_dtypes = self.call.compiled.out_dtypes[n_ys:]
        return [*ys, *(leaf.to(d) for leaf, d in zip(carry, last_dtypes, strict=True))]

    def carry_before(self, tensors: Tensors, group: int) -> Carry:
        init = self.call.split(tensors)[1]
        return init if group == 0 else [leaf[group - 1] for leaf in self.checkpoints]

    def given(self, tensors: Tensors, segment: Segment, carry: Carry) -> list[Tensor]:
        """The tensors that are given to a segment."""
        captured, _, xs = self.call.split(tensors)
        return [*captured, *carry, *(x[segment.begin : segment.end] for x in xs)]

    def play(
        self, tensors: Tensors, segment: Segment, carry: Carry, train: bool
    ) -> tuple[list[Tensor], SavedForward]:
        """Outputs and last carry as the engine computes them: not rounded to a shorter type."""
        call = self.call
        given = self.given(tensors, segment, carry)
        reverse, rows = call.arguments.reverse, self.rows(segment)
        return call.compiled.forward(
            given, call.n_rows, reverse, rows, train, as_computed=True, n_threads=self.n_threads
        )

    def rows(self, segment: Segment) -> RowOrder | None:
        """The rows' steps within a segment. The engine's order of the rows is that of the run."""
        rows = self.call.rows
        if rows is None:
            return None
        begin, n = segment.begin, segment.end - segment.begin
        ordered = [min(max(length - begin, 0), n) for length in rows.ordered_lengths]
        return RowOrder((rows.lengths - begin).clamp(0, n), rows.order, ordered)


def whole(part: Tensor, n_steps: int, dtype: torch.dtype | None = None) -> Tensor:
    """Memory for all steps, of which a part has some."""
    return part.new_empty((n_steps, *part.shape[1:]), dtype=dtype)


def keep(kept: list[Tensor], carry: Carry, at: int, n: int) -> list[Tensor]:
    """Copy a carry to its place among n of them; the tensors are made for the first."""
    kept = kept or [leaf.new_empty((n, *leaf.shape)) for leaf in carry]
    for of_leaf, leaf in zip(kept, carry, strict=True):
        of_leaf[at] = leaf
    return kept


class _Sums:
    """The weight gradients of windows in which the same outputs are used.

    Args:
        run_steps: of the run, all windows together.
        n_steps: of the longest of these windows.
    """

    def __init__(self, way: BoundBackward, run_steps: int, n_steps: int):
        self.way = way
        self.running = native.running_sums(run_steps)
        self.sums: list[Tensor] = []
        self.once: dict[Node, Tensor] = {}
        self.unreached = frozenset(way.flow.unreached(n_steps))


class _Backward:
    """The backward pass of a run in segments.

    Attributes:
        used: whether each output and leaf of the last carry has a gradient, in the present window.
        d_carry: of the carry after the segment that is played next.
        d_xs: of whole leaves of xs.
    """

    def __init__(self, run: SegmentedRun, tensors: Tensors, grads: Any, used: Flags, wanted: Flags):
        self.run, self.tensors, self.grads, self.used, self.wanted = (
            run, tensors, grads, used, wanted,
        )  # fmt: skip
        self.compiled, self.rows = run.call.compiled, run.call.rows
        self.n_captured, self.n_states, self.n_ys = (
            self.compiled.n_captured, self.compiled.n_states, self.compiled.n_ys,
        )  # fmt: skip
        self.xs = run.call.split(tensors)[2]
        d_finals = grads[self.n_ys :]
        self.d_carry: Gradients = [d if d is None else d.to(self.compiled.dtype) for d in d_finals]
        self.d_xs: Gradients = [None] * len(self.xs)
        self.sums: dict[Flags, _Sums] = {}  # by the outputs used

    def played(self) -> Gradients:
        """The gradients of the tensors given."""
        run = self.run
        run.whereabouts.check(list(self.tensors))
        for g in reversed(range(len(run.groups))):
            carries = self.carries_before_spans(run.groups[g], run.carry_before(self.tensors, g))
            for span, carry in zip(reversed(run.groups[g]), reversed(carries), strict=True):
                self.play_span(span, carry)
        return self.gradients()

    # ---- The plays

    def carries_before_spans(self, group: Group, carry: Carry) -> list[Carry]:
        """The carry before each span of a group; all but the last span are played for them."""
        found = [carry]
        kept: list[Tensor] = []
        for i, span in enumerate(group[:-1]):
            for segment in span:
                outs, _ = self.run.play(self.tensors, segment, carry, False)
                carry = outs[self.n_ys :]
            kept = keep(kept, carry, i, len(group) - 1)
            carry = [leaf[i] for leaf in kept]
            found.append(carry)
        return found

    def play_span(self, span: Span, carry: Carry) -> None:
        tapes, self.run.tapes = self.run.tapes, []
        if not tapes:
            for segment in span:
                outs, tape = self.run.play(self.tensors, segment, carry, True)
                tapes.append((carry, tape))
                carry = outs[self.n_ys :]
        for segment in reversed(span):
            carry, tape = tapes.pop()
            before = self.used_before(segment)
            if any(self.used):
                begins_run = segment == self.run.groups[0][0][0]
                last = begins_run or before != self.used
                self.play_backward(segment, carry, tape, last)
            if segment.cut:
                self.d_carry = [self.passing(d, segment) for d in self.d_carry]
            self.used = before

    def play_backward(self, segment: Segment, carry: Carry, tape: SavedForward, last: bool) -> None:
        """last: whether no further segment adds to the same sums."""
        sums = self.sums_for(tape)
        given = self.run.given(self.tensors, segment, carry)
        steps = slice(segment.begin, segment.end)
        dtype = self.compiled.dtype
        d_ys = [None if d is None else d[steps].to(dtype) for d in self.grads[: self.n_ys]]
        sums.once = dict(tape.once)
        # In a ragged batch the engine writes the steps of a row alone, onto zeros that it makes.
        places: Gradients = [None] * len(self.xs)
        if self.rows is None:
            places = [None if d is None else d[steps] for d in self.d_xs]
        sums.sums, found = sums.way.played.play(
            tape.held, given, sums.way.bound.once(given, sums.once), [*d_ys, *self.d_carry],
            native.best_isa(), sums.running, last, places,
        )  # fmt: skip
        self.d_carry = found[: self.n_states]
        for i, d in enumerate(found[self.n_states :]):
            if d is None or d is places[i]:
                continue
            d_x = self.d_xs[i]
            if d_x is None:
                d_x = self.d_xs[i] = whole(d, self.run.n_steps)
                if len(self.run.windows) > 1:  # no gradient may reach the steps of some windows
                    d_x.zero_()
            d_x[steps] = d

    def sums_for(self, tape: SavedForward) -> _Sums:
        if self.used not in self.sums:
            a, b = self.n_captured, self.n_captured + self.n_states
            # A segment hands on the gradient of the carry, whether that of init is wanted or not.
            computed = (*self.wanted[:a], *(True,) * self.n_states, *self.wanted[b:])
            ragged = self.rows is not None
            way = self.compiled.backward_way(tape.forward, self.used, computed, ragged)
            n_steps = self.run.n_steps
            if not ragged:
                # The last window alone has the gradient of the last carry; none is longer than
                # the first.
                of_last = any(self.used[self.n_ys :])
                begin, end, _ = self.run.windows[-1 if of_last else 0]
                n_steps = end - begin
            self.sums[self.used] = _Sums(way, self.run.n_steps, n_steps)
        return self.sums[self.used]

    # ---- Between windows

    def used_before(self, segment: Segment) -> Flags:
        """The outputs in use before this segment.

        The last carry is used in the last window alone; but a row that has ended earlier hands on
        the gradient of its last carry through all windows after it.
        """
        if not segment.cut or self.rows is not None:
            return self.used
        return (*self.used[: self.n_ys], *(False,) * self.n_states)

    def passing(self, d: Tensor | None, segment: Segment) -> Tensor | None:
        """The gradient of the carry where it stops: only that of rows outside of their steps."""
        if d is None or self.rows is None:
            return None
        border = segment.end if self.run.call.arguments.reverse else segment.begin
        axis = 1 if self.run.call.arguments.of_layer else 0
        outside = (self.rows.lengths <= border).view(-1, *[1] * (d.dim() - axis - 1))
        return torch.where(outside, d, 0.0)

    # ---- The result

    def gradients(self) -> Gradients:
        """The gradients of all tensors given; None for those not wanted, or that none reaches.

        Raises:
            Unsupported: a gradient of zeros, where autograd has none, met a pole.
        """
        captured: Gradients = [None] * self.n_captured
        for sums in self.sums.values():
            found = sums.way.gradients.of(sums.sums, self.tensors, sums.once)
            for i, d in enumerate(found):
                if d is not None and i not in sums.unreached:
                    so_far = captured[i]
                    captured[i] = d if so_far is None else so_far + d
        all_found = [*captured, *self.d_carry, *self.d_xs]
        ways = [sums.way for sums in self.sums.values()]
        check_poles(ways, all_found)
        # Of init in the window that is played first, of xs in any.
        each = [sums.unreached for sums in self.sums.values()]
        for i in range(self.n_captured, len(all_found)):
            is_x = i >= self.n_captured + self.n_states
            reached = any(i not in u for u in (each if is_x else each[-1:]))
            if not (reached and self.wanted[i]):
                all_found[i] = None
        return all_found
