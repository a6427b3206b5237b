"""Whole programs with other people's packages: `python -m benchmarks.studies.programs [NAME …]`.

The programs are those of package_programs.py. Each runs as a process of its own on one thread,
alone and with ostinato in turn, from the same seed: imports, data, training, all of it counts. Its
processor seconds are those of a watch on one thread, but do not count what other programs took.
`make test-packages` makes the environment; what is not installed is left out. `--write PAGE` puts
the table into a page, `--turns N` repeats everything N times, with another seed each, and `--short`
makes an eighth of the updates, to see that all of them run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import statistics
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.studies import package_programs
from benchmarks.studies.package_programs import PROGRAMS
from benchmarks.tables import machine_lines

from benchmarks import machine

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- programs -->", "<!-- /programs -->"
FIRST = 5  # losses that have to agree: later ones differ as rounding grows


@dataclass
class Run:
    """Processor seconds of a whole process, and what the program returned."""

    seconds: float
    values: list[float]
    loops: list[str]


def run(name: str, how: str, seed: int, short: bool) -> Run:
    """One process."""
    command = [sys.executable, "-m", "benchmarks.studies.programs", "--run", name, how, str(seed)]
    command += ["--short"] * short
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode:
        raise RuntimeError(f"{name} ({how}): {done.stderr.strip().splitlines()[-1]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return Run(seconds, answer["values"], answer["loops"])


def run_here(name: str, how: str, seed: int) -> None:
    import numpy as np
    import torch

    from ostinato.loops.running import site

    warnings.simplefilter("ignore")
    torch.manual_seed(seed)
    np.random.seed(seed)  # of which torchsde's Brownian motion takes its own
    left: list[str] = []
    refuse = site.Site.refuse

    def noting(self: Any, *arguments: Any) -> None:
        refuse(self, *arguments)
        left.append(f"`{self.source.text}`: {self.reason}")

    site.Site.refuse = noting  # type: ignore[method-assign]
    values = PROGRAMS[name][1](how == "ostinato", seed)
    print(json.dumps({"values": values, "loops": sorted({*left})}))


def line(name: str, package: str, runs: list[tuple[Run, Run]]) -> str:
    alone, fast = (statistics.median(r[i].seconds for r in runs) for i in (0, 1))
    gain = statistics.median(a.seconds / b.seconds for a, b in runs)
    differ = max(
        abs(a - b) / max(abs(a), 1e-9)
        for one, other in runs
        for a, b in zip(one.values[:FIRST], other.values[:FIRST], strict=True)
    )
    ends = [statistics.mean(r[i].values[-1] for r in runs) for i in (0, 1)]
    cells = [
        f"{package} {importlib.metadata.version(package)}",
        name,
        f"{alone:.1f} s",
        f"{fast:.1f} s",
        f"{gain:.1f} ×",
        f"{differ:.0e}",
        f"{ends[0]:.4g}, {ends[1]:.4g}",
    ]
    return "| " + " | ".join(cells) + " |"


def page(lines: list[str], before: dict[str, Any], after: dict[str, Any], turns: int) -> str:
    return "\n".join(
        [
            *machine_lines(before, after),
            "",
            f"Processor seconds of whole processes, medians of {turns} turns. *Differ* is by how "
            f"much the first {FIRST} losses (or mean rewards) differ at most, relative; *last* are "
            "the last ones, alone and with ostinato.",
            "",
            "| package | program | alone | with ostinato | gain | differ | last |",
            "| --- | --- | ---: | ---: | ---: | ---: | --- |",
            *lines,
        ]
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*", help=f"of {', '.join(PROGRAMS)}; all without")
    arguments.add_argument("--turns", type=int, default=1, help="repeat so many times")
    arguments.add_argument("--write", type=Path, help="put the table into this page")
    arguments.add_argument("--short", action="store_true", help="an eighth of the updates")
    arguments.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    package_programs.SHARE = 8 if given.short else 1
    if given.run:
        run_here(given.run[0], given.run[1], int(given.run[2]))
        return
    before, lines = machine.report(), []
    for name in given.names or PROGRAMS:
        package = PROGRAMS[name][0]
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            print(f"{name}: {package} is not installed", file=sys.stderr)
            continue
        runs = [
            (run(name, "alone", s, given.short), run(name, "ostinato", s, given.short))
            for s in range(given.turns)
        ]
        lines.append(line(name, package, runs))
        print(lines[-1], flush=True)
        for why in sorted({why for _, fast in runs for why in fast.loops}):
            print(f"    in Python: {why}", flush=True)
    text = page(lines, before, machine.state(), given.turns)
    print(f"\n{text}")
    if given.write:
        old = given.write.read_text(encoding="utf-8")
        head, tail = old[: old.index(BEGIN) + len(BEGIN)], old[old.index(END) :]
        given.write.write_text(f"{head}\n{text}\n{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
