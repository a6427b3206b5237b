"""`scan`: one step, played over every element of a sequence."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ostinato.compiler import cache
from ostinato.compiler.function import Scan, play
from ostinato.compiler.graph import Unsupported
from ostinato.compiler.play import Rows
from ostinato.compiler.record import swapped, undisturbed

Tree = Any  # a tensor, or any tuple, list or dict of trees
Step = Callable[[Tree, Tree], Any]


def scan(
    step: Step,
    init: Tree,
    xs: Tree,
    *,
    dim: int = 0,
    reverse: bool = False,
    lengths: Tensor | list[int] | None = None,
    resets: Tensor | None = None,
    restart: Tree | None = None,
) -> tuple[Tree, Tree]:
    """Apply `step` to every element of a sequence, carrying a state from one to the next.

        carry_t, y_t = step(carry_{t-1}, x_t),   t = 0 … T−1,   carry_{−1} = init

    The signature follows PyTorch's prototype `scan` (combine_fn, init, xs, dim, reverse).

    Args:
        step: a pure function of the carry and one element of `xs`, batch first. If its result has
            the structure of `init` it is the new carry, and also the output; otherwise it is a
            pair (new carry, y), where y is a tensor or any structure of tensors.
        init: the first carry: a tensor `[B, …]`, or a tuple, list or dict of such.
        xs: the sequence: a tensor, or a structure of tensors, all of the same length T along `dim`
            (`[T, B, F]` for `dim=0`).
        dim: the axis of `xs` and of `ys` that is time.
        reverse: play from t = T−1 down to 0. `ys` stay in the order of `xs`.
        lengths: `[B]` integers in 0…T: row b has only the steps t < lengths[b]. Beyond, its carry
            stays, its outputs are zero, and nothing flows back from them.
        resets: `[T, B]` bool: marks the first element of a new segment within a row. Going forward
            the row restarts before t; in reverse, where the segment ends at t, before t−1.
        restart: the carry a row restarts from, shaped like `init` or broadcastable to it.
            Default: zeros.

    Returns:
        `(carry, ys)`: the carry after the last step, with the structure of `init`, and the outputs
        of all steps, stacked along `dim`.

    Raises:
        TypeError: `init`, `xs` or a result is not a structure of tensors; a result's structure is
            neither that of `init` nor a pair that begins with it.
        ValueError: the time axis is empty or its length differs between leaves of `xs`; the step
            changes the shape or dtype of the carry; lengths, resets or restart do not fit.

    Example:
        >>> import torch, ostinato
        >>> U, W, b = torch.randn(28, 128), torch.randn(128, 128) / 12, torch.zeros(128)
        >>> def rnn_step(s, x):
        ...     return torch.tanh(x @ U + s @ W + b)
        >>> last, states = ostinato.scan(rnn_step, torch.zeros(64, 128), torch.randn(28, 64, 28))
        >>> last.shape, states.shape
        (torch.Size([64, 128]), torch.Size([28, 64, 128]))
    """
    if "torch._dynamo" in sys.modules:  # inside torch.compile: a clean graph break
        return _untraced()(step, init, xs, dim, reverse, lengths, resets, restart)
    return _scan(step, init, xs, dim, reverse, lengths, resets, restart)


scan._torchdynamo_disable = True  # type: ignore[attr-defined]


@functools.cache
def _untraced() -> Any:
    import torch._dynamo

    return torch._dynamo.disable(_scan)


def _scan(
    step: Step,
    init: Tree,
    xs: Tree,
    dim: int,
    reverse: bool,
    lengths: Any,
    resets: Any,
    restart: Any,
) -> tuple[Tree, Tree]:
    _check_tensors("init", init)
    n_steps = _time_length(xs, dim)
    ragged = _Ragged.of(init, n_steps, lengths, resets, restart, reverse)
    engine = cache.engine()
    if engine != "eager":
        played = _played(step, init, xs, dim, reverse, ragged, engine)
        if played is not None:
            return played
    return _eager_scan(step, init, xs, dim, reverse, n_steps, ragged)


def _played(
    step: Step, init: Tree, xs: Tree, dim: int, reverse: bool, ragged: _Ragged, engine: str
) -> tuple[Tree, Tree] | None:
    """The scan by the engine; None if the eager loop must do it."""
    try:
        call, tensors, entry = _found(step, init, xs, dim, reverse, ragged, engine)
    except Unsupported:  # the tensors, not the step: a GPU, a transform
        return None
    if call is None:
        cache.refuse(step, entry.refusal)
        return None
    n_rows = tensors[-1].shape[1]
    if n_rows not in entry.verified:
        refusal = _differs(call, tensors)
        if refusal is not None:
            entry.refusal = refusal
            cache.refuse(step, refusal)
            return None
        entry.verified.add(n_rows)
    ys, finals = play(call, tensors)
    if dim != 0:
        ys = [y.movedim(0, dim) for y in ys]
    recording = call.player.planner.recording
    carry_spec = pytree.tree_structure(init)
    return pytree.tree_unflatten(finals, carry_spec), pytree.tree_unflatten(ys, recording.y_spec)


def _found(
    step: Step, init: Tree, xs: Tree, dim: int, reverse: bool, ragged: _Ragged, engine: str
) -> tuple[Scan | None, list[Tensor], cache.Entry]:
    """The recorded step with its tensors (captured, init, xs); no Scan where it is refused.

    Raises:
        Unsupported: these tensors cannot be played, whatever the step.
    """
    init_leaves, carry_spec = pytree.tree_flatten(init)
    xs_leaves, xs_spec = pytree.tree_flatten(xs)
    if ragged.starts is not None:
        step, xs_leaves, xs_spec = _with_restarts(step, xs_leaves, xs_spec, carry_spec, ragged, dim)
    if dim != 0:
        xs_leaves = [leaf.movedim(dim, 0) for leaf in xs_leaves]
    n_rows = init_leaves[0].shape[0] if init_leaves[0].dim() else 0
    if n_rows == 0 or any(x.dim() < 2 or x.shape[1] != n_rows for x in xs_leaves):
        raise Unsupported(
            "a leaf of xs without the batch as its first axis beside time, or no rows"
        )
    cache.check_tensors([*init_leaves, *xs_leaves])

    def first_x() -> Tree:
        return pytree.tree_unflatten([leaf[0] for leaf in xs_leaves], xs_spec)

    def split(result: Any) -> tuple[list[Tensor], Tree]:
        return split_result(result, init, carry_spec)

    structure = (carry_spec, xs_spec)
    found = cache.find(step, init, init_leaves, first_x, xs_leaves, split, structure, engine)
    player = found.entry.player
    if player is None or found.entry.refusal is not None:
        return None, [], found.entry
    cache.check_tensors(found.captured)

    def replay(tensors: list[Tensor]) -> list[Tensor]:
        call_captured, call_init, call_xs = call.split(tensors)
        n_steps = call_xs[0].shape[0]
        lengths = None if ragged.lengths is None else ragged.lengths.clamp(max=n_steps)
        with swapped(found.captured, call_captured):
            carry, ys = _eager_scan(
                step,
                pytree.tree_unflatten(call_init, carry_spec),
                pytree.tree_unflatten(call_xs, xs_spec),
                0,
                reverse,
                n_steps,
                _Ragged(lengths, None, [], n_steps),
            )
        return pytree.tree_leaves(ys) + pytree.tree_leaves(carry)

    rows = None if ragged.lengths is None else Rows.of(ragged.lengths)
    call = Scan(player, len(found.captured), len(init_leaves), reverse, rows, replay)
    return call, [*found.captured, *init_leaves, *xs_leaves], found.entry


def _with_restarts(
    step: Step, xs_leaves: list[Tensor], xs_spec: Any, carry_spec: Any, ragged: _Ragged, dim: int
) -> tuple[Step, list[Tensor], Any]:
    """Resets as a part of the step: its carry is selected before, from marks that come with xs."""
    assert ragged.starts is not None
    starts = ragged.starts.movedim(0, dim) if dim in (0, 1, -1, -2) else ragged.starts
    restarts = [r.expand(ragged.n_steps, *r.shape).movedim(0, dim) for r in ragged.restart_leaves]
    n = len(xs_leaves)
    both = pytree.tree_structure((list(range(n)), 0, list(range(len(restarts)))))

    def restarting(carry: Tree, x: Tree) -> Any:
        leaves, start, values = x
        old = pytree.tree_leaves(carry)
        new = [torch.where(_like(start, c), v, c) for c, v in zip(old, values, strict=True)]
        return step(pytree.tree_unflatten(new, carry_spec), pytree.tree_unflatten(leaves, xs_spec))

    restarting.__wrapped__ = step  # type: ignore[attr-defined]  # for messages, and as its identity
    return restarting, [*xs_leaves, starts, *restarts], both


def _differs(call: Scan, tensors: list[Tensor]) -> Unsupported | None:
    """Compare a few real steps with the eager loop, once for each batch size."""
    captured, init, xs = call.split([t.detach() for t in tensors])
    few = [x[:3] for x in xs]
    rows = None if call.rows is None else Rows.of(call.rows.lengths.clamp(max=len(few[0])))
    with undisturbed(), torch.no_grad():
        ys, finals = play(replace(call, rows=rows), [*captured, *init, *few])
        expected = call.replay([*captured, *init, *few])
    tolerance = 1e-3 if init[0].dtype == torch.float32 else 1e-8
    for ours, theirs in zip(ys + finals, expected, strict=True):
        if ours.dtype.is_floating_point:
            scale = (
                max(1.0, float(theirs.abs().nan_to_num(0, 0, 0).max())) if theirs.numel() else 1.0
            )
            same = torch.allclose(
                ours, theirs, rtol=tolerance, atol=tolerance * scale, equal_nan=True
            )
        else:
            same = torch.equal(ours, theirs)
        if not same:
            return Unsupported("a few steps by the engine differ from those of the loop")
    return None


def _eager_scan(
    step: Step, init: Tree, xs: Tree, dim: int, reverse: bool, n_steps: int, ragged: _Ragged
) -> tuple[Tree, Tree]:
    """The definition of scan: a plain loop in PyTorch, with which every faster path is compared."""
    init_leaves, carry_spec = pytree.tree_flatten(init)
    xs_leaves, xs_spec = pytree.tree_flatten(xs)
    xs_leaves = ragged.select_valid(xs_leaves, dim)
    carry_leaves: list[Tensor] = init_leaves
    outputs: list[list[Tensor]] = [[] for _ in range(n_steps)]
    output_spec: Any = None
    for t in reversed(range(n_steps)) if reverse else range(n_steps):
        before = ragged.restarted(carry_leaves, t)
        x = pytree.tree_unflatten([leaf.select(dim, t) for leaf in xs_leaves], xs_spec)
        result = step(pytree.tree_unflatten(before, carry_spec), x)
        after, y = split_result(result, init, carry_spec)
        check_carry(init_leaves, after)
        y_leaves, spec = pytree.tree_flatten(y)
        if output_spec is not None and spec != output_spec:
            raise TypeError(
                f"scan: the output of step at t={t} has the structure {spec}, earlier steps had "
                f"{output_spec}; every step must return the same structure"
            )
        output_spec = spec
        carry_leaves = ragged.kept(after, carry_leaves, t)
        outputs[t] = ragged.silenced(y_leaves, t)
    ys = [torch.stack(leaf_over_time, dim) for leaf_over_time in zip(*outputs, strict=True)]
    return pytree.tree_unflatten(carry_leaves, carry_spec), pytree.tree_unflatten(ys, output_spec)


def split_result(result: Any, init: Tree, carry_spec: pytree.TreeSpec) -> tuple[list[Tensor], Tree]:
    """What a step returned, as (leaves of the new carry, output)."""
    leaves, spec = pytree.tree_flatten(result)
    if spec == carry_spec:
        _check_tensors("the new carry that step returned", result)
        return leaves, result
    if isinstance(result, tuple) and len(result) == 2:
        carry, y = result
        leaves, spec = pytree.tree_flatten(carry)
        if spec == carry_spec:
            _check_tensors("the new carry that step returned", carry)
            _check_tensors("the output that step returned", y)
            return leaves, y
    raise TypeError(
        f"scan: step returned {_describe(result)}; wanted the new carry, structured like init "
        f"({_describe(init)}), or a pair (new carry, output)"
    )


def check_carry(init_leaves: list[Tensor], leaves: list[Tensor]) -> None:
    """The carry must keep its shapes and dtypes, or it could not be carried on."""
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


class _Ragged:
    """Which rows are alive at step t, and which restart before it: `lengths` and `resets`."""

    def __init__(
        self,
        lengths: Tensor | None,
        starts: Tensor | None,
        restart_leaves: list[Tensor],
        n_steps: int,
    ):
        self.lengths = lengths  # [B] int64
        self.starts = starts  # [T, B] bool: the row restarts before step t, in playing order
        self.restart_leaves = restart_leaves
        self.n_steps = n_steps

    @staticmethod
    def of(
        init: Tree,
        n_steps: int,
        lengths: Tensor | list[int] | None,
        resets: Tensor | None,
        restart: Tree | None,
        reverse: bool,
    ) -> _Ragged:
        """Check the three arguments once, so that the loop can trust them."""
        init_leaves, carry_spec = pytree.tree_flatten(init)
        n_rows = init_leaves[0].shape[0] if init_leaves[0].dim() else 0
        device = init_leaves[0].device
        if lengths is not None:
            lengths = _check_lengths(lengths, n_rows, n_steps).to(device)
        if resets is None:
            if restart is not None:
                raise ValueError("scan: restart= was given without resets=, so it would do nothing")
            return _Ragged(lengths, None, [], n_steps)
        starts = _check_resets(resets, n_rows, n_steps).to(device)
        if lengths is not None:  # a mark in the padding means nothing
            starts = starts & (torch.arange(n_steps, device=device)[:, None] < lengths)
        if reverse:  # a segment that begins at t ends, seen from behind, before t−1
            starts = torch.cat([starts[1:], torch.zeros_like(starts[:1])])
        if restart is None:
            return _Ragged(
                lengths, starts, [torch.zeros_like(leaf) for leaf in init_leaves], n_steps
            )
        restart_leaves, spec = pytree.tree_flatten(restart)
        if spec != carry_spec:
            raise ValueError(
                f"scan: restart is {_describe(restart)}; wanted init's structure, {_describe(init)}"
            )
        fits = [_broadcast(r, leaf) for r, leaf in zip(restart_leaves, init_leaves, strict=True)]
        return _Ragged(lengths, starts, fits, n_steps)

    def select_valid(self, xs_leaves: list[Tensor], dim: int) -> list[Tensor]:
        """xs with the padding replaced by each row's own last valid element.

        A mask that multiplies would not do: padding may be NaN, and 0 · NaN poisons gradients.
        Padding with zeros would not do either: a step may divide by x.
        """
        if self.lengths is None:
            return xs_leaves
        last = (self.lengths - 1).clamp(min=0)
        steps = torch.arange(self.n_steps, device=last.device)
        index = torch.minimum(steps[:, None], last)  # [T, B]
        rows = torch.arange(len(last), device=last.device)
        selected = []
        for i, leaf in enumerate(xs_leaves):
            by_time = leaf.movedim(dim, 0)
            if by_time.dim() < 2 or by_time.shape[1] != len(last):
                raise ValueError(
                    f"scan: with lengths, every leaf of xs needs the {len(last)} rows of the batch "
                    f"as its first axis beside time; leaf {i} has shape {list(leaf.shape)}"
                )
            valid = by_time[index, rows]
            empty = _like(self.lengths == 0, valid[0])  # a row without any element
            selected.append(torch.where(empty, torch.zeros_like(valid), valid).movedim(0, dim))
        return selected

    def restarted(self, carry: list[Tensor], t: int) -> list[Tensor]:
        if self.starts is None:
            return carry
        start = self.starts[t]
        pairs = zip(self.restart_leaves, carry, strict=True)
        return [torch.where(_like(start, c), r, c) for r, c in pairs]

    def kept(self, after: list[Tensor], before: list[Tensor], t: int) -> list[Tensor]:
        """The new carry of living rows, the old one of the others."""
        if self.lengths is None:
            return after
        alive = t < self.lengths
        pairs = zip(after, before, strict=True)
        return [torch.where(_like(alive, new), new, old) for new, old in pairs]

    def silenced(self, ys: list[Tensor], t: int) -> list[Tensor]:
        if self.lengths is None:
            return ys
        alive = t < self.lengths
        return [torch.where(_like(alive, y), y, torch.zeros_like(y)) for y in ys]


def _like(rows: Tensor, leaf: Tensor) -> Tensor:
    """A mask `[B]`, shaped to broadcast over a leaf `[B, …]`."""
    return rows.reshape(-1, *[1] * (leaf.dim() - 1))


def _broadcast(value: Tensor, leaf: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.dtype != leaf.dtype:
        raise ValueError(
            f"scan: restart has {_describe(value)} where init has {_describe(leaf)}; "
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
    given = torch.as_tensor(lengths)
    if given.dtype.is_floating_point or given.dtype == torch.bool or given.shape != (n_rows,):
        raise ValueError(
            f"scan: lengths is {_describe(given)}; wanted {n_rows} integers, one for each row"
        )
    given = given.long()
    wrong = ((given < 0) | (given > n_steps)).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"scan: lengths[{row}] is {int(given[row])}; wanted 0 to {n_steps}, the steps of xs"
        )
    return given


def _check_resets(resets: Tensor, n_rows: int, n_steps: int) -> Tensor:
    given = torch.as_tensor(resets)
    if given.dtype != torch.bool or given.shape != (n_steps, n_rows):
        raise ValueError(
            f"scan: resets is {_describe(given)}; wanted bool of shape [{n_steps}, {n_rows}] "
            "(time, batch)"
        )
    return given


def _time_length(xs: Tree, dim: int) -> int:
    _check_tensors("xs", xs)
    sizes = []
    for leaf in pytree.tree_leaves(xs):
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


def _check_tensors(name: str, tree: Tree) -> None:
    leaves = pytree.tree_leaves(tree)
    if not leaves and name != "the output that step returned":
        raise TypeError(f"scan: {name} is empty; wanted a tensor, or a tuple, list or dict of them")
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise TypeError(
                f"scan: {name} contains {type(leaf).__name__}; wanted tensors only "
                "(a tensor, or a tuple, list or dict of them)"
            )


def _describe(tree: Tree) -> str:
    """A value in a few words, for error messages: tensors as dtype[shape], structures spelt out."""
    if isinstance(tree, Tensor):
        return f"{str(tree.dtype).removeprefix('torch.')}{list(tree.shape)}"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{k!r}: {_describe(v)}" for k, v in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(_describe, tree)) + "]"
    if isinstance(tree, tuple):
        return "(" + ", ".join(map(_describe, tree)) + ("," if len(tree) == 1 else "") + ")"
    return f"a {type(tree).__name__}"
