"""Random numbers from a seed: for a network's weights, and for a training.

PyTorch has one random state, and one default dtype, for all threads. Both are changed under a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from ostinato.internal import one_at_a_time

N = TypeVar("N", bound=torch.nn.Module)


def built(make: Callable[..., N], *args: Any, seed: int | None = None, **options: Any) -> N:
    """`make(*args, **options)`, a network in float32; the caller's random state is unchanged.

    Args:
        make: the function that makes it.
        args, options: its arguments.
        seed: the seed of its weights; None: they are filled later.
    """
    with one_at_a_time, torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            return make(*args, **options)
        finally:
            torch.set_default_dtype(default)


class _Callers:
    """The running trainings, and the random state before the first of them."""

    n = 0
    state: Tensor


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this context PyTorch draws from a seed; afterwards the caller's state is restored.

    Other threads may draw from it meanwhile. If several contexts overlap, the last one restores the
    state from before the first.
    """
    with one_at_a_time:
        if not _Callers.n:
            _Callers.state = torch.get_rng_state()
        _Callers.n += 1
        torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        with one_at_a_time:
            _Callers.n -= 1
            if not _Callers.n:
                torch.set_rng_state(_Callers.state)
