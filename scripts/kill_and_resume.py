"""Kill a training of MNIST at random moments, resume it, and compare every bit with a whole one.

    python scripts/kill_and_resume.py [--kills 20] [--iterations 300] [--seed 0]

Prints a table, one line a kill, and exits 1 if any run ended differently. The moments are spread
over the whole life of the process, imports and the writing of results included; where the process
had not come to its first checkpoint, resuming begins anew, which must give the same bits too.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLAGS = ["--eval-every", "50", "--checkpoint-every", "20", "--threads", "1", "--dropout", "0.1"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        began = time.monotonic()
        command = train(whole, options.iterations)
        subprocess.run(command, check=True, capture_output=True)
        life = time.monotonic() - began
        print(f"uninterrupted: {options.iterations} iterations, {life:.1f} s\n")
        print("kill    after   checkpoint   resumed   result")
        equal = [
            one_kill(i + 1, Path(folder), whole, moments.uniform(0, life), options.iterations)
            for i in range(options.kills)
        ]
    print(f"\n{sum(equal)} of {len(equal)} equal")
    return 0 if all(equal) else 1


def one_kill(number: int, folder: Path, whole: Path, moment: float, iterations: int) -> bool:
    run = folder / f"killed-{number}"
    process = subprocess.Popen(
        train(run, iterations), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    checkpoint = checkpoint_iteration(run)
    began = time.monotonic()
    resumed = subprocess.run([*train(run, iterations), "--resume"], capture_output=True, text=True)
    took = time.monotonic() - began
    equal = resumed.returncode == 0 and contents(run) == contents(whole)
    state = "none" if checkpoint is None else str(checkpoint)
    result = "equal" if equal else f"DIFFERENT {resumed.stderr}"
    print(f"{number:4}  {moment:5.2f} s   {state:>10}   {took:5.1f} s   {result}", flush=True)
    return equal


def train(run: Path, iterations: int) -> list[str]:
    flags = [*FLAGS, "--iterations", str(iterations), "--output", str(run)]
    return [sys.executable, "-m", "ostinato.cli", "train", "mnist", *flags]


def checkpoint_iteration(run: Path) -> int | None:
    for name in ("checkpoint", ".checkpoint.old"):
        state = run / name / "checkpoint.json"
        if state.is_file():
            return json.loads(state.read_text())["iteration"]
    return None


def contents(run: Path) -> dict[str, object]:
    """Everything that must be equal: all but clock times."""
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluation = json.loads((run / "evaluation.json").read_text())
    for entry in (*metrics, evaluation):
        del entry["elapsed_s"]
    return {
        "weights": (run / "model" / "model.safetensors").read_bytes(),
        "predictions": (run / "predictions.csv").read_bytes(),
        "metrics": metrics,
        "evaluation": evaluation,
    }


if __name__ == "__main__":
    sys.exit(main())
