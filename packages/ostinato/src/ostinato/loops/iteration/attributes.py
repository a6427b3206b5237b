"""State that is kept in attributes: found by comparing objects before and after an iteration.

A *place* is a path from the code of an iteration: a closure cell or a global name, then attributes
and items. `self.layers[0].mem` is (("cell", "self"), "__dict__", "_modules", "layers", …, "mem").
"""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ostinato.compiler.capture.captures import memory_of
from ostinato.compiler.capture.guards.code import globals_of, is_fixed_name
from ostinato.compiler.capture.guards.slots import Slots, slots_of

_MOST = 20_000  # objects that are looked at
ABSENT = type("Absent", (), {"__repr__": lambda self: "nothing"})()
_CLOSED = (
    type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, Tensor, str, bytes, int,
    float, complex, type(None), range, slice, types.CodeType, types.CellType, torch.dtype,
)  # fmt: skip


class Place(NamedTuple):
    """A place where state is kept.

    Attributes:
        path: from the code of an iteration to the dict or list that holds it.
        key: its key or number there.
        grows: whether it is a list that iterations append to.
    """

    path: tuple[Any, ...]
    key: Any
    grows: bool

    def __str__(self) -> str:
        names = [str(p) for p in (*self.path, self.key)]
        hidden = {
            "__dict__",
            "_modules",
            "_buffers",
            "_parameters",
            "__self__",
            "__func__",
            "__closure__",
            "__slots__",
        }
        return ".".join(n for n in names if n not in hidden)


def roots(body: types.FunctionType) -> Iterator[tuple[Any, Any]]:
    """The objects that the code of an iteration names, and their names."""
    for name, cell in zip(body.__code__.co_freevars, body.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not bound
            continue
    for name in _sorted_globals(body.__code__):
        if name in body.__globals__:
            yield f"global {name}", body.__globals__[name]


@functools.lru_cache(maxsize=256)
def _sorted_globals(code: types.CodeType) -> list[str]:
    return sorted(globals_of(code))


def reached(body: types.FunctionType) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The objects at which state may begin, and the paths to them.

    These are the roots, the objects of bound methods, and what called functions close over.
    """
    todo: deque[tuple[Any, tuple[Any, ...]]] = deque((v, (name,)) for name, v in roots(body))
    seen: set[int] = set()
    while todo:
        value, path = todo.popleft()
        if isinstance(value, types.MethodType):
            todo += [(value.__self__, (*path, "__self__")), (value.__func__, (*path, "__func__"))]
        elif isinstance(value, types.FunctionType):
            if id(value) not in seen and not is_fixed_name(value.__module__):
                seen.add(id(value))
                for i, cell in enumerate(value.__closure__ or ()):
                    with suppress(ValueError):  # not bound
                        todo.append((cell.cell_contents, (*path, "__closure__", i)))
        else:
            yield value, path


def reaches_state(body: types.FunctionType) -> bool:
    """Whether the code of an iteration names an object that may keep state in attributes."""
    return any(_may_hold(value) for value, _ in reached(body))


def _may_hold(value: Any) -> bool:
    """Whether `contents` looks into an object: libraries' objects, and ours, are closed."""
    if isinstance(value, _CLOSED):
        return False
    is_open = isinstance(value, (dict, list, tuple, Slots, torch.nn.Module))
    return is_open or not is_fixed_name(type(value).__module__)


def resolved(body: types.FunctionType, path: tuple[Any, ...]) -> Any:
    """The dict or list at the end of a path; None if the path does not exist."""
    name = path[0]
    try:
        if name.startswith("global "):
            value = body.__globals__[name.removeprefix("global ")]
        else:
            at = body.__code__.co_freevars.index(name)
            value = body.__closure__[at].cell_contents  # type: ignore[index]
        for step in path[1:]:
            if step == "__slots__":
                value = slots_of(value)
            elif step in ("__dict__", "__self__", "__func__", "__closure__"):
                value = getattr(value, step)
            else:
                value = value[step]
                value = value.cell_contents if type(value) is types.CellType else value
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None
    return value


def contents(body: types.FunctionType) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The objects that the code of an iteration can reach, and paths to them; the nearest first."""
    todo = deque(reached(body))
    seen: set[int] = set()
    while todo and len(seen) < _MOST:
        value, path = todo.popleft()
        yield value, path
        if not _may_hold(value) or id(value) in seen:
            continue
        inner: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, Slots):
            inner = value.items()  # of an owner that was not seen before
        else:
            seen.add(id(value))
        if isinstance(value, dict):
            inner = value.items()
        elif isinstance(value, (list, tuple)):
            inner = enumerate(value)
        elif not isinstance(value, Slots):
            inner = [("__dict__", getattr(value, "__dict__", None)), ("__slots__", slots_of(value))]
        todo += [
            (v, (*path, key))
            for key, v in inner
            if isinstance(v, Tensor) or not isinstance(v, _CLOSED)
        ]


def path_to(body: types.FunctionType, value: Any) -> tuple[Any, ...] | None:
    """A path from the code of an iteration to an object; None where none is found."""
    return next((path for of, path in contents(body) if of is value), None)


class Memory:
    """The contents of the objects that an iteration can reach, at one moment."""

    def __init__(self, body: types.FunctionType):
        self.saved: dict[int, tuple[tuple[Any, ...], Any, Any]] = {}
        self.versions: dict[int, tuple[tuple[Any, ...], Any, Tensor, int]] = {}
        for value, path in contents(body):
            is_container = isinstance(value, (dict, Slots)) or type(value) is list
            if not is_container or id(value) in self.saved:
                continue
            content = dict(enumerate(value)) if type(value) is list else dict(value)
            self.saved[id(value)] = path, value, content
            for key, item in content.items():
                if isinstance(item, Tensor) and not item.is_inference():
                    self.versions[id(item)] = path, key, item, item._version

    def changed(self, written: list[Any]) -> list[Place]:
        """The places whose contents have changed since.

        Args:
            written: tensors, lists and dicts whose elements the iteration wrote at its index.
        """
        skip = {id(base) for base in written}
        memories = {memory_of(base) for base in written if isinstance(base, Tensor)} - {None}
        grown = {
            id(container)
            for _, container, before in self.saved.values()
            if isinstance(container, list) and _has_grown(container, before)
        }
        found: list[Place] = []
        for path, container, before in self.saved.values():
            if id(container) in grown or id(container) in skip:
                continue
            now = dict(enumerate(container)) if type(container) is list else container
            for key in now:
                item = now[key]
                if id(item) in grown and id(item) not in skip:
                    found.append(Place(path, key, True))
                elif item is not before.get(key, ABSENT) and not _is_equal(
                    item, before.get(key, ABSENT)
                ):
                    found.append(Place(path, key, False))
        known = {(p.path, p.key) for p in found}
        for path, key, tensor, version in self.versions.values():
            if tensor._version == version or (path, key) in known or id(tensor) in skip:
                continue
            if memory_of(tensor) not in memories:
                found.append(Place(path, key, False))
        return found


def _has_grown(now: list[Any], before: dict[int, Any]) -> bool:
    n = len(before)
    if len(now) <= n:
        return False
    return all(now[i] is before[i] for i in range(n)) or all(
        now[len(now) - n + i] is before[i] for i in range(n)
    )


def _is_equal(a: Any, b: Any) -> bool:
    return type(a) is type(b) and isinstance(a, (int, float, str, bool)) and a == b
