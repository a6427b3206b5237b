"""The definition of `scan`: a plain loop in PyTorch; and checks of tensors, carries and outputs.

A row is *alive* at time step t if t < lengths[row].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ostinato import tree

Tree = Any  # a tensor, or any tuple, list or dict of trees
Step = Callable[[Tree, Tree], Any]


def eager_scan(
    step: Step,
    init: Tree,
    xs: Tree,
    dim: int,
    reverse: bool,
    ragged: RowSpans,
    truncate: int | None = None,
) -> tuple[Tree, Tree]:
    """Run `step` in a plain Python loop: the definition of scan.

    Every faster path is compared with it.

    Args:
        step, init, xs, dim, reverse, truncate: as for `scan`.
        ragged: lengths, resets and restart of `scan`, checked.

    Returns:
        `(carry, ys)` as `scan` returns them.

    Raises:
        TypeError, ValueError: a result of the step does not fit `init`, `dim` or earlier results.
    """
    init_leaves, carry_spec = tree.flatten(init)
    xs_leaves, xs_spec = tree.flatten(xs)
    n_steps = ragged.n_steps
    xs_leaves = ragged.select_valid(xs_leaves, dim)
    carry_leaves: list[Tensor] = init_leaves
    taken = ragged.taken_first(init_leaves)
    outputs: list[list[Tensor]] = [[] for _ in range(n_steps)]
    output_spec: Any = ()  # before the first step: equal to no structure
    for t in reversed(range(n_steps)) if reverse else range(n_steps):
        between = t + 1 if reverse else t  # the carry lies before this element
        if truncate and 0 < between < n_steps and between % truncate == 0:
            carry_leaves = ragged.detached(carry_leaves, between)
        before = taken = ragged.taken(ragged.restarted(carry_leaves, t), taken, t)
        x = tree.unflatten([leaf.select(dim, t) for leaf in xs_leaves], xs_spec)
        result = step(tree.unflatten(before, carry_spec), x)
        after, y = split_result(result, init, carry_spec)
        check_carry(init_leaves, after)
        y_leaves, spec = tree.flatten(y)
        check_output_axes(y_leaves, dim)
        if output_spec not in ((), spec):
            raise TypeError(
                f"scan: the output of step at t={t} has the structure {spec}, earlier steps had "
                f"{output_spec}; every step must return the same structure"
            )
        output_spec = spec
        carry_leaves = ragged.kept(after, carry_leaves, t)
        outputs[t] = ragged.silenced(y_leaves, t)
    ys = [torch.stack(leaf_over_time, dim) for leaf_over_time in zip(*outputs, strict=True)]
    return tree.unflatten(carry_leaves, carry_spec), tree.unflatten(ys, output_spec)


def split_result(result: Any, init: Tree, carry_spec: tree.Spec) -> tuple[list[Tensor], Tree]:
    """Take a step's result apart: (leaves of the new carry, output).

    Raises:
        TypeError: the result is neither structured like init nor a pair that begins so, or it
            contains an object that is not a tensor.
    """
    result = _in_order(result, init)
    leaves, spec = tree.flatten(result)
    if spec == carry_spec:
        check_tensors("the new carry that step returned", leaves)
        return leaves, result
    if isinstance(result, tuple) and len(result) == 2:
        carry, y = result
        carry = _in_order(carry, init)
        leaves, spec = tree.flatten(carry)
        if spec == carry_spec:
            check_tensors("the new carry that step returned", leaves)
            y = () if y is None else y
            check_tensors("the output that step returned", tree.leaves(y))
            return leaves, y
    raise TypeError(
        f"scan: step returned {describe(result)}; wanted the new carry, structured like init "
        f"({describe(init)}), or a pair (new carry, output)"
    )


def _in_order(carry: Any, init: Tree) -> Any:
    """The carry with the keys of its dicts in init's order."""
    if isinstance(init, dict) and isinstance(carry, dict) and carry.keys() == init.keys():
        return type(carry)((key, _in_order(carry[key], init[key])) for key in init)
    if not isinstance(init, (tuple, list)) or type(carry) is not type(init):
        return carry
    if len(carry) != len(init) or all(isinstance(part, Tensor) for part in init):
        return carry
    parts = [_in_order(part, of) for part, of in zip(carry, init, strict=True)]
    return type(carry)(*parts) if hasattr(carry, "_fields") else type(carry)(parts)


def check_output_axes(y_leaves: list[Tensor], dim: int) -> None:
    """Raise ValueError if an output has too few axes to put time at `dim`."""
    for y in y_leaves:
        if not -y.dim() - 1 <= dim <= y.dim():
            raise ValueError(
                f"scan: an output of step has shape {list(y.shape)}, which has no place for time "
                f"at dim={dim}; give it more axes, or put time first (dim=0)"
            )


def check_carry(init_leaves: list[Tensor], leaves: list[Tensor]) -> None:
    """Raise ValueError if the step changed the shape or dtype of a leaf of the carry."""
    for i, (old, new) in enumerate(zip(init_leaves, leaves, strict=True)):
        if old.shape != new.shape:
            raise ValueError(
                f"scan: step turned carry leaf {i} of shape {list(old.shape)} into one of shape "
                f"{list(new.shape)}; a carry keeps its shape (give init what step returns)"
            )
        if old.dtype != new.dtype:
            raise ValueError(
                f"scan: step turned carry leaf {i} of {old.dtype} into {new.dtype}; a carry keeps "
                f"its dtype (make init, xs and the parameters one dtype)"
            )


@dataclass(slots=True, eq=False)
class RowSpans:
    """Which rows are alive at time step t, and which restart before it: `lengths` and `resets`."""

    lengths: Tensor | None  # [B] int64
    starts: Tensor | None  # [T, B] bool: the row restarts before step t
    restart_leaves: list[Tensor]  # [B, …] like the leaves of init; none without resets
    n_steps: int

    @staticmethod
    def of(
        init: Tree,
        init_leaves: list[Tensor],
        n_steps: int,
        lengths: Tensor | list[int] | None,
        resets: Tensor | None,
        restart: Tree | None,
        reverse: bool,
    ) -> RowSpans:
        """Check lengths, resets and restart once, so that the loop can trust them.

        Raises:
            TypeError, ValueError: one of them, or init, has the wrong shape, dtype or values.
        """
        n_rows = init_leaves[0].shape[0] if init_leaves[0].dim() else 0
        if not all(leaf.dim() and leaf.shape[0] == n_rows for leaf in init_leaves):
            raise ValueError(
                "scan: with lengths or resets every leaf of init needs the rows of the batch as "
                f"its first axis; init is {describe(init)}"
            )
        device = init_leaves[0].device
        if lengths is not None:
            lengths = _check_lengths(lengths, n_rows, n_steps).to(device)
        if resets is None:
            if restart is not None:
                raise ValueError("scan: restart= was given without resets=, so it would do nothing")
            return RowSpans(lengths, None, [], n_steps)
        starts = _check_resets(resets, n_rows, n_steps).clone().to(device)
        if lengths is not None:  # marks in the padding are ignored
            starts = starts & (torch.arange(n_steps, device=device)[:, None] < lengths)
        if reverse:  # a segment that begins at t is left between the steps t and t−1
            starts = torch.cat([starts[1:], torch.zeros_like(starts[:1])])
        if restart is None:
            return RowSpans(
                lengths, starts, [torch.zeros_like(leaf) for leaf in init_leaves], n_steps
            )
        restart_leaves, spec = tree.flatten(restart)
        if spec != tree.flatten(init)[1]:
            raise ValueError(
                f"scan: restart is {describe(restart)}; wanted init's structure, {describe(init)}"
            )
        fits = [_broadcast(r, leaf) for r, leaf in zip(restart_leaves, init_leaves, strict=True)]
        return RowSpans(lengths, starts, fits, n_steps)

    def between(self, begin: int, end: int) -> RowSpans:
        """The spans within the steps begin ≤ t < end."""
        n = end - begin
        lengths = None if self.lengths is None else (self.lengths - begin).clamp(0, n)
        starts = None if self.starts is None else self.starts[begin:end]
        return RowSpans(lengths, starts, self.restart_leaves, n)

    def select_valid(self, xs_leaves: list[Tensor], dim: int) -> list[Tensor]:
        """xs with the padding of each row replaced by the last valid element of that row.

        Multiplying by a mask would not do, since padding may be NaN, and 0 · NaN makes gradients
        NaN. Zeros would not do either, since a step may divide by x.
        """
        if self.lengths is None:
            return xs_leaves
        last = (self.lengths - 1).clamp(min=0)
        steps = torch.arange(self.n_steps, device=last.device)
        index = torch.minimum(steps[:, None], last)  # [T, B]
        if not bool((self.lengths > 0).any()):
            nothing = torch.ones((), dtype=torch.bool, device=last.device)
            return [leaf.masked_fill(nothing, 0) for leaf in xs_leaves]
        rows = self._with_steps(self.lengths)
        index = index[:, rows]
        selected = []
        for i, leaf in enumerate(xs_leaves):
            by_time = leaf.movedim(dim, 0)
            if by_time.dim() < 2 or by_time.shape[1] != len(last):
                raise ValueError(
                    f"scan: with lengths, every leaf of xs needs the {len(last)} rows of the batch "
                    f"as its first axis beside time; leaf {i} has shape {list(leaf.shape)}"
                )
            selected.append(by_time[index, rows].movedim(0, dim))
        return selected

    def restarted(self, carry: list[Tensor], t: int) -> list[Tensor]:
        """The carry before step t, with the restart value in rows that restart there."""
        if self.starts is None:
            return carry
        return chosen(self.starts[t], self.restart_leaves, carry)

    def taken_first(self, init: list[Tensor]) -> list[Tensor]:
        """The carry that `taken` gives to rows that have not had a step: init."""
        if self.lengths is None:
            return init
        rows = self._with_steps(self.lengths)
        return [leaf[rows] for leaf in init]

    @staticmethod
    def _with_steps(lengths: Tensor) -> Tensor:
        """The number of each row; of a row of length 0 that of the longest row, in its place."""
        rows = torch.arange(len(lengths), device=lengths.device)
        return torch.where(lengths > 0, rows, lengths.argmax())

    def taken(self, carry: list[Tensor], before: list[Tensor], t: int) -> list[Tensor]:
        """The carry that is handed to the step at time t.

        A row that is not alive gets once more the carry from before its last step.
        Its present carry may be a pole of the step, and 0 · inf makes gradients NaN.

        Args:
            carry: the carry of all rows now.
            before: the carry that was handed to the previous step.
        """
        return carry if self.lengths is None else chosen(t < self.lengths, carry, before)

    def kept(self, after: list[Tensor], before: list[Tensor], t: int) -> list[Tensor]:
        """The carry after step t: the new one in rows that are alive, the old one elsewhere."""
        return after if self.lengths is None else chosen(t < self.lengths, after, before)

    def detached(self, carry: list[Tensor], border: int) -> list[Tensor]:
        """The carry between the steps border − 1 and border, where gradients stop.

        In rows that have ended before, or in reverse have not begun, gradients go on.
        """
        stopped = [leaf.detach() for leaf in carry]
        return stopped if self.lengths is None else chosen(self.lengths > border, stopped, carry)

    def silenced(self, ys: list[Tensor], t: int) -> list[Tensor]:
        """The outputs of step t, with zeros in rows that are not alive."""
        if self.lengths is None:
            return ys
        alive = t < self.lengths
        for y in ys:
            if not y.dim() or len(y) != len(alive):
                raise ValueError(
                    f"scan: with lengths every output of step needs the {len(alive)} rows of the "
                    f"batch as its first axis; one has shape {list(y.shape)}"
                )
        return chosen(alive, ys, [torch.zeros_like(y) for y in ys])


def chosen(rows: Tensor, these: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    """Leaves `[B, …]` with the rows `[B]` of these, and all other rows of the others."""
    pairs = zip(these, others, strict=True)
    return [torch.where(rows_like(rows, leaf), leaf, other) for leaf, other in pairs]


def rows_like(rows: Tensor, leaf: Tensor) -> Tensor:
    """A mask `[B]`, reshaped to `[B, 1, …]`, which broadcasts over a leaf `[B, …]`."""
    return rows.reshape(-1, *[1] * (leaf.dim() - 1))


def _broadcast(value: Tensor, leaf: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.dtype != leaf.dtype:
        raise ValueError(
            f"scan: restart has {describe(value)} where init has {describe(leaf)}; "
            "wanted the same dtype"
        )
    try:
        return value.expand_as(leaf)
    except RuntimeError:
        raise ValueError(
            f"scan: restart has a leaf of shape {list(value.shape)} where init has "
            f"{list(leaf.shape)}; wanted the same shape, or one that broadcasts to it"
        ) from None


def _check_lengths(lengths: Tensor | list[int], n_rows: int, n_steps: int) -> Tensor:
    given = as_tensor("scan: lengths", lengths, f"{n_rows} integers, one for each row")
    if not is_integer(given.dtype) or given.shape != (n_rows,):
        raise ValueError(
            f"scan: lengths is {describe(given)}; wanted {n_rows} integers, one for each row"
        )
    numbers = integers_of(given)  # comparing Python integers takes 1 µs, comparing tensors 20 µs
    if numbers and not 0 <= min(numbers) <= max(numbers) <= n_steps:
        row = next(row for row, n in enumerate(numbers) if not 0 <= n <= n_steps)
        raise ValueError(
            f"scan: lengths[{row}] is {numbers[row]}; wanted 0 to {n_steps}, the steps of xs"
        )
    # Copied, since the caller may overwrite the tensor before the backward pass.
    return given.to(torch.int64, copy=True)


def _check_resets(resets: Tensor, n_rows: int, n_steps: int) -> Tensor:
    given = as_tensor("scan: resets", resets, f"bool of shape [{n_steps}, {n_rows}]")
    if given.dtype != torch.bool or given.shape != (n_steps, n_rows):
        raise ValueError(
            f"scan: resets is {describe(given)}; wanted bool of shape [{n_steps}, {n_rows}] "
            "(time, batch)"
        )
    return given


def integers_of(t: Tensor) -> list[int]:
    """The integers of a tensor `[N]`."""
    try:
        return t.tolist()
    except RuntimeError:  # PyTorch 2.6, if a transform of torch.func wraps the tensor
        return [int(n) for n in t]


def as_tensor(name: str, value: Any, wanted: str) -> Tensor:
    """`value`, which may be any object, as a tensor on the CPU.

    Raises:
        TypeError: it is not a tensor; `name` and `wanted` are words for the message.
    """
    try:
        return torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} is {describe(value)}; wanted {wanted}") from None


def is_integer(dtype: torch.dtype) -> bool:
    """Whether a dtype holds integers; bool does not."""
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def time_length(xs_leaves: list[Tensor], dim: int) -> int:
    """T, the number of time steps.

    Raises:
        ValueError: a leaf has no axis `dim`, leaves differ in T, or T is 0.
    """
    shape = xs_leaves[0].shape
    if len(xs_leaves) == 1 and dim == 0 and shape and shape[0]:
        return shape[0]
    sizes = []
    for leaf in xs_leaves:
        if not -leaf.dim() <= dim < leaf.dim():
            raise ValueError(
                f"scan: dim={dim} names no axis of a leaf of xs with shape {list(leaf.shape)}"
            )
        sizes.append(leaf.shape[dim])
    if len(set(sizes)) > 1:
        raise ValueError(
            f"scan: the leaves of xs have {sizes} steps along dim={dim}; wanted the same for all"
        )
    if sizes[0] == 0:
        raise ValueError(
            f"scan: xs has no steps (dim={dim} is empty); wanted at least one, "
            "since the outputs of an empty sequence have no shape"
        )
    return sizes[0]


def check_tensors(name: str, leaves: list[Any]) -> None:
    """Raise TypeError if a leaf is not a tensor, or there is none (an output may have none)."""
    if not leaves and name != "the output that step returned":
        raise TypeError(f"scan: {name} is empty; wanted a tensor, or a tuple, list or dict of them")
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise TypeError(
                f"scan: {name} contains {type(leaf).__name__}; wanted tensors only "
                "(a tensor, or a tuple, list or dict of them)"
            )


def describe(tree: Tree) -> str:
    """A value in a few words, for error messages: tensors as dtype[shape], structures in full."""
    if isinstance(tree, Tensor):
        return f"{str(tree.dtype).removeprefix('torch.')}{list(tree.shape)}"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{k!r}: {describe(v)}" for k, v in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(describe, tree)) + "]"
    if isinstance(tree, tuple):
        return "(" + ", ".join(map(describe, tree)) + ("," if len(tree) == 1 else "") + ")"
    return f"a {type(tree).__name__}"
