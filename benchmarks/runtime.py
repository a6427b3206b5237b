"""`runtime`: one step of a stream beside its peers, chunks, pools; on one thread.

Contenders are timed in turn, in one process. A contender runs many steps in its turn and says the
seconds of one.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import streaming
from benchmarks.batch import CLASSES, classifier
from benchmarks.peers_inference import torch_net
from benchmarks.results import Absent, Bound, Row, Spec, Timing
from ostinato.engine import native

F = 8
STEP_US = {"rnn": 0.25, "gru": 0.5, "lstm": 0.6}  # wanted of a step in C++ at H = 64
OUT_US, PUSH_US = 1.5, 2.5
OWN, OWN_OVER_SCAN = 1.2, 10.0
CHUNK, CHUNK_STEPS = 0.95, 2000
STREAMS, SLOTS_M, ITEMS_M = 10_000, 5.0, 0.8
STATE_BYTES = 64
KEY_MS = 0.5
SILENT_STEPS, SILENT = 100_000, 1.15
GATES = {"gru": 3, "lstm": 4}  # of RTNeural's layers

# In its turn a contender runs some blocks, and the best counts: another program's slice of time is
# longer than a block, and would else be measured with whichever it interrupts.
BLOCKS = 5

Turn = Callable[[], float]  # the seconds of one step


def specs(quick: bool) -> list[Spec]:
    rounds = 2 if quick else 15
    sizes = [64] if quick else [32, 64, 128]
    steps = [
        Spec(f"runtime/{cell}/{H}", lambda cell=cell, H=H: _step(cell, H, rounds))  # type: ignore[misc]
        for cell in STEP_US
        for H in sizes
    ]
    return [
        *steps,
        Spec("runtime/own cell", lambda: _own(rounds)),
        Spec("runtime/silence", lambda: _silence(rounds)),
        Spec("runtime/chunk", lambda: _chunk(rounds)),
        Spec("runtime/pool", lambda: _pool(rounds)),
        Spec("runtime/keyboard", lambda: _keyboard(rounds)),
        *streaming.specs(quick),
    ]


# ---- models and rows of numbers


def _rows(n: int) -> Any:
    return np.random.default_rng(1).normal(size=(n, F)).astype(np.float32)


# ---- timing


def _timed(turns: Mapping[str, Turn], rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in turns}
    for turn in turns.values():
        turn()
    for _ in range(rounds):
        for name, turn in turns.items():
            found[name].append(min(turn() for _ in range(BLOCKS)))
    return found


def _timings(found: Mapping[str, list[float]]) -> tuple[Timing, ...]:
    ours = np.array(next(iter(found.values())))
    timings: list[Timing] = []
    for name, times in found.items():
        q1, middle, q3 = np.percentile(times, [25, 50, 75]).tolist()
        ratio = float(np.median(np.array(times) / ours)) if timings else None
        timings.append(Timing(name, middle, q1, q3, len(times), ratio))
    return tuple(timings)


def _calls(run: Callable[[], Any], n: int, steps: int = 1) -> Turn:
    """A turn of n calls of so many steps each."""

    def turn() -> float:
        begin = time.perf_counter()
        for _ in range(n):
            run()
        return (time.perf_counter() - begin) / (n * steps)

    return turn


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    token = native.own_threads.set(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        native.own_threads.reset(token)
        torch.set_num_threads(before)


# ---- peers


def _torch_turn(model: Any) -> Turn:
    """PyTorch's own recurrent layer alone, called with one step and its carry."""
    import torch

    layer, x = torch_net(model).body, torch.from_numpy(_rows(1))[None]
    carry = None

    def run() -> None:
        nonlocal carry
        _, carry = layer(x, carry)

    def turn() -> float:
        with torch.inference_mode():
            return _calls(run, 50)()

    return turn


def _onnx_turn(model: Any, form: str) -> Turn | Absent:
    """ONNX Runtime on what `export_onnx` writes: a step, or a sequence of one step."""
    name = f"ONNX Runtime, {form}"
    for package in ("onnx", "onnxruntime"):
        if find_spec(package) is None:
            return Absent(name, f"{package} is not installed")
    import onnxruntime

    from ostinato_learn.export.onnx import export_onnx

    with tempfile.TemporaryDirectory() as folder:
        export_onnx(model, f"{folder}/m.onnx", form)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(f"{folder}/m.onnx", options)
    feed = {v.name: _fed(v) for v in session.get_inputs()}
    return _calls(lambda: session.run(None, feed), 50)


def _fed(value: Any) -> Any:
    """One row, one step: ones, of the shape that the file names."""
    shape = [n if isinstance(n, int) else 1 for n in value.shape]
    return np.ones(shape, np.int64 if "int64" in value.type else np.float32)


@cache
def _rtneural() -> Any:
    """RTNeural's layers, compiled; or why they are not."""
    folder = os.environ.get("RTNEURAL_DIR")
    if folder is None:
        return "RTNEURAL_DIR does not name a checkout of it"
    target = Path(tempfile.mkdtemp()) / "rtneural.so"
    command = [
        "c++",
        "-O3",
        "-march=native",
        "-std=c++17",
        "-fPIC",
        "-shared",
        "-w",
        f"-I{folder}",
        f"-I{folder}/modules/Eigen",
        str(Path(__file__).with_name("rtneural.cc")),
        "-o",
        str(target),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"it does not compile: {done.stderr[:200]}"
    step_ns = ctypes.CDLL(str(target)).rtneural_step_ns
    step_ns.restype = ctypes.c_double
    step_ns.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long]
    return step_ns


def _rtneural_turn(cell: str, H: int) -> Turn | Absent:
    if cell not in GATES:
        return Absent("RTNeural", "it has no such layer")
    step_ns = _rtneural()
    if isinstance(step_ns, str):
        return Absent("RTNeural", step_ns)
    return lambda: step_ns(GATES[cell], H, 1000) * 1e-9


# ---- rows


def _turns(turns: dict[str, Turn | Absent]) -> tuple[dict[str, Turn], tuple[Absent, ...]]:
    absent = tuple(t for t in turns.values() if isinstance(t, Absent))
    return {name: t for name, t in turns.items() if not isinstance(t, Absent)}, absent


def _ours(model: Any) -> dict[str, Turn | Absent]:
    stream, x = model.stream(), _rows(64)
    row, out = x[0], np.empty(CLASSES, np.float32)
    state = stream._state
    return {
        "a step in C++": lambda: state.time_steps(x, 64, None, 1000) * 1e-9,
        "with its answer": lambda: state.time_steps(x, 64, out, 1000) * 1e-9,
        "push(x, out=out)": _calls(lambda: stream.push(row, out=out), 500),
        "push(x)": _calls(lambda: stream.push(row), 500),
    }


def _step(cell: str, H: int, rounds: int) -> Row:
    model = classifier(cell, F, H)
    turns, absent = _turns(
        {
            **_ours(model),
            "RTNeural": _rtneural_turn(cell, H),
            "torch's layer": _torch_turn(model),
            "ONNX Runtime, step": _onnx_turn(model, "step"),
        }
    )
    with _one_thread():
        found = _timings(_timed(turns, rounds))
    by_name = {t.name: t for t in found}
    cost = model.stream().explain()
    bounds = [
        Bound("beside the carry", STATE_BYTES, cost.state_bytes - cost.carry_bytes, False, "bytes")
    ]
    if H == 64:
        wanted = {"a step in C++": STEP_US[cell], "push(x, out=out)": OUT_US, "push(x)": PUSH_US}
        bounds += [
            Bound(name, us, 1e6 * by_name[name].median_s, False, "µs")
            for name, us in wanted.items()
        ]
    if "RTNeural" in by_name:
        bounds.append(Bound("RTNeural over ours", 1.0, by_name["RTNeural"].ratio or 0.0))
    title = f"{F} inputs, {H} units; {cost}"
    return Row(f"runtime/{cell}/{H}", title, found, absent, tuple(bounds))


def _own(rounds: int) -> Row:
    """A person's RNN, written as a module, beside the built-in one, which multiplies as much."""
    import torch

    class OwnCell(torch.nn.Module):
        def __init__(self, n_features: int, hidden_size: int):
            super().__init__()
            self.into = torch.nn.Linear(n_features, hidden_size)
            self.back = torch.nn.Linear(hidden_size, hidden_size)

        def forward(self, h: Any, x: Any) -> Any:
            return torch.tanh(self.into(x) + self.back(h))

    H = 64
    own, built_in = classifier(OwnCell, F, H), classifier("rnn", F, H)
    turns, absent = _turns(
        {
            **_ours(own),
            "the built-in RNN in C++": _ours(built_in)["a step in C++"],
            "ONNX Runtime, sequence": _onnx_turn(own, "sequence"),
        }
    )
    with _one_thread():
        found = _timings(_timed(turns, rounds))
    by_name = {t.name: t for t in found}
    over = 1 / (by_name["the built-in RNN in C++"].ratio or 1.0)
    bounds = [Bound("ours over the built-in", OWN, over, False)]
    scan = by_name.get("ONNX Runtime, sequence")
    if scan is not None:
        ratio = scan.median_s / by_name["push(x)"].median_s
        bounds.append(Bound("ONNX Runtime's Scan over push(x)", OWN_OVER_SCAN, ratio))
    return Row("runtime/own cell", f"an RNN of one's own, {H} units", found, absent, tuple(bounds))


def _silence(rounds: int) -> Row:
    """Leaky states after the input has fallen silent, beside the same states with input.

    At a leak of 0.05, states fall below 2⁻¹²⁶ within 1,800 steps. Rounded to the nearest, a number
    of up to ten times the smallest one that float32 has would stay as it is for ever.
    """
    import torch

    class Leaky(torch.nn.Module):
        def __init__(self, n_features: int, hidden_size: int):
            super().__init__()
            self.into = torch.nn.Linear(n_features, hidden_size, bias=False)

        def forward(self, h: Any, x: Any) -> Any:
            return 0.95 * h + self.into(x)

    stream, x = classifier(Leaky, F, 64).stream(), _rows(64)
    state, zeros = stream._state, np.zeros((64, F), np.float32)

    def silent() -> float:
        stream.reset()
        stream.push(x)
        return state.time_steps(zeros, 64, None, SILENT_STEPS) * 1e-9

    turns: dict[str, Turn] = {
        "a step in silence": silent,
        "a step with input": lambda: state.time_steps(x, 64, None, SILENT_STEPS) * 1e-9,
    }
    with _one_thread():
        found = _timings(_timed(turns, rounds))
    over = 1 / (found[1].ratio or 1.0)
    bound = Bound("in silence over with input", SILENT, over, False)
    title = f"{SILENT_STEPS:,} steps without input, 64 leaky states"
    return Row("runtime/silence", title, found, bounds=(bound,))


def _chunk(rounds: int) -> Row:
    """push of many rows beside the batch engine's play of the same sequence."""
    model, x = classifier("gru", F, 64), _rows(CHUNK_STEPS)
    stream = model.stream()
    source = stream._source
    carry = np.zeros(source.n_carry, np.float32)
    turns: dict[str, Turn] = {
        "push(xs)": _calls(lambda: stream.push(x), 3, len(x)),
        "the batch engine": _calls(
            lambda: source.chunks.answers(source.prepared(x), carry[None], False), 3, len(x)
        ),
    }
    with _one_thread():
        found = _timings(_timed(turns, rounds))
    bound = Bound("the batch engine over ours", CHUNK, found[1].ratio or 0.0)
    return Row(
        "runtime/chunk", f"{CHUNK_STEPS:,} steps at once, GRU, 64 units", found, bounds=(bound,)
    )


def _pool(rounds: int) -> Row:
    model = classifier("gru", F, 32)
    pool, X = model.pool(STREAMS), _rows(STREAMS)
    slots = pool.slots(range(STREAMS))
    items = dict(enumerate(X))
    turns: dict[str, Turn] = {
        "push(slots, X)": _calls(lambda: pool.push(slots, X), 1, STREAMS),
        "push({key: row})": _calls(lambda: pool.push(items), 1, STREAMS),
    }
    with _one_thread():
        found = _timings(_timed(turns, rounds))
    bounds = [
        Bound(t.name, wanted, 1e-6 / t.median_s, unit="M steps/s")
        for t, wanted in zip(found, (SLOTS_M, ITEMS_M), strict=True)
    ]
    return Row("runtime/pool", f"{STREAMS:,} streams, GRU, 32 units", found, bounds=tuple(bounds))


def _keyboard(rounds: int) -> Row:
    """A word of a keyboard's language model, and the probability of each word to be the next."""
    from benchmarks.keyboard import WORDS, keyboard

    stream, table = keyboard()
    out = np.empty(WORDS, np.float32)
    words = iter(np.random.default_rng(0).integers(WORDS, size=1_000_000).tolist())
    turns: dict[str, Turn] = {
        "push(word, out=out)": _calls(lambda: stream.push(table[next(words)], out=out), 50)
    }
    with _one_thread():
        found = _timings(_timed(turns, rounds))
    bound = Bound("a key", KEY_MS, 1e3 * found[0].median_s, False, "ms")
    title = f"a coupled LSTM of 670 units, {WORDS:,} words; {stream.explain()}"
    return Row("runtime/keyboard", title, found, bounds=(bound,))
