"""Side effects: what a step changes beside its results, noticed and undone.

A step is run a few times more than the loop would run it. What it could change is saved before: of
each container the values that it holds, not copies of these, which are containers of their own.
"""

from __future__ import annotations

import collections
import functools
import pickle
import random
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from ostinato.compiler.errors import SideEffect, Unsupported
from ostinato.compiler.torch_compat import random_state, set_random_state

MOST_BYTES = 1 << 16  # of an array that is compared
_NOTHING = object()
_NUMBERS = (int, float, complex, bool, str, bytes)


class Snapshots:
    """The contents of containers as they were when each was first met."""

    def __init__(self) -> None:
        self._saved: dict[Any, tuple[Kind, Any, dict[Any, Any]]] = {}
        self._torch = random_state()

    def add(self, container: Any) -> None:
        if id(container) not in self._saved:
            kind = next((kind for kind in _KINDS if isinstance(container, kind[0])), None)
            if kind is not None:
                self._saved[id(container)] = kind, container, kind[1](container)

    def add_names(self, scope: dict[str, Any], names: Iterable[str]) -> None:
        """Some items of a large dictionary, there or not: the globals that code mentions."""
        for name in names:
            if (id(scope), name) not in self._saved:
                self._saved[id(scope), name] = _ITEM, (scope, name), _item((scope, name))

    def add_generator(self, r: Any) -> None:
        """Of PyTorch's the state is not saved: a step is refused before it draws from one."""
        if id(r) not in self._saved and not isinstance(r, torch.Generator):
            self._saved[id(r)] = _GENERATOR, r, _state(r)

    def add_global_generators(self) -> None:
        self.add_generator(random._inst)
        if "numpy.random" in sys.modules:
            self.add_generator(np.random.mtrand._rand)

    def refusal(self) -> SideEffect | None:
        """Why the loop must play, if anything has changed."""
        changed = [_name(c, before, kind[1](c)) for kind, c, before in self._changed()]
        if not changed:
            return None
        return SideEffect(
            f"the step changes what it reaches ({', '.join(changed[:3])}); let the carry hold it, "
            "and draw random numbers before"
        )

    def put_back(self) -> None:
        for kind, container, before in self._changed():
            kind[2](container, before)
        # Only where it changed: another thread may draw, too, and would draw the same again.
        if not torch.equal(self._torch, random_state()):
            set_random_state(self._torch)

    def _changed(self) -> list[tuple[Kind, Any, dict[Any, Any]]]:
        return [
            saved for saved in self._saved.values() if not _same(saved[0][1](saved[1]), saved[2])
        ]


def is_generator(value: Any) -> bool:
    """Whether it draws random numbers."""
    numpys = sys.modules.get("numpy.random")  # not a part of every start
    of_numpy = numpys is not None and isinstance(value, (numpys.Generator, numpys.RandomState))
    return of_numpy or isinstance(value, (random.Random, torch.Generator))


def _same(a: dict[Any, Any], b: dict[Any, Any]) -> bool:
    """Whether two contents hold the same objects under the same keys, in the same order."""
    return len(a) == len(b) and all(map(_is, a, b)) and all(map(_is, a.values(), b.values()))


def _is(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and isinstance(a, _NUMBERS) and (a == b or a != a))


def _name(container: Any, before: dict[Any, Any], now: dict[Any, Any]) -> str:
    for key in (*now, *before):
        known = isinstance(key, str) and _is(now.get(key, _NOTHING), before.get(key, _NOTHING))
        if isinstance(key, str) and not known:
            return key
    return f"a {type(container).__name__}"


# How each kind of container is saved, as a dictionary, and put back.


def _put_items(container: Any, before: dict[Any, Any]) -> None:
    """Past the methods of a class that derives from dict, whose items may be attributes."""
    kinds = (collections.OrderedDict, dict, set)
    kind: Any = next(kind for kind in kinds if isinstance(container, kind))
    kind.clear(container)
    kind.update(container, before)


def _put_sequence(container: Any, before: dict[Any, Any]) -> None:
    container.clear()
    container.extend(before.values())


def _cell(cell: types.CellType) -> dict[Any, Any]:
    try:
        return {0: cell.cell_contents}
    except ValueError:  # not bound yet
        return {}


def _put_cell(cell: types.CellType, before: dict[Any, Any]) -> None:
    if before:
        cell.cell_contents = before[0]
    else:
        del cell.cell_contents


def _attributes(of: Any) -> dict[str, Any]:
    more = {"__defaults__": of.__defaults__} if isinstance(of, types.FunctionType) else {}
    return {**more, **vars(of)}


def _put_attributes(of: Any, before: dict[str, Any]) -> None:
    now = _attributes(of)
    for name in {**now, **before}:
        if name not in before:
            delattr(of, name)
        elif now.get(name, _NOTHING) is not before[name]:
            setattr(of, name, before[name])


def _item(item: tuple[dict[str, Any], str]) -> dict[str, Any]:
    scope, name = item
    return {name: scope[name]} if name in scope else {}


def _put_item(item: tuple[dict[str, Any], str], before: dict[str, Any]) -> None:
    scope, name = item
    scope.pop(name, None)
    scope.update(before)


def _bytes(a: np.ndarray[Any, Any]) -> dict[Any, Any]:
    return {} if a.dtype.hasobject or a.nbytes > MOST_BYTES else {0: a.tobytes()}


def _put_bytes(a: np.ndarray[Any, Any], before: dict[Any, Any]) -> None:
    if a.flags.writeable and a.nbytes == len(before[0]):
        a[...] = np.frombuffer(before[0], a.dtype).reshape(a.shape)


def _state(r: Any) -> dict[Any, Any]:
    """As bytes: states hold arrays, which == does not compare as a whole."""
    if isinstance(r, random.SystemRandom):
        raise Unsupported("the step draws random numbers of the system: draw them before, for xs")
    if isinstance(r, random.Random):
        return {0: pickle.dumps(r.getstate())}
    state = r.bit_generator.state if hasattr(r, "bit_generator") else r.get_state()
    return {0: pickle.dumps(state)}


def _put_state(r: Any, before: dict[Any, Any]) -> None:
    state = pickle.loads(before[0])
    if isinstance(r, random.Random):
        r.setstate(state)
    elif hasattr(r, "bit_generator"):
        r.bit_generator.state = state
    else:
        r.set_state(state)


Kind = tuple[Any, Callable[[Any], dict[Any, Any]], Callable[[Any, Any], None]]
_ITEM: Kind = (tuple, _item, _put_item)
_GENERATOR: Kind = (object, _state, _put_state)
_KINDS: list[Kind] = [
    (dict, dict, _put_items),
    (set, dict.fromkeys, _put_items),
    ((list, collections.deque), lambda s: dict(enumerate(s)), _put_sequence),
    (types.CellType, _cell, _put_cell),
    ((types.FunctionType, type), _attributes, _put_attributes),
    (np.ndarray, _bytes, _put_bytes),
    (
        functools._lru_cache_wrapper,
        lambda f: {0: f.cache_info().misses},
        lambda f, before: f.cache_clear(),
    ),
]
