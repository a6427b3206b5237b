"""Side effects: what a step changes beside its results, noticed and undone.

A step is run a few times more than the loop would run it. What it could change is saved before: of
each container the values that it holds, not copies of these, which are containers of their own.
"""

from __future__ import annotations

import collections
import pickle
import random
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from ostinato.compiler.errors import SideEffect, Unsupported

_NOTHING = object()
_ATOMS = (int, float, complex, bool, str, bytes)


class Snapshots:
    """The contents of containers as they were when each was first met."""

    def __init__(self) -> None:
        self._saved: dict[Any, tuple[Any, Any, dict[Any, Any]]] = {}  # by id: kind, of, contents
        self._torch = torch.get_rng_state()

    def add(self, container: Any) -> None:
        if id(container) not in self._saved:
            for kind in _KINDS:
                if isinstance(container, kind[0]):
                    self._saved[id(container)] = kind, container, kind[1](container)
                    break

    def add_names(self, of: dict[str, Any], names: Iterable[str]) -> None:
        """Some items of a large dictionary, there or not: the globals that code mentions."""
        for name in names:
            if (id(of), name) not in self._saved:
                contents = {name: of[name]} if name in of else {}
                self._saved[id(of), name] = _ITEM, (of, name), contents

    def add_generator(self, r: Any) -> None:
        """PyTorch's are not saved: a step that names one is refused before it draws."""
        if id(r) not in self._saved and not isinstance(r, torch.Generator):
            self._saved[id(r)] = _GENERATOR, r, _save_generator(r)

    def add_global_generators(self) -> None:
        self.add_generator(random._inst)
        if "numpy.random" in sys.modules:
            self.add_generator(np.random.mtrand._rand)

    def changes(self) -> list[str]:
        """The names of what is no longer as it was."""
        found = []
        for (_, save, _), container, before in self._saved.values():
            now = save(container)
            if not _same(now, before):
                found.append(_name(container, before, now))
        return found

    def put_back(self) -> None:
        for (_, save, restore), container, before in self._saved.values():
            if not _same(save(container), before):
                restore(container, before)
        # Only where it changed: another thread may draw, too, and would draw the same again.
        if not torch.equal(self._torch, torch.get_rng_state()):
            torch.set_rng_state(self._torch)

    def refusal(self) -> SideEffect | None:
        """Why the loop must play, if anything has changed."""
        changed = self.changes()
        if not changed:
            return None
        return SideEffect(
            f"the step changes what it reaches ({', '.join(changed[:3])}); let the carry hold it, "
            "and draw random numbers before"
        )


def _same(a: dict[Any, Any], b: dict[Any, Any]) -> bool:
    """Whether two contents hold the same objects under the same keys, in the same order."""
    return len(a) == len(b) and all(map(_is, a, b)) and all(map(_is, a.values(), b.values()))


def _is(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and isinstance(a, _ATOMS) and (a == b or a != a))


def _name(container: Any, before: dict[Any, Any], now: dict[Any, Any]) -> str:
    if isinstance(container, (dict, type, types.FunctionType, tuple)):
        for key in (*now, *before):
            if not _is(now.get(key, _NOTHING), before.get(key, _NOTHING)):
                return str(getattr(key, "__name__", key))
    return f"a {type(container).__name__}"


def _save_cell(cell: types.CellType) -> dict[Any, Any]:
    try:
        return {0: cell.cell_contents}
    except ValueError:  # not bound yet
        return {}


def _put_cell(cell: types.CellType, before: dict[Any, Any]) -> None:
    if before:
        cell.cell_contents = before[0]
    else:
        del cell.cell_contents


def _put_dict(d: dict[Any, Any], before: dict[Any, Any]) -> None:
    dict.clear(d)
    dict.update(d, before)


def _put_attributes(of: Any, before: dict[str, Any]) -> None:
    now = dict(vars(of))
    for name in {**now, **before}:
        if name not in before:
            delattr(of, name)
        elif now.get(name, _NOTHING) is not before[name]:
            setattr(of, name, before[name])


def _save_function(f: types.FunctionType) -> dict[str, Any]:
    return {"__defaults__": f.__defaults__, "__code__": f.__code__, **f.__dict__}


def _put_function(f: types.FunctionType, before: dict[str, Any]) -> None:
    for name in {**f.__dict__, **before}:
        if name not in before:
            delattr(f, name)
        else:
            setattr(f, name, before[name])


def _save_item(item: tuple[dict[str, Any], str]) -> dict[str, Any]:
    of, name = item
    return {name: of[name]} if name in of else {}


def _put_item(item: tuple[dict[str, Any], str], before: dict[str, Any]) -> None:
    of, name = item
    of.pop(name, None)
    of.update(before)


def _save_elements(a: np.ndarray[Any, Any]) -> dict[Any, Any]:
    return _in_order(a.flat) if a.dtype.hasobject else {0: a.tobytes()}


def _put_elements(a: np.ndarray[Any, Any], before: dict[Any, Any]) -> None:
    if a.dtype.hasobject and a.size == len(before):
        a.flat[:] = list(before.values())
    elif a.flags.writeable and a.nbytes == len(before[0]):
        a[...] = np.frombuffer(before[0], a.dtype).reshape(a.shape)


def _in_order(of: Any) -> dict[Any, Any]:
    return dict(enumerate(of))


def _put_deque(d: Any, before: dict[Any, Any]) -> None:
    d.clear()
    d.extend(before.values())


def _put_set(s: Any, before: dict[Any, Any]) -> None:
    s.clear()
    s.update(before)


def _save_generator(r: Any) -> dict[Any, Any]:
    """As bytes: the states hold arrays, which == does not compare as a whole."""
    if isinstance(r, random.SystemRandom):
        raise Unsupported("the step draws random numbers of the system: draw them before, for xs")
    if isinstance(r, random.Random):
        return {0: pickle.dumps(r.getstate())}
    return {
        0: pickle.dumps(r.bit_generator.state if hasattr(r, "bit_generator") else r.get_state())
    }


def _put_generator(r: Any, before: dict[Any, Any]) -> None:
    state = pickle.loads(before[0])
    if isinstance(r, random.Random):
        r.setstate(state)
    elif hasattr(r, "bit_generator"):
        r.bit_generator.state = state
    else:
        r.set_state(state)


Kind = tuple[Any, Callable[[Any], dict[Any, Any]], Callable[[Any, Any], None]]
_ITEM: Kind = (tuple, _save_item, _put_item)
_GENERATOR: Kind = (object, _save_generator, _put_generator)
# What holds values: its type, how they are saved (by key), and how they are put back.
_KINDS: list[Kind] = [
    (dict, dict, _put_dict),
    (list, _in_order, lambda a, before: list.__setitem__(a, slice(None), list(before.values()))),
    (set, dict.fromkeys, _put_set),
    (collections.deque, _in_order, _put_deque),
    (types.CellType, _save_cell, _put_cell),
    (types.FunctionType, _save_function, _put_function),
    (type, lambda cls: dict(vars(cls)), _put_attributes),
    (np.ndarray, _save_elements, _put_elements),
]


def is_generator(value: Any) -> bool:
    """Whether it draws random numbers."""
    numpys = sys.modules.get("numpy.random")  # not a part of every start
    of_numpy = numpys is not None and isinstance(value, (numpys.Generator, numpys.RandomState))
    return of_numpy or isinstance(value, (random.Random, torch.Generator))
