"""`contention`: the notebook's training iteration beside another program.

Each contender is a process of its own, in a session of its own, so that the kernel shares the cores
evenly between them and the program beside. In a round every contender trains for a second alone and
for a second beside each program; the others are stopped meanwhile. A fair share of the cores takes
twice the time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.results import Absent, Bound, Row, Spec, Timing

WANTED = 2.2
BLOCK_S = 1.0
SETTLE_S = 0.3  # after a program is stopped or goes on
OURS = "ostinato's loop"
CONTENDERS = (OURS, "ostinato's layer", "PyTorch")
ALONE, BESIDE = "alone", ("another training", "a compiler", "a quota of one core")
SOURCE = """
#include <algorithm>
#include <map>
#include <regex>
#include <string>
std::map<std::string, std::regex> kept;
bool found(const std::string& s) { return std::regex_match(s, kept[s]); }
"""


class Process:
    """A process that goes on and stops as it is told, with all that it starts."""

    def __init__(self, *command: str):
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def ask(self) -> float:
        """The milliseconds an iteration in a block of training; the first answer comes at once."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def send(self, what: signal.Signals) -> None:
        os.killpg(self.pid, what)

    def end(self) -> None:
        self.send(signal.SIGCONT)
        self.send(signal.SIGKILL)
        self._process.wait()


def specs(quick: bool) -> list[Spec]:
    rounds = 1 if quick else 5
    return [Spec(f"contention/{name}", lambda name=name: _row(name, rounds)) for name in BESIDE]


def _row(beside: str, rounds: int) -> Row:
    contenders = {name: Process(*_training(name)) for name in CONTENDERS}
    try:
        for process in contenders.values():
            process.ask()  # has imported and compiled
        with _program(beside) as switch:
            if isinstance(switch, str):
                absent = tuple(Absent(name, switch) for name in CONTENDERS)
                return Row(f"contention/{beside}", f"beside {beside}", (), absent)
            found = _measured(contenders, switch, rounds)
    finally:
        for process in contenders.values():
            process.end()
    alone = {name: times[0] for name, times in found.items()}
    timings = [
        _timing(f"{name}, {where}", times[i], times[0])
        for name, times in found.items()
        for i, where in enumerate((ALONE, beside))
    ]
    bounds = tuple(
        Bound(
            f"{name}, {beside} over alone",
            WANTED,
            float(np.median(found[name][1] / alone[name])),
            at_least=False,
        )
        for name in CONTENDERS
        if name != "PyTorch"
    )
    return Row(f"contention/{beside}", f"training beside {beside}", tuple(timings), (), bounds)


def _timing(name: str, times: np.ndarray, alone: np.ndarray) -> Timing:
    q1, middle, q3 = (np.percentile(times, [25, 50, 75]) / 1e3).tolist()
    note = f"{np.median(times / alone):.2f} × alone"
    return Timing(name, middle, q1, q3, len(times), None, note)


def _measured(
    contenders: dict[str, Process], switch: Callable[[Process, bool], None], rounds: int
) -> dict[str, np.ndarray]:
    """`[alone or beside, rounds]` milliseconds an iteration, by contender."""
    found = {name: np.empty((2, rounds)) for name in contenders}
    for r in range(rounds):
        for name, process in contenders.items():
            for i in (0, 1):
                if i:
                    switch(process, True)
                time.sleep(SETTLE_S)
                found[name][i, r] = process.ask()
                if i:
                    switch(process, False)
    return found


@contextlib.contextmanager
def _program(beside: str) -> Iterator[Callable[[Process, bool], None] | str]:
    """A function that lets the program beside go on or stop; or why there is none."""
    if beside == "a quota of one core":
        with _quota() as switch:
            yield switch
        return
    with contextlib.ExitStack() as stack:
        if beside == "a compiler":
            compiler = shutil.which("c++")
            if compiler is None:
                yield "there is no compiler"
                return
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / "program.cc").write_text(SOURCE)
            loop = f"while :; do {compiler} -O2 -S -o /dev/null {folder}/program.cc; done"
            command = ["sh", "-c", f"({loop}) & {loop}"]  # as make -j2 does
        else:
            command = [*_training("PyTorch"), "for ever"]
        process = Process(*command)
        stack.callback(process.end)
        if beside == "another training":
            process.ask()
        process.send(signal.SIGSTOP)
        yield lambda _, on: process.send(signal.SIGCONT if on else signal.SIGSTOP)


@contextlib.contextmanager
def _quota() -> Iterator[Callable[[Process, bool], None] | str]:
    """Puts the contender into a control group with the time of one core, and out of it."""
    top = next((p for p in map(Path, ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup")) if p.is_dir()), None)
    if top is None:
        yield "there are no control groups"
        return
    group = top / f"ostinato-benchmark-{os.getpid()}"
    try:
        group.mkdir()
        if (group / "cpu.cfs_quota_us").exists():
            (group / "cpu.cfs_quota_us").write_text("100000")
        else:
            (group / "cpu.max").write_text("100000 100000")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield f"no control group can be made: {error.strerror}"
        return
    try:
        yield (
            lambda process, on: (
                ((group if on else top) / "cgroup.procs").write_text(str(process.pid)) and None
            )
        )
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            _move(int(pid), top)
        group.rmdir()


def _move(pid: int, group: Path) -> None:
    (group / "cgroup.procs").write_text(str(pid))


def _training(contender: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.contention", contender]


# ---- In the process of a contender


def _block(contender: str) -> Callable[[], float]:
    """A function that trains for about a second and returns the milliseconds an iteration."""
    from benchmarks.notebook import SHAPE, Task

    task = Task()
    if contender == OURS:
        from ostinato_learn.training import Plan, train

        net, batches = task.net(), task.batches()
        n = 50

        def run() -> float:
            nonlocal n
            plan = Plan(iterations=n, batch_size=SHAPE.B, eval_every=1000)
            # The time of the loop: before it, `train` looks at all data once.
            spent = train(net, batches, plan).reports[-1]["elapsed_s"]
            taken, n = n, max(1, round(n * BLOCK_S / spent))
            return 1e3 * spent / taken

        return run
    if contender == "PyTorch":
        from benchmarks.iteration_peers import _torch

        iterate = _torch(task, compiled=False).run
    else:
        from benchmarks.iteration import _ours

        iterate = _ours(task).run

    def block() -> float:
        begin, n = time.perf_counter(), 0
        while (spent := time.perf_counter() - begin) < BLOCK_S:
            iterate()
            n += 1
        return 1e3 * spent / n

    return block


def _serve(contender: str, for_ever: bool) -> None:
    block = _block(contender)
    for _ in range(3):
        block()
    for _ in sys.stdin:
        print(block(), flush=True)
        while for_ever:
            block()


if __name__ == "__main__":
    _serve(sys.argv[1], for_ever="for ever" in sys.argv[2:])
