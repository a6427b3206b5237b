"""Timing several contenders in one process.

A *round* calls every contender once round the circle, so that all see the same weather; a ratio is
taken within each round, and its median over the rounds is the result. Within its turn a contender
first waits until the threads of the one before it have gone to sleep (OpenMP's spin for some
milliseconds, on the cores that it needs), plays untimed to bring its own data into the caches, and
is then timed over a *block* of calls that is long beside the clock.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.results import Timing

# A block's length, unless one call is longer. Training is call after call: caches, threads and the
# allocator's pages are in their steady state, which a call or two after the others is not.
BLOCK_S = 20e-3
SLEEP_S = 4e-3  # libgomp spins 300 000 pauses of some 40 cycles: about 4 ms


@dataclass(frozen=True)
class Contender:
    """run: one call; whatever it computes is finished when it returns."""

    name: str
    run: Callable[[], Any]
    note: str = ""


@dataclass(frozen=True)
class Effort:
    """rounds: at most this many.
    share_s: a contender whose rounds would take longer than this plays in every second, fourth …
        round only, so that any two contenders meet in all rounds of the slower one.
    least: rounds that every contender gets.
    """

    rounds: int = 13
    share_s: float = 1.5
    least: int = 3


QUICK = Effort(rounds=2, share_s=0.2, least=1)
FAR = (
    2.5  # times slower than the second: can become neither the fastest peer nor the fastest of all
)
FAR_STRIDE = 4
LONG_S = 0.05  # beside a call this long cold caches and sleeping threads do not count


@dataclass
class Samples:
    """Seconds a call, by round."""

    contender: Contender
    by_round: dict[int, float] = field(default_factory=dict)

    def timing(self, ours: Samples | None = None) -> Timing:
        """Summary; with `ours`, also the ratio to it."""
        q1, middle, q3 = np.percentile(list(self.by_round.values()), [25, 50, 75]).tolist()
        return Timing(
            self.contender.name, middle, q1, q3, len(self.by_round),
            None if ours is None else ratio(self, ours), self.contender.note,
        )  # fmt: skip


def ratio(a: Samples, b: Samples) -> float:
    """Time of a over time of b: the median of the rounds in which both were timed."""
    both = sorted(a.by_round.keys() & b.by_round.keys())
    return float(np.median([a.by_round[r] / b.by_round[r] for r in both]))


def seconds(run: Callable[[], Any], calls: int = 1) -> float:
    """Seconds a call."""
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def measure(contenders: Sequence[Contender], effort: Effort) -> list[Samples]:
    """Time all contenders, in the order given; all must have run before (compiled, admitted)."""
    once = [_once(c) for c in contenders]
    second = sorted(once)[min(1, len(once) - 1)]
    plans = [_plan(c, s, s > FAR * second, effort) for c, s in zip(contenders, once, strict=True)]
    gc.collect()
    gc.disable()
    try:
        for r in range(effort.rounds):
            for plan in plans:
                if r % plan.stride == 0:
                    plan.samples.by_round[r] = _turn(plan)
    finally:
        gc.enable()
    return [plan.samples for plan in plans]


def _once(contender: Contender) -> float:
    """Seconds of a call, roughly."""
    first = seconds(contender.run)
    return first if first > LONG_S else min(seconds(contender.run) for _ in range(3))


@dataclass(frozen=True)
class _Plan:
    samples: Samples
    untimed: int  # calls before a block
    calls: int  # in a block
    stride: int  # timed in every stride-th round


def _plan(contender: Contender, once: float, far: bool, effort: Effort) -> _Plan:
    """far: far behind two others, so that it decides nothing."""
    calls = max(1, math.ceil(BLOCK_S / once))
    untimed = 0 if once > LONG_S else max(1, calls // 4)
    stride = 1

    def rounds(stride: int) -> int:
        return math.ceil(effort.rounds / stride)

    while rounds(2 * stride) >= effort.least and (
        rounds(stride) * (untimed + calls) * once > effort.share_s or (far and stride < FAR_STRIDE)
    ):
        stride *= 2
    return _Plan(Samples(contender), untimed, calls, stride)


def _turn(plan: _Plan) -> float:
    time.sleep(SLEEP_S)
    run = plan.samples.contender.run
    for _ in range(plan.untimed):
        run()
    return seconds(run, plan.calls)
