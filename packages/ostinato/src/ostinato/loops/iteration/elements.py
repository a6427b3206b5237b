"""Elements of a sequence that an iteration reads or writes: x[t], x[:, t], x[..., t - 1, :].

An index is described part by part. The part that moves with the loop gives the axis of time; its
place in a call is known from the index of one iteration, so that a plan fits other lengths.
"""

from __future__ import annotations

import functools
import operator
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ostinato.compiler import torch_private
from ostinato.compiler.capture.wrapped import address_of
from ostinato.compiler.play.parts import part_of
from ostinato.loops.iteration.index import Index, Number
from ostinato.loops.iteration.items import stacked
from ostinato.loops.iteration.nostep import NoStep

Parts = tuple[Any, ...]
_SELECTING = {"select": ("dim", "index"), "narrow": ("dim", "start", "length")}
_MOVING = ("index", "piece", "gather")
_WHOLE = ((Ellipsis,), ("slice", None, None, None))  # parts of an index that leave all of an axis


def moves(index: Any) -> bool:
    """Whether an index names the loop's variable."""
    if type(index) is tuple:
        return any(map(moves, index))
    if type(index) is slice:
        return any(type(p) is Index for p in (index.start, index.stop, index.step))
    return isinstance(index, Number)


def grows(index: Any) -> bool:
    """Whether an index has a slice `:t`, whose length moves with the loop."""
    parts = index if type(index) is tuple else (index,)
    return any(type(p) is slice and type(p.stop) is Index and p.start in (None, 0) for p in parts)


def prefixes(base: Tensor, index: Any) -> tuple[Any, list[Any], list[Any]]:
    """An index with slices `:t` as one with whole axes: itself; for each axis of its result the
    end, or None; and for each the number of one that the index takes, or None."""
    parts = index if type(index) is tuple else (index,)
    whole, ends, at = list[Any](), list[Any](), list[Any]()
    n_left = base.dim() - sum(p is not None and p is not Ellipsis for p in parts)
    has_rest = any(p is Ellipsis for p in parts)
    for p in (*parts, *([] if has_rest else [Ellipsis])):
        moving_part = isinstance(p, Number) or (type(p) is slice and moves(p))
        if type(p) is slice and moving_part and not grows(p):
            raise NoStep("a slice of another length in every iteration")
        whole.append(slice(None, None, None) if moving_part else p)
        n = n_left if p is Ellipsis else int(type(p) is not int)
        ends += [p.stop if type(p) is slice and moving_part else None] * n
        at += [p if isinstance(p, Number) else None] * n
    return tuple(whole), ends, at


def described(index: Any) -> Parts:
    """The parts of an index, hashable, without the place of the moving one."""
    parts = index if type(index) is tuple else (index,)
    found = tuple([_part(p) for p in parts])
    if sum(p[0] in _MOVING for p in found) != 1:
        raise NoStep("the loop's variable is twice in one index")
    return found


def held(index: Any) -> Any:
    """An index of numbers, one of them whole, as one that moves by 0 in an iteration; else None."""
    parts = index if type(index) is tuple else (index,)
    at = [i for i, p in enumerate(parts) if type(p) is int]
    if len(at) != 1 or has_tensors(index):
        return None
    return (*parts[: at[0]], Index(0, parts[at[0]]), *parts[at[0] + 1 :])


def _part(p: Any) -> Any:
    if type(p) is Index:
        return ("index", p._step) if p._step else ("index", 0, p._start)
    if isinstance(p, Number):
        return "gather", p._key
    if type(p) is slice:
        if not moves(p):
            return "slice", p.start, p.stop, p.step
        if type(p.start) is Index and type(p.stop) is Index and p.step is None:
            length: Any = operator.sub(p.stop, p.start)
            if type(length) is int and length > 0:
                return "piece", p.start._step, length
        raise NoStep("a slice of another length in every iteration")
    if p is None or p is Ellipsis:
        return (p,)
    if type(p) is int:
        return "number", p
    raise NoStep(f"the loop's variable in an index together with a {type(p).__name__}")


def split(index: Any) -> tuple[Any, Any]:
    """An index with tensors, such as `x[t, rows, columns]`, as two: `x[t]`, and its index there."""
    parts = index if type(index) is tuple else (index,)
    at = next(i for i, p in enumerate(parts) if moves(p))
    if type(parts[at]) is not Index or any(p is None or p is Ellipsis for p in parts):
        raise NoStep("the loop's variable in an index together with a tensor")
    if any(isinstance(p, Tensor) and p.dtype == torch.bool for p in parts):
        raise NoStep("the loop's variable in an index together with a mask")
    return (*[slice(None)] * at, parts[at]), (*parts[:at], *parts[at + 1 :])


def is_view(index: Any) -> bool:
    """Whether an index gives a view of a tensor's elements, not a copy of them."""
    parts = index if type(index) is tuple else (index,)
    return all(p is None or p is Ellipsis or type(p) in (int, slice, Index) for p in parts)


def has_tensors(index: Any) -> bool:
    """Whether an index has tensors as parts."""
    return type(index) is tuple and any(isinstance(p, Tensor) for p in index)


def without_ranges(base: Any, index: Any) -> Any:
    """`e[torch.arange(len(e)), t]` without the range: all rows."""
    if not isinstance(base, Tensor) or not has_tensors(index) or base.dim() < len(index):
        return index
    tensors = [(i, p) for i, p in enumerate(index) if isinstance(p, Tensor)]
    if len(tensors) > 1 or any(p is None or p is Ellipsis for p in index):
        return index
    at, rows = tensors[0]
    with torch_private.DisableTorchFunction():
        is_range = rows.dim() == 1 and rows.dtype == torch.int64 and len(rows) == base.shape[at]
        if not is_range or not torch.equal(rows, torch.arange(len(rows))):
            return index
    return (*index[:at], slice(None), *index[at + 1 :])


def place(parts: Parts, index: Any) -> int | None:
    """The position of the moving part in an index of numbers; None if the index has another
    form."""
    given = index if type(index) is tuple else (index,)
    if has_tensors(index) and len(parts) <= len(given):  # the rest indexes the element
        value = given[len(parts) - 1]
        is_split = parts[-1][0] == "index" and all(p[0] == "slice" for p in parts[:-1])
        return value if is_split and type(value) is int else None
    if len(given) != len(parts):
        return None
    found = None
    for p, value in zip(parts, given, strict=True):
        if p[0] in ("index", "gather"):
            if type(value) is not int or (len(p) == 3 and value != p[2]):
                return None
            found = value
        elif p[0] == "piece":
            if type(value) is not slice or type(value.start) is not int:
                return None
            if type(value.stop) is not int or value.stop - value.start != p[2]:
                return None
            found = value.start
        elif p[0] == "slice" and type(value) is slice:
            if (value.start, value.stop, value.step) != p[1:]:
                return None
        elif _part(value) != p:
            return None
    return found


@functools.lru_cache(maxsize=1024)
def _axis_of_part(parts: Parts, n_axes: int) -> int | None:
    """The axis of an index that moves by one and leaves all of the other axes; None of others."""
    at = next((i for i, p in enumerate(parts) if p == ("index", 1)), None)
    if at is None or any(p not in _WHOLE for i, p in enumerate(parts) if i != at):
        return None
    behind = parts[at + 1 :] if (Ellipsis,) in parts[:at] else None
    axis = at if behind is None else n_axes - 1 - len(behind)
    n_named = sum(p != (Ellipsis,) for p in parts)
    return axis if axis >= 0 and n_named <= n_axes else None


def part_at(base: Any, parts: Parts, first: int, n: int) -> Tensor | None:
    """The elements of some iterations, as `WindowOf` reads them, of a plain index x[:, t]."""
    if not isinstance(base, Tensor):
        return None
    axis = _axis_of_part(parts, base.dim())
    if axis is None or first < 0 or first + n > base.shape[axis]:
        return None
    return part_of(base, axis, first, n)


class WindowOf:
    """The elements of some iterations: `base[…, first + step · i, …]` for i in 0 … n − 1.

    numbers: their places, if these are not an arithmetic sequence.
    """

    def __init__(
        self, base: Any, parts: Parts, first: int, n: int, numbers: list[int] | None = None
    ):
        self.base, self.parts, self.n = base, parts, n
        at = next(i for i, p in enumerate(parts) if p[0] in _MOVING)
        self.piece = parts[at][2] if parts[at][0] == "piece" else None
        self.gathers = numbers
        if numbers is not None:
            if not isinstance(base, Tensor) or not all(type(i) is int for i in numbers):
                raise NoStep(f"an index of a {type(base).__name__}")
            self.step, first, self.last = 1, min(numbers), max(numbers)
        else:
            self.step, self.last = parts[at][1], first + parts[at][1] * (n - 1)
        self.first = first
        if not isinstance(base, Tensor):
            if len(parts) != 1 or self.piece is not None:
                raise NoStep(f"an index of a {type(base).__name__}")
            self.numbers: Sequence[int] = [first] * n
            if self.step:
                self.numbers = range(first, self.last + (1 if self.step > 0 else -1), self.step)
            is_list = isinstance(base, (list, tuple))
            if is_list and not -len(base) <= min(self.numbers) <= max(self.numbers) < len(base):
                raise NoStep("an index beyond the end of a list")
            return
        whole = base.dim() - sum(p[0] is not None and p[0] is not Ellipsis for p in parts)
        if whole < 0:
            raise NoStep("an index with more parts than the tensor has axes")
        dim = axis = 0
        for p in parts[:at]:
            if p[0] is Ellipsis:
                dim, axis = dim + whole, axis + whole
            elif p[0] is None:
                axis += 1
            else:
                dim, axis = dim + 1, axis + (p[0] == "slice")
        self.axis, size = axis, base.shape[dim]
        low, high = sorted((first, self.last))
        if high < 0 and self.piece is None:
            low, high = low + size, high + size
        if low < 0 or high + (self.piece or 1) > size:
            raise NoStep("an index beyond the end of a tensor")
        index: list[Any] = []
        for p in parts:
            if p[0] == "gather":
                index.append(torch.tensor(numbers))
            elif p[0] in _MOVING:
                index.append(slice(low, high + (self.piece or 1), None))
            elif p[0] == "slice":
                index.append(slice(*p[1:]))
            else:
                index.append(p[1] if p[0] == "number" else p[0])
        self.index = tuple(index)

    def read(self) -> Tensor:
        """The elements, `[n, …]`."""
        if not isinstance(self.base, Tensor):
            if not isinstance(self.base, (list, tuple)):
                raise NoStep(f"an element of a {type(self.base).__name__}")
            return stacked([self.base[i] for i in self.numbers])
        whole = self.base[self.index]
        if self.gathers is not None:
            return whole.movedim(self.axis, 0)
        stride = abs(self.step)
        if self.piece is not None:
            whole = whole.unfold(self.axis, self.piece, stride).movedim(-1, self.axis + 1)
        elif stride > 1:
            index = (slice(None),) * self.axis + (slice(None, None, stride),)
            whole = whole[index]
        found = whole.movedim(self.axis, 0)
        if not stride:
            return found.expand(self.n, *found.shape[1:])
        return found.flip(0) if self.step < 0 else found

    def write(self, values: Tensor) -> None:
        """Write `[n, …]` into a tensor, as single assignments would."""
        if self.step < 0:
            values = values.flip(0)
        stride = abs(self.step)
        if self.piece is not None and self.piece > 1:
            pieces = self.base[self.index].unfold(self.axis, self.piece, stride)
            target = pieces.movedim(-1, self.axis + 1).movedim(self.axis, 0)
            missing = target.dim() - values.dim()
            target.copy_(values.reshape(len(values), *[1] * missing, *values.shape[1:]))
            return
        index = list(self.index)
        at = next(i for i, p in enumerate(self.parts) if p[0] in ("index", "piece"))
        if stride > 1:
            index[at] = slice(index[at].start, index[at].stop, stride)
        if self.piece is not None and values.dim() - 1 >= self.base.dim():
            values = values.select(1 + self.axis, 0)
        target = self.base[tuple(index)]
        missing = target.dim() - values.dim()
        if missing > 0:
            values = values.reshape(values.shape[0], *[1] * missing, *values.shape[1:])
        elif missing < 0:  # further axes of 1, which an assignment drops
            values = values.reshape(values.shape[0], *values.shape[1 - missing :])
        self.base[tuple(index)] = values.movedim(0, self.axis)


def is_filled(base: Tensor, parts: Parts, value: Tensor) -> bool:
    """Whether a value is written into an element of its own shape."""
    with torch_private.disable_current_modes(), torch_private.DisableTorchFunction():
        element = WindowOf(base, parts, 0, 1).read().shape[1:]
    return value.dim() == len(element) and all(
        n != 1 or m == 1 for n, m in zip(value.shape, element, strict=True)
    )


def moving(index: Any) -> Any:
    """The loop's variable in an index, or a number computed from it."""
    for p in index if type(index) is tuple else (index,):
        if isinstance(p, Number):
            return p
        if type(p) is slice and type(p.start) is Index:
            return p.start
    raise AssertionError("an index that does not move")


def at_iteration(index: Any, number: Callable[[Any], Any]) -> Any:
    """An index with a number for each expression of the loop's variable."""
    if type(index) is tuple:
        return tuple([at_iteration(p, number) for p in index])
    if type(index) is slice:
        return slice(*[at_iteration(p, number) for p in (index.start, index.stop, index.step)])
    return number(index._key) if isinstance(index, Number) else index


def with_item(index: Sequence[Any], item: Any) -> Any:
    """An index in which paths lead to the numbers of an item; None if one of them is no number."""
    parts = []
    for p in index:
        value = p
        if type(p) is tuple:
            value = item
            for i in p:
                value = value[i] if type(value) is tuple else None
            if type(value) is not int:
                return None
        parts.append(value)
    return parts[0] if len(parts) == 1 else tuple(parts)


def keyed(index: Any) -> Any:
    """An index with the expressions of the loop's variable in it, to be compared."""
    return at_iteration(index, lambda key: key)


def of_call(name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The tensor and the index of a call that selects elements; None of other calls."""
    if name == "__getitem__":
        return arguments[0], arguments[1]
    names = _SELECTING.get(name)
    base = arguments[0] if arguments else named.get("input")
    if names is None or not isinstance(base, Tensor):
        return None
    given = dict(zip(names, arguments[1:], strict=False)) | named
    if (given.keys() - {"input"}) != {*names} or type(given["dim"]) is not int:
        return None
    if "start" in given:
        given["index"] = slice(given["start"], given["start"] + given["length"])
    return base, (*[slice(None)] * (given["dim"] % base.dim()), given["index"])


def gathered(parts: Parts) -> Any:
    """The expression of an index that does not move by a constant; else None."""
    return next((p[1] for p in parts if p[0] == "gather"), None)


def step_of(parts: Parts) -> int:
    """By how much the moving part of an index moves in an iteration."""
    return next(p for p in parts if p[0] in ("index", "piece"))[1]


def are_apart(a: Parts, b: Parts) -> bool:
    """Whether elements of two indices are never the same: they differ in a constant number."""
    return len(a) == len(b) and any(
        p[0] == q[0] == "number" and p[1] != q[1] for p, q in zip(a, b, strict=True)
    )


class Known:
    """The identity of a base; it holds the memory, but not autograd's graph."""

    base: weakref.ref[Tensor] | None
    like: Tensor

    def __init__(self, base: Any):
        self.number, self.base = id(base), None
        if isinstance(base, Tensor):
            self.base, self.like = weakref.ref(base), base.detach()

    def is_same(self, other: Any) -> bool:
        """Whether it is of this base, or of a view of the same elements."""
        if self.base is None:
            return self.number == (other.number if isinstance(other, Known) else id(other))
        if isinstance(other, Known):
            other = other.like if other.base is not None else None
        if not isinstance(other, Tensor):
            return False
        with torch_private.DisableTorchFunction():
            return self.base() is other or _facts(self.like) == _facts(other)


def is_same(a: Any, b: Any) -> bool:
    """Whether two bases are one object, or views of the same elements."""
    if a is b:
        return True
    if isinstance(a, Known) or isinstance(b, Known):
        return a.is_same(b) if isinstance(a, Known) else b.is_same(a)
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return False
    with torch_private.DisableTorchFunction():  # hidden from the recording of the step
        return a.requires_grad == b.requires_grad and _facts(a) == _facts(b)


def _facts(t: Tensor) -> Any:
    return t.shape, t.stride(), t.dtype, address_of(t)
