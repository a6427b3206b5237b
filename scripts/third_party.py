"""The effect of accelerate on models of other people's packages: results and time.

    python scripts/third_party.py                      the table, on standard output
    python scripts/third_party.py --only Resemblyzer   one model; --list names them
    python scripts/third_party.py --json FILE          every figure as well
    python scripts/third_party.py --write FILE         the table into that page

The page is benchmarks/results/third_party.md.

Every model is made twice with the same weights, and one of the two is accelerated. Both do the same
work from the same random state, and their results are compared. Then they work in turn, and the
table gives median times. Run it while no other program uses the cores. The models are in
third_party_models.py.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from third_party_models import SUBJECTS, Subject, Work, quiet
from torch import Tensor

import ostinato
from ostinato.engine import native
from ostinato.nn import inspect

BEGIN, END = "<!-- third-party -->", "<!-- /third-party -->"
SLEEP_S = 5e-3  # OpenMP's threads spin for about 4 ms after their work, on cores that are needed
HEAD = [
    "model",
    "work",
    "swapped",
    "left alone",
    "largest difference",
    "relative",
    "torch.nn",
    "accelerated",
    "times faster",
]


def study(subject: Subject, rounds: int) -> list[dict[str, Any]]:
    """One row for every piece of work of a model; rounds: see `in_turn`."""
    threads = torch.get_num_threads()
    theirs, ours = subject.make(), subject.make()
    torch.set_num_threads(threads)  # some packages change it for the whole process
    ours.model.load_state_dict(theirs.model.state_dict())
    ostinato.accelerate(ours.model)
    layers = inspect(ours.model)
    rows = []
    for before, after in zip(theirs.works, ours.works, strict=True):
        absolute, relative = differences(seeded(before), seeded(after))
        rows.append(
            {
                "model": subject.name,
                "package": f"{subject.package} {importlib.metadata.version(subject.package)}",
                "work": before.name,
                "swapped": Counter(layer.type for layer in layers if layer.accelerated),
                "left_alone": Counter(
                    f"{layer.type}: {layer.reason}" for layer in layers if not layer.accelerated
                ),
                "absolute": absolute,
                "relative": relative,
                "seconds": in_turn(before, after, rounds),
            }
        )
    return rows


def seeded(work: Work) -> list[Tensor]:
    """The results of the work from a fixed random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return [result.detach().clone() for result in work.run()]


def differences(wanted: list[Tensor], got: list[Tensor]) -> tuple[float, float]:
    """The largest absolute difference, and the largest relative to the peak of its tensor."""
    absolute = relative = 0.0
    for before, after in zip(wanted, got, strict=True):
        difference = float((after.double() - before.double()).abs().max())
        absolute = max(absolute, difference)
        if difference:
            relative = max(relative, difference / float(before.double().abs().max()))
    return absolute, relative


def in_turn(before: Work, after: Work, rounds: int) -> list[list[float]]:
    """The seconds of both in every round; each works once untimed before, to fill the caches."""
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        for work, taken in zip((before, after), seconds, strict=True):
            time.sleep(SLEEP_S)
            work.run()
            begin = time.perf_counter()
            work.run()
            taken.append(time.perf_counter() - begin)
    return seconds


def table(rows: list[dict[str, Any]]) -> str:
    lines = [HEAD, ["---"] * 4 + ["---:"] * 5, *map(cells, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cells(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['model']} ({row['package']})",
        row["work"],
        listed(row["swapped"]),
        listed(row["left_alone"]),
        f"{row['absolute']:.1e}",
        f"{row['relative']:.1e}",
        *timings(*row["seconds"]),
    ]


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.items()) or "–"


def timings(before: list[float], after: list[float]) -> list[str]:
    if not before:
        return ["–"] * 3
    ratio = statistics.median(b / a for b, a in zip(before, after, strict=True))
    return [*(f"{1e3 * statistics.median(s):.1f} ms" for s in (before, after)), f"{ratio:.2f}"]


def machine(rounds: int) -> str:
    what = (
        f"{platform.machine()}, {native.best_isa()}, {torch.get_num_threads()} threads, "
        f"PyTorch {torch.__version__}, Python {platform.python_version()}, "
        f"ostinato {importlib.metadata.version('ostinato')}"
    )
    return f"{what}; medians of {rounds} rounds." if rounds else f"{what}; not timed."


def replaced(page: str, text: str) -> str:
    """The page with the text between the two markers."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the page lacks its markers; wanted one {BEGIN} and, below it, one {END}")
    return page[: page.index(BEGIN)] + f"{BEGIN}\n{text}\n" + page[page.index(END) :]


def write(path: Path, content: str) -> None:
    """Write the file as a whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(content)
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)


def missing(subject: Subject) -> list[str]:
    """The modules of a subject that are not installed."""
    return [m for m in subject.modules if importlib.util.find_spec(m) is None]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME")
    parser.add_argument("--list", action="store_true", help="name the models and stop")
    parser.add_argument("--rounds", type=int, default=11, help="0: compare, and time nothing")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(names))
        sys.exit()
    if arguments.write and arguments.only:
        parser.error("--write replaces the whole table, so it goes without --only")
    if arguments.write:
        replaced(arguments.write.read_text(encoding="utf-8"), "")  # before minutes of work
    return arguments


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    chosen = [s for s in SUBJECTS if not arguments.only or s.name in arguments.only]
    absent = {subject.name: missing(subject) for subject in chosen if missing(subject)}
    for subject in chosen:
        if subject.name in absent:
            print(
                f"{subject.name} is left out, for want of {', '.join(absent[subject.name])}: "
                f"pip install {subject.install}",
                file=sys.stderr,
            )
    if absent and arguments.write:
        sys.exit("--write wants every model: install what is missing")
    rows: list[dict[str, Any]] = []
    for subject in chosen:
        if subject.name not in absent:
            with quiet():
                rows += study(subject, arguments.rounds)
            print(*cells(rows[-1]), sep=" · ", file=sys.stderr, flush=True)
    if not rows:
        sys.exit("no model to study")
    text = f"{table(rows)}\n\n{machine(arguments.rounds)}"
    print(text)
    if arguments.json:
        content = {"machine": machine(arguments.rounds), "rows": rows}
        write(arguments.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if arguments.write:
        page = arguments.write.read_text(encoding="utf-8")
        write(arguments.write, replaced(page, text))


if __name__ == "__main__":
    main()
