"""`built`: a network whose weights follow from a seed, whatever the program does beside it."""

from __future__ import annotations

from collections.abc import Callable
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
