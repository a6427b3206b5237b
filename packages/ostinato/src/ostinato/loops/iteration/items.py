"""The things that a loop iterates over: ranges, tensors, lists; `enumerate`, `zip`, `reversed`.

Each kind gives an iterator that does what Python's own does, also of a list that the body changes,
and the form that an item has in a step for all iterations: numbers are an affine `Index`, tensors
are elements of one tensor.
"""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ostinato.compiler.play.parts import part_of
from ostinato.loops.iteration.index import Index, Number
from ostinato.loops.iteration.nostep import NoStep


class ItemParts:
    """The tensors of an iteration's item, one after the other, and its numbers.

    Attributes:
        every, first: the item is that of the iterations `first + every * j`.
    """

    def __init__(self, tensors: Iterator[Tensor]):
        self.tensors, self.n_tables = tensors, 0
        self.every, self.first = 1, 0

    def index(self, step: int, start: int) -> Index:
        """The number that is `start + step * j` in iteration j of the loop."""
        return Index(step * self.every, start + step * self.first)

    def __next__(self) -> Tensor:
        return next(self.tensors)

    def number(self) -> Number:
        self.n_tables += 1
        return Number(("table", self.n_tables - 1))


class Items:
    """The items of a loop.

    Attributes:
        n: how many there are now; a body may make a list longer or shorter.
    """

    n: int
    period = 1  # of how many items an iteration of a scan consists

    def __iter__(self) -> Iterator[Any]:
        return self.begin(0)

    def begin(self, j: int) -> Iterator[Any]:
        """The iterator of Python's loop after j iterations."""
        raise NotImplementedError

    def held(self) -> list[Any]:
        """The objects that iterations read while the loop runs: tensors and lists."""
        return []

    def tensors(self, begin: int, end: int) -> list[Tensor]:
        """The tensors `[end − begin, …]` of the items of these iterations."""
        return []

    def tables(self) -> list[Sequence[Any]]:
        """The numbers, for each iteration one, that are in lists."""
        return []

    def symbolic(self, elements: ItemParts) -> Any:
        """The item of any iteration."""
        raise NotImplementedError

    def kind(self) -> Any:
        """Everything that a step depends on except values; hashable."""
        return type(self).__name__

    def starts(self) -> tuple[int, ...]:
        """The numbers of the first iteration."""
        return ()

    def before(self) -> Any:
        """The item that would come before the first one; None in the place of a tensor."""
        return None


class RangeItems(Items):
    """The numbers of a range."""

    def __init__(self, numbers: range):
        self.numbers, self.n = numbers, len(numbers)

    def begin(self, j: int) -> Iterator[int]:
        return iter(self.numbers[j:])

    def symbolic(self, elements: ItemParts) -> Index:
        return elements.index(self.numbers.step, self.numbers.start)

    def kind(self) -> Any:
        return "range", self.numbers.step

    def starts(self) -> tuple[int, ...]:
        return (self.numbers.start,)

    def before(self) -> int:
        return self.numbers.start - self.numbers.step


class Elements(Items):
    """The elements of a tensor along an axis: single ones, or pieces of `size` of them."""

    def __init__(self, x: Tensor, axis: int = 0, size: int | None = None):
        self.x, self.axis, self.size = x, axis % max(x.dim(), 1), size
        self.n = x.shape[axis] // (size or 1)
        self.with_gradients = torch.is_grad_enabled()  # where Python makes the views

    def at(self, numbers: range) -> Iterator[Tensor]:
        """The elements, or pieces, of these numbers."""
        return map(self.element, numbers)

    def element(self, i: int) -> Tensor:
        """One element, or a piece, in the gradient mode in which the loop began."""
        with torch.set_grad_enabled(self.with_gradients):
            if self.size is None:
                return self.x.select(self.axis, i)
            return self.x.narrow(self.axis, i * self.size, self.size)

    def begin(self, j: int) -> Iterator[Tensor]:
        return self.at(range(j, self.n))

    def held(self) -> list[Any]:
        return [self.x]

    def tensors(self, begin: int, end: int) -> list[Tensor]:
        x, size = self.x, self.size
        if size is None:
            return [part_of(x, self.axis, begin, end - begin)]
        part = x.narrow(self.axis, begin * size, (end - begin) * size)
        return [part.unflatten(self.axis, (end - begin, size)).movedim(self.axis, 0)]

    def symbolic(self, elements: ItemParts) -> Any:
        return next(elements)

    def kind(self) -> Any:
        return "elements", self.axis, self.size


class Listed(Items):
    """A list or tuple of tensors, or of numbers."""

    def __init__(self, items: Sequence[Any]):
        self.items = items

    @property
    def n(self) -> int:  # type: ignore[override]
        return len(self.items)

    @property
    def numbers(self) -> Sequence[Any] | None:
        return table_of(self.items)

    def begin(self, j: int) -> Iterator[Any]:
        found = iter(self.items)
        found.__setstate__(j)  # type: ignore[attr-defined]
        return found

    def held(self) -> list[Any]:
        return [self.items, *self.items]

    def tensors(self, begin: int, end: int) -> list[Tensor]:
        return [stacked(self.items[begin:end])] if self.numbers is None else []

    def tables(self) -> list[Sequence[Any]]:
        return [] if self.numbers is None else [self.numbers]

    def symbolic(self, elements: ItemParts) -> Any:
        return next(elements) if self.numbers is None else elements.number()

    def kind(self) -> Any:
        return "listed", None if self.numbers is None else type(self.numbers[0])


class Zipped(Items):
    """`zip(*parts)`."""

    def __init__(self, *parts: Items, strict: bool = False):
        self.parts, self.strict = parts, strict

    @property
    def n(self) -> int:  # type: ignore[override]
        return min(p.n for p in self.parts)

    def begin(self, j: int) -> Iterator[Any]:
        return zip(*[p.begin(j) for p in self.parts], strict=self.strict)

    def held(self) -> list[Any]:
        return [of for p in self.parts for of in p.held()]

    def tensors(self, begin: int, end: int) -> list[Tensor]:
        return [t for p in self.parts for t in p.tensors(begin, end)]

    def tables(self) -> list[Sequence[Any]]:
        return [t for p in self.parts for t in p.tables()]

    def symbolic(self, elements: ItemParts) -> tuple[Any, ...]:
        return tuple([p.symbolic(elements) for p in self.parts])

    def kind(self) -> Any:
        return type(self).__name__, tuple([p.kind() for p in self.parts])

    def starts(self) -> tuple[int, ...]:
        return tuple([start for p in self.parts for start in p.starts()])

    def before(self) -> Any:
        return tuple([p.before() for p in self.parts])


class Numbered(Zipped):
    """`enumerate(items, start)`."""

    def __init__(self, items: Items, start: int):
        super().__init__(RangeItems(range(start, start + items.n)), items)

    @property
    def n(self) -> int:  # type: ignore[override]
        return self.parts[1].n

    def begin(self, j: int) -> Iterator[Any]:
        return zip(itertools.count(self.starts()[0] + j), self.parts[1].begin(j), strict=False)


class Backwards(Zipped):
    """`reversed(items)`, from the last of those that there were at first."""

    n = 0

    def __init__(self, items: Items):
        super().__init__(items)
        self.n = items.n

    def begin(self, j: int) -> Iterator[Any]:
        (of,) = self.parts
        if isinstance(of, Elements):
            return of.at(range(self.n - 1 - j, -1, -1))
        assert isinstance(of, Listed)
        found = reversed(of.items)
        found.__setstate__(self.n - 1 - j)
        return found

    def tensors(self, begin: int, end: int) -> list[Tensor]:
        return [t.flip(0) for t in super().tensors(self.n - end, self.n - begin)]

    def tables(self) -> list[Sequence[Any]]:
        return [table[: self.n][::-1] for table in super().tables()]

    def symbolic(self, elements: ItemParts) -> Any:
        return self.parts[0].symbolic(elements)


def items_of(iterable: Any) -> Items | None:
    """The items of an iterable with a known length; None for others."""
    kind = type(iterable)
    if isinstance(iterable, Items):
        return iterable
    if kind is range:
        return RangeItems(iterable)
    if kind is Tensor or kind is torch.nn.Parameter:
        return Elements(iterable) if iterable.dim() else None
    if kind is list or (isinstance(iterable, tuple) and kind.__iter__ is tuple.__iter__):
        return Listed(iterable)
    return None


def sequence(function: Any, *arguments: Any, **named: Any) -> Any:
    """The result of a call that a loop iterates over; as an `Items` if possible."""
    made = _made(function, arguments, named)
    if made is not None:
        return made
    return function(*[_plain(a) for a in arguments], **named)


def _plain(argument: Any) -> Any:
    """Items as the iterator, or the tuple of elements, that Python would make."""
    if isinstance(argument, Elements):
        return tuple(argument)
    return iter(argument) if isinstance(argument, Items) else argument


def _made(function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Items | None:
    if function is builtins.reversed and len(arguments) == 1:
        if type(arguments[0]) is range:
            return RangeItems(arguments[0][::-1])
        of = items_of(arguments[0])
        is_sequence = isinstance(of, Elements) or not isinstance(arguments[0], Items)
        return Backwards(of) if of is not None and is_sequence else None
    if function is builtins.enumerate and arguments and named.keys() <= {"start"}:
        of = items_of(arguments[0])
        start = arguments[1] if len(arguments) > 1 else named.get("start", 0)
        if of is None or type(start) is not int:
            return None
        return Numbered(of, start)
    if function is builtins.zip and arguments and named.keys() <= {"strict"}:
        parts = [p for p in map(items_of, arguments) if p is not None]
        level = len({p.n for p in parts}) == 1
        fits = len(parts) == len(arguments) and (level or not named.get("strict"))
        return Zipped(*parts, strict=bool(named.get("strict"))) if fits else None
    return _parts(function, arguments, named)


def _parts(function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Items | None:
    """`x.unbind(1)`, `torch.split(x, 1, dim=1)`, `x.chunk(T, 1)`."""
    of, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if type(of) is not Tensor:
        if function not in (torch.unbind, torch.split, torch.chunk):
            return None
        of, arguments = (arguments[0], arguments[1:]) if arguments else (None, arguments)
        if type(of) is not Tensor:
            return None
    sizes = ("split_size", "split_size_or_sections", "chunks")
    wanted: list[tuple[Any, tuple[str, ...]]] = [(0, ("dim",))]
    if name != "unbind":
        wanted.insert(0, (None, sizes))
    given, values = dict(named), []
    for i, (default, names) in enumerate(wanted):
        value = arguments[i] if i < len(arguments) else default
        for key in names:
            value = given.pop(key, value)
        values.append(value)
    if given or len(arguments) > len(wanted) or not all(type(v) is int for v in values):
        return None
    axis = values[-1]
    if not -of.dim() <= axis < of.dim():
        return None
    if name == "unbind":
        return Elements(of, axis)
    length = of.shape[axis]
    size = values[0] if name == "split" else -(-length // values[0]) if values[0] > 0 else 0
    return Elements(of, axis, size) if size > 0 and length and length % size == 0 else None


def table_of(values: Any) -> Sequence[Any] | None:
    """The numbers of a list, tuple or array, if it holds numbers of one type alone."""
    if isinstance(values, np.ndarray):
        is_plain = values.ndim == 1 and values.dtype.kind in "if"
        return values.tolist() if is_plain else None
    kind = type(values[0]) if len(values) else None
    if kind not in (int, float) or any(type(v) is not kind for v in values):
        return None
    found: Sequence[Any] = values
    return found


class NumberTable(Sequence[Any]):
    """The numbers of a list where iterations read them: `at(j)` is the index in iteration j."""

    def __init__(self, values: Sequence[Any], at: Callable[[int], int]):
        self.values, self.at = values, at

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, j: Any) -> Any:
        i = self.at(j)
        if not -len(self.values) <= i < len(self.values):
            raise NoStep("an index beyond the end of a list")
        return self.values[i]


def stacked(items: Sequence[Any]) -> Tensor:
    """Equal tensors of a list as one."""
    if not all(type(v) is Tensor or type(v) is torch.nn.Parameter for v in items):
        kinds = sorted({type(v).__name__ for v in items})
        raise NoStep(f"the loop iterates over a list of {', '.join(kinds)}", quiet=True)
    if len({(v.shape, v.dtype) for v in items}) > 1:
        raise NoStep("the loop iterates over tensors of several shapes or types")
    return torch.stack(list(items))
