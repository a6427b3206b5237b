"""`report`: a page of benchmarks/results/, from the JSON of a run."""

from __future__ import annotations

from pathlib import Path

from benchmarks import tables
from benchmarks.results import Results, Row, load

INTRO = """\
# Performance

Made by `python -m benchmarks report {name}` from one run; nothing here is written by hand, and \
rows that miss their bound stay as they are.

How it is measured: all contenders in one process (beside another program and simulations: each in \
its own), in turn, with the garbage collector off; \
medians over rounds; a ratio is taken within each round, then its median. Each contender's outputs \
and gradients are first compared with a float64 run of PyTorch; who is wrong is not timed. \
*Training* is forward and backward, with the gradients of all parameters and of the first carry. \
% of mm is the rate beside that of `torch.mm` on 2048×2048 float32 in the same rounds, counting \
matrix products alone. Ratios are the other's time over ours: above 1, ours is faster.

*Needs* is the rate of matrix products, in GFLOP/s, at which a bound on a ratio would be met if \
nothing else took any time. *The registers* is what these cores reach by multiplying and adding \
numbers that never leave their registers: no program does more, and a product that reads its \
operands from memory does less. [limits.md](../../docs/limits.md) gives the arithmetic behind what \
is missed, the [notes](../notes/missed.md) go through it machine by machine."""

TITLES = {
    "scan": "Training a recurrence: `ostinato.scan`",
    "iteration": "The notebook's whole training iteration",
    "layers": "Layers beside `scan`, and ragged batches",
    "overhead": "Overhead of a call, and of importing",
    "startup": "From a standing start",
    "first_calls": "The first call of a loop",
    "contention": "Beside another program",
    "runtime": "One step at a time",
    "batch": "A batch at a time",
    "memory": "Longer than memory",
    "steps": "Matrix states, heads, attention",
    "simulations": "Loops of science",
    "transforms": "Under torch.func",
    "serve": "A server",
}


def page(path: Path) -> str:
    runs = sorted(load(path), key=lambda r: list(TITLES).index(r.benchmark))
    parts = [INTRO.format(name=path.name)]
    for run in runs:
        parts += [f"## {TITLES[run.benchmark]}", *_run(run)]
    return "\n\n".join(parts) + "\n"


def _run(run: Results) -> list[str]:
    machine = "\n".join(
        f"- {line}" for line in tables.machine_lines(run.machine, run.machine_after)
    )
    git = run.machine["git"]
    commit = "" if git is None else f", commit {git['commit'][:10]}"
    dirty = " with changes" if git and git["dirty"] else ""
    parts = [f"`{run.command}`, {run.machine['date'][:10]}{commit}{dirty}", machine]
    if run.quick:
        parts.append("**A --quick run on tiny shapes: the figures mean nothing.**")
    parts.append(_bounds(run))
    for row in run.rows:
        parts += [f"### {row.name}", _about(run, row), _timings(row)]
    return parts


def _bounds(run: Results) -> str:
    lines = [
        _line("row", "shape", "ours", "what", "is", "wanted", "needs", ""),
        _line(*["---"] * 8),
    ]
    for row in run.rows:
        for b in row.bounds:
            sign = "≥" if b.at_least else "≤"
            verdict = "met" if b.met else "**missed**"
            flag = " (in doubt)" if run.doubt(row) else ""
            rate = tables.needed(row, b)
            lines.append(
                _line(
                    row.name,
                    row.title,
                    tables.duration(row.ours.median_s),
                    b.what,
                    f"{b.value:.2f} {b.unit}".strip(),
                    f"{sign} {b.wanted:g} {b.unit}".strip(),
                    "" if rate is None else f"{rate:.0f}",
                    verdict + flag,
                )
            )
    return "\n".join(lines)


def _about(run: Results, row: Row) -> str:
    text = row.title
    if row.gflop is not None and row.mm_gflops is not None:
        text += f"; {row.gflop:.3g} GFLOP, torch.mm {row.mm_gflops:.0f} GFLOP/s"
    text += f"; between cores {tables.latency(row)}."
    doubt = run.doubt(row)
    if doubt:
        text += f" **Not to be compared: {doubt}.**"
    return text


def _timings(row: Row) -> str:
    has_rate = row.gflop is not None and row.mm_gflops is not None
    head = ["", "median", "quartiles", "GFLOP/s", "% of mm", "over ours"]
    columns = [0, 1, 2, *([3, 4] if has_rate else []), 5]
    lines = [_line(*(head[c] for c in columns)), _line(*["---"] * len(columns))]
    for t in row.timings:
        note = f" ({t.note})" if t.note else ""
        rate = row.gflop / t.median_s if row.gflop is not None else 0.0
        cells = [
            t.name + note,
            tables.duration(t.median_s),
            f"{tables.duration(t.q1_s)} – {tables.duration(t.q3_s)}",
            f"{rate:.1f}",
            f"{100 * rate / (row.mm_gflops or 1):.0f}",
            "" if t.ratio is None else f"{t.ratio:.2f}",
        ]
        lines.append(_line(*(cells[c] for c in columns)))
    lines += [
        _line(a.name, f"not timed: {a.reason}", *[""] * (len(columns) - 2)) for a in row.absent
    ]
    return "\n".join(lines)


def _line(*cells: str) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"
