"""Machine code for programs of a few numbers, where llvmlite is installed: `ostinato[jit]`.

The engine asks for it when plays of a program that it would shorten have taken some milliseconds
(`native/play/executor.cc`). A thread compiles meanwhile; plays go on by register code, and use the
functions, which have the same bits, as soon as these are there. They are freed with the program.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import threading
from typing import Any

from ostinato._extras import install
from ostinato.engine import native
from ostinato.engine.machine_code import by_llvm, text

LEVEL = 1
# Instructions of all lists, at most: LLVM takes longer than in proportion.
MOST_INSTRUCTIONS = 20_000

# Held while a program is compiled. A fork waits: a thread of LLVM does not exist in the child.
_one_at_a_time = threading.Lock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_one_at_a_time.acquire,
        after_in_parent=_one_at_a_time.release,
        after_in_child=_one_at_a_time.release,
    )


def compile_program(program: Any, at_once: bool) -> None:
    """Compile a program that has register code, and give the functions to it.

    If that is not possible, plays go on by register code; `state` says why.

    Args:
        program: the native program, Program32 or Program64.
        at_once: on this thread, not on another one.
    """
    if importlib.util.find_spec("llvmlite") is None:
        program.compiling = f"llvmlite is not installed: {install('ostinato[jit]')}"
        return
    program.compiling = "it is being compiled"
    if at_once:
        return _compile(program)
    try:
        # The interpreter waits for such a thread when it ends.
        threading.Thread(target=_compile, args=(program,), name="ostinato-compiler").start()
    except RuntimeError as error:  # of a process that ends, or that has too many threads
        program.compiling = f"no thread to compile it: {error}"


def state(program: Any) -> str:
    """Why a program is not machine code, or "" if it is, or if the engine has not asked for it."""
    return getattr(program, "compiling", "")


def _compile(program: Any) -> None:
    # Whatever goes wrong here, the program has its register code, and the user is not to notice.
    try:
        with _one_at_a_time:
            functions = _functions(program)
        program.keeps = functions.keeps
        program.use_machine_code(functions.addresses)
        program.compiling = ""
    except Exception as error:
        program.compiling = f"LLVM could not compile it: {error}"


def _functions(program: Any) -> by_llvm.Functions:
    step, late_terms, carries = program.register_code()
    lists = [step, *late_terms]
    n = sum(map(len, lists)) // 10
    if n > MOST_INSTRUCTIONS:
        raise ValueError(f"{n:,} instructions, at most {MOST_INSTRUCTIONS:,}")
    is_double = isinstance(program, native.program64)
    addresses = program.addresses_of_operations(native.best_isa())
    fuses = _fuses(addresses[text.NAMES.index("fma")], is_double)
    written = text.module_text(lists, carries, is_double, fuses, addresses)
    return by_llvm.compiled(written, len(lists), LEVEL)


def _fuses(address: int, is_double: bool) -> bool:
    """Whether the engine's `fma` rounds once."""
    number = ctypes.c_double if is_double else ctypes.c_float
    e = 2.0 ** (-30 if is_double else -13)
    return bool(ctypes.CFUNCTYPE(number, number, number, number)(address)(1 + e, 1 - e, -1.0))
