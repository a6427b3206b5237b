"""Trainings in two processes beside those in one: results, time, evaluation, kills.

    python scripts/two_processes.py [results time evaluation kills] [--kills 10]
        [--iterations 300] [--repeats 5] [--seed 0] [--runs FOLDER] [--keep FILE.jsonl]

Four tables, and the exit code 1 if something in them is wrong:

*results*   of MNIST: the reported losses and the weights of one process and of two, without
            dropout: they differ by rounding alone
*time*      of an iteration, in one process of one thread and of two, and in two processes of one
            thread each; in turns, medians
*evaluation*
            of 10,000 images of MNIST, with its report: seconds in one process of one thread and in
            two, and what both measure
*kills*     SIGKILL to one process at a random moment of its life. All must have ended 30 s later;
            the run is resumed in two processes, and must give the bits of one never killed

Under each table stands how much of the cores' time other programs had meanwhile: a machine that was
busy says little about time. The tables can be made one by one, and kills some at a time, with
another seed each: --runs keeps the run that was never killed, --keep adds a line of JSON for each
finding to a file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import safetensors.numpy
from kill_and_resume import checkpoint_iteration, contents

from ostinato_learn import environment

ENDS_WITHIN_S = 30
# 300 updates with one rounding of float32 each make 2e-5, and what follows amplifies them; a row
# that counts wrong changes the second report by more than 1e-2.
RELATIVE = 1e-3
QUIET = 0.05  # share of the cores' time that other programs may have
SIZES = ((128, 128), (256, 512))  # units and rows of a batch: of the notebook, and larger
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


TABLES = ("results", "time", "evaluation", "kills")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="|".join(TABLES), help="default: all")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, help="folder for the runs; default: a temporary one")
    parser.add_argument("--keep", type=Path, help="file to which findings are added as JSON lines")
    options = parser.parse_args()
    wanted = options.tables or TABLES
    if unknown := set(wanted) - set(TABLES):
        parser.error(f"there is no table {min(unknown)}; wanted some of {', '.join(TABLES)}")
    right = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.runs or Path(temporary)
        for name in wanted:
            with others_told(name, options.keep) as findings:
                found = MAKERS[name](folder / name, options, findings)
                right = right and found
    return 0 if right else 1


@contextlib.contextmanager
def others_told(table: str, keep: Path | None) -> Iterator[list[dict[str, object]]]:
    """Findings of a table; says, and keeps with them, what share of the cores' time others had."""
    findings: list[dict[str, object]] = []
    began, before, own = time.monotonic(), busy_s(), own_s()
    yield findings
    elapsed = time.monotonic() - began
    others = max(0.0, busy_s() - before - (own_s() - own)) / elapsed / (os.cpu_count() or 1)
    verdict = "" if others < QUIET else "; THE MACHINE WAS BUSY, so that times say little"
    print(f"other programs had {others:.0%} of the cores' time meanwhile{verdict}\n", flush=True)
    if keep is not None:
        around = {
            "table": table,
            "others": round(others, 3),
            "cores": environment.cores(),
            "cpu": environment.cpu_model(),
            "commit": environment.git_state(),
        }
        with keep.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(around | finding) + "\n" for finding in findings)


def busy_s() -> float:
    """Seconds that all cores of the machine have worked, for any program or another machine."""
    user, nice, system, _, _, *interrupts = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def own_s() -> float:
    """Seconds that this process and those that it has waited for have worked."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def train(run: Path, processes: int, iterations: int, *flags: object) -> list[str]:
    """The command that trains into the folder `run`."""
    launcher = [sys.executable] if processes == 1 else LAUNCHER
    length = ("--iterations", iterations, "--output", run)
    return [*launcher, "-m", "ostinato_learn", "train", "mnist", *map(str, (*flags, *length))]


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


def results(folder: Path, options: argparse.Namespace, findings: list) -> bool:
    iterations = options.iterations
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
    print("equal to rounding" if worst < RELATIVE else "DIFFERENT")
    findings.append({"iterations": iterations, "relative_difference": worst})
    return worst < RELATIVE


def times(folder: Path, options: argparse.Namespace, findings: list) -> bool:
    iterations, repeats = options.iterations, options.repeats
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
            middle = statistics.median(each)
            print(f"  {units} units, {rows} rows   {way:<32} {middle:7.2f}")
            findings.append({"units": units, "rows": rows, "way": way, "ms": round(middle, 3)})
    return True


def evaluation(folder: Path, options: argparse.Namespace, findings: list) -> bool:
    """Both train alike to rounding, so that they measure alike."""
    found: dict[int, list[dict]] = {1: [], 2: []}
    for repeat in range(options.repeats):
        for processes, each in found.items():
            run = folder / f"{processes}-{repeat}"
            done(train(run, processes, 50, "--threads", 1))
            each.append(json.loads((run / "evaluation.json").read_text()))
    print(f"evaluation, processes of one thread each, median of {options.repeats}, in s")
    for processes, each in found.items():
        seconds = statistics.median(one["evaluation_s"] for one in each)
        loss = each[0]["test"]["loss"]
        print(f"  processes: {processes}   {seconds:6.2f} s   loss {loss:.9f}")
        findings.append({"processes": processes, "s": round(seconds, 2), "loss": loss})
    one, two = (each[0]["test"]["loss"] for each in found.values())
    return abs(two / one - 1) < RELATIVE


def kills(folder: Path, options: argparse.Namespace, findings: list) -> bool:
    iterations, wanted = options.iterations, options.kills
    moments, n_right = random.Random(options.seed), 0
    flags = ("--eval-every", 50, "--checkpoint-every", 20, "--dropout", 0.1)
    whole = folder / f"whole-{iterations}"
    if (whole / "life").is_file():
        life = float((whole / "life").read_text())
    else:
        shutil.rmtree(whole, ignore_errors=True)
        life = done(train(whole / "run", 2, iterations, *flags))
        (whole / "life").write_text(str(life))
    print("kill   process    after   checkpoint   ended after   result")
    n_killed = 0
    while n_killed < wanted:
        run = folder / f"killed-{options.seed}-{n_killed + 1}"
        shutil.rmtree(run, ignore_errors=True)
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
        equal = contents(run) == contents(whole / "run")
        right = equal and took < ENDS_WITHIN_S and started.returncode != 0
        n_right += right
        print(
            f"{n_killed:4}   {rank:7}   {moment:4.1f} s   {checkpoint:>10}   {took:9.1f} s   "
            + ("equal" if right else "WRONG"),
            flush=True,
        )
        findings.append(
            {
                "seed": options.seed,
                "process": rank,
                "after_s": round(moment, 1),
                "checkpoint": checkpoint,
                "ended_after_s": round(took, 1),
                "right": right,
            }
        )
        shutil.rmtree(run, ignore_errors=True)
    print(f"{n_right} of {wanted} ended in time and gave the same bits when resumed")
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


MAKERS = {
    "results": results,
    "time": times,
    "evaluation": evaluation,
    "kills": kills,
}

if __name__ == "__main__":
    sys.exit(main())
