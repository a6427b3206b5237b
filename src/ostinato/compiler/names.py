"""The names that code mentions, its globals, the modules that it imports."""

from __future__ import annotations

import dis
import functools
import importlib.util
import types

# Names by which code reaches what no walk can see.
HIDDEN = {
    "getattr", "hasattr", "setattr", "delattr", "vars", "globals", "locals", "eval", "exec",
    "__import__", "__dict__", "__getattribute__", "attrgetter", "methodcaller", "dir", "id", "hash",
    "_getframe", "currentframe", "import_module",
}  # fmt: skip
# Those by which it reaches a module that it names in a text.
_BY_TEXT = {"import_module", "__import__", "modules"}


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


def imported(f: types.FunctionType) -> list[str]:
    """The modules that code imports where it runs, each after those that it lies in."""
    package = f.__globals__.get("__package__")
    if not isinstance(package, str):
        package = str(f.__globals__.get("__name__")).rpartition(".")[0]
    found: dict[str, None] = {}
    for name in sorted(_imports(f.__code__)):
        try:
            parts = importlib.util.resolve_name(name, package).split(".")
        except ImportError:  # beyond the outermost: the step fails, too
            continue
        found.update(dict.fromkeys(".".join(parts[: i + 1]) for i in range(len(parts))))
    return list(found)


@functools.lru_cache(maxsize=1024)
def _imports(code: types.CodeType) -> frozenset[str]:
    """The names of modules as written, with a dot for each level up."""
    found = set()
    instructions = [i for i in dis.get_instructions(code) if i.opname != "EXTENDED_ARG"]
    for at, i in enumerate(instructions):
        if i.opname == "IMPORT_NAME":  # after its level, and the names wanted of it
            found.add("." * instructions[at - 2].argval + i.argval)
    if not _BY_TEXT.isdisjoint(code.co_names):
        texts = (c for c in code.co_consts if isinstance(c, str))
        found.update(c for c in texts if all(map(str.isidentifier, c.split("."))))
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return frozenset(found.union(*map(_imports, inner)))
