"""`runtime`'s rows of whole processes: `ostinato stream`, and a model from a standing start.

The command is fed a file, for the rows a second with everything from the interpreter's start to its
end, and then line by line through a pipe, for the time from a line to its answer.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import numpy as np

from benchmarks.batch import saved_classifier
from benchmarks.results import Bound, Row, Spec, Timing

F, H, KEYS = 8, 32, 50
ROWS, QUICK_ROWS = 500_000, 5_000
LINES, QUICK_LINES = 5_000, 200
ROWS_A_SECOND, P99_MS = 100_000, 1.0
IMPORT_MS, LOAD_MS = 20.0, 5.0
MODEL_UNITS = 285  # a GRU of 1 MB


def specs(quick: bool) -> list[Spec]:
    rounds = 1 if quick else 5
    n_rows, n_lines = (QUICK_ROWS, QUICK_LINES) if quick else (ROWS, LINES)
    return [
        Spec("runtime/command", lambda: _command(n_rows, n_lines, rounds)),
        Spec("runtime/import", lambda: _import(2 if quick else 21)),
        Spec("runtime/load", lambda: _load(2 if quick else 31)),
    ]


# ---- The command


def _table(n: int) -> list[str]:
    """Lines of CSV: a key and eight numbers."""
    random = np.random.default_rng(1)
    keys, numbers = random.integers(KEYS, size=n), random.normal(size=(n, F))
    lines = (
        f"device {k},{','.join(f'{v:.4f}' for v in row)}\n"
        for k, row in zip(keys.tolist(), numbers.tolist(), strict=True)
    )
    return [f"device,{','.join(f'x{i}' for i in range(F))}\n", *lines]


def _command(n_rows: int, n_lines: int, rounds: int) -> Row:
    with saved_classifier("gru", F, H) as model, tempfile.TemporaryDirectory() as folder:
        file, lines = Path(folder) / "rows.csv", _table(n_rows)
        file.write_text("".join(lines))
        arguments = [sys.executable, "-m", "ostinato_learn.cli", "stream", model]
        whole = [_whole(arguments, file, n_rows) for _ in range(rounds)]
        waits = _waits(arguments, lines[: n_lines + 1])
    p99_ms = 1e3 * float(np.percentile(waits, 99))
    rows = Timing.of("a row of a file", whole)
    timings = rows, Timing.of("from a line to its answer", waits)
    bounds = (
        Bound("rows of a file", ROWS_A_SECOND, 1 / rows.median_s, unit="rows/s"),
        Bound("from a line to its answer, p99", P99_MS, p99_ms, False, "ms"),
    )
    title = f"ostinato stream: CSV of {F} numbers, {KEYS} keys, GRU, {H} units; {n_rows:,} rows"
    return Row("runtime/command", title, timings, bounds=bounds)


def _whole(arguments: list[str], file: Path, n_rows: int) -> float:
    """Seconds a row of the whole process."""
    begin = time.perf_counter()
    done = subprocess.run(
        [*arguments, str(file), "--key", "device"], stdout=subprocess.PIPE, check=True
    )
    spent = time.perf_counter() - begin
    n_answers = done.stdout.count(b"\n") - 1
    if n_answers != n_rows:
        raise RuntimeError(f"ostinato stream gave {n_answers} answers to {n_rows} rows")
    return spent / n_rows


def _waits(arguments: list[str], lines: list[str]) -> list[float]:
    """Seconds from each line to its answer, when no line follows before it."""
    process = subprocess.Popen(
        [*arguments, "-", "--key", "device"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    with process:
        given, answers = process.stdin, process.stdout
        assert given is not None and answers is not None
        given.write(lines[0].encode() + lines[1].encode())
        while _answer(answers).count(b"\n") < 2:  # the header and the first answer
            pass
        waits = []
        for line in lines[2:]:
            begin = time.perf_counter()
            given.write(line.encode())
            _answer(answers)
            waits.append(time.perf_counter() - begin)
        given.close()
    return waits


def _answer(answers: IO[bytes]) -> bytes:
    """What is there, to the end of a line; mostly one reading finds it all."""
    found = b""
    while not found.endswith(b"\n"):
        piece = answers.read(65536)
        if not piece:
            raise RuntimeError("ostinato stream ended before it had answered")
        found += piece
    return found


# ---- From a standing start


def _import(rounds: int) -> Row:
    """What comes on top of NumPy, each time in a fresh process."""
    code = (
        "import time, numpy; a = time.perf_counter(); import ostinato_learn.runtime; "
        "print(time.perf_counter() - a)"
    )
    times = []
    for _ in range(rounds):
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
        times.append(float(done.stdout))
    timing = Timing.of("import ostinato_learn.runtime", times)
    bound = Bound("after numpy", IMPORT_MS, 1e3 * timing.median_s, False, "ms")
    return Row("runtime/import", "after import numpy", (timing,), bounds=(bound,))


def _load(rounds: int) -> Row:
    """A saved model of 1 MB, its hashes checked."""
    from ostinato_learn import runtime

    with saved_classifier("gru", F, MODEL_UNITS) as model:
        runtime.load(model)
        times = []
        for _ in range(rounds):
            begin = time.perf_counter()
            runtime.load(model)
            times.append(time.perf_counter() - begin)
        size = sum(f.stat().st_size for f in Path(model).iterdir())
    timing = Timing.of("runtime.load", times)
    bound = Bound("a model", LOAD_MS, 1e3 * timing.median_s, False, "ms")
    return Row("runtime/load", f"a directory of {size:,} bytes", (timing,), bounds=(bound,))
