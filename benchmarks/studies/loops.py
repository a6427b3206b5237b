"""Loops over time, in packages and plain: `python -m benchmarks.studies.loops [--write PAGE]`.

The models are those of the tests' package_models.py, longer: 200 steps of 32 rows. Each is made
twice by its package's own code; one of the two is given to `accelerate(model, loops=True)`. Forward
and backward pass of both take turns on one thread; the ratio of processor seconds in a turn is one
sample, the median of the samples is the figure. `make test-packages` makes the environment; what is
not installed is left out.

A few of them run under `torch.compile`, too, in a process of their own that is ended after
COMPILE_SECONDS: it unrolls the loop.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import logging
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.tables import machine_lines

import ostinato
from benchmarks import machine
from ostinato.loops.explained import LoopReport
from ostinato.nn import inspect

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packages" / "ostinato" / "tests" / "packages"))
import package_models as models  # noqa: E402 (a folder of tests)

T, B = 200, 32
TURNS = 5
COMPILE_SECONDS = 300
COMPILED = ("cell_32_64", "ncps_cfc", "snntorch_leaky", "hydrodl2_hbv")
DISTRIBUTIONS = {
    "torchcrf": "pytorch-crf",
    "torch_kf": "torch-kf",
    "sb3_contrib": "sb3-contrib",
    "pyro": "pyro-ppl",
}
BEGIN, END = "<!-- loops -->", "<!-- /loops -->"


class Loop(torch.nn.Module):
    """The loop that everybody writes."""

    def __init__(self, width: int):
        super().__init__()
        self.cell = torch.nn.GRUCell(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, outputs = None, []
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            outputs.append(h)
        return torch.stack(outputs, 1)


def cell_32_64() -> Any:
    return Loop(64), lambda m, x: m(x), torch.randn(32, 200, 64)


def cell_128_128() -> Any:
    return Loop(128), lambda m, x: m(x), torch.randn(128, 100, 128)


CASES: dict[str, models.Case] = {
    f.__name__: models.Case("torch", ("studies/loops.py", "Loop.forward"), f)
    for f in (cell_32_64, cell_128_128)
} | models.CASES


@dataclass
class Result:
    """The figures of one model; `loop` is its report, seconds are of forward and backward pass."""

    name: str
    package: str
    loop: str
    native: bool
    reason: str
    seconds: float
    ratio: float
    first: float
    compiled: str


def made(name: str) -> Any:
    torch.manual_seed(0)
    return CASES[name].build()


def work(model: torch.nn.Module, call: Any, x: torch.Tensor) -> Callable[[], float]:
    """A turn: processor seconds of one forward and backward pass from the same random state."""
    parameters = [p for p in model.parameters() if p.requires_grad]

    def run() -> float:
        torch.manual_seed(1)
        inputs = [x.clone().requires_grad_(), *parameters]
        began = time.process_time()
        loss = call(model, inputs[0]).square().mean()
        torch.autograd.grad(loss, inputs, allow_unused=True)
        return time.process_time() - began

    return run


def in_turn(a: Callable[[], float], b: Callable[[], float]) -> tuple[float, float]:
    """Seconds of a, and how many times faster b is: medians over turns."""
    pairs = [(a(), b()) for _ in range(TURNS)]
    return statistics.median(p for p, _ in pairs), statistics.median(p / q for p, q in pairs)


def measured(name: str) -> Result:
    case = CASES[name]
    (plain, call, x), (fast, its_call, _) = made(name), made(name)
    ostinato.accelerate(fast, loops=True)
    alone, accelerated = work(plain, call, x), work(fast, its_call, x)
    alone()
    first = accelerated()
    for _ in range(3):  # whether the engine gains something is decided in the first calls
        accelerated()
    seconds, ratio = in_turn(alone, accelerated)
    file, function = case.loop
    found = [
        r
        for r in inspect(fast)
        if isinstance(r, LoopReport)
        and r.native is not None
        and r.file.endswith(file)
        and r.name.endswith(function)
    ]
    of = next((r for r in found if r.native), found[0] if found else None)
    where = f"{Path(of.file).name}:{of.line} `{of.text}`" if of else "not found"
    return Result(
        name,
        version(case.package),
        where,
        bool(of and of.native),
        of.reason if of else "",
        seconds,
        ratio,
        first,
        compiled(name) if name in COMPILED else "",
    )


def version(package: str) -> str:
    name = DISTRIBUTIONS.get(package, package)
    return f"{name} {importlib.metadata.version(name)}"


def compiled(name: str) -> str:
    """What `torch.compile` of the model gains, and how long it compiles; in another process."""
    command = [sys.executable, "-m", "benchmarks.studies.loops", "--compiled", name]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not ready after {COMPILE_SECONDS} s"
    if done.returncode:
        return f"fails: {done.stderr.strip().splitlines()[-1][:80]}"
    answer = json.loads(done.stdout.splitlines()[-1])
    return f"{answer['ratio']:.1f} × after {answer['compile']:.0f} s"


def compile_here(name: str) -> None:
    (plain, call, x), (fast, its_call, _) = made(name), made(name)
    fast.compile()
    alone, accelerated = work(plain, call, x), work(fast, its_call, x)
    alone()
    first = accelerated()
    accelerated()
    _, ratio = in_turn(alone, accelerated)
    print(json.dumps({"compile": first, "ratio": ratio}))


def line(r: Result) -> str:
    how = "native" if r.native else f"in Python: {r.reason or 'not found'}"
    cells = [
        r.package,
        r.name,
        r.loop,
        how,
        f"{r.seconds * 1e3:.0f} ms",
        f"{r.ratio:.1f} ×",
        f"{r.first:.1f} s",
        r.compiled or "–",
    ]
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def page(results: list[Result], before: dict[str, Any], after: dict[str, Any]) -> str:
    native = sum(r.native for r in results)
    return "\n".join(
        [
            *machine_lines(before, after),
            "",
            f"{native} of {len(results)} loops are native.",
            "",
            "| package | model | loop | how it runs | alone | with ostinato | its first call "
            "| torch.compile |",
            "| --- | --- | --- | --- | ---: | ---: | ---: | --- |",
            *map(line, results),
        ]
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; all without")
    arguments.add_argument("--write", type=Path, help="put the tables into this page")
    arguments.add_argument("--compiled", choices=COMPILED, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    machine.use_cores(1)
    torch.set_num_threads(1)
    models.T, models.B = T, B
    logging.getLogger("ostinato").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if given.compiled:
        compile_here(given.compiled)
        return
    before, results = machine.report(), []
    for name in given.names or CASES:
        if importlib.util.find_spec(CASES[name].package) is None:
            print(f"{name}: {CASES[name].package} is not installed", file=sys.stderr)
            continue
        with contextlib.redirect_stdout(io.StringIO()):  # some packages print
            results.append(measured(name))
        print(line(results[-1]), flush=True)
    text = page(results, before, machine.state())
    print(f"\n{text}")
    if given.write:
        old = given.write.read_text(encoding="utf-8")
        head, tail = old[: old.index(BEGIN) + len(BEGIN)], old[old.index(END) :]
        given.write.write_text(f"{head}\n{text}\n{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
