"""Which steps of a run are played together, if it is played in segments.

    window    steps between two places where the gradient of the carry stops (`truncate=`); without
              these the whole run
    segment   consecutive steps of one window: one play of the engine, forward or backward
    span      consecutive segments whose tapes exist at the same time
    group     consecutive spans; the carry before each group is kept from the forward pass on

A budget (`memory=`) keeps no tape of the forward pass. The backward pass plays each span forward
again from the carry before it. With one *level* of checkpoints every group is one span; with two,
a group is first played forward to find the carries before its spans, so that about 2·√n carries
exist instead of n, for one more forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

# A span is at least so long that its tape fills this, if the budget allows: below, the fixed time
# of three plays shows (packing the weights takes as long as a dozen steps on one row).
NEAR_BYTES = 1 << 21


class Segment(NamedTuple):
    begin: int
    end: int
    cut: bool  # no gradient goes on to the carry before it, in playing order


Span = list[Segment]
Group = list[Span]


def windows(n_steps: int, truncate: int | None, reverse: bool) -> list[Segment]:
    """The windows in playing order; they are counted from the end that is played first."""
    if truncate is None or truncate >= n_steps:
        return [Segment(0, n_steps, False)]
    found = []
    for first in range(0, n_steps, truncate):
        last = min(first + truncate, n_steps)
        begin, end = (n_steps - last, n_steps - first) if reverse else (first, last)
        found.append(Segment(begin, end, first > 0))
    return found


def scheduled(of: list[Segment], reverse: bool, most_steps: int, levels: int) -> list[Group]:
    """The windows, cut into segments of `most_steps` steps at most, in groups of spans."""
    spans: list[Span] = []
    n_in_span = most_steps
    for window in of:
        for segment in _cut(window, reverse, most_steps):
            n = segment.end - segment.begin
            if n_in_span + n > most_steps:
                spans.append([])
                n_in_span = 0
            spans[-1].append(segment)
            n_in_span += n
    n_together = math.isqrt(len(spans) - 1) + 1 if levels == 2 else 1
    return [spans[i : i + n_together] for i in range(0, len(spans), n_together)]


def _cut(window: Segment, reverse: bool, most_steps: int) -> list[Segment]:
    """A window in playing order. Every segment begins a multiple of `most_steps` after it does."""
    begins = range(window.begin, window.end, most_steps)
    found = [Segment(b, min(b + most_steps, window.end), False) for b in begins]
    if reverse:
        found.reverse()
    return [found[0]._replace(cut=window.cut), *found[1:]]


@dataclass(frozen=True)
class Cost:
    """The bytes that a run in segments takes, apart from xs, ys and gradients.

    Attributes:
        step: of a step in a span: its tape, kept carries and outputs, and copies of xs and of
            gradients.
        segment: of a segment in a span, whatever its steps are: one more slot of each carry.
        carry: of a checkpoint.
        engine: of the engine's workspace, for so many steps in one play.
        whole: of the run in one piece, with its workspace.
    """

    step: int
    segment: int
    carry: int
    engine: Callable[[int], int]
    whole: int


@dataclass(frozen=True)
class MemoryPlan:
    """How a run keeps within a budget.

    Attributes:
        budget: the bytes allowed.
        n_segments: 1 if the run is played in one piece.
        segment_steps: steps that are recomputed together, at most.
        levels: of checkpoints; 0 if the run is played in one piece.
        checkpoints: the carries that exist at the same time, at most.
        kept_bytes: between the forward and the backward pass.
        peak_bytes: during the backward pass, with the engine's workspace.
        extra_forwards: forward passes beside the first, of the whole sequence.
    """

    budget: int
    n_segments: int
    segment_steps: int
    levels: int
    checkpoints: int
    kept_bytes: int
    peak_bytes: int
    extra_forwards: int

    def __str__(self) -> str:
        if not self.levels:
            return (
                f"{megabytes(self.peak_bytes)} of {megabytes(self.budget)}: kept in one piece, "
                "nothing is computed again"
            )
        again = "one more forward pass" if self.levels == 1 else "two more forward passes"
        return (
            f"{megabytes(self.peak_bytes)} of {megabytes(self.budget)}: {self.n_segments} segments "
            f"of {self.segment_steps} steps, {self.checkpoints} checkpoints, {again}"
        )


def megabytes(n: int) -> str:
    return f"{n / 1e6:.2f} MB" if n < 1e9 else f"{n / 1e9:.2f} GB"


def chosen(budget: int, n_steps: int, n_windows: int, cost: Cost) -> MemoryPlan:
    """The plan for a budget: in one piece if that fits, else with one level, else with two.

    Raises:
        ValueError: the budget is too small for any.
    """
    if cost.whole <= budget:
        return MemoryPlan(budget, 1, n_steps, 0, 0, cost.whole, cost.whole, 0)
    lengths = _lengths(n_steps)
    least = None
    for levels in (1, 2):
        plans = [_plan(budget, n_steps, n_windows, n, levels, cost) for n in lengths]
        fitting = [p for p in plans if p.peak_bytes <= budget]
        if fitting:
            long = [p for p in fitting if p.segment_steps * cost.step >= NEAR_BYTES]
            return min(long, key=_peak) if long else fitting[-1]
        least = min([*plans, least] if least else plans, key=_peak)
    assert least is not None
    raise ValueError(
        f"scan: memory={budget} is too little: {n_steps} steps of this batch need at least "
        f'{least.peak_bytes} bytes (memory="{math.ceil(least.peak_bytes / 1e4) / 100}MB"), with '
        f"{least.n_segments} segments of {least.segment_steps} steps"
    )


def _peak(plan: MemoryPlan) -> int:
    return plan.peak_bytes


def _lengths(n_steps: int) -> list[int]:
    """Steps of a segment that are tried: the powers of two below those of the run."""
    found = [1]
    while found[-1] * 2 < n_steps:
        found.append(found[-1] * 2)
    return found


def _plan(
    budget: int, n_steps: int, n_windows: int, length: int, levels: int, cost: Cost
) -> MemoryPlan:
    length = min(length, n_steps)
    n_spans = -(-n_steps // length)
    n_segments = n_spans + n_windows - 1
    if levels == 1:
        checkpoints, groups = n_spans, n_spans
    else:
        together = math.isqrt(n_spans - 1) + 1
        groups = -(-n_spans // together)
        checkpoints = groups + together
    in_a_span = min(n_windows, -(-n_windows // n_spans) + 1)
    # Three carries pass from segment to segment: the last one, its gradient, and the next gradient.
    fixed = (checkpoints + 3) * cost.carry + in_a_span * cost.segment + cost.engine(length)
    kept = groups * cost.carry
    peak = fixed + length * cost.step
    return MemoryPlan(budget, n_segments, length, levels, checkpoints, kept, peak, levels)
