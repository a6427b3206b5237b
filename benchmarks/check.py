"""`check`: all bounds as gates."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.results import Row, Spec

TRIES = 3


def judged(spec: Spec) -> Row:
    """A row whose every bound is the best of up to three measurements.

    Another process that wakes up can only slow us down or slow the peer down for one of them; what
    fails three times is not the weather's fault.
    """
    row = spec.measure()
    for _ in range(TRIES - 1):
        if all(b.met for b in row.bounds):
            break
        again = spec.measure()
        best = zip(row.bounds, again.bounds, strict=True)
        row = replace(again, bounds=tuple(a.better(b) for a, b in best))
    return row
