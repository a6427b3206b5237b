"""A run in segments: for a budget of memory, or to stop gradients (`segments.py`).

    forward    segment after segment, each from the last carry of the one before. The carry before
               each group of spans is kept, and the tapes of the last span
    backward   span after span from the last one: played forward again from its checkpoint for the
               tapes, then segment after segment backward. The gradient of the carry and the sums of
               weight gradients pass from one segment to the next

Without a budget there is one span, whose tapes are all kept.

A segment's outputs are copied into those of the run, so that nothing that the caller may change in
place is read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ostinato.compiler.graph.node import Node
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
from ostinato.compiler.play.step import check_poles
from ostinato.compiler.play.tape import BoundBackward, Flags, RowOrder, SavedForward, Tensors
from ostinato.engine import native
from ostinato.engine.program import Code

if TYPE_CHECKING:
    from ostinato.compiler.play.autograd import ScanCall

Gradients = list[Tensor | None]
Carry = Sequence[Tensor]


def run_in_segments(call: ScanCall, tensors: Tensors) -> SegmentedRun | None:
    """The run of a call with `memory=` or `truncate=`; None if it runs in one piece."""
    n_steps, reverse = tensors[-1].shape[0], call.arguments.reverse
    cuts = windows(n_steps, call.arguments.truncate, reverse)
    plan = memory_plan(call, tensors)
    if plan is not None and plan.levels:
        groups = scheduled(cuts, reverse, plan.segment_steps, plan.levels)
    elif len(cuts) > 1:
        groups = [[cuts]]
    else:
        return None
    return SegmentedRun(call, tensors, cuts, groups)


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

    They are counted as if every output were used, and its gradient had to be copied.
    """
    compiled, n_rows, ragged = call.compiled, call.n_rows, call.rows is not None
    n_steps, reverse = tensors[-1].shape[0], call.arguments.reverse
    way = compiled.forward_way(True, reverse, n_rows)
    wanted = tuple([t.requires_grad for t in tensors])
    used = (True,) * (compiled.n_ys + compiled.n_states)
    back = compiled.backward_way(way, used, wanted, ragged)
    f, keeps, y_is_carry = compiled.planner.graph.forward, way.plan.keeps, way.plan.y_is_carry
    xs, ys, states = tensors[-len(f.xs) :], _columns(f.ys), _columns(f.new_states)
    handed_on = _columns(f.new_states[i] for i in compiled.handed_on)
    kept_states = _columns(compress(f.new_states, keeps))
    hidden = _columns(n for i, n in enumerate(f.new_states) if keeps[i] and i not in y_is_carry)
    own_ys = _columns(compress(f.ys, [of is None for of in y_is_carry]))
    as_they_lie = [t.dtype is compiled.dtype and _is_dense(t) for t in xs]
    copied = _columns(f.xs) - _columns(compress(f.xs, as_they_lie))
    d_xs = _columns(compress(f.xs, wanted[-len(f.xs) :]))
    again = ys - own_ys if ragged and reverse else 0  # see RowOrder.silenced
    tape = way.bound.tape_width
    threads, isa = native.n_threads(torch.get_num_threads()), native.best_isa()

    def engine(n: int) -> int:
        passes = (way.played, back.played)
        return max(p.needed_bytes(n, n_steps, n_rows, threads, isa) for p in passes)

    of_a_step = compiled.dtype.itemsize * n_rows
    return Cost(
        step=of_a_step * (tape + kept_states + own_ys + again + copied + ys + d_xs),
        segment=of_a_step * kept_states + _PAGE,
        carry=of_a_step * (states - handed_on),
        handed_on=of_a_step * handed_on,
        engine=engine,
        unit=_unit(back, n_steps, n_rows),
        whole=of_a_step * (n_steps * (tape + hidden + copied) + states) + _PAGE,
    )


def _columns(nodes: Iterable[Node]) -> int:
    return sum(n.width for n in nodes)


def _unit(back: BoundBackward, n_steps: int, n_rows: int) -> int:
    """The number of steps that a segment may not divide, so that sums keep the bits of one run.

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
    """Whether the engine reads xs in place: every row of every step is dense."""
    return x[0, 0].is_contiguous()


class SegmentedTape(NamedTuple):
    """The tape of one segment."""

    segment: Segment
    carry: Carry  # the carry before it
    saved: SavedForward


class SegmentedRun:
    """A run in segments, forward, with all that the backward pass needs.

    Args:
        tensors: captured tensors, init and xs.
        windows, groups: the segments, in playing order.

    Attributes:
        begins: the first carry. Leaves that every step hands on are its own in all carries.
        checkpoints: the carry before each group.
        tapes: of the segments of the last span, until the backward pass takes them.
    """

    def __init__(
        self, call: ScanCall, tensors: Tensors, windows: list[Segment], groups: list[Group]
    ):
        self.call, self.windows, self.groups = call, windows, groups
        self.whereabouts = native.whereabouts(list(tensors))
        self.n_steps: int = tensors[-1].shape[0]
        self.handed_on = frozenset(call.compiled.handed_on)
        # All segments use the same number of threads: the layout of their sums depends on it.
        self.n_threads = native.n_threads(torch.get_num_threads())
        # The tapes of spans exist one after the other: the same memory for all, though one is
        # shorter, or the allocator could not use the shorter one's place for the next.
        spans = [span for group in groups for span in group]
        alone = all(len(span) == 1 for span in spans)
        self.room_steps = max(s.end - s.begin for [s] in spans) if alone else 0
        self.begins: Carry = call.split(tensors)[1]
        self.checkpoints: list[Carry] = []
        self.tapes: list[SegmentedTape] = []

    def forward(self, tensors: Tensors) -> list[Tensor]:
        """Outputs and last carry, in one list."""
        carry = self.begins
        ys: list[Tensor] = []
        n_ys, dtypes = self.call.compiled.n_ys, self.call.compiled.out_dtypes
        last = self.groups[-1][-1]
        # The checkpoints are one piece of memory: small tensors that stay, between large ones that
        # are freed, would keep the allocator from reusing a place.
        n_kept, dtype = len(self.groups), self.call.compiled.dtype
        changing = [leaf for at, leaf in enumerate(carry) if at not in self.handed_on]
        kept = [leaf.new_empty((n_kept, *leaf.shape), dtype=dtype) for leaf in changing]
        for i, group in enumerate(self.groups):
            places = iter(kept)
            self.checkpoints.append(
                [
                    leaf if at in self.handed_on else next(places)[i].copy_(leaf)
                    for at, leaf in enumerate(carry)
                ]
            )
            for span in group:
                for tape, outs in self.span_forward(tensors, span, carry, span is last):
                    if span is last:
                        self.tapes.append(tape)
                    parts, carry = outs[:n_ys], self.carry_in(outs)
                    ys = ys or [
                        whole(p, self.n_steps, d) for p, d in zip(parts, dtypes, strict=False)
                    ]
                    for y, part in zip(ys, parts, strict=True):
                        y[tape.segment.steps] = part
        finals = zip(outs[n_ys:], dtypes[n_ys:], strict=True)
        return [*ys, *(leaf.to(d) for leaf, d in finals)]

    def backward(self, tensors: Tensors, grads: Any, used: Flags, wanted: Flags) -> Gradients:
        """See `CompiledStep.backward`."""
        return _Backward(self, tensors, grads, used, wanted).gradients()

    def given(self, tensors: Tensors, segment: Segment, carry: Carry) -> list[Tensor]:
        """The tensors of a segment."""
        captured, _, xs = self.call.split(tensors)
        return [*captured, *carry, *(x[segment.steps] for x in xs)]

    def span_forward(
        self, tensors: Tensors, span: Span, carry: Carry, train: bool
    ) -> Iterator[tuple[SegmentedTape, list[Tensor]]]:
        """The segments of a span, forward: the tape of each, its outputs and last carry.

        The tensors are as the engine computes them: not rounded to a shorter type.
        """
        call, reverse = self.call, self.call.arguments.reverse
        for segment in span:
            given, rows = self.given(tensors, segment, carry), self.rows(segment)
            outs, saved = call.compiled.forward(
                given,
                call.n_rows,
                reverse,
                rows,
                train,
                as_computed=True,
                n_threads=self.n_threads,
                room_steps=self.room_steps,
            )
            yield SegmentedTape(segment, carry, saved), outs
            carry = self.carry_in(outs)

    def carry_in(self, outs: list[Tensor]) -> Carry:
        """The carry after a segment, of its outputs and last carry."""
        carry = outs[self.call.compiled.n_ys :]
        for i in self.handed_on:
            carry[i] = self.begins[i]
        return carry

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


class _Backward:
    """The backward pass of a run in segments.

    Attributes:
        flows: which gradients exist in the last window, and in the others; with their largest
            lengths.
        end: the segment that runs last.
        d_carry: the gradient of the carry after the segment that runs next.
        d_xs: the gradients of whole leaves of xs.
    """

    def __init__(self, run: SegmentedRun, tensors: Tensors, grads: Any, used: Flags, wanted: Flags):
        compiled = self.compiled = run.call.compiled
        self.run, self.tensors, self.wanted, self.rows = run, tensors, wanted, run.call.rows
        self.d_ys, d_finals = grads[: compiled.n_ys], grads[compiled.n_ys :]
        self.d_carry: Gradients = [d if d is None else d.to(compiled.dtype) for d in d_finals]
        # Captured tensors with rows are not a carry of the step.
        self.uncut = range(len(run.call.arguments.leaves), compiled.n_states)
        self.first_x = compiled.n_captured + compiled.n_states
        self.d_xs: Gradients = [None] * (len(tensors) - self.first_x)
        # A segment passes on the gradient of the carry, even if that of init is not needed.
        of_states = (True,) * compiled.n_states
        computed = (*wanted[: compiled.n_captured], *of_states, *wanted[self.first_x :])
        forward = compiled.forward_way(True, run.call.arguments.reverse, run.call.n_rows)
        self.way = compiled.backward_way(forward, used, computed, self.rows is not None)
        self.running = native.running_sums(run.n_steps)
        self.sums: list[Tensor] = []
        self.once: dict[Node, Tensor] = {}
        self.flows = [(self.way.flow, run.n_steps)]
        segments = [s for group in run.groups for span in group for s in span]
        self.end, self.ended = segments[0], False
        # The last carry is used in the last window alone; but a row that has ended earlier hands on
        # the gradient of its last carry through all windows after it.
        if len(run.windows) > 1 and self.rows is None:
            longest, last = (w.end - w.begin for w in (run.windows[0], run.windows[-1]))
            self.flows = [(self.way.flow, last)]
            y_used = used[: compiled.n_ys]
            if any(y_used):
                after = tuple(
                    [i in self.uncut and leaf for i, leaf in enumerate(self.way.flow.leaves)]
                )
                self.flows.append((compiled.planner.liveness(y_used, after, False), longest))
            else:
                self.end = [s for s in segments if s.cut][-1]

    def gradients(self) -> Gradients:
        """See `CompiledStep.backward`."""
        self.run.whereabouts.check(list(self.tensors))
        groups = zip(reversed(self.run.groups), reversed(self.run.checkpoints), strict=True)
        spans = (found for g, carry in groups for found in reversed(self.carries_before(g, carry)))
        while not self.ended:
            self.play_span(*next(spans))
        of_captured = self.way.gradients.of(self.sums, self.tensors, self.once)
        found: Gradients = [*of_captured, *self.d_carry, *self.d_xs]
        leaves = self.way.flow.leaves  # those of the program, for all windows
        check_poles(any(flow.risky or flow.leaves != leaves for flow, _ in self.flows), found)
        unreached = [set(flow.unreached(n)) for flow, n in self.flows]
        for i, wanted in enumerate(self.wanted):
            # Init is reached through the window that is played first, other tensors through any.
            is_init = self.compiled.n_captured <= i < self.compiled.n_captured + self.uncut.start
            if not wanted or all(i in u for u in (unreached[-1:] if is_init else unreached)):
                found[i] = None
        return found

    def carries_before(self, group: Group, carry: Carry) -> list[tuple[Span, Carry]]:
        """The spans of a group, with the carry before each: all but the last are played for it."""
        found = [(group[0], carry)]
        for span, following in pairwise(group):
            for _, outs in self.run.span_forward(self.tensors, span, carry, False):
                carry = self.run.carry_in(outs)
            found.append((following, carry))
        return found

    def play_span(self, span: Span, carry: Carry) -> None:
        tapes, self.run.tapes = self.run.tapes, []
        if not tapes:
            tapes = [tape for tape, _ in self.run.span_forward(self.tensors, span, carry, True)]
        while tapes and not self.ended:
            self.play_backward(tapes.pop())

    def play_backward(self, tape: SegmentedTape) -> None:
        steps, dtype = tape.segment.steps, self.compiled.dtype
        self.ended = tape.segment is self.end
        given = self.run.given(self.tensors, tape.segment, tape.carry)
        d_ys = [None if d is None else d[steps].to(dtype) for d in self.d_ys]
        self.once = dict(tape.saved.once)
        # In a ragged batch the engine writes the steps of a row alone, onto zeros that it makes.
        places: Gradients = [None] * len(self.d_xs)
        if self.rows is None:
            places = [None if d is None else d[steps] for d in self.d_xs]
        self.sums, found = self.way.played.play(
            tape.saved.held,
            given,
            self.way.bound.once(given, self.once),
            [*d_ys, *self.d_carry],
            native.best_isa(),
            self.running,
            self.ended,
            places,
        )
        n_states = self.compiled.n_states
        self.d_carry = found[:n_states]
        if tape.segment.cut:
            at = tape.segment
            for i in range(self.uncut.start):
                self.d_carry[i] = self.passing(self.d_carry[i], at)
        for i, d in enumerate(found[n_states:]):
            if d is None or d is places[i]:
                continue
            d_x = self.d_xs[i]
            if d_x is None:
                d_x = self.d_xs[i] = whole(d, self.run.n_steps)
                if len(self.run.windows) > 1:  # no gradient may reach the steps of some windows
                    d_x.zero_()
            d_x[steps] = d

    def passing(self, d: Tensor | None, segment: Segment) -> Tensor | None:
        """The gradient of the carry where it stops: only that of rows outside of their steps."""
        if d is None or self.rows is None:
            return None
        border = segment.end if self.run.call.arguments.reverse else segment.begin
        axis = 1 if self.run.call.arguments.of_layer else 0
        outside = (self.rows.lengths <= border).view(-1, *[1] * (d.dim() - axis - 1))
        return torch.where(outside, d, 0.0)
