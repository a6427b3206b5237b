"""Random numbers that follow from a seed: of a network's weights, and of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from ostinato.compiler.lock import one_at_a_time

N = TypeVar("N", bound=torch.nn.Module)


def built(make: Callable[..., N], *args: Any, seed: int | None = None, **options: Any) -> N:
    """`make(*args, **options)`, a network in float32; the caller's random state is not touched.

    PyTorch has one random state for all threads, so that networks are made one at a time.

    Args:
        make: what makes it.
        args, options: its arguments.
        seed: of its weights; None: they are filled later.
    """
    with one_at_a_time, torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        return make(*args, **options).float()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """PyTorch's random numbers are those of a seed, and the caller's state is put back.

    No other thread is kept from drawing some of them meanwhile.
    """
    with one_at_a_time:
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        with one_at_a_time:
            torch.set_rng_state(before)
