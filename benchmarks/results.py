"""What a benchmark finds: frozen values, to and from JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

FORMAT = 1
# Twice the run's usual latency between the cores, or half of it, is another state of the machine:
# the two states seen are 25 ns and 150 to 200 ns, and within one state it varies by a quarter.
OTHER_STATE = 2.0
SHARED = 0.75  # of the run's best rate of torch.mm; alone it stays within a tenth


@dataclass(frozen=True)
class Timing:
    """Seconds a call of one contender took: median and quartiles over `rounds` rounds."""

    name: str
    median_s: float
    q1_s: float
    q3_s: float
    rounds: int
    ratio: float | None = None  # its time over ours, round by round, then the median
    note: str = ""


@dataclass(frozen=True)
class Absent:
    """A contender that was not timed, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Bound:
    """What a row must show."""

    what: str
    wanted: float
    value: float
    at_least: bool = True
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.wanted if self.at_least else self.value <= self.wanted

    def better(self, other: Bound) -> Bound:
        return max(self, other, key=lambda b: b.value if b.at_least else -b.value)


@dataclass(frozen=True)
class Row:
    """One line of a benchmark.

    latency_ns: one-way latency of a cache line between two cores, before and after the row; None
        where it was not measured.
    mm_gflops: the rate of torch.mm on 2048×2048 float32, taken in the same rounds.
    """

    name: str
    title: str
    timings: tuple[Timing, ...]
    absent: tuple[Absent, ...] = ()
    bounds: tuple[Bound, ...] = ()
    gflop: float | None = None  # matrix products of one call
    mm_gflops: float | None = None
    latency_ns: tuple[float | None, float | None] = (None, None)

    @property
    def ours(self) -> Timing:
        return self.timings[0]

    @property
    def fastest_peer(self) -> Timing | None:
        peers = [t for t in self.timings if t.ratio is not None]
        return min(peers, key=lambda t: t.median_s, default=None)


@dataclass(frozen=True)
class Spec:
    """A row still to be measured."""

    name: str
    measure: Callable[[], Row]


@dataclass(frozen=True)
class Results:
    """One benchmark's run."""

    benchmark: str
    command: str
    quick: bool
    machine: dict[str, Any]
    machine_after: dict[str, Any] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    def doubt(self, row: Row) -> str | None:
        """Why a row should not be compared with the others of this run, if so."""
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
    """Put a run into the file, beside what other benchmarks left there."""
    kept = _sections(path) if path.exists() else {}
    kept[results.benchmark] = asdict(results)
    text = json.dumps({"format": FORMAT, "benchmarks": kept}, indent=1)
    draft = path.with_name(path.name + ".part")
    draft.write_text(text + "\n", encoding="utf-8")
    draft.replace(path)


def check_target(path: Path) -> None:
    """Whether `save` will be able to write there.

    Raises:
        ValueError: there is no such folder, or the file is something else.
    """
    if not path.resolve().parent.is_dir():
        raise ValueError(f"{path}: there is no such folder; make it first")
    if path.exists():
        _sections(path)


def load(path: Path) -> list[Results]:
    """All runs in the file."""
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
