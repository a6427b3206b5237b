"""Side effects: changes that a step makes besides its results, detected and undone.

A step runs a few more times than in the loop. The containers that it could change are saved before:
for each container the objects that it holds, not copies of them, since these are containers of
their own.
"""

from __future__ import annotations

import collections
import contextvars
import functools
import os
import pickle
import queue
import random
import sys
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ostinato.compiler.capture.guards.slots import Slots, identity, slots_of
from ostinato.compiler.errors import SideEffect, Unsupported
from ostinato.compiler.torch_compat import random_state, set_random_state

PARTS = ("_parameters", "_buffers", "_modules")  # dictionaries of a torch.nn.Module
MOST_BYTES = 1 << 16  # of an array to be compared
_NOTHING = object()
_NUMBERS = (int, float, complex, bool, str, bytes)


class Snapshots:
    """The contents of containers as they were when each was first met.

    Args:
        places: containers and keys of state, which is passed from step to step.
    """

    def __init__(self, places: Collection[tuple[Any, Any]] = ()) -> None:
        self._state = {(identity(container), key) for container, key in places}
        self._saved: dict[Any, tuple[Kind, Any, dict[Any, Any]]] = {}
        self._torch = random_state()
        for kind, of in ((_ENVIRONMENT, os.environ), (_CONTEXT, contextvars.copy_context())):
            self._saved[id(kind)] = kind, of, kind[1](of)

    def add(self, value: Any) -> None:
        """Save the contents of a value: items, attributes, and the cells of a function.

        Of a Python module, and of the globals of a function, only `add_names` saves something.
        """
        parts = [value]
        if not isinstance(value, types.ModuleType):
            parts += attributes_of(value), slots_of(value)
        if isinstance(value, types.FunctionType):
            parts += value.__closure__ or ()
        if isinstance(value, nn.Module):  # torch.func.functional_call replaces them for a while
            parts += [vars(m)[name] for m in value.modules() for name in PARTS]
        for part in parts:
            kind = next((kind for kind in _KINDS if kind[0](part)), None)
            if kind is not None and _key(part) not in self._saved:
                self._saved[_key(part)] = kind, part, self._content(kind, part)

    def add_names(self, scope: Any, names: Collection[str]) -> None:
        """Save the names that code mentions, bound or not: other threads may change other names."""
        for name in names:
            if (id(scope), name) not in self._saved:
                item = scope, name
                self._saved[id(scope), name] = _NAMED, item, _named(item)

    def add_global_generators(self) -> None:
        self.add(random._inst)
        self.add(np.random.mtrand._rand)

    def check(self) -> None:
        """Raise SideEffect if anything has changed: the call then runs in the Python loop."""
        found = self._changed()
        changed = [_name(c, before, self._content(k, c)) for k, c, before in found]
        if changed and all(is_generator(container) for _, container, _ in found):
            raise SideEffect(f"the step draws random numbers by another package ({changed[0]})")
        if changed:
            of = ", ".join(changed[:3])
            raise SideEffect(f"the step changes what it reaches ({of}); let the carry hold it")

    def put_back(self) -> None:
        """Undo the changes of saved containers and of the random state, but not those of state."""
        for kind, container, before in self._changed():
            now = kind[1](container) if self._state else {}
            state = {k: v for k, v in now.items() if (identity(container), k) in self._state}
            kind[2](container, before | state)
        # Only if it changed: another thread may draw, too, and would draw the same numbers again.
        if not torch.equal(self._torch, random_state()):
            set_random_state(self._torch)

    def _changed(self) -> list[tuple[Kind, Any, dict[Any, Any]]]:
        return [
            saved
            for saved in self._saved.values()
            if not _same(self._content(saved[0], saved[1]), saved[2])
        ]

    def _content(self, kind: Kind, container: Any) -> dict[Any, Any]:
        """The contents of a container, without state."""
        content = kind[1](container)
        if self._state:
            for key in [k for k in content if (identity(container), k) in self._state]:
                content[key] = None
        return content


def attributes_of(value: Any) -> dict[str, Any] | None:
    """An object's own attributes, even if its class overrides `__dict__`; None if it has none."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return found if type(found) is dict else None


def _key(container: Any) -> Any:
    return ("slots", id(container.owner)) if type(container) is Slots else id(container)


def is_generator(value: Any) -> bool:
    """Whether a value is a source of random numbers, except PyTorch's."""
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
        kept = _is(now.get(key, _NOTHING), before.get(key, _NOTHING))
        if isinstance(key, str) and not kept:
            return key
    return f"a {type(container).__name__}"


# How each kind of container is saved, as a dictionary, and restored.


def _put(now: Mapping[Any, Any], before: dict[Any, Any], put: Any, delete: Any) -> None:
    for key in now.keys() - before.keys():
        delete(key)
    for key, value in before.items():
        if now.get(key, _NOTHING) is not value:
            put(key, value)


def _variables(environment: Mapping[str, str]) -> dict[Any, Any]:
    """All but PyTorch's own, which its compiler sets when it is first imported."""
    return {name: of for name, of in environment.items() if not name.startswith("TORCH")}


def _put_items(container: dict[Any, Any], before: dict[Any, Any]) -> None:
    """Past the methods of a class that derives from dict, whose items may be attributes."""
    kind = collections.OrderedDict if isinstance(container, collections.OrderedDict) else dict
    _put(
        dict(container),
        before,
        functools.partial(kind.__setitem__, container),
        functools.partial(kind.__delitem__, container),
    )
    if [*container] != [*before]:
        kind.clear(container)
        kind.update(container, before)


def _bytes(a: np.ndarray[Any, Any]) -> dict[Any, Any]:
    return {} if a.dtype.hasobject or a.nbytes > MOST_BYTES else {0: a.tobytes()}


def _put_bytes(a: np.ndarray[Any, Any], before: dict[Any, Any]) -> None:
    a[...] = np.frombuffer(before[0], a.dtype).reshape(a.shape)


def _state(r: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """How the state of a source of random numbers is read, and set."""
    if isinstance(r, random.SystemRandom):
        raise Unsupported("the step draws random numbers of the system: draw them before, for xs")
    if isinstance(r, random.Random):
        return r.getstate, r.setstate
    if hasattr(r, "bit_generator"):
        return lambda: r.bit_generator.state, lambda state: setattr(r.bit_generator, "state", state)
    if isinstance(r, torch.Generator):  # a pickled tensor contains its address, too
        return lambda: r.get_state().numpy(), lambda state: r.set_state(torch.from_numpy(state))
    return r.get_state, r.set_state


def _named(item: tuple[dict[str, Any], str]) -> dict[Any, Any]:
    scope, name = item
    return {name: scope[name]} if name in scope else {}


def _put_named(item: tuple[dict[str, Any], str], before: dict[Any, Any]) -> None:
    scope = item[0]
    _put(_named(item), before, scope.__setitem__, scope.__delitem__)


def _put_queue(q: Any, before: dict[Any, Any]) -> None:
    items = [q.get_nowait() for _ in range(q.qsize())]
    for item in items[: before[0]]:
        q.put(item)


Kind = tuple[Callable[[Any], bool], Callable[[Any], dict[Any, Any]], Callable[[Any, Any], Any]]


def _of(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


_NAMED: Kind = (lambda value: False, _named, _put_named)  # an item of a namespace
_ENVIRONMENT: Kind = (
    lambda value: False,
    _variables,
    lambda now, before: _put(_variables(now), before, now.__setitem__, now.__delitem__),
)
_CONTEXT: Kind = (  # of context variables
    lambda value: False,
    lambda value: dict(contextvars.copy_context()),
    lambda value, before: [variable.set(of) for variable, of in before.items()],
)
_KINDS: list[Kind] = [
    (_of(dict), dict, _put_items),
    (_of(Slots), dict, lambda s, before: _put(dict(s), before, s.__setitem__, s.__delitem__)),
    (_of(set), dict.fromkeys, lambda s, before: (s.clear(), s.update(before))),
    (_of(list, collections.deque), lambda s: dict(enumerate(s)),
     lambda s, before: (s.clear(), s.extend(before.values()))),
    (_of(bytearray), lambda b: {0: bytes(b)},
     lambda b, before: b.__setitem__(slice(None), before[0])),
    (_of(queue.SimpleQueue), lambda q: {0: q.qsize()}, _put_queue),
    (_of(types.CellType), lambda cell: {0: cell.cell_contents},
     lambda cell, before: setattr(cell, "cell_contents", before[0])),
    (_of(type), lambda cls: dict(vars(cls)), lambda cls, before: _put(
        vars(cls), before, functools.partial(setattr, cls), functools.partial(delattr, cls))),
    (_of(np.ndarray), _bytes, _put_bytes),
    (_of(functools._lru_cache_wrapper), lambda f: {0: f.cache_info().misses},
     lambda f, before: f.cache_clear()),
    # As bytes: states hold arrays, which == does not compare as a whole.
    (is_generator, lambda r: {0: pickle.dumps(_state(r)[0]())},
     lambda r, before: _state(r)[1](pickle.loads(before[0]))),
]  # fmt: skip
