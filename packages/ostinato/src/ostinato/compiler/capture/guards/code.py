"""The names that Python code mentions, and the code whose meaning never changes."""

from __future__ import annotations

import dis
import functools
import sys
import types
from typing import Any

# Packages whose functions and classes do not change while a program runs, like the standard
# library.
_FIXED = {"torch", "numpy", "tensordict"}
# In our own package, the steps of cells are read like a user's code.
_OURS_TO_READ = "ostinato.nn.steps", "ostinato.loops.scanned"


class Unread:
    """An object of ours in the attributes of users' objects, which no step reads."""


def is_fixed(value: Any) -> bool:
    """A module, class or function whose meaning does not change while a program runs."""
    if isinstance(value, types.ModuleType):
        return is_fixed_name(value.__name__)
    if isinstance(value, types.FunctionType):
        # The module of the code, and the stated module, which functools.wraps copies.
        written, says = value.__globals__.get("__name__"), value.__module__
        made_here = is_of_the_library(written) and value.__closure__  # by singledispatch
        return is_fixed_name(written) and is_fixed_name(says) and not made_here
    return isinstance(value, type) and is_fixed_name(value.__module__)


def is_fixed_name(module: Any) -> bool:
    """Whether no step changes the contents of this module: Python's own, libraries, ours."""
    ours = root(module) == "ostinato" and not str(module).startswith(_OURS_TO_READ)
    return ours or root(module) in _FIXED or is_of_the_library(module)


def is_of_the_library(module: Any) -> bool:
    """Whether a module is of Python's standard library."""
    return root(module) in sys.stdlib_module_names and root(module) != "__main__"


def root(module: Any) -> str:
    """The package that a module lies in, by its name."""
    return str(module).partition(".")[0]


@functools.lru_cache(maxsize=1024)
def names_of(code: types.CodeType) -> frozenset[str]:
    """The names that code mentions: globals, attributes, and strings that could be names."""
    texts = [c for c in code.co_consts if isinstance(c, str)]
    for constant in code.co_consts:
        if isinstance(constant, tuple):  # here are the attributes in a pattern of `match`
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
    found = [
        i
        for i in dis.get_instructions(frame.f_code)
        if i.offset <= frame.f_lasti and i.opname not in ("CACHE", "EXTENDED_ARG")
    ]
    call, n = found[-1], found[-1].arg
    if not call.opname.startswith("CALL") or n not in (2, 3):
        return False
    last = found[
        -(n + (found[-2].opname == "PRECALL")) :
    ]  # which Python 3.11 has; from the name on
    name = last[0].opname == "LOAD_CONST" and isinstance(last[0].argval, str)
    straight = not any(i.is_jump_target for i in last)
    return name and straight and last[n - 2].opname.startswith("LOAD_")
