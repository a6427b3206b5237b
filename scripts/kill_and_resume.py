"""Kill a training of MNIST at random moments, resume it, and compare every bit with a whole one.

    python scripts/kill_and_resume.py [--kills 20] [--iterations 600] [--seed 0]

Prints a table, one line a kill, and exits 1 if any result differs. The moments are spread over the
whole life of the process, imports and the writing of results included. If a process is killed
before its first checkpoint, the run begins anew, and must give the same bits, too.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLAGS = ["--eval-every", "50", "--checkpoint-every", "20", "--threads", "1", "--dropout", "0.1"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        life = seconds_of(train(whole, options.iterations))
        print(f"uninterrupted: {options.iterations} iterations, {life:.1f} s\n")
        print("kill    after   checkpoint   resumed   result")
        n_equal = n_killed = 0
        while n_killed < options.kills:
            run = Path(folder, f"killed-{n_killed + 1}")
            moment = moments.uniform(0, life)
            if not was_killed(train(run, options.iterations), moment):
                life = moment  # the process ended earlier than the uninterrupted one did
                shutil.rmtree(run)
                continue
            n_killed += 1
            checkpoint = checkpoint_iteration(run)
            # A run killed before it began has nothing to resume.
            how = "--resume" if (run / "config.toml").is_file() else "--overwrite"
            took = seconds_of([*train(run, options.iterations), how])
            equal = contents(run) == contents(whole)
            n_equal += equal
            print(
                f"{n_killed:4}  {moment:5.2f} s   {checkpoint:>10}   {took:5.1f} s   "
                + ("equal" if equal else "DIFFERENT"),
                flush=True,
            )
    print(f"\n{n_equal} of {n_killed} equal")
    return 0 if n_equal == n_killed else 1


def seconds_of(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def was_killed(command: list[str], moment: float) -> bool:
    """Run the command and kill it (SIGKILL) after `moment` seconds; False if it ended before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def train(run: Path, iterations: int) -> list[str]:
    """The command that trains into the folder `run`."""
    flags = [*FLAGS, "--iterations", str(iterations), "--output", str(run)]
    return [sys.executable, "-m", "ostinato_learn.cli", "train", "mnist", *flags]


def checkpoint_iteration(run: Path) -> str:
    for name in ("checkpoint", ".checkpoint.old"):
        state = run / name / "checkpoint.json"
        if state.is_file():
            return str(json.loads(state.read_text())["iteration"])
    return "none"


def contents(run: Path) -> dict[str, object]:
    """The results of a run that must be equal: everything but clock times."""
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluation = json.loads((run / "evaluation.json").read_text())
    for entry in (*metrics, evaluation):
        for clock in ("elapsed_s", "evaluation_s"):
            entry.pop(clock, None)
    return {
        "weights": (run / "model" / "model.safetensors").read_bytes(),
        "predictions": (run / "predictions.csv").read_bytes(),
        "metrics": metrics,
        "evaluation": evaluation,
    }


if __name__ == "__main__":
    sys.exit(main())
