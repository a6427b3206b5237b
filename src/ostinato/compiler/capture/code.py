"""The names that Python code mentions, and the code whose meaning never changes."""

from __future__ import annotations

import dis
import functools
import sys
import types
from typing import Any

# Packages whose functions and classes mean the same as long as a program runs, beside the standard
# library.
_FIXED = {"torch", "numpy"}
# Of our own package the steps of cells are read like a user's, and the models.
_OURS_TO_READ = ("ostinato.nn.steps", "ostinato.models")


def is_fixed(value: Any) -> bool:
    """A module, class or function whose meaning does not change while a program runs."""
    if isinstance(value, types.ModuleType):
        return is_fixed_name(value.__name__)
    if isinstance(value, types.FunctionType):
        # Where it was written, and where it says: functools.wraps copies that from what it wraps.
        written, says = value.__globals__.get("__name__"), value.__module__
        made_here = is_of_the_library(written) and value.__closure__  # by singledispatch, say
        return is_fixed_name(written) and is_fixed_name(says) and not made_here
    return isinstance(value, type) and is_fixed_name(value.__module__)


def is_fixed_name(module: Any) -> bool:
    name = str(module)
    root = name.partition(".")[0]
    ours = root == "ostinato" and not name.startswith(_OURS_TO_READ)
    return root in _FIXED or ours or is_of_the_library(name)


def is_of_the_library(module: Any) -> bool:
    """Whether a module is of Python's standard library."""
    root = str(module).partition(".")[0]
    return root in sys.stdlib_module_names and root != "__main__"


@functools.lru_cache(maxsize=1024)
def names_of(code: types.CodeType) -> frozenset[str]:
    """The names that code mentions: globals, attributes, and texts that could be such."""
    texts = [c for c in code.co_consts if isinstance(c, str)]
    for constant in code.co_consts:
        if isinstance(constant, tuple):  # attributes in a pattern of `match` stand here
            texts += [c for c in constant if isinstance(c, str)]
    parts = {part for text in texts for part in text.split(".")}  # also of "cfg.gain"
    return frozenset(code.co_names) | {part for part in parts if part.isidentifier()}


@functools.lru_cache(maxsize=1024)
def globals_of(code: types.CodeType) -> frozenset[str]:
    """The names that code, or code within it, looks up outside of functions; and imports."""
    names = {
        str(i.argval)
        for i in dis.get_instructions(code)
        if i.opname.endswith(("_GLOBAL", "_NAME")) or i.opname == "IMPORT_NAME"
    }
    if "globals" in code.co_names:
        names |= names_of(code)
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return frozenset(names.union(*map(globals_of, inner)))


def names_a_literal(frame: types.FrameType) -> bool:
    """Whether the call of getattr or hasattr that begins here names its attribute in the code."""
    before: list[dis.Instruction] = []
    for i in dis.get_instructions(frame.f_code):
        if i.opname in ("CACHE", "EXTENDED_ARG"):
            continue
        if i.offset >= frame.f_lasti:
            break
        before.append(i)
    joins = i.is_jump_target
    if before and before[-1].opname == "PRECALL":  # of Python 3.11
        joins |= before.pop().is_jump_target
    if not i.opname.startswith("CALL") or i.arg not in (2, 3) or len(before) < 3:
        return False
    arguments = before[1 - i.arg :]
    straight = not joins and not any(part.is_jump_target for part in arguments)
    name, last = arguments[0], arguments[-1]
    literal = name.opname == "LOAD_CONST" and isinstance(name.argval, str)
    return straight and literal and last.opname.startswith("LOAD_")
