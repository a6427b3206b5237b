"""The native engine: which instruction set, how many threads, and programs made ready to play."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ostinato.engine.program import Program

try:
    from ostinato import _native
except ImportError as error:  # a source tree that was not built
    _native: Any = None  # type: ignore[no-redef]
    _missing: str | None = f"the native module is missing ({error}); pip install . builds it"
else:
    _missing = None


@functools.cache
def unavailable() -> str | None:
    """Why the native engine cannot be used here, or None."""
    if _missing is not None:
        return _missing
    if best_isa() == "base" and "OSTINATO_ISA" not in os.environ:
        return "no vector kernel for this processor (AVX2 with FMA, or AVX-512)"
    return None


def available_isas() -> list[str]:
    """Instruction sets with kernels that this machine has, the best first."""
    return _native.available_isas()


@functools.cache
def best_isa() -> str:
    """The instruction set in use: the best one, or what OSTINATO_ISA names."""
    wanted = os.environ.get("OSTINATO_ISA")
    have = available_isas()
    if wanted is None:
        return have[0]
    if wanted not in have:
        raise ValueError(f"OSTINATO_ISA={wanted}: this machine has {', '.join(have)}")
    return wanted


@functools.cache
def threads_from_environment() -> int | None:
    """OSTINATO_NUM_THREADS, if set."""
    text = os.environ.get("OSTINATO_NUM_THREADS")
    if text is None:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"OSTINATO_NUM_THREADS={text}: wanted a whole number from 1 on")
    return int(text)


def threading_runtime() -> str:
    """The OpenMP runtime of this process that the engine plays on."""
    return _native.threading_runtime()


def n_groups(n_rows: int) -> int:
    """Groups of rows whose weight gradients are summed apart; see `native/play/request.h`."""
    return _native.n_groups(n_rows)


def make(program: Program, dtype: np.dtype[Any], workspaces: Any = None) -> Any:
    """A program for elements of `dtype` (float32 or float64), validated, ready to play.

    workspaces: what its plays take memory from, and give it back to; None: those of the process.
    """
    integers, scalars = program.numbers()
    kind = _native.Program32 if dtype == np.float32 else _native.Program64
    return kind(integers, scalars, workspaces or workspaces_of_the_process())


@functools.cache
def workspaces_of_the_process() -> Any:
    return _native.Workspaces()


def _not_there(*_: Any) -> Any:
    raise RuntimeError(_missing)


# Called too often for a function between. The first two are in `native/python/cache_key.h`; the
# third is os.environ.get without encoding and decoding.
modes: Callable[[], int | None] = getattr(_native, "modes", _not_there)
described: Callable[..., bytes | None] = getattr(_native, "described", _not_there)
environment: Callable[[str], str | None] = getattr(_native, "environment", os.environ.get)
# See `native/python/passes.h`. The last says for how many nanoseconds the engine has played.
forward_pass: Callable[..., Any] = getattr(_native, "ForwardPass", _not_there)
backward_pass: Callable[..., Any] = getattr(_native, "BackwardPass", _not_there)
engine_ns: Callable[[], int] = getattr(_native, "engine_ns", _not_there)


def addresses(numbers: list[int]) -> Any:
    """(address, time stride, row stride) of each argument; see `native/play/request.h`."""
    return _native.Addresses(numbers)
