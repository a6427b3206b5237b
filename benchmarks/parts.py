"""The time of one training call of scan, divided: the engine, autograd, and the rest.

    python -m benchmarks.parts [CELL/SHAPE …]

It measures rows of `python -m benchmarks scan` without the peers, as medians over two seconds of
calls. "Autograd" is PyTorch's time between the call of a differentiable function and the code of
that function, forward and backward. "The rest" is ostinato's Python and the tensors that it makes.
To profile the engine itself, build it with symbols and with -O3, as it is shipped, and run this
program under `perf record -e cpu-clock`.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import ostinato._scan as scan_module
from benchmarks import peers_torch
from benchmarks.cells import GRU, LEM, LSTM, RNN, SHAPES, SLSTM
from benchmarks.overhead import watching
from benchmarks.problem import Problem
from ostinato.compiler.play.step import CompiledStep
from ostinato.engine import native

CELLS = {cell.name: cell for cell in (RNN, GRU, LSTM, LEM, SLSTM)}
SECONDS = 2.0
WATCHED: dict[str, list[tuple[Any, str]]] = {
    "autograd": [(scan_module, "play"), (torch.autograd, "grad")],
    "ours": [(CompiledStep, "forward"), (CompiledStep, "backward")],
}


def timed(seconds: list[float], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; each call appends the seconds that the engine played in it."""

    def wrapper(*args: Any) -> Any:
        begin = native.engine_ns()
        result = function(*args)
        seconds.append((native.engine_ns() - begin) / 1e9)
        return result

    return wrapper


def main() -> None:
    torch.set_num_threads(2)
    plays: dict[str, list[float]] = {"forward": [], "backward": []}
    for way, seconds in plays.items():
        setattr(CompiledStep, way, timed(seconds, getattr(CompiledStep, way)))
    shapes = {shape.name: shape for shape in SHAPES}
    names = sys.argv[1:] or [f"{c}/{s}" for s in shapes for c in ("rnn", "gru", "lstm")]
    print("| row | whole, µs | forward | backward | autograd | the rest | GFLOP/s in the engine |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    gc.disable()
    for name in names:
        cell, shape = CELLS[name.split("/")[0]], shapes[name.split("/")[1]]
        with watching(WATCHED) as watch:
            run = peers_torch.ours(Problem(cell, shape)).make().run
            for _ in range(10):
                run()
            for seconds in plays.values():
                seconds.clear()
            wholes, autograd = [], []
            end = time.perf_counter() + SECONDS
            while time.perf_counter() < end:
                watch.spent.clear()
                begin = time.perf_counter()
                run()
                wholes.append(time.perf_counter() - begin)
                autograd.append(watch.spent["autograd"] / 1e9)
        spans = wholes, *plays.values(), autograd
        whole, forward, backward, outside = map(statistics.median, spans)
        parts = (whole, forward, backward, outside, whole - forward - backward - outside)
        rate = cell.gflop(shape) / (forward + backward)
        print(f"| {name} | {' | '.join(f'{p * 1e6:.0f}' for p in parts)} | {rate:.0f} |")


if __name__ == "__main__":
    main()
