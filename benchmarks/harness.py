"""Timing several contenders in one process.

In a *round* every contender has one turn, so that all see the machine in the same state. A ratio is
taken within each round; the result is the median of the ratios. In its turn a contender

    1. waits until the threads of the contender before it sleep, since OpenMP's threads spin for
       some milliseconds on the cores that it needs,
    2. runs untimed, to bring its data into the caches,
    3. is timed over a *block* of calls, which is much longer than the resolution of the clock.
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

# The length of a block, unless one call is longer. Training makes call after call, with caches,
# threads and the allocator's pages in a steady state; one or two calls do not reach that state.
BLOCK_S = 20e-3
SLEEP_S = 4e-3  # libgomp spins for 300 000 pauses of some 40 cycles at some 3 GHz: 4 ms


@dataclass(frozen=True)
class Contender:
    """A named function to be timed.

    Attributes:
        run: makes one call, which is finished when it returns.
        note: a remark for the table.
    """

    name: str
    run: Callable[[], Any]
    note: str = ""


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: the number of rounds.
        share_s: the seconds that one contender may take in all. A slower one is timed in every
            second, fourth … round only; so two contenders share all rounds of the slower one.
        least: the number of rounds in which every contender is timed at least.
        block_s: the length of a block, unless one call is longer.
    """

    rounds: int = 13
    share_s: float = 1.5
    least: int = 3
    block_s: float = BLOCK_S


QUICK = Effort(rounds=2, share_s=0.2, least=1)
# A contender this many times slower than the second fastest can become neither the fastest peer nor
# the fastest of all. It is timed in every fourth round.
FAR = 2.5
FAR_STRIDE = 4
LONG_S = 0.05  # from this length of a call on, cold caches and sleeping threads do not matter


@dataclass
class Samples:
    """The seconds that one call took, by round."""

    contender: Contender
    by_round: dict[int, float] = field(default_factory=dict)

    def timing(self, ours: Samples | None = None) -> Timing:
        """Median and quartiles; with `ours`, also the ratio to it."""
        q1, middle, q3 = np.percentile(list(self.by_round.values()), [25, 50, 75]).tolist()
        return Timing(
            self.contender.name,
            middle,
            q1,
            q3,
            len(self.by_round),
            None if ours is None else ratio(self, ours),
            self.contender.note,
        )


def ratio(a: Samples, b: Samples) -> float:
    """The time of a over the time of b: the median over the rounds in which both were timed."""
    both = sorted(a.by_round.keys() & b.by_round.keys())
    return float(np.median([a.by_round[r] / b.by_round[r] for r in both]))


def seconds(run: Callable[[], Any], calls: int = 1) -> float:
    """The seconds that one call takes, averaged over `calls`."""
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def measure(contenders: Sequence[Contender], effort: Effort) -> list[Samples]:
    """Time all contenders, in the order given. All must have run before, and be compiled."""
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
    """The seconds that one call takes, roughly."""
    first = seconds(contender.run)
    return first if first > LONG_S else min(seconds(contender.run) for _ in range(3))


@dataclass(frozen=True)
class _Plan:
    """How one contender is timed."""

    samples: Samples
    untimed: int  # calls before a block
    calls: int  # calls in a block
    stride: int  # it is timed in every stride-th round


def _plan(contender: Contender, once: float, far: bool, effort: Effort) -> _Plan:
    """far: the contender is so slow that its ratio decides no bound."""
    calls = max(1, math.ceil(effort.block_s / once))
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
    """One turn: the seconds that one call takes."""
    time.sleep(SLEEP_S)
    run = plan.samples.contender.run
    for _ in range(plan.untimed):
        run()
    return seconds(run, plan.calls)
