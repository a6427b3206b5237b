"""The outputs of an iteration: values appended to lists, and elements written into tensors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ostinato.loops.iteration.nostep import ListRead, NoStep
from ostinato.loops.iteration.prefixes import Prefix, as_prefix, placed

JOINING = (torch.cat, torch.concat, torch.concatenate)
READ = "an iteration reads a list that iterations append to"


class Fresh(list[Any]):
    """Replaces a list in a step: it is empty, and records what is appended.

    Only its last items can be read, by `[-1]` and the like; they become state.
    """

    def __init__(
        self, past: Callable[[int], Any] | None = None, before: Callable[[], Any] | None = None
    ) -> None:
        """past: gives the k-th last item that the list held before the iteration; before: gives
        its length then, as a number that is another in each iteration."""
        super().__init__()
        self.noted: list[tuple[str, Any]] = []
        self.past, self.before = past, before

    def length(self) -> Any:
        """The number of items of the list, another in each iteration."""
        if self.before is None:
            raise ListRead(READ)
        return self.before() + len(self.noted)

    def __bool__(self) -> bool:
        return bool(self.noted) or self.length() > 0

    def appended(self) -> list[Any]:
        return [value for _, value in self.noted]

    def __getitem__(self, at: Any) -> Any:
        return self.last(at)

    def last(self, at: Any) -> Any:
        """The items at a number below zero, or from one on."""
        is_end = type(at) is slice and at.stop is None and at.step in (None, 1)
        if is_end and type(at.start) is int and at.start < 0:
            return [self.last(i) for i in range(at.start, 0)]
        if type(at) is not int or at >= 0 or self.past is None:
            raise ListRead(READ)
        if any(how != "append" for how, _ in self.noted):
            raise ListRead(READ)
        appended = self.appended()
        return appended[at] if -at <= len(appended) else self.past(-at - len(appended))

    @staticmethod
    def is_item(parts: Any) -> bool:
        """Whether an index that moves with the loop is that of an item."""
        return parts == (("index", 1),)

    def item(self, at: int) -> Any:
        """The item at a number below zero."""
        return self[at]

    def are_items(self) -> bool:
        """Whether each value that was appended is one item."""
        return True

    def append(self, value: Any) -> None:
        self.noted.append(("append", value))

    def extend(self, values: Any) -> None:
        """Note the values of a list."""
        if not isinstance(values, (list, tuple)):
            raise NoStep("an iteration extends a list by something other than a list")
        self.noted += [("append", v) for v in values]

    def insert(self, at: Any, value: Any) -> None:
        """Note a value that is put first."""
        if type(at) is not int or at != 0:
            raise NoStep("an iteration inserts into a list at another place than 0")
        self.noted.append(("insert", value))

    def __iadd__(self, values: Any) -> Any:  # type: ignore[misc]
        self.extend(values)
        return self

    def _read(self, *arguments: Any, **named: Any) -> Any:
        raise ListRead(READ)

    def __iter__(self) -> Any:
        if str(sys._getframe(1).f_globals.get("__name__")).startswith("ostinato.compiler"):
            return iter(())  # for the check for side effects
        raise ListRead(READ)

    __setitem__ = __delitem__ = __len__ = __contains__ = _read
    __add__ = __radd__ = __mul__ = __rmul__ = __imul__ = __eq__ = __ne__ = __lt__ = __le__ = _read
    __gt__ = __ge__ = __reversed__ = __reduce_ex__ = _read
    pop = remove = clear = index = count = sort = reverse = copy = _read
    __repr__ = __str__ = object.__repr__


@dataclass(frozen=True)
class WholeList:
    """A list that iterations append to, read as one tensor, `torch.stack(outs, 1)`.

    Its state is a tensor with room for all items, whose first axis is never that of the items: it
    may be the batch. Where there is no item yet, there is a copy of the first one.
    """

    m: int  # the number of the list
    is_stack: bool  # else torch.cat, of items of length one
    axis: int

    def piece(self, item: Any) -> Tensor:
        """An item as a part of the state."""
        if not isinstance(item, Tensor) or type(item) is Prefix:
            raise ListRead(READ)
        item = item.unsqueeze(self.axis) if self.is_stack else item
        if not self.is_stack and item.shape[self.axis] != 1:
            raise ListRead(READ)
        return item.movedim(self.axis, self.at(item))

    def at(self, whole: Tensor) -> int:
        """The axis of the items in the state."""
        return max(self.axis, 1) if whole.dim() > 1 else self.axis

    def room(self, items: list[Any], n: int) -> Tensor:
        """The state with these items, and room for n more."""
        pieces = [self.piece(item) for item in items]
        if not pieces or len({(p.shape, p.dtype) for p in pieces}) > 1:
            raise ListRead(READ)
        return torch.cat([*pieces, *[pieces[0].detach()] * n], self.at(pieces[0]))

    def with_item(self, whole: Tensor, number: Any, item: Any) -> Tensor:
        """The state with one more item; number: how many there were."""
        piece, at = self.piece(item), self.at(whole)
        if piece.dtype != whole.dtype or piece.dim() != whole.dim():
            raise ListRead(READ)
        numbers = [number if axis == at else None for axis in range(whole.dim())]
        return torch.where(placed(whole, [None] * whole.dim(), numbers), piece, whole)

    def tensor(self, whole: Tensor, length: Any) -> Tensor:
        """The tensor that the body gets."""
        ends = [None] * whole.dim()
        ends[self.axis] = length
        return as_prefix(whole.movedim(self.at(whole), self.axis), tuple(ends))


class FreshPieces(Fresh):
    """Replaces a tensor in a step that only makes it longer, along `axis` of `n_axes`.

    Its last elements along the axis can be read.
    """

    def __init__(self, axis: int, n_axes: int, past: Any, before: Any) -> None:
        super().__init__(past, before)
        self.axis, self.n_axes = axis, n_axes

    def are_items(self) -> bool:
        return all(p.shape[self.axis] == 1 for p in self.appended())

    def is_item(self, parts: Any) -> bool:  # type: ignore[override]
        others = (*parts[: self.axis], *parts[self.axis + 1 :])
        is_axis = len(parts) > self.axis and parts[self.axis] == ("index", 1)
        return is_axis and all(p == ("slice", None, None, None) for p in others)

    def item(self, at: int) -> Any:
        return self.last(at).select(self.axis, 0)

    def __getitem__(self, index: Any) -> Any:
        """The last elements: `x[:, -1]`, `x[:, -k:]`, and indices of these."""
        parts = index if type(index) is tuple else (index,)
        at = next((i for i, p in enumerate(parts) if p is Ellipsis), None)
        if at is not None:
            missing = self.n_axes - len(parts) + 1
            parts = (*parts[:at], *[slice(None)] * missing, *parts[at + 1 :])
        kinds = {type(p) for p in parts}
        if len(parts) <= self.axis or not kinds <= {int, slice} or not self.are_items():
            raise ListRead(READ)
        last = parts[self.axis]
        if type(last) is int:
            if last >= 0:
                raise ListRead(READ)
            whole, last = self.last(last), 0
        else:
            whole, last = torch.cat(self.last(last), self.axis), slice(None)
        within = *parts[: self.axis], last, *parts[self.axis + 1 :]
        return whole[within]

    def _hidden(self, *arguments: Any) -> Any:
        raise ListRead(READ)

    __bool__ = _hidden


class Growing:
    """A tensor that a loop makes longer, as a list of its elements along an axis."""

    def __init__(self, tensor: Tensor | None, axis: int, n_axes: int = 0, length: int = 0):
        self.tensor = tensor
        if tensor is not None:
            n_axes = tensor.dim()
            length = tensor.shape[axis]
        self.axis, self.n_axes, self.length = axis % max(n_axes, 1), n_axes, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, at: slice) -> list[Tensor]:
        numbers = range(self.length)[at]
        assert self.tensor is not None
        return [self.tensor.narrow(self.axis, i, 1) for i in numbers]

    def let_go(self) -> Growing:
        """The same without the tensor."""
        return Growing(None, self.axis, self.n_axes, self.length)

    def add(self, pieces: list[tuple[str, Tensor]]) -> None:
        """Add what the iterations of a scan appended or put first, each `[n, …]`."""
        if not pieces:
            return
        axis = self.axis
        after = [p for how, p in pieces if how == "append"]
        before = [p.flip(0) for how, p in reversed(pieces) if how == "insert"]
        both = [
            torch.cat(of, axis + 1).movedim(0, axis).flatten(axis, axis + 1) if of else None
            for of in (before, after)
        ]
        self.tensor = torch.cat([t for t in (both[0], self.tensor, both[1]) if t is not None], axis)

    def whole(self) -> Tensor:
        assert self.tensor is not None
        return self.tensor


def as_growing(value: Any, axis: int) -> Any:
    """A tensor with this axis as one that becomes longer."""
    is_one = type(value) is Tensor and -value.dim() <= axis < value.dim()
    return Growing(value, axis) if is_one else value


def fresh_of(of: Any, past: Any, before: Any) -> Fresh:
    """What replaces a list, or a tensor that becomes longer, in a step."""
    if isinstance(of, Growing):
        return FreshPieces(of.axis, of.n_axes, past, before)
    return Fresh(past, before)


class Added:
    """Replaces a scalar that iterations only add to: it records the summands."""

    def __init__(self) -> None:
        self.added: list[Any] = []


def tensors_in(spec: Any) -> int:
    """The number of tensors in a structure."""
    if spec == "tensor":
        return 1
    if spec[0] == "number":
        return 0
    if len(spec) > 1 and isinstance(spec[-1], tuple) and spec[0] not in (torch.Size,):
        return sum(map(tensors_in, spec[-1]))
    if len(spec) == 4:
        return sum(map(tensors_in, spec[2]))
    return 0
