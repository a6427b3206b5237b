"""Products of captured rows alone: `self.Ua(encoded)`, which a decoder writes into its step.

Every step would compute the same. So PyTorch computes them, once a call and as written; to the step
they are further captured tensors with a row for each of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ostinato import tree
from ostinato.compiler.capture.captured_rows import PerRow, batch_first
from ostinato.compiler.capture.captures import swapped
from ostinato.compiler.errors import ANOTHER_COURSE, Unsupported

# By their names as functions and as methods. No argument of theirs may be the batch size.
_PRODUCTS = {
    "linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "einsum", "tensordot", "addmm",
    "baddbmm", "conv1d",
}  # fmt: skip
# Functions of one tensor, through which a product may be given a captured one, or another product.
_THROUGH = {
    "__getitem__", "contiguous", "detach", "gelu", "permute", "relu", "select", "sigmoid", "silu",
    "squeeze", "swapaxes", "t", "tanh", "transpose", "unsqueeze",
}  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """In the arguments of a product: a captured tensor or an earlier product."""

    number: int
    is_product: bool
    through: tuple[Any, ...] = ()  # functions, with their arguments after the tensor


class OnceProduct(NamedTuple):
    """A call of torch; tensors among its arguments are origins, and axis is that of the batch."""

    func: Callable[..., Any]
    args: Any
    kwargs: Any
    axis: int = 0


Products = tuple[OnceProduct, ...]


def computed(products: Products, captured: Sequence[Tensor]) -> list[Tensor]:
    """The products, with the batch as their first axis."""
    made: list[Tensor] = []

    def tensor_of(leaf: Any) -> Any:
        if not isinstance(leaf, Origin):
            return leaf
        t = made[leaf.number] if leaf.is_product else captured[leaf.number]
        for func, args, kwargs in leaf.through:
            t = func(t, *args, **kwargs)
        return t

    for product in products:
        args, kwargs = tree.mapped(tensor_of, (product.args, product.kwargs))
        made.append(product.func(*args, **kwargs))
    return [batch_first(t, of.axis) for t, of in zip(made, products, strict=True)]


class RowProducts(swapped):
    """Finds the products of captured rows alone while a step runs.

    Args:
        new: replace the captured tensors, as for `swapped`.
        made: what is given to the step instead of each product, in their order; None computes it.

    Attributes:
        found, results: the products so far, and what the step was given.
    """

    def __init__(
        self, old: list[Tensor], new: list[Tensor], functions: Any, per_row: PerRow,
        made: list[Tensor] | None,
    ):  # fmt: skip
        super().__init__(old, new, functions)
        self.made = made
        self.found: list[OnceProduct] = []
        self.results: list[Tensor] = []
        self.origins = {id(t): Origin(i, False) for i, t in enumerate(new)}
        self.rows = {id(new[of.position]) for of in per_row}
        self.between: list[Tensor] = []  # kept, as are all that are known by id

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if self.left or not (name in _PRODUCTS or name in _THROUGH):
            return super().__torch_function__(func, types, args, kwargs)
        args, kwargs = self.replaced(args, kwargs)
        tensors = [t for t in tree.leaves((args, kwargs)) if isinstance(t, Tensor)]
        once = torch.is_grad_enabled() and self.rows.intersection(map(id, tensors))
        foreign = any(id(t) not in self.origins for t in tensors)
        first = args[0] if args else None
        if not once or foreign or (name in _THROUGH and any(t is not first for t in tensors)):
            return super().__torch_function__(func, types, args, kwargs)
        if name in _PRODUCTS:
            out = self.product(func, args, kwargs)
            origin = Origin(len(self.results) - 1, True)
        else:
            out = super().__torch_function__(func, types, args, kwargs)
            of = self.origins[id(first)]
            through = (*of.through, (func, args[1:], kwargs))
            origin = Origin(of.number, of.is_product, through)
            self.between.append(out)
        self.origins[id(out)] = origin
        self.rows.add(id(out))
        return out

    def check(self, products: Products) -> None:
        """Raise Unsupported where the step computes other products than those."""
        if [of[:3] for of in self.found] != [of[:3] for of in products]:
            raise Unsupported(ANOTHER_COURSE)

    def product(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """The result of a product of captured rows alone."""

        def origin(leaf: Any) -> Any:
            return self.origins[id(leaf)] if isinstance(leaf, Tensor) else leaf

        out = func(*args, **kwargs) if self.made is None else self.made[len(self.found)]
        self.found.append(OnceProduct(func, *tree.mapped(origin, (args, kwargs))))
        self.results.append(out)
        return out


def common(runs: Sequence[RowProducts], batches: tuple[int, int]) -> Products:
    """The products that a step computes at both batch sizes, with their axes of the batch.

    () if it computes others at the other one, or one that has no such axis, or has it in a place
    where none is taken.
    """
    small, large = runs
    if small.found != large.found:
        return ()
    axes: list[int] = []
    for a, b in zip(small.results, large.results, strict=True):
        both = list(zip(a.shape, b.shape, strict=False))
        differ = [i for i, (m, n) in enumerate(both) if m != n]
        if len(differ) != 1 or differ[0] > 1 or both[differ[0]] != batches:
            return ()
        axes += differ
    return tuple([of._replace(axis=axis) for of, axis in zip(small.found, axes, strict=True)])
