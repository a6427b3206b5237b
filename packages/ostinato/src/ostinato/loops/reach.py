"""The functions that code can call, found by the objects that it names.

Nothing is imported, no attribute is computed and no mapping but a plain dict is asked for its
values: an object is looked at through its `__dict__` alone, and a lazy module stays unloaded.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import inspect
import linecache
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ostinato.compiler.capture.guards.code import is_fixed_name, root

_MOST_FUNCTIONS = 2000
_MOST_ENTRIES = 100  # of a table of functions or classes
# Methods that code calls without their names.
_UNNAMED = frozenset(("__call__", "__iter__", "__getitem__", "forward"))


def reached(roots: Iterable[Any], classes: Iterable[type] = ()) -> list[types.FunctionType]:
    """The functions that can be called through these objects, the nearest first.

    Of a class or object these are the methods that the code where it was found has a name of; of a
    module all of the class that defines its forward, and of classes derived from that.

    Args:
        classes: of modules that are not made yet.
    """
    reach = _Reach()
    for cls in classes:
        reach.module(cls)
    for value in roots:
        reach.add(value, _NO_NAMES)
    return reach.run()


@dataclass(frozen=True)
class _Found:
    """An object, the names in the code where it was found, and the class whose method it is."""

    value: Any
    names: frozenset[str]
    of: type | None = None


class _Reach:
    """A search from object to object. The kind of one is asked of `type` alone: `isinstance` asks
    a proxy for the object behind it.

    Attributes:
        found: the functions.
        objects: class → the objects of it that were seen.
        names: class → the names in the code of its methods that were found.
    """

    def __init__(self) -> None:
        self.found: dict[types.FunctionType, None] = {}
        self.todo: deque[_Found] = deque()
        self.objects: dict[type, list[Any]] = {}
        self.names: dict[type, frozenset[str]] = {}
        self.seen: dict[Any, Any] = {}  # with the objects, so that no id is that of another one
        self.torchless: dict[str, bool] = {}

    def add(self, value: Any, names: frozenset[str], of: type | None = None) -> None:
        key = id(value), id(of)
        if key not in self.seen:
            self.seen[key] = value
            self.todo.append(_Found(value, names, of))

    def run(self) -> list[types.FunctionType]:
        while self.todo and len(self.found) < _MOST_FUNCTIONS:
            self.look_at(self.todo.popleft())
        return list(self.found)

    def look_at(self, found: _Found) -> None:
        """Find what can be called through an object."""
        value, names, of = found.value, found.names, found.of
        kind = type(value)
        if kind is types.FunctionType:
            self.function(value, names, of)
        elif kind is types.MethodType:
            self.add(value.__func__, names, type(value.__self__))
            self.several([value.__self__], names)
        elif kind in (staticmethod, classmethod):
            self.add(value.__func__, names, of)
        elif kind is property:
            self.add(value.fget, names, of)
        elif issubclass(kind, functools.partial):
            self.several([value.func, *value.args, *value.keywords.values()], names)
        elif kind in (dict, list, tuple):
            if len(value) <= _MOST_ENTRIES:
                self.several(value.values() if kind is dict else value, names)
        elif issubclass(kind, functools._lru_cache_wrapper):
            self.add(value.__wrapped__, names)
        elif issubclass(kind, type):
            self.methods(value, names | _UNNAMED)
        elif issubclass(kind, torch.jit.ScriptModule):
            return  # its code is not Python's
        elif issubclass(kind, torch.nn.Module):
            self.methods(kind, names | _UNNAMED)
            self.module(kind)
            self.object(value)
            self.several(vars(value)["_modules"].values(), names)
        elif not issubclass(kind, types.ModuleType):
            self.methods(kind, names | _UNNAMED)
            self.object(value)

    def several(self, values: Iterable[Any], names: frozenset[str]) -> None:
        """Look at those values that are, or contain, what can be called."""
        for value in values:
            kind = type(value)
            known = kind in _CONTAINERS or issubclass(kind, (type, torch.nn.Module))
            if known or not is_fixed_name(kind.__module__):
                self.add(value, names)

    def function(
        self, function: types.FunctionType, around: frozenset[str], of: type | None
    ) -> None:
        if self.is_beyond(function.__globals__.get("__name__")):
            # A decorator of a library: what it wraps, and the table of a singledispatch function.
            self.add(vars(function).get("__wrapped__"), around, of)
            self.several(_in_cells(function), around)
            return
        self.found[function] = None
        names = frozenset(name for code in _codes(function.__code__) for name in code.co_names)
        named = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        # An object that a callee makes is used by the names of its caller.
        self.several([*named, *_named(function, names)], names | around)
        if of is not None:
            self.methods(of, names)
            self.names[of] = self.names.get(of, _NO_NAMES) | names
            for value in self.objects.get(of, ()):
                self.attributes(value, names)

    def object(self, value: Any) -> None:
        """Look at the attributes of an object that the methods of its class have names of."""
        self.objects.setdefault(type(value), []).append(value)
        self.attributes(value, self.names.get(type(value), _NO_NAMES))

    def attributes(self, value: Any, names: frozenset[str]) -> None:
        held = _attributes(value)
        self.several([held[name] for name in names if name in held], names)

    def module(self, cls: type) -> None:
        """Find the methods that users of a module may call: of the class that defines its forward,
        and of classes derived from that."""
        own = [base for base in cls.__mro__ if not self.is_beyond(base.__module__)]
        having = [i for i, base in enumerate(own) if "forward" in vars(base)]
        for base in own[: having[0] + 1 if having else None]:
            for name, value in vars(base).items():
                if not name.startswith("__") and type(value) in _METHODS:
                    self.add(value, _NO_NAMES, cls)

    def methods(self, cls: type, names: frozenset[str]) -> None:
        """Find the methods of these names, also those that a derived class hides: it may call
        them by `super`; and what the class has in its other attributes, tables for instance."""
        for base in cls.__mro__:
            if not self.is_beyond(base.__module__):
                for name in names & vars(base).keys():
                    value = vars(base)[name]
                    if type(value) in _METHODS:
                        self.add(value, names, cls)
                    else:
                        self.several([value], names)

    def is_beyond(self, module: Any) -> bool:
        """Whether a module has no loops over tensors: a library, or an installed package without
        PyTorch."""
        if is_fixed_name(module):
            return True
        package = root(module)
        if package not in self.torchless:
            self.torchless[package] = _is_torchless(package)
        return self.torchless[package]


_NO_NAMES = frozenset[str]()
_METHODS = (types.FunctionType, staticmethod, classmethod, property)
_CONTAINERS = (
    *_METHODS,
    types.MethodType,
    functools.partial,
    functools._lru_cache_wrapper,
    dict,
    list,
    tuple,
)


def _attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object, without a call of its code."""
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:  # it has slots
        return {}


def _is_torchless(package: str) -> bool:
    """Whether a package is installed and none of its modules refers to torch."""
    modules = [
        vars(m)
        for name, m in [*sys.modules.items()]
        if root(name) == package and issubclass(type(m), types.ModuleType)
    ]
    parts = {part for m in modules for part in Path(m.get("__file__") or "").parts}
    if not {"site-packages", "dist-packages"} & parts:
        return False
    return not any(_is_of_torch(v) for m in modules for v in [*m.values()])


def _is_of_torch(value: Any) -> bool:
    if issubclass(type(value), types.ModuleType):
        return root(vars(value).get("__name__")) == "torch"
    if type(value) is types.FunctionType or issubclass(type(value), type):
        return root(value.__module__) == "torch"
    return False


def _named(function: types.FunctionType, names: frozenset[str]) -> Iterator[Any]:
    """The objects that code names: globals, attributes of modules, cells, and imported ones."""
    scope = function.__globals__
    values = [*(scope[n] for n in names if n in scope), *_in_cells(function)]
    values += _imported(function.__code__, str(scope.get("__package__") or ""))
    for value in values:
        if not issubclass(type(value), types.ModuleType):
            yield value
        elif not is_fixed_name(vars(value).get("__name__")):
            yield from [vars(value)[n] for n in names if n in vars(value)]


def _in_cells(function: types.FunctionType) -> Iterator[Any]:
    """The objects that a function's free names are bound to."""
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not bound
            yield cell.cell_contents


def _imported(code: types.CodeType, package: str) -> list[Any]:
    """What code imports while it runs, where it was imported before."""
    found, constants = list[Any](), list[Any]()
    for of in _codes(code):
        if _IMPORT not in of.co_code[::2]:
            continue
        for i in dis.get_instructions(of):
            if i.opname == "LOAD_CONST":
                constants.append(i.argval)
            elif i.opname == "IMPORT_NAME" and len(constants) > 1:
                level, names = constants[-2:]
                within = package.rsplit(".", level - 1)[0] if level else ""
                module = sys.modules.get(".".join(filter(None, (within, i.argval))))
                if module is not None and issubclass(type(module), types.ModuleType):
                    found += [module, *[vars(module).get(name) for name in names or ()]]
    return found


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function, and that of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


_NO_LOOPS = ("<genexpr>", "<setcomp>", "<dictcomp>")
_OTHER_KINDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_FOR_ITER, _IMPORT = dis.opmap["FOR_ITER"], dis.opmap["IMPORT_NAME"]


def may_loop(function: types.FunctionType) -> bool:
    """Whether there is a loop in the code of a function, or of one within it, and a text.

    Not in generators and coroutines: a function may not get code of another kind.
    """
    if function.__code__.co_flags & _OTHER_KINDS:
        return False
    file = function.__code__.co_filename
    if file[:1] == "<" and not linecache.getlines(file, function.__globals__):
        return False
    codes = [c for c in _codes(function.__code__) if c.co_name not in _NO_LOOPS]
    return any(_FOR_ITER in code.co_code[::2] for code in codes)
