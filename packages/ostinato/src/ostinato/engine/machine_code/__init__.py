"""Machine code for programs of a few numbers, where llvmlite is installed: `ostinato[jit]`.

The engine asks for it when plays of a program that it would shorten have taken some milliseconds
(`native/play/executor.cc`). A thread compiles meanwhile; plays go on by register code, and use the
functions, which have the same bits, as soon as these are there. They are freed with the program.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from typing import Any

from ostinato.engine.machine_code.by_llvm import Functions, compiled
from ostinato.engine.machine_code.text import GivenCode, module_text

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


def compile_program(program: Any, source: GivenCode, at_once: bool) -> None:
    """Compile a program that has register code, and give the functions to it.

    If that is not possible, plays go on by register code.

    Args:
        program: the native program, Program32 or Program64. Its attribute `compiling` says why it
            is not machine code, or is "".
        at_once: on this thread, not on another one.
    """
    if importlib.util.find_spec("llvmlite") is None:
        program.compiling = "llvmlite is not installed: pip install 'ostinato[jit]'"
        return
    program.compiling = "it is being compiled"
    if at_once:
        return _compile(program, source)
    try:
        # Python waits for such a thread when it ends.
        threading.Thread(target=_compile, args=(program, source), name="ostinato-compiler").start()
    except RuntimeError as error:  # of a process that ends, or that has too many threads
        program.compiling = f"no thread to compile it: {error}"


def _compile(program: Any, source: GivenCode) -> None:
    # Whatever goes wrong here, the program has its register code, and the user is not to notice.
    try:
        with _one_at_a_time:
            functions = _functions(source)
        program.keeps = functions.keeps
        program.use_machine_code(functions.addresses)
        program.compiling = ""
    except Exception as error:
        program.compiling = f"LLVM could not compile it: {error}"


def _functions(source: GivenCode) -> Functions:
    n = sum(map(len, source.lists)) // 10
    if n > MOST_INSTRUCTIONS:
        raise ValueError(f"{n:,} instructions, at most {MOST_INSTRUCTIONS:,}")
    return compiled(module_text(source), len(source.lists), LEVEL)
