"""Trainings of MNIST in two processes beside those in one: results, time, and kills.

    python scripts/two_processes.py [--kills 10] [--iterations 300] [--repeats 5] [--seed 0]

Three tables, and the exit code 1 if something in them is wrong:

*results*   the reported losses and the weights of one process and of two, without dropout: they
            differ by rounding alone
*time*      of an iteration, in one process of one thread and of two, and in two processes of one
            thread each; in turns, medians
*kills*     SIGKILL to one process at a random moment of its life. All must have ended 30 s later;
            the run is resumed in two processes, and must give the bits of one never killed
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import safetensors.numpy
from kill_and_resume import checkpoint_iteration, contents

ENDS_WITHIN_S = 30
# 300 updates with one rounding of float32 each make 2e-5, and what follows amplifies them; a row
# that counts wrong changes the second report by more than 1e-2.
RELATIVE = 1e-3
SIZES = ((128, 128), (256, 512))  # units and rows of a batch: of the notebook, and larger
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        same = results(Path(folder, "results"), options.iterations)
        if options.repeats:
            times(Path(folder, "times"), options.iterations, options.repeats)
        clean = kills(Path(folder, "kills"), options.iterations, options.kills, options.seed)
    return 0 if same and clean else 1


def train(run: Path, processes: int, iterations: int, *flags: object) -> list[str]:
    """The command that trains into the folder `run`."""
    launcher = [sys.executable] if processes == 1 else LAUNCHER
    length = ("--iterations", iterations, "--output", run)
    return [*launcher, "-m", "ostinato", "train", "mnist", *map(str, (*flags, *length))]


def start(command: list[str]) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **streams)


def done(command: list[str]) -> float:
    """Run a command to its end, which must be a good one; the seconds it took."""
    began, started = time.monotonic(), start(command)
    _, said = started.communicate()
    if started.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{said}")
    return time.monotonic() - began


def reports(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def results(folder: Path, iterations: int) -> bool:
    one, two = folder / "one", folder / "two"
    for run, processes in ((one, 1), (two, 2)):
        done(train(run, processes, iterations, "--eval-every", iterations // 6))
    print("results                          one process   two processes   relative difference")
    worst = 0.0
    for a, b in zip(reports(one), reports(two), strict=True):
        difference = abs(b["loss"] / a["loss"] - 1)
        worst = max(worst, difference)
        name = f"loss at iteration {a['iteration']}"
        print(f"{name:<30} {a['loss']:>13.7f} {b['loss']:>15.7f} {difference:>21.1e}")
    weights = [safetensors.numpy.load_file(run / "model/model.safetensors") for run in (one, two)]
    for name, a in weights[0].items():
        difference = float(abs(a - weights[1][name]).max() / abs(a).max())
        worst = max(worst, difference)
        print(f"{name:<60} {difference:>21.1e}")
    print(f"{'equal to rounding' if worst < RELATIVE else 'DIFFERENT'}\n", flush=True)
    return worst < RELATIVE


def times(folder: Path, iterations: int, repeats: int) -> None:
    ways = {
        "one process, one thread": (1, ("--threads", 1)),
        "one process, two threads": (1, ("--threads", 2)),
        "two processes, one thread each": (2, ("--threads", 1)),
    }
    print(f"time of an iteration, median of {repeats}, in ms")
    for units, rows in SIZES:
        found: dict[str, list[float]] = {way: [] for way in ways}
        for repeat in range(repeats):
            for way, (processes, flags) in ways.items():
                run = folder / f"{units}-{processes}-{flags[1]}-{repeat}"
                sizes = ("--hidden-size", units, "--batch-size", rows)
                done(train(run, processes, iterations, *sizes, "--eval-every", 20, *flags))
                # From the second report on: the first iterations record and compile.
                first, last = reports(run)[1], reports(run)[-1]
                seconds = last["elapsed_s"] - first["elapsed_s"]
                found[way].append(1e3 * seconds / (last["iteration"] - first["iteration"]))
        for way, each in found.items():
            print(f"  {units} units, {rows} rows   {way:<32} {statistics.median(each):7.2f}")
    print(flush=True)


def kills(folder: Path, iterations: int, wanted: int, seed: int) -> bool:
    if not wanted:
        return True
    moments, n_right = random.Random(seed), 0
    flags = ("--eval-every", 50, "--checkpoint-every", 20, "--dropout", 0.1)
    life = done(train(folder / "whole", 2, iterations, *flags))
    print("kill   process    after   checkpoint   ended after   result")
    n_killed = 0
    while n_killed < wanted:
        run = folder / f"killed-{n_killed + 1}"
        started = start(train(run, 2, iterations, *flags))
        moment, rank = moments.uniform(0, life), moments.choice((0, 1))
        time.sleep(moment)
        if not killed(started, rank):
            life = moment  # the training ended earlier than the first one did
            started.communicate()
            shutil.rmtree(run, ignore_errors=True)
            continue
        n_killed += 1
        began = time.monotonic()
        started.communicate()
        took, checkpoint = time.monotonic() - began, checkpoint_iteration(run)
        # A run killed before it began has nothing to resume.
        how = "--resume" if (run / "config.toml").is_file() else "--overwrite"
        done([*train(run, 2, iterations, *flags), how])
        equal = contents(run) == contents(folder / "whole")
        right = equal and took < ENDS_WITHIN_S and started.returncode != 0
        n_right += right
        print(
            f"{n_killed:4}   {rank:7}   {moment:4.1f} s   {checkpoint:>10}   {took:9.1f} s   "
            + ("equal" if right else "WRONG"),
            flush=True,
        )
    print(f"\n{n_right} of {wanted} ended in time and gave the same bits when resumed")
    return n_right == wanted


def killed(launcher: subprocess.Popen, rank: int) -> bool:
    """Kill a process that a launcher starts; False if all of them have ended.

    The launcher is waited for until it has started it. The first process has work of its own in the
    end, and is killed instead of another that is through.
    """
    seen = False
    while launcher.poll() is None:
        there = ranks(launcher)
        seen = seen or rank in there
        victim = there.get(rank, there.get(0) if seen else None)
        if victim is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, 9)
                return True
        time.sleep(0.05)
    return False


def ranks(launcher: subprocess.Popen) -> dict[int, int]:
    """rank -> process, of those that a launcher has started."""
    found = {}
    for task in Path(f"/proc/{launcher.pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                environment = Path(f"/proc/{child}/environ").read_text().split("\0")
                found |= {int(v[5:]): child for v in environment if v.startswith("RANK=")}
    return found


if __name__ == "__main__":
    sys.exit(main())
