"""The results of a benchmark: frozen values, written to and read from JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

FORMAT = 1
# A latency between cores of twice the median of the run, or half of it, means that the machine was
# in another state. Two states were seen, of 25 ns and of 150 to 200 ns; within a state the latency
# varies by a quarter.
OTHER_STATE = 2.0
# A rate of torch.mm below this share of the run's best means that another program used the cores.
# Without one, rates stay within a tenth.
SHARED = 0.75


@dataclass(frozen=True)
class Timing:
    """The seconds that one call of a contender took: median and quartiles over `rounds` rounds."""

    name: str
    median_s: float
    q1_s: float
    q3_s: float
    rounds: int
    ratio: float | None = None  # its time over ours: the median of the ratios in each round
    note: str = ""

    @staticmethod
    def of(name: str, seconds: Sequence[float]) -> Timing:
        """A contender by the seconds of each round."""
        q1, middle, q3 = np.percentile(seconds, [25, 50, 75]).tolist()
        return Timing(name, middle, q1, q3, len(seconds))


@dataclass(frozen=True)
class Absent:
    """A contender that was not timed, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Bound:
    """A bound that a row must meet.

    Attributes:
        what: the name of the measured quantity.
        wanted: the bound.
        value: the measured value, in `unit`.
        at_least: whether larger values are better.
    """

    what: str
    wanted: float
    value: float
    at_least: bool = True
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the value reaches the bound."""
        return self.value >= self.wanted if self.at_least else self.value <= self.wanted

    def better(self, other: Bound) -> Bound:
        """Whichever of two measurements of one bound has the better value."""
        return max(self, other, key=lambda b: b.value if b.at_least else -b.value)


@dataclass(frozen=True)
class Row:
    """One problem of a benchmark and its timings.

    Attributes:
        name: "cell/shape", for instance.
        title: a description for people.
        timings: those of the contenders; the first is ours.
        absent: contenders that were not timed.
        bounds: the bounds that this row must meet.
        gflop: the matrix products of one call.
        mm_gflops: the rate of torch.mm on 2048×2048 float32 in the same rounds.
        latency_ns: one-way latency of a cache line between two cores, before and after the row;
            None where it was not measured.
    """

    name: str
    title: str
    timings: tuple[Timing, ...]
    absent: tuple[Absent, ...] = ()
    bounds: tuple[Bound, ...] = ()
    gflop: float | None = None
    mm_gflops: float | None = None
    latency_ns: tuple[float | None, float | None] = (None, None)

    @property
    def ours(self) -> Timing:
        return self.timings[0]

    @property
    def fastest_peer(self) -> Timing | None:
        """The fastest contender that has a ratio to ours; None if there is none."""
        peers = [t for t in self.timings if t.ratio is not None]
        return min(peers, key=lambda t: t.median_s, default=None)


@dataclass(frozen=True)
class Spec:
    """A row still to be measured."""

    name: str
    measure: Callable[[], Row]


@dataclass(frozen=True)
class Results:
    """One run of a benchmark; `machine` and `machine_after` are the machine before and after it."""

    benchmark: str
    command: str
    quick: bool
    machine: dict[str, Any]
    machine_after: dict[str, Any] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    def doubt(self, row: Row) -> str | None:
        """Why a row should not be compared with the others of this run; None if it can be."""
        known = [x for r in self.rows for x in r.latency_ns if x is not None]
        mine = [x for x in row.latency_ns if x is not None]
        if mine:
            usual = median(known)
            if any(not 1 / OTHER_STATE < x / usual < OTHER_STATE for x in mine):
                return (
                    f"the cores talked at another speed than in most of this run ({usual:.0f} ns)"
                )
        best = max((r.mm_gflops or 0.0 for r in self.rows), default=0.0)
        if row.mm_gflops is not None and row.mm_gflops < SHARED * best:
            return f"something else was using the cores (torch.mm {row.mm_gflops:.0f} GFLOP/s)"
        return None


def save(path: Path, results: Results) -> None:
    """Write a run into the file; the runs of other benchmarks in it stay."""
    kept = _sections(path) if path.exists() else {}
    kept[results.benchmark] = asdict(results)
    text = json.dumps({"format": FORMAT, "benchmarks": kept}, indent=1)
    draft = path.with_name(path.name + ".part")
    draft.write_text(text + "\n", encoding="utf-8")
    draft.replace(path)


def check_target(path: Path) -> None:
    """Check that `save` will be able to write there.

    Raises:
        ValueError: the folder does not exist, or the file holds something else.
    """
    if not path.resolve().parent.is_dir():
        raise ValueError(f"{path}: there is no such folder; make it first")
    if path.exists():
        _sections(path)


def load(path: Path) -> list[Results]:
    """All runs in the file.

    Raises:
        ValueError: the file is not a result of this version.
    """
    return [_results(section) for section in _sections(path).values()]


def _sections(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']}")
        return found["benchmarks"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a result of this version's `python -m benchmarks … --json` ({error})"
        ) from None


def _results(section: dict[str, Any]) -> Results:
    return Results(**{**section, "rows": tuple(_row(r) for r in section["rows"])})


def _row(r: dict[str, Any]) -> Row:
    return Row(
        **{
            **r,
            "timings": tuple(Timing(**t) for t in r["timings"]),
            "absent": tuple(Absent(**a) for a in r["absent"]),
            "bounds": tuple(Bound(**b) for b in r["bounds"]),
            "latency_ns": tuple(r["latency_ns"]),
        }
    )
