"""Whether a scan pays: the time of an iteration by scan and in Python, backward pass included."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

MEASURES = True  # whether a scan that gains nothing is given up
HEAVY = 1e-3  # seconds of an iteration; the cost of a scan's call is less than half of that
_CALLS = 2  # that are measured, of which the fastest counts
# If the first iteration takes as many times as long, the scan gains; that one is slow, since its
# memory is cold and it is watched.
_CLEAR = 8
_SLOWER = 1.1  # times as long; below that the difference may be noise
# A backward pass that was not measured usually gains more than the forward pass.
_SLOWER_FORWARD = 2.0


class Choice(enum.Enum):
    """Who runs iterations that may be a scan."""

    SCAN = "scan"
    PYTHON = "Python, which takes less time"
    MEASURED = "Python, for its time"


@dataclass
class Times:
    """The fewest seconds of an iteration, and the calls that were measured."""

    forward: float = float("inf")
    backward: float = float("inf")
    calls: int = 0

    def add(self, forward: float) -> None:
        self.forward = min(self.forward, forward)
        self.calls += 1

    def add_backward(self, before: Iterable[Any], after: Iterable[Any], n: int) -> None:
        """Measure the backward pass of n iterations, once it runs.

        Args:
            before, after: the autograd nodes of the state before them, and of their results. The
                latter run first, and all nodes of the iterations before any of the former.
        """
        begin, began = {*before}, list[float]()

        def starts(_: Any) -> None:
            if not began:
                began.append(time.perf_counter())

        def ends(_: Any) -> None:
            if len(began) == 1:
                began.append(time.perf_counter())
                self.backward = min(self.backward, (began[1] - began[0]) / n)

        for node in {*after} - begin if begin else ():
            node.register_prehook(starts)
        for node in begin:
            node.register_prehook(ends)


@dataclass
class LoopPace:
    """The times of a loop at one size, and the verdict.

    First some calls by scan are measured, and then, unless the gain is clear, some in Python.
    Nothing is measured afterwards, so that the verdict stays.

    Attributes:
        first: the fewest seconds of a first iteration.
        has_begun: whether there was a call by scan: the first one may record the step.
    """

    scan: Times = field(default_factory=Times)
    python: Times = field(default_factory=Times)
    first: float = float("inf")
    has_begun: bool = False

    def measures_scan(self) -> bool:
        """Whether the scan of this call is to be measured."""
        had_begun, self.has_begun = self.has_begun, True
        return had_begun and self.scan.calls < _CALLS

    def measures_python(self, first: float) -> bool:
        """Whether the iterations are to run in Python, for their time."""
        self.first = min(self.first, first)
        return self.scan.calls >= _CALLS and not self.is_decided()

    def is_decided(self) -> bool:
        """Whether there are measurements enough for the verdict."""
        is_clear = _CLEAR * self.scan.forward < self.first
        return self.scan.calls >= _CALLS and (self.python.calls >= _CALLS or is_clear)

    def is_slow(self, with_gradients: bool) -> bool:
        """Whether the scan gains nothing."""
        if self.python.calls < _CALLS:
            return False
        scan, python = self.scan.forward, self.python.forward
        backward = self.scan.backward + self.python.backward
        if backward < float("inf"):
            return scan + self.scan.backward > _SLOWER * (python + self.python.backward)
        return scan > (_SLOWER_FORWARD if with_gradients else _SLOWER) * python


@dataclass
class Trial:
    """Iterations that run in Python for their time.

    Attributes:
        begin: the first of them.
        before: the autograd nodes of the state.
        values: the state, from the local names.
    """

    pace: LoopPace
    begin: int
    before: list[Any]
    values: Callable[[dict[str, Any]], list[Any]]

    def end(self, names: dict[str, Any], end: int, seconds: float) -> None:
        """Record their time, and measure their backward pass once it runs."""
        n = end - self.begin
        self.pace.python.add(seconds / n)
        self.pace.python.add_backward(self.before, nodes_of(self.values(names)), n)


def nodes_of(tensors: Iterable[Any]) -> list[Any]:
    """The autograd nodes that made them."""
    made = [t.grad_fn for t in tensors if isinstance(t, Tensor)]
    return [node for node in made if node is not None]
