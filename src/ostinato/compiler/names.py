"""The names that code mentions, its globals, whether it imports."""

from __future__ import annotations

import dis
import functools
import types

# Names by which code reaches what no walk can see.
HIDDEN = {
    "getattr", "hasattr", "setattr", "delattr", "vars", "globals", "locals", "eval", "exec",
    "__import__", "__dict__", "__getattribute__", "attrgetter", "methodcaller", "dir", "id", "hash",
    "_getframe", "currentframe",
}  # fmt: skip


@functools.lru_cache(maxsize=1024)
def names_of(code: types.CodeType) -> frozenset[str]:
    """Names that code mentions: globals and attributes."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= names_of(constant)
        elif isinstance(constant, tuple):  # attributes in a pattern of `match` stand here
            names |= {x for x in constant if isinstance(x, str) and x.isidentifier()}
    return frozenset(names)


@functools.lru_cache(maxsize=1024)
def globals_of(code: types.CodeType) -> frozenset[str]:
    """Of the names that code mentions, those that are no attributes alone."""
    names = {
        i.argval for i in dis.get_instructions(code) if i.opname.endswith(("_GLOBAL", "_NAME"))
    }
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return frozenset(names.union(*map(globals_of, inner)))


@functools.lru_cache(maxsize=1024)
def imports(code: types.CodeType) -> bool:
    """Whether code imports something when it runs."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    here = any(i.opname == "IMPORT_NAME" for i in dis.get_instructions(code))
    return here or any(map(imports, inner))
