"""python -m benchmarks scan|iteration|layers|overhead|…|check|report: see README.md."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path

from benchmarks import machine, tables
from benchmarks.check import judged
from benchmarks.results import Results, Spec, check_target, save

BENCHMARKS = (
    "scan",
    "iteration",
    "layers",
    "overhead",
    "startup",
    "first_calls",
    "contention",
    "runtime",
    "batch",
    "memory",
    "steps",
    "simulations",
    "transforms",
    "serve",
)
THREADS = 2


def main(arguments: list[str]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.benchmark == "report":
            from benchmarks.page import page

            print(page(options.file), end="")
            return 0
        if options.json is not None:
            check_target(options.json)  # before minutes of measuring
    except (OSError, ValueError) as error:
        parser.error(str(error))
    _prepare(options.threads)
    if options.benchmark != "check":
        _run(options.benchmark, options)
        return 0
    missed = [
        f"{name} {row.name}: {tables.bound(b)}"
        for name in BENCHMARKS
        for row in _run(name, options).rows
        for b in row.bounds
        if not b.met
    ]
    print("\n".join(["missed:", *missed] if missed else ["all bounds met"]), file=sys.stderr)
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    helps = {
        "scan": "training by scan against every library's recurrence",
        "iteration": "the notebook's whole training iteration",
        "layers": "layers beside scan itself; ragged batches",
        "overhead": "a call of scan beside the engine's work; import; --help",
        "startup": "a refusal, a prediction, a first iteration, first calls, in fresh processes",
        "first_calls": "a loop's first call, for iterations of 10 to 2,000 operations",
        "contention": "the notebook's training iteration beside another program",
        "runtime": "one step of a stream, chunks, pools: one thread, without torch's training",
        "batch": "sequences classified beside ONNX Runtime, OpenVINO and PyTorch",
        "memory": "long runs within a budget: peak memory, time a step, growth with T, B and H",
        "steps": "matrix states, heads, attention: training beside PyTorch's loop, JAX, chunks",
        "simulations": "loops of science in float64, value and gradient, beside PyTorch and JAX",
        "transforms": "torch.func's transforms in plain gradients, beside PyTorch and JAX",
        "serve": "a server beside an echo of the same stack: steps, frames, batches",
        "check": "all of these; exits 1 if a bound is missed in the best of three measurements",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--json",
            type=Path,
            metavar="FILE",
            help="put the results there, beside those of other benchmarks",
        )
        command.add_argument(
            "--quick", action="store_true", help="tiny shapes, few rounds: only whether it runs"
        )
        command.add_argument(
            "--rows",
            nargs="+",
            default=[""],
            metavar="TEXT",
            help="only rows whose name contains one of these (notebook, gru/, lstm/large, …)",
        )
        command.add_argument(
            "--threads", type=int, default=THREADS, help=f"and cores (default {THREADS})"
        )
    report = commands.add_parser("report", help="a page of benchmarks/results/, on stdout")
    report.add_argument("file", type=Path, help="what --json wrote")
    return parser


def _prepare(threads: int) -> None:
    machine.use_cores(threads)
    # The benchmarks play one step function in many shapes, and scan warns of many recordings.
    warnings.filterwarnings("ignore", message=r".* was recorded \d+ times")
    import torch

    torch.set_num_threads(threads)


def _run(name: str, options: argparse.Namespace) -> Results:
    specs: list[Spec] = import_module(f"benchmarks.{name}").specs(options.quick)
    chosen = [s for s in specs if any(text in s.name for text in options.rows)]
    if not chosen and options.benchmark != "check":
        known = ", ".join(s.name for s in specs)
        raise SystemExit(f"--rows {' '.join(options.rows)}: no such row of {name}; it has {known}")
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    results = Results(name, command, options.quick, machine.report())
    print("\n".join([f"== {name}", *tables.machine_lines(results.machine), ""]), flush=True)
    begin, rows = time.monotonic(), []
    for spec in chosen:
        rows.append(judged(spec) if options.benchmark == "check" else spec.measure())
        print("\n".join([*tables.row_lines(rows[-1]), ""]), flush=True)
    results = Results(name, command, options.quick, results.machine, machine.state(), tuple(rows))
    print(f"after {time.monotonic() - begin:.0f} s: {tables.state(results.machine_after)}")
    print("\n".join([*tables.summary_lines(results), ""]), flush=True)
    if options.json is not None:
        save(options.json, results)
    return results


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
