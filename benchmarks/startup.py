"""`startup`: what a person waits for before anything is learnt or answered.

Whole processes. A training is timed in turn with a process that only imports torch, and the bound
is on what comes on top; a refusal and `predict` need no torch. The first calls are timed in fresh
processes that have imported torch and ostinato.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.results import Bound, Row, Spec, Timing

REFUSED_S, PREDICT_S, TRAIN_S = 0.5, 0.7, 2.0
LAYER_MS, STEP_MS = 150.0, 300.0
FIRST_CALLS = {
    "a layer": (
        "import torch, ostinato.nn; layer, x = ostinato.nn.GRU(28, 128), torch.randn(28, 32, 28)",
        "layer(x)",
        LAYER_MS,
    ),
    "a user's step": (
        "import torch, ostinato; W = torch.randn(128, 128, requires_grad=True); "
        "init, xs = torch.zeros(32, 128), torch.randn(28, 32, 128); scan = ostinato.scan; "
        "step = lambda h, x: torch.tanh(x + h @ W)",
        "scan(step, init, xs)",
        STEP_MS,
    ),
}


def specs(quick: bool) -> list[Spec]:
    rounds = 1 if quick else 7
    return [
        Spec("startup/refused", lambda: _refused(rounds)),
        Spec("startup/predict", lambda: _predict(rounds)),
        Spec("startup/train", lambda: _train(rounds)),
        *(
            Spec(f"startup/{what}", lambda what=what: _first_call(what, rounds))  # type: ignore[misc]
            for what in FIRST_CALLS
        ),
    ]


def _refused(rounds: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "broken.npz"
        file.write_bytes(b"no archive")
        command = ("-m", "ostinato_learn.cli", "train", str(file))
        times = [_process(*command, code=2) for _ in range(rounds)]
    return _whole(
        "refused", "a file that is no archive", "ostinato train broken.npz", times, REFUSED_S
    )


def _predict(rounds: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        run, file = f"{folder}/run", f"{folder}/thirty.npz"
        X = np.random.default_rng(0).normal(size=(30, 20, 12)).astype(np.float32)
        np.savez(file, X=X, y=np.arange(30) % 2)
        _process("-m", "ostinato_learn.cli", "train", file, "--iterations", "1", "-q", "-o", run)
        times = [_process("-m", "ostinato_learn.cli", "predict", run, file) for _ in range(rounds)]
    return _whole("predict", "30 sequences", "ostinato predict", times, PREDICT_S)


def _whole(name: str, title: str, command: str, times: list[float], wanted: float) -> Row:
    timing = Timing.of(command, times)
    bound = Bound("the whole process", wanted, timing.median_s, False, "s")
    return Row(f"startup/{name}", title, (timing,), bounds=(bound,))


def _train(rounds: int) -> Row:
    """In turn with `import torch`, and with what PyTorch's first optimiser imports."""
    contenders = {
        "ostinato train": ("-m", "ostinato_learn.cli", "train", "mnist", "--iterations", "1", "-q"),
        "import torch": ("-c", "import torch"),
        "import torch, torch._dynamo": ("-c", "import torch, torch._dynamo"),
    }
    times: dict[str, list[float]] = {each: [] for each in contenders}
    for _ in range(rounds):
        for each, arguments in contenders.items():
            times[each].append(_process(*arguments))
    ours, torch_alone, _ = times.values()
    beyond = float(np.median(np.subtract(ours, torch_alone)))
    timings = tuple(Timing.of(each, found) for each, found in times.items())
    bound = Bound("beyond import torch", TRAIN_S, beyond, False, "s")
    return Row("startup/train", "mnist, one iteration", timings, bounds=(bound,))


def _first_call(what: str, rounds: int) -> Row:
    prepare, call, wanted = FIRST_CALLS[what]
    code = (
        f"import json, time; {prepare}; a = time.perf_counter(); {call}; b = time.perf_counter(); "
        f"{call}; print(json.dumps([b - a, time.perf_counter() - b]))"
    )
    found = [json.loads(_output("-c", code)) for _ in range(rounds)]
    first, second = (list(times) for times in zip(*found, strict=True))
    timings = (Timing.of("the first call", first), Timing.of("the second", second))
    bound = Bound("the first call", wanted, 1e3 * timings[0].median_s, False, "ms")
    title = f"in a fresh process, torch and ostinato imported: {call}"
    return Row(f"startup/{what}", title, timings, bounds=(bound,))


def _process(*arguments: str, code: int = 0) -> float:
    """The seconds of a whole process of Python."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    spent = time.perf_counter() - begin
    if done.returncode != code:
        what = " ".join(arguments)
        raise RuntimeError(f"python {what} ended with {done.returncode}: {done.stderr}")
    return spent


def _output(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return done.stdout
