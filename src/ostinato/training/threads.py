"""PyTorch's threads while a small network is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ostinato.engine import native

# Parameters up to which an update takes some ten microseconds on one core: the size from which
# PyTorch divides an elementwise operation is 32,768 elements.
SMALL = 2**18


@contextmanager
def engine_first(net: torch.nn.Module) -> Iterator[None]:
    """Leave all threads to the engine, and one to PyTorch's own operations, for a small network.

    Around the engine's work such a network has some ten operations of a few microseconds: readout,
    loss, update. A second thread gains nothing there. It spins for milliseconds after each of them,
    on a core that another program may want, and beside such a program each of them waits until the
    thread has a core again: 28 ms an iteration instead of 2.4.
    """
    threads = torch.get_num_threads()
    small = sum(p.numel() for p in net.parameters()) <= SMALL
    if not small or native.unavailable() is not None:
        yield
        return
    token = native.own_threads.set(native.threads_from_environment() or threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        native.own_threads.reset(token)
