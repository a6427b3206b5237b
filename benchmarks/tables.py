"""Results as lines for a terminal."""

from __future__ import annotations

from typing import Any

from benchmarks.results import Bound, Results, Row, Timing


def duration(s: float) -> str:
    """Seconds as text, with three digits and a unit."""
    unit, size = ("s", 1.0) if s >= 1 else ("ms", 1e-3) if s >= 1e-3 else ("µs", 1e-6)
    value = s / size
    return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.3g} {unit}"


def bound(b: Bound) -> str:
    sign, unit = ("≥" if b.at_least else "≤"), f" {b.unit}" if b.unit else ""
    return f"{b.what} {b.value:.2f}{unit}, wanted {sign} {b.wanted:g}{unit}: {verdict(b)}"


def needed(row: Row, b: Bound) -> float | None:
    """The rate, in GFLOP/s of matrix products, at which we would meet a bound on a peer's ratio.

    None for other bounds.
    """
    peer = next((t for t in row.timings if b.what == f"{t.name} over ours"), None)
    return None if peer is None or row.gflop is None else row.gflop * b.wanted / peer.median_s


def verdict(b: Bound) -> str:
    return "met" if b.met else "MISSED"


def latency(row: Row) -> str:
    before, after = row.latency_ns
    if before is None or after is None:
        return "not measured"
    return f"{before:.0f} → {after:.0f} ns"


def row_lines(row: Row) -> list[str]:
    head = f"{row.name}   {row.title}"
    if row.gflop is not None and row.mm_gflops is not None:
        head += f"   {row.gflop:.3g} GFLOP; torch.mm {row.mm_gflops:.0f} GFLOP/s"
    lines = [f"{head}; between cores {latency(row)}"]
    width = max(map(len, [t.name for t in row.timings] + [a.name for a in row.absent]))
    lines += [f"  {t.name:{width}}  {_timing(t, row)}" for t in row.timings]
    lines += [f"  {a.name:{width}}  not timed: {a.reason}" for a in row.absent]
    return lines + [f"  {bound(b)}{_needs(row, b)}" for b in row.bounds]


def _needs(row: Row, b: Bound) -> str:
    rate = needed(row, b)
    return "" if rate is None or b.met else f" (needs {rate:.0f} GFLOP/s)"


def _timing(t: Timing, row: Row) -> str:
    line = f"{duration(t.median_s):>8}  ({duration(t.q1_s)} – {duration(t.q3_s)}, {t.rounds} ×)"
    line = f"{line:44}"
    if row.gflop is not None and row.mm_gflops is not None:
        rate = row.gflop / t.median_s
        line += f"{rate:7.1f} GFLOP/s {100 * rate / row.mm_gflops:4.0f} % of mm"
    if t.ratio is not None:
        line += f"  {t.ratio:6.2f} × ours"
    return f"{line}  {t.note}".rstrip()


def machine_lines(machine: dict[str, Any], after: dict[str, Any] | None = None) -> list[str]:
    versions = ", ".join(f"{n} {v or 'not installed'}" for n, v in machine["packages"].items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['torch_threads']} threads, "
        f"{machine['instruction_set']}; {machine['system']}",
        f"Python {machine['python']}, {versions}",
        f"before: {state(machine)}; the registers {_peak(machine)}",
    ]
    return lines + ([f"after: {state(after)}"] if after else [])


def _peak(machine: dict[str, Any]) -> str:
    peak = machine.get("peak_gflops")
    return "not measured" if peak is None else f"{peak:.0f} GFLOP/s"


def state(s: dict[str, Any]) -> str:
    ns = s["latency_ns"]
    between = "not measured" if ns is None else f"{ns:.0f} ns"
    return f"torch.mm {s['mm_gflops']:.0f} GFLOP/s, one-way latency between cores {between}"


def summary_lines(results: Results) -> list[str]:
    """The missed bounds, and the rows that were timed in another state of the machine."""
    bounds = [(row, b) for row in results.rows for b in row.bounds]
    missed = [f"  {row.name}: {bound(b)}" for row, b in bounds if not b.met]
    lines = [f"{len(bounds) - len(missed)} of {len(bounds)} bounds met", *missed]
    for row in results.rows:
        doubt = results.doubt(row)
        if doubt:
            lines.append(f"  do not compare {row.name}: {doubt}")
    if results.quick:
        lines.append("a --quick run: these figures mean nothing, but that everything runs")
    return lines
