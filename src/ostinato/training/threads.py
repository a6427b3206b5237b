"""PyTorch's threads while a small network is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ostinato import environment
from ostinato.engine import native
from ostinato.training.distributed import Ranks

# Up to this many parameters a training alone was as fast with one thread for PyTorch's own
# operations as with two (ratios of 0.99 to 1.02 for four networks of 21,514 to 282,634).
SMALL = 2**18


@contextmanager
def engine_first(net: torch.nn.Module) -> Iterator[None]:
    """Leave all threads to the engine, and one to PyTorch's own operations, for a small network.

    Around the engine's work such a network has some ten operations of a few microseconds: readout,
    loss, update. A second thread gains nothing there. It spins for milliseconds after each of them,
    on a core that another program may want, and beside such a program each of them waits until the
    thread has a core again: 5.6 ms an iteration instead of 2.8 (`python -m benchmarks contention`).
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


@contextmanager
def all_cores(ranks: Ranks) -> Iterator[None]:
    """Give the first process the cores of the others on its machine, which wait for it."""
    if ranks.alone or not ranks.first:
        yield
        return
    of_pytorch, of_engine = torch.get_num_threads(), native.own_threads.get()
    everyones = (of_engine or of_pytorch) * environment.processes_here()
    if of_engine is None:
        torch.set_num_threads(everyones)
    token = native.own_threads.set(None if of_engine is None else everyones)
    try:
        yield
    finally:
        native.own_threads.reset(token)
        torch.set_num_threads(of_pytorch)
