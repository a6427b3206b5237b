"""Memory of trainings on tables in a file: `python -m benchmarks.studies.larger_tables`.

Writes a Parquet file of random sequences to tag and one of random series to forecast (600 MB each
by default), and trains on each with `ostinato train` for some epochs. The memory of that process is
looked at five times a second, and less that of a process that imports the same modules is printed
for each phase: before the first epoch, in each epoch, and in the evaluation. Lines are JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

GROUPS = 20  # row groups of a file
N_INPUTS = 120  # of a step to forecast
INPUTS = ",".join(f"x{i}" for i in range(N_INPUTS))
SMALL = ("--hidden-size", "8", "--cell", "gru", "--threads", "1")
IMPORTS = (
    "import torch, pyarrow.parquet, ostinato_learn.cli, ostinato_learn.training, "
    "ostinato_learn.report"
)


def write(path: Path, n: int, n_steps: int, row: Callable[..., dict[str, Any]]) -> None:
    """n rows of lists of n_steps values."""
    import pyarrow as pa
    from pyarrow import parquet

    generator, writer = np.random.default_rng(0), None
    for _ in range(GROUPS):
        offsets = np.arange(n // GROUPS + 1, dtype=np.int32) * n_steps
        columns = row(generator, n // GROUPS * n_steps)
        lists = {k: pa.ListArray.from_arrays(offsets, v) for k, v in columns.items()}
        table = pa.table(lists)
        writer = writer or parquet.ParquetWriter(
            path, table.schema, compression="none", use_dictionary=["label.list.element"]
        )
        writer.write_table(table)
    if writer is not None:
        writer.close()


def to_tag(generator: np.random.Generator, n: int) -> dict[str, Any]:
    """Ten numbers a step, and one of four labels that follows from them."""
    values = {f"x{i}": generator.standard_normal(n, np.float32) for i in range(10)}
    number = 2 * (values["x0"] > 0) + (values["x1"] > 0)
    return values | {"label": np.array(["left", "right", "up", "down"])[number]}


def to_forecast(generator: np.random.Generator, n: int) -> dict[str, Any]:
    """A series, and many inputs: a window for each step, so that an epoch takes long."""
    inputs = {f"x{i}": generator.standard_normal(n, np.float32) for i in range(N_INPUTS)}
    return inputs | {"value": np.cumsum(generator.standard_normal(n)) % 97}


TASKS: dict[str, tuple[Callable[..., dict[str, Any]], int, tuple[str, ...]]] = {
    "tag": (to_tag, 41, ("--tag", "label", "--batch-size", "512")),
    "forecast": (to_forecast, 488, ("--forecast", "value", "--horizon", "2", "--context", "4",
                                   "--features", INPUTS, "--batch-size", "16384")),
}  # fmt: skip


def megabytes(process: int | str) -> float:
    """Memory that is a process's own: without mapped files, which the system takes back."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (own,) = (line for line in lines if line.startswith("RssAnon"))
    return int(own.split()[1]) / 1e3


def imports() -> float:
    code = f"from {__spec__.name} import megabytes; {IMPORTS}; print(megabytes('self'))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(said.stdout)


def measure(task: str, path: Path, epochs: int, folder: Path) -> None:
    """Print a line for each phase of a training, as it ends."""
    run, (*_, flags) = folder / task, TASKS[task]
    command = ["-m", "ostinato_learn", "train", str(path), *flags, *SMALL, "--epochs", str(epochs)]
    base, started = imports(), time.perf_counter()
    about = {"task": task, "file_mb": round(path.stat().st_size / 1e6), "imports_mb": round(base)}
    command += ["--quiet", "--output", str(run)]
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL) as process:
        phase, peak = phase_of(run, epochs), 0.0
        while process.poll() is None:
            now = phase_of(run, epochs)
            if now != phase:
                tell(about, phase, peak - base, started)
                phase, peak = now, 0.0
            with contextlib.suppress(OSError, ValueError):  # it has just ended
                peak = max(peak, megabytes(process.pid))
            time.sleep(0.2)
        tell(about | {"exit": process.returncode}, phase, peak - base, started)


def tell(about: dict[str, Any], phase: str, beyond: float, started: float) -> None:
    seconds = round(time.perf_counter() - started)
    found = {"phase": phase, "beyond_imports_mb": round(beyond), "until_s": seconds}
    print(json.dumps(about | found), flush=True)


def phase_of(run: Path, epochs: int) -> str:
    epoch = done(run)
    if epoch is None:
        return "before the first epoch"
    return f"epoch {int(epoch) + 1}" if epoch < epochs else "evaluation and report"


def done(run: Path) -> float | None:
    """Epochs of a run until its last report; None before the first."""
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return json.loads(lines[-1])["epoch"] if lines else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tasks", nargs="*", help=f"of {', '.join(TASKS)}; default: all")
    parser.add_argument("--megabytes", type=int, default=600)
    parser.add_argument("--steps", type=int, default=100, help="of a sequence to tag")
    parser.add_argument("--series-steps", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--runs", type=Path, help="folder for the runs, which are kept")
    parser.add_argument("--folder", type=Path, help="for the files, which are kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for task in given.tasks or TASKS:
            make, width, _ = TASKS[task]
            path = (given.folder or Path(temporary)) / f"{task}.parquet"
            n_steps = given.steps if task == "tag" else given.series_steps
            if not path.exists():
                n = given.megabytes * 10**6 // (width * n_steps)
                context = multiprocessing.get_context("spawn")
                process = context.Process(target=write, args=(path, n, n_steps, make))
                process.start()
                process.join()
            measure(task, path, given.epochs, given.runs or Path(temporary))


if __name__ == "__main__":
    main()
