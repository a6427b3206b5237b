"""The division of a run into segments.

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


class Segment(NamedTuple):
    """Steps begin … end of a run, which one call of the engine plays."""

    begin: int
    end: int
    cut: bool  # whether gradients stop before it, in playing order

    @property
    def steps(self) -> slice:
        return slice(self.begin, self.end)


Span = list[Segment]
Group = list[Span]


def windows(n_steps: int, truncate: int | None, reverse: bool) -> list[Segment]:
    """The windows in playing order; all but the last in time have `truncate` steps."""
    width = max(1, min(truncate or n_steps, n_steps))
    begins = range(0, n_steps, width)
    found = [Segment(begin, min(begin + width, n_steps), True) for begin in begins]
    if reverse:
        found.reverse()
    return [found[0]._replace(cut=False), *found[1:]]


def scheduled(of: list[Segment], reverse: bool, most_steps: int, levels: int) -> list[Group]:
    """The windows, cut into segments of at most `most_steps` steps, in groups of spans."""
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
    n_together = _spans_of_a_group(len(spans), levels)
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
    """The bytes of a run in segments, apart from xs, ys and gradients.

    Attributes:
        step: for a step in a span: its tape, kept carries and outputs, and copies of xs and of
            gradients.
        segment: for a segment in a span, of any length: one more slot of each carry.
        carry: for a checkpoint.
        handed_on: for leaves of the carry that every step hands on: no checkpoint needs them.
        engine: for the engine's workspace, by the number of steps in one run.
        unit: not bytes, but the number of steps that no segment divides.
        whole: for the run in one piece, between its passes.
    """

    step: int
    segment: int
    carry: int
    handed_on: int
    engine: Callable[[int], int]
    unit: int
    whole: int


@dataclass(frozen=True)
class SegmentPlan:
    """How a run keeps within a budget.

    Attributes:
        budget: the bytes allowed.
        n_segments: 1 if the run is in one piece.
        segment_steps: steps of a span, at most.
        levels: the levels of checkpoints; 0 if the run is in one piece.
        checkpoints: the carries that exist at the same time, at most.
        kept_bytes: between the forward and the backward pass: checkpoints and the last span.
        peak_bytes: during the backward pass, with the engine's workspace.
        again_steps: steps that the backward pass runs forward again.
        n_steps: T.
    """

    budget: int
    n_segments: int
    segment_steps: int
    levels: int
    checkpoints: int
    kept_bytes: int
    peak_bytes: int
    again_steps: int
    n_steps: int

    def __str__(self) -> str:
        of_budget = f"{megabytes(self.peak_bytes)} of {megabytes(self.budget)}"
        if not self.levels:
            return f"{of_budget}: in one piece, nothing is computed again"
        return (
            f"{of_budget}: {self.n_segments} segments of {self.segment_steps} steps, "
            f"{self.checkpoints} checkpoints; {self.again_steps / self.n_steps:.2f} forward passes "
            "again"
        )


class BudgetError(ValueError):
    """The budget is too small for any plan; the message names the least that is enough.

    Args:
        budget: the user's bytes.
        least: the plan that needs the fewest.
        scans: the number of scans that share the budget equally.
    """

    def __init__(self, budget: int, least: SegmentPlan, scans: int = 1):
        self.least = least
        needed = least.peak_bytes * scans
        how = f"with {least.n_segments} segments of {least.segment_steps} steps"
        shared = f" for {scans} layers and directions" if scans > 1 else ""
        super().__init__(
            f"scan: memory={budget}{shared} is too little: {least.n_steps} steps of this batch "
            f'need at least {needed} bytes (memory="{math.ceil(needed / 1e4) / 100}MB"), '
            f"{how if least.levels else 'in one piece'}"
        )

    def shared(self, budget: int, scans: int) -> BudgetError:
        """The same error, if several scans share a budget."""
        return BudgetError(budget, self.least, scans)


def megabytes(n: int) -> str:
    """A number of bytes in MB of 10⁶ bytes, from 1 GB on in GB."""
    return f"{n / 1e6:.2f} MB" if n < 1e9 else f"{n / 1e9:.2f} GB"


def chosen(budget: int, n_steps: int, n_windows: int, cost: Cost) -> SegmentPlan:
    """The plan for a budget: in one piece if that fits, else with one level, else with two.

    Raises:
        BudgetError: the budget is too small for any.
    """
    peak = cost.whole + cost.engine(n_steps)
    in_one_piece = SegmentPlan(budget, 1, n_steps, 0, 0, cost.whole, peak, 0, n_steps)
    if peak <= budget:
        return in_one_piece
    lengths = _lengths(n_steps, cost.unit)
    plans = [in_one_piece]
    for levels in (1, 2):
        of_levels = [_plan(budget, n_steps, n_windows, n, levels, cost) for n in lengths]
        fitting = [p for p in of_levels if p.peak_bytes <= budget]
        if fitting:  # the longest segments: each costs three runs, which pack the weights anew
            return fitting[-1]
        plans += of_levels
    raise BudgetError(budget, min(plans, key=lambda p: p.peak_bytes))


def _lengths(n_steps: int, unit: int) -> list[int]:
    """Steps of a segment that are tried, up to those of the run: eight in each octave.

    All are multiples of the unit, except the length of the whole run.
    """
    octaves = range(n_steps.bit_length())
    found = {n * 2**octave // 8 for octave in octaves for n in range(8, 16)}
    # Segments of equal length: so many as there would be anyhow.
    equal = {-(-n_steps // -(-n_steps // n)) for n in found if n <= n_steps}
    return sorted({min(n_steps, -(-n // unit) * unit) for n in equal})


def _plan(
    budget: int, n_steps: int, n_windows: int, length: int, levels: int, cost: Cost
) -> SegmentPlan:
    n_spans = -(-n_steps // length)
    together = _spans_of_a_group(n_spans, levels)
    n_groups = -(-n_spans // together)
    checkpoints = n_groups if levels == 1 else n_groups + together
    windows_of_a_span = min(n_windows, -(-n_windows // n_spans) + 1)
    span = length * cost.step + windows_of_a_span * cost.segment
    # Three more pass from segment to segment: the carry, its gradient, and the gradient before it.
    carries = (checkpoints + 3) * cost.carry + 3 * cost.handed_on
    again = n_steps - length  # the tapes of the last span are kept
    if levels == 2:
        again += n_steps - n_groups * length
    return SegmentPlan(
        budget=budget,
        n_segments=n_spans + n_windows - 1,
        segment_steps=length,
        levels=levels,
        checkpoints=checkpoints,
        kept_bytes=n_groups * cost.carry + span,
        peak_bytes=carries + span + cost.engine(length),
        again_steps=again,
        n_steps=n_steps,
    )


def _spans_of_a_group(n_spans: int, levels: int) -> int:
    """One; or about √n, so that as many carries are kept for the groups as for the spans of one."""
    return 1 if levels == 1 else math.isqrt(n_spans - 1) + 1
