"""The loops of a model: its modules get subclasses whose methods are rewritten."""

from __future__ import annotations

import types
import weakref
from typing import Any

import torch

from ostinato.loops.functions import classes_of, rewritten_functions
from ostinato.loops.running.site import Site

_GIVEN = "_class_without_loops"


def swap_loops(model: torch.nn.Module) -> list[Site]:
    """Give every module whose methods have loops a class with rewritten methods; return the
    loops."""
    functions = rewritten_functions(classes_of(model))
    classes: dict[type, type] = {}
    for module in model.modules():
        cls = type(module)
        if is_swapped(module) or isinstance(module, torch.jit.ScriptModule):
            continue
        if cls not in classes:
            classes[cls] = _subclass(cls, functions)
        if classes[cls] is not cls:
            module.__class__ = classes[cls]
    return loops_of(model)


def swap_loops_back(model: torch.nn.Module) -> None:
    """Undo `swap_loops`."""
    for module in model.modules():
        if is_swapped(module):
            module.__class__ = getattr(type(module), _GIVEN)


def is_swapped(module: torch.nn.Module) -> bool:
    """Whether a module has rewritten methods."""
    return _GIVEN in vars(type(module))


def loops_of(model: torch.nn.Module) -> list[Site]:
    """The loops of the swapped modules of a tree, by file and line."""
    found = {
        id(site): site
        for module in model.modules()
        if is_swapped(module)
        for site in vars(type(module))["_sites"]
    }
    return sorted(found.values(), key=lambda s: (s.file, s.source.line))


def _subclass(cls: type, functions: dict[types.FunctionType, types.FunctionType]) -> type:
    """A subclass with the rewritten methods; the class itself if it has none."""
    own: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            inner = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
            new = functions.get(inner) if isinstance(inner, types.FunctionType) else None
            if new is None:
                own.pop(name, None)
            else:
                own[name] = type(value)(new) if inner is not value else new
    if not own:
        return cls
    sites = {id(s): s for new in functions.values() for s in new.__ostinato_loops__}  # type: ignore[attr-defined]
    own |= {
        "__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__,
        _GIVEN: cls, "_sites": list(sites.values()), "__reduce_ex__": _reduced,
    }  # fmt: skip
    return type(cls)(cls.__name__, (cls,), own)


def _reduced(self: Any, protocol: Any) -> Any:
    """For pickle and copy: the given class, whose subclass is made anew."""
    cls = getattr(type(self), _GIVEN)
    reduced = cls.__reduce_ex__(self, protocol)
    if isinstance(reduced, str) or type(self) not in reduced[1]:
        return reduced
    arguments = tuple([cls if a is type(self) else a for a in reduced[1]])
    return _remade, (reduced[0], *arguments), *reduced[2:]


def _remade(function: Any, *arguments: Any) -> Any:
    made = function(*arguments)
    if isinstance(made, torch.nn.Module) and not is_swapped(made):
        made.__class__ = _swapped_class(type(made))
    return made


# A class → its subclass with rewritten methods, as long as that is in use.
_classes: weakref.WeakValueDictionary[type, type] = weakref.WeakValueDictionary()


def _swapped_class(cls: type) -> type:
    """The subclass for a copy, which has no attributes yet."""
    found = _classes.get(cls)
    if found is None:
        found = _classes[cls] = _subclass(cls, rewritten_functions([cls]))
    return found
