"""Loops that run in Python from beginning to end."""

from __future__ import annotations

import operator
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from ostinato.loops.iteration import elements
from ostinato.loops.iteration.index import FEWEST, running
from ostinato.loops.iteration.nostep import NoStep
from ostinato.loops.running import pace
from ostinato.loops.running.site import Site


class Watching(threading.local):
    """The nested loops of a thread that are examining an iteration."""

    def __init__(self) -> None:
        self.loops: weakref.WeakSet[Any] = weakref.WeakSet()  # weak: an error may end a loop


watching = Watching()


class Unwatched:
    """A loop that runs in Python from beginning to end."""

    ended = True

    def __init__(self, site: Site, iterable: Any, outer: Any):
        self.site, self.iterable, self.outer = site, iterable, outer

    def __iter__(self) -> Iterator[Any]:
        return iter(self.iterable)

    slice, len = staticmethod(slice), staticmethod(len)

    @staticmethod
    def number(function: Any, *arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    filled = number

    def selecting(self, number: int, name: str, base: Any, *arguments: Any, **named: Any) -> Any:
        """`base.select(1, t)`, reported to the outer loops as `base[:, t]`."""
        result = getattr(base, name)(*arguments, **named)
        is_tensor = isinstance(base, Tensor)
        found = elements.of_call(name, (base, *arguments), named) if is_tensor else None
        if found is not None and not elements.has_tensors(found[1]):
            self.at(number, *found)
        return result

    @staticmethod
    def kind(function: Any, of: Any) -> Any:
        return function(of)

    @staticmethod
    def within(number: Any, of: Any) -> bool:
        return number in of

    def at(self, number: int, base: Any, index: Any) -> Any:
        """`base[index]`, reported to the outer loops."""
        return base[index] if self.outer is None else self.outer.at(number, base, index)

    def put(self, number: int, value: Any, base: Any, index: Any) -> None:
        """`base[index] = value`, reported to the outer loops."""
        if self.outer is None:
            base[index] = value
        else:
            self.outer.put(number, value, base, index)

    def copy(self, number: int, value: Any, base: Any, index: Any) -> None:
        """`base[index].copy_(value)`: a write into the tensor, if the elements are a view of it."""
        if isinstance(base, Tensor) and elements.is_view(index):
            self.put(number, value, base, index)
        else:
            self.at(number, base, index).copy_(value)

    def reading(self, number: int, base: Any, index: Any) -> tuple[Any, Any, Any]:
        """The element that `base[index] += value` changes, after base and index."""
        return base, index, self.at(number, base, index)

    def update(
        self, number: int, name: str, base: Any, index: Any, element: Any, value: Any
    ) -> None:
        """The rest of `base[index] += value`."""
        changed = getattr(operator, f"i{name}".removesuffix("_"))(element, value)
        self.put(number, changed, base, index)


class Short(Unwatched):
    """A loop of few iterations; it records whether these are heavy."""

    def __iter__(self) -> Iterator[Any]:
        seconds = []
        for item in self.iterable:
            began = time.perf_counter()
            yield item
            seconds.append(time.perf_counter() - began)
        self.site.heavy = min(seconds) >= pace.HEAVY


class Left(Unwatched):
    """A loop that is not rewritten; it records whether it is a loop over tensors."""

    over_tensors = inner_native = False

    def __iter__(self) -> Iterator[Any]:
        # Within an iteration of another loop, the outer loop may become a scan as a whole.
        within = running.questions or any(not isinstance(of, Left) for of in watching.loops)
        if not within:
            self.site.ran(False, self.site.source.problem, False)
            watching.loops.add(self)
        for j, item in enumerate(self.iterable):
            self.over_tensors = self.over_tensors or tensors_in_item(item)
            self.site.over_tensors = self.site.over_tensors or self.over_tensors
            if j == FEWEST - 1 and not within:
                watching.loops.discard(self)
                if self.site.given and not self.inner_native and not self.site.warned:
                    names = sys._getframe(1).f_locals
                    if self.over_tensors or holds_tensors(names, self.site.source.carried):
                        self.site.warn(NoStep(self.site.source.problem))
            yield item

    @staticmethod
    def unrolls(n: int) -> bool:
        return False

    def at(self, number: int, base: Any, index: Any) -> Any:
        self.over_tensors = self.over_tensors or isinstance(base, Tensor)
        return super().at(number, base, index)

    def put(self, number: int, value: Any, base: Any, index: Any) -> None:
        self.over_tensors = self.over_tensors or isinstance(base, Tensor)
        super().put(number, value, base, index)


def tensors_in_item(item: Any) -> bool:
    """Whether an item of a loop is a tensor, or a tuple or list with one."""
    if isinstance(item, (tuple, list)):
        return any(map(tensors_in_item, item))
    return isinstance(item, Tensor)


def holds_tensors(names: Mapping[str, Any], of: Iterable[str]) -> bool:
    """Whether some of these names hold tensors."""
    return any(tensors_in_item(names.get(name)) for name in of)
