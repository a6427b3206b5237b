"""One row of a benchmark: the admitted contenders and torch.mm, timed in the same rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import machine
from benchmarks.harness import QUICK, Contender, Effort, Samples, measure
from benchmarks.results import Absent, Row


@dataclass(frozen=True)
class Measured:
    """The timings of one row, not yet compared with bounds.

    Attributes:
        samples: by the contender's name; the first is ours.
        absent: contenders that were not timed.
        mm_gflops: the rate of torch.mm in the same rounds.
        latency_ns: one-way latency between two cores, before and after.
    """

    samples: dict[str, Samples]
    absent: tuple[Absent, ...]
    mm_gflops: float
    latency_ns: tuple[float | None, float | None]

    @property
    def ours(self) -> Samples:
        return next(iter(self.samples.values()))

    def row(self, name: str, title: str, gflop: float, helpers: Sequence[str] = ()) -> Row:
        """The row without bounds; helpers: our other contenders, which get no ratio."""
        timings = [
            s.timing(None if s is self.ours or n in helpers else self.ours)
            for n, s in self.samples.items()
        ]
        return Row(
            name, title, tuple(timings), self.absent, (), gflop, self.mm_gflops, self.latency_ns
        )


def contest(
    found: Sequence[Contender | Absent], quick: bool, effort: Effort | None = None
) -> Measured:
    """Time the contenders that are not absent, with torch.mm in the same rounds."""
    contenders = [c for c in found if isinstance(c, Contender)]
    absent = tuple(c for c in found if isinstance(c, Absent))
    before = machine.latency_ns()
    probe = Contender("torch.mm", machine.multiply())
    *samples, mm = measure([*contenders, probe], QUICK if quick else effort or Effort())
    return Measured(
        {s.contender.name: s for s in samples},
        absent,
        machine.MM_GFLOP / mm.timing().median_s,
        (before, machine.latency_ns()),
    )
