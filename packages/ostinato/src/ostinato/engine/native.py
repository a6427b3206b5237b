"""The native engine: its instruction set, its threads, and programs validated for play."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.engine.ops import OPS

if TYPE_CHECKING:
    from ostinato.engine.program import Program

try:
    from ostinato import _native
except ImportError as error:  # in a source tree that was not built
    _native: Any = None  # type: ignore[no-redef]
    _missing: str | None = f"the native module is missing ({error}); pip install . builds it"
else:
    _missing = None


def check_operations(of_module: list[tuple[str, int]]) -> None:
    """Raise ImportError if the native module has other operations: programs name them by number."""
    if [name for name, _ in of_module] != [*OPS]:
        raise ImportError(
            "the native module was built from other sources: its operations are not those of "
            "engine/ops.py; pip install -e . builds it anew"
        )


def _compile(program: Any, at_once: bool) -> None:
    from ostinato.engine.machine_code import GivenCode, compile_program  # not a part of every start

    addresses = program.addresses_of_operations(best_isa())
    step, late_terms, carries = program.register_code()
    is_double = isinstance(program, _native.Program64)
    source = GivenCode(step, late_terms, carries, is_double, addresses)
    compile_program(program, source, at_once)


if _native is not None:
    check_operations(_native.ops())
    _native.set_compiler(_compile)


def _not_there(*_: Any) -> Any:
    raise RuntimeError(_missing)


# Native functions under Python names, without a Python function around them, which would cost time
# at every call of scan. The instruction sets of this machine for which there are kernels, the best
# first:
available_isas: Callable[[], list[str]] = getattr(_native, "available_isas", _not_there)
# The name of the OpenMP runtime of this process, whose threads the engine uses:
threading_runtime: Callable[[], str] = getattr(_native, "threading_runtime", _not_there)
# The number of row groups with an accumulator of their own; see `native/play/request.h`:
n_groups: Callable[[int], int] = getattr(_native, "n_groups", _not_there)
# The arguments of a play: an address, a time stride and a row stride (in elements) of each:
addresses: Callable[[list[int]], Any] = getattr(_native, "Addresses", _not_there)
# Keys of the cache, see `native/python/cache_key.h`:
modes: Callable[[], int | None] = getattr(_native, "modes", _not_there)
described: Callable[..., bytes | None] = getattr(_native, "described", _not_there)
# A profile function, see `native/python/call_watch.h`:
call_watch: Callable[..., Any] = getattr(_native, "CallWatch", _not_there)
# os.environ.get without encoding and decoding:
environment: Callable[[str], str | None] = getattr(_native, "environment", os.environ.get)
# Passes, see `native/python/passes.h`:
forward_pass: Callable[..., Any] = getattr(_native, "ForwardPass", _not_there)
backward_pass: Callable[..., Any] = getattr(_native, "BackwardPass", _not_there)
running_sums: Callable[[int], Any] = getattr(_native, "RunningSums", _not_there)
whereabouts: Callable[[list[Any]], Any] = getattr(_native, "Whereabouts", _not_there)
# Streams and pools, see `native/python/streams.h`:
bound_plan: Callable[..., Any] = getattr(_native, "BoundPlan", _not_there)
stream_model: Callable[..., Any] = getattr(_native, "StreamModel", _not_there)
stream_state: Any = getattr(_native, "StreamState", _not_there)
slot_states: Callable[..., Any] = getattr(_native, "SlotStates", _not_there)
all_finite: Callable[..., bool] = getattr(_native, "all_finite", _not_there)
read_items: Callable[..., Any] = getattr(_native, "read_items", _not_there)
# The nanoseconds that the engine has run since the process began:
engine_ns: Callable[[], int] = getattr(_native, "engine_ns", _not_there)


# These three are used at every call, and do not change while a process runs.
@functools.cache
def unavailable() -> str | None:
    """Why the native engine cannot be used in this process, or None."""
    if _missing is not None:
        return _missing
    if best_isa() == "base" and "OSTINATO_ISA" not in os.environ:
        return "no vector kernel for this processor (AVX2 with FMA, AVX-512, or NEON of 64-bit ARM)"
    return None


@functools.cache
def best_isa() -> str:
    """The instruction set in use: OSTINATO_ISA if set, else the best one.

    Raises:
        ValueError: this machine does not have the instruction set that OSTINATO_ISA names.
    """
    wanted = os.environ.get("OSTINATO_ISA")
    have = available_isas()
    if wanted is None:
        return have[0]
    if wanted not in have:
        raise ValueError(f"OSTINATO_ISA={wanted}: this machine has {', '.join(have)}")
    return wanted


@functools.cache
def threads_from_environment() -> int | None:
    """OSTINATO_NUM_THREADS as a number; None if it is not set.

    Raises:
        ValueError: it is not a positive whole number.
    """
    text = os.environ.get("OSTINATO_NUM_THREADS")
    if text is None:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"OSTINATO_NUM_THREADS={text}: wanted a whole number, 1 or more")
    return int(text)


# The engine's number of threads if it differs from that of PyTorch's own operations; else None.
own_threads: ContextVar[int | None] = ContextVar("own_threads", default=None)


def n_threads(of_pytorch: int) -> int:
    """The largest number of threads of the engine: its own, if it has one, or PyTorch's."""
    return own_threads.get() or threads_from_environment() or of_pytorch


def make(program: Program, dtype: np.dtype[Any], workspaces: Any = None) -> Any:
    """Make a program ready to play.

    Args:
        program: the program, which is validated here and trusted afterwards.
        dtype: float32 or float64.
        workspaces: the pool that lends each play its memory; None: the pool of the process.

    Raises:
        ValueError: the program is invalid.
    """
    integers, scalars = program.numbers()
    kind = _native.Program32 if dtype == np.float32 else _native.Program64
    return kind(integers, scalars, workspaces or workspaces_of_the_process())


@functools.cache
def workspaces_of_the_process() -> Any:
    """The pool from which the plays of all programs borrow their memory."""
    return _native.Workspaces()
