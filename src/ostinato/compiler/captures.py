"""The tensors and constants that a step function reaches: closures, globals, modules.

A step is recorded once; at later calls its captured tensors are read again by the path on which
they were found, and whatever else it reaches (numbers, flags, other functions) must be as it was. A
step that reaches something opaque has no such paths: it is searched by running it at every call.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

_CONSTANTS = (
    int,
    float,
    complex,
    bool,
    str,
    bytes,
    type(None),
    torch.dtype,
    torch.device,
    torch.Size,
    slice,
)
_OPAQUE_BUT_FIXED = (
    types.ModuleType,
    type,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    torch.layout,
)
_LIMIT = 3000


@dataclass
class Reach:
    """What a step reaches.

    tensors: in a fixed order.
    constants: everything else that may steer it, hashable.
    watches: (container, key, what is there), to notice a change; a cell has the key None.
    complete: false if something opaque was met.
    """

    tensors: list[Tensor] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    watches: list[tuple[Any, Any, Any]] = field(default_factory=list)
    complete: bool = True

    def again(self) -> list[Tensor] | None:
        """The tensors now, if nothing else has changed; else None."""
        tensors = []
        for container, key, was in self.watches:
            try:
                now = container.cell_contents if key is None else container[key]
            except (ValueError, KeyError, IndexError):
                return None
            if isinstance(now, Tensor):
                if was is not _TENSOR:
                    return None
                tensors.append(now)
            elif now is not was and (type(now) is not type(was) or not _equal(now, was)):
                return None
        return tensors


_TENSOR = object()


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, _CONSTANTS) and (a == b or (a != a and b != b))


_known: weakref.WeakKeyDictionary[Any, dict[Any, Reach]] = weakref.WeakKeyDictionary()


def reach(step: Callable[..., Any]) -> Reach:
    """What `step` reaches now."""
    owner: Any = step
    name: Any = None
    if isinstance(step, types.MethodType):
        owner, name = step.__self__, step.__func__
    try:
        entry = _known.setdefault(owner, {})
    except TypeError:  # cannot be weakly referenced
        return _walked(step)
    known = entry.get(name)
    if known is not None and known.complete:
        tensors = known.again()
        if tensors is not None:
            known.tensors = tensors
            return Reach(tensors, known.constants, [], True)
    fresh = _walked(step)
    entry[name] = Reach([], fresh.constants, fresh.watches, fresh.complete)
    return fresh


def _walked(step: Callable[..., Any]) -> Reach:
    walk = _Walk()
    walk.visit(step)
    return walk.found


class _Walk:
    def __init__(self) -> None:
        self.found = Reach()
        self.seen: set[int] = set()
        self.alive: list[Any] = []

    def look(self, container: Any, key: Any, value: Any) -> None:
        """One watched place."""
        is_tensor = isinstance(value, Tensor)
        self.found.watches.append((container, key, _TENSOR if is_tensor else value))
        if is_tensor:
            self.found.tensors.append(value)
        else:
            self.visit(value)

    def visit(self, value: Any) -> None:
        found = self.found
        if isinstance(value, _CONSTANTS):
            found.constants.append(
                (type(value), str(value) if isinstance(value, (float, slice)) else value)
            )
            return
        if isinstance(value, _OPAQUE_BUT_FIXED):
            found.constants.append(id(value))
            return
        if id(value) in self.seen:
            found.constants.append("again")
            return
        self.seen.add(id(value))
        self.alive.append(value)
        if len(self.seen) > _LIMIT:
            found.complete = False
        elif isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, types.MethodType):
            self.visit(value.__func__)
            self.visit(value.__self__)
        elif isinstance(value, functools.partial):
            self.visit(value.func)
            self.items(value.args)
            self.items(value.keywords)
        elif isinstance(value, nn.Module):
            self.module(value)
        elif isinstance(value, (list, tuple, dict)) and type(value) in (list, tuple, dict):
            self.items(value)
        else:
            found.complete = False

    def items(self, value: Any) -> None:
        self.found.constants.append((type(value).__name__, len(value)))
        pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
        for key, item in pairs:
            if isinstance(value, dict):
                self.visit(key)
            self.look(value, key, item)
        if not isinstance(value, tuple):
            self.found.watches.append((_Length(value), 0, len(value)))

    def function(self, f: types.FunctionType) -> None:
        self.found.constants.append(f.__code__)
        for cell in f.__closure__ or ():
            try:
                self.look(cell, None, cell.cell_contents)
            except ValueError:  # not yet bound
                self.found.complete = False
        for name in sorted(_global_names(f.__code__)):
            if name in f.__globals__:
                self.look(f.__globals__, name, f.__globals__[name])
        self.items(f.__defaults__ or ())
        if f.__kwdefaults__:
            self.items(f.__kwdefaults__)

    def module(self, m: nn.Module) -> None:
        attributes = m.__dict__
        self.found.constants.append(type(m))
        forward = type(m).forward
        if isinstance(forward, types.FunctionType) and not type(m).__module__.startswith(
            "torch.nn"
        ):
            self.visit(forward)
        for name in (
            "_forward_hooks",
            "_forward_pre_hooks",
            "_backward_hooks",
            "_backward_pre_hooks",
        ):
            if attributes.get(name):
                self.found.complete = False
        for name, value in sorted(attributes.items()):
            if name in ("_parameters", "_buffers", "_modules"):
                for key, item in value.items():
                    self.look(value, key, item)
                self.found.watches.append((_Length(value), 0, len(value)))
            elif isinstance(
                value, (*_CONSTANTS, list, tuple, dict, Tensor, types.FunctionType)
            ) and not (name.startswith("_") and not isinstance(value, (*_CONSTANTS, Tensor))):
                self.look(attributes, name, value)


class _Length:
    """The length of a container, as a watched place."""

    def __init__(self, container: Any):
        self.container = container

    def __getitem__(self, _: int) -> int:
        return len(self.container)


@functools.lru_cache(maxsize=1024)
def _global_names(code: types.CodeType) -> frozenset[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return frozenset(names)
