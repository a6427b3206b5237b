"""Where the time of one training call of scan goes: the engine forward and back, and all the rest.

    python -m benchmarks.parts [CELL/SHAPE …]

The rows of `python -m benchmarks scan`, without the peers: medians over two seconds of
calls. The rest is PyTorch, Python and what autograd does. To see inside the engine, build it with
-DCMAKE_BUILD_TYPE=RelWithDebInfo and record this with `perf record -e cpu-clock`.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import torch

from benchmarks import peers_torch
from benchmarks.cells import GRU, LEM, LSTM, RNN, SHAPES, SLSTM
from benchmarks.problem import Problem
from ostinato.compiler.play import Player

CELLS = {cell.name: cell for cell in (RNN, GRU, LSTM, LEM, SLSTM)}
SECONDS = 2.0

plays: list[float] = []  # of the engine, forward and back in turn


def timed(f: Any) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> None:
        begin = time.perf_counter()
        f(*args, **kwargs)
        plays.append(time.perf_counter() - begin)

    return wrapper


def main() -> None:
    torch.set_num_threads(2)
    Player._play = timed(Player._play)  # type: ignore[method-assign]
    shapes = {shape.name: shape for shape in SHAPES}
    names = sys.argv[1:] or [f"{c}/{s}" for s in shapes for c in ("rnn", "gru", "lstm")]
    print("| row | whole, µs | forward | backward | the rest | GFLOP/s in the engine |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in names:
        cell, shape = CELLS[name.split("/")[0]], shapes[name.split("/")[1]]
        run = peers_torch.ours(Problem(cell, shape)).make().run
        for _ in range(10):
            run()
        plays.clear()
        wholes = []
        end = time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            begin = time.perf_counter()
            run()
            wholes.append(time.perf_counter() - begin)
        whole, forward, backward = map(statistics.median, (wholes, plays[::2], plays[1::2]))
        parts = (whole, forward, backward, whole - forward - backward)
        rate = cell.gflop(shape) / (forward + backward)
        print(f"| {name} | {' | '.join(f'{p * 1e6:.0f}' for p in parts)} | {rate:.0f} |")


if __name__ == "__main__":
    main()
