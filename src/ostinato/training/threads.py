"""PyTorch's threads while a small network is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ostinato.engine import native

# Up to this many parameters, a training alone was as fast with one thread for PyTorch's own
# operations as with two (ratios of 0.99 to 1.02 for four networks of 21,514 to 282,634).
SMALL = 2**18


@contextmanager
def engine_first(net: torch.nn.Module) -> Iterator[None]:
    """Leave all threads to the engine, and one to PyTorch's own operations, for a small network.

    Around the engine's work such a network has some ten operations of a few microseconds: readout,
    loss, update. A second thread gains nothing there. It spins for milliseconds after each
    operation, on a core that another program may want; beside such a program each operation waits
    until the thread has a core again: 5.6 ms an iteration instead of 2.8 (`python -m benchmarks
    contention`).
    """
    threads = torch.get_num_threads()
    small = sum(p.numel() for p in net.parameters()) <= SMALL
    if not small or native.unavailable() is not None:
        yield
        return
    token = native.own_threads.set(native.n_threads(threads))
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        native.own_threads.reset(token)
