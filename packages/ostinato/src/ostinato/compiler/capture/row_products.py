"""Products of captured rows alone: `self.Ua(encoded)`, as a decoder computes in its step.

Every step would compute the same values. So PyTorch computes them once a call, as written; for the
step they are further captured tensors with a row for each row of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ostinato import tree
from ostinato.compiler.capture.captured_rows import PerRow, batch_first
from ostinato.compiler.capture.captures import swapped, version_of
from ostinato.compiler.errors import ANOTHER_COURSE, Unsupported

# Products by the names of functions and methods. None takes the batch size as an argument.
_PRODUCTS = {
    "linear",
    "matmul",
    "__matmul__",
    "__rmatmul__",
    "mm",
    "bmm",
    "einsum",
    "tensordot",
    "addmm",
    "baddbmm",
    "conv1d",
}
# Functions of one tensor that may be applied to the captured tensor before the product.
_THROUGH = {
    "__getitem__", "contiguous", "detach", "gelu", "permute", "relu", "select", "sigmoid", "silu",
    "squeeze", "swapaxes", "t", "tanh", "transpose", "unsqueeze",
}  # fmt: skip
# Arguments of these types can be compared with each other.
_PLAIN = (Tensor, int, float, str, slice, torch.dtype, type(None), type(...))


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
        made: what the step gets instead of each product, in order; None: compute it.

    Attributes:
        found, results: the products so far, and the tensors that the step got.
    """

    def __init__(
        self,
        old: list[Tensor],
        new: list[Tensor],
        functions: Any,
        per_row: PerRow,
        made: list[Tensor] | None,
    ):
        super().__init__(old, new, functions)
        self.made = made
        self.found: list[OnceProduct] = []
        self.results: list[Tensor] = []
        self.origins: dict[int, tuple[Origin, int | None]] = {}  # and the version
        self.rows = {id(new[of.position]) for of in per_row}
        self.between: list[Tensor] = []  # kept, as are all that are known by id
        for i, t in enumerate(new):
            self.note(t, Origin(i, False))

    def note(self, t: Tensor, origin: Origin) -> None:
        self.origins[id(t)] = origin, version_of(t)

    def origin(self, t: Tensor) -> Origin | None:
        """The origin of a tensor; None if it is of another kind, or the tensor was changed
        since."""
        origin, version = self.origins.get(id(t), (None, None))
        return origin if version == version_of(t) else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if self.left or not (name in _PRODUCTS or name in _THROUGH):
            return super().__torch_function__(func, types, args, kwargs)
        args, kwargs = self.replaced(args, kwargs)
        leaves = tree.leaves((args, kwargs))
        tensors = [t for t in leaves if isinstance(t, Tensor)]
        once = self.rows.intersection(map(id, tensors)) and all(map(self.origin, tensors))
        as_called = torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        if not (once and as_called and all(isinstance(leaf, _PLAIN) for leaf in leaves)):
            return super().__torch_function__(func, types, args, kwargs)
        of = self.origin(args[0]) if args and isinstance(args[0], Tensor) else None
        if name in _PRODUCTS:
            out = self.product(func, args, kwargs)
            self.note(out, Origin(len(self.results) - 1, True))
        else:
            out = super().__torch_function__(func, types, args, kwargs)
            if of is None or len(tensors) > 1 or out.is_inference():  # that has no version
                return out
            through = (*of.through, (func, args[1:], kwargs))
            self.note(out, Origin(of.number, of.is_product, through))
            self.between.append(out)
        self.rows.add(id(out))
        return out

    def check(self, products: Products) -> None:
        """Raise Unsupported if the step computes other products than those."""
        if [of[:3] for of in self.found] != [of[:3] for of in products]:
            raise Unsupported(ANOTHER_COURSE)

    def product(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """The result of a product of captured rows alone."""

        def origin(leaf: Any) -> Any:
            return self.origin(leaf) if isinstance(leaf, Tensor) else leaf

        out = func(*args, **kwargs) if self.made is None else self.made[len(self.found)]
        self.found.append(OnceProduct(func, *tree.mapped(origin, (args, kwargs))))
        self.results.append(out)
        return out


def common(runs: Sequence[RowProducts], batches: tuple[int, int]) -> Products:
    """The products that a step computes at both batch sizes, with their axes of the batch.

    () if the products differ between the two sizes, or one has no such axis, or has it in an
    unsupported place.
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
