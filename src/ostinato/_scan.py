"""`scan`: one step, played over every element of a sequence."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ostinato import tree
from ostinato._loop import (
    Ragged,
    Step,
    Tree,
    check_carry,
    check_output_axes,
    check_tensors,
    eager_scan,
    rows_like,
    split_result,
    time_length,
)
from ostinato.compiler import cache
from ostinato.compiler.function import Scan, play
from ostinato.compiler.graph import Unsupported
from ostinato.compiler.play import Rows
from ostinato.compiler.record import check_batch, recorded_step, swapped, undisturbed


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
    if "torch._dynamo" in sys.modules and _dynamo_looks_on():
        return _without_dynamo()(step, init, xs, dim, reverse, lengths, resets, restart)
    return _scan(step, init, xs, dim, reverse, lengths, resets, restart)


def _dynamo_looks_on() -> bool:
    """Whether torch.compile would trace the functions called here (or this torch cannot say)."""
    callback = getattr(torch._C._dynamo.eval_frame, "get_eval_frame_callback", None)
    return callback is None or callback() is not None


def _without_dynamo() -> Any:
    global _disabled
    if _disabled is None:
        import torch._dynamo

        _disabled = torch._dynamo.disable(_scan)
    return _disabled


# Inside torch.compile: a clean graph break. The usual decorator would import torch._dynamo, which
# takes a second; this says the same without.
_disabled: Any = None
scan._torchdynamo_disable = True  # type: ignore[attr-defined]


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
    call = checked(step, init, xs, dim, reverse, lengths, resets, restart)
    engine = cache.engine()
    if engine != "eager":
        played = _played(call, engine)
        if played is not None:
            return played
    return eager_scan(step, init, xs, dim, reverse, call.ragged)


@dataclass(slots=True)  # made with every call: a frozen one takes five times as long
class Arguments:
    """What scan was given, checked and taken apart."""

    step: Step
    init: Tree
    init_leaves: list[Tensor]
    carry_spec: Any
    xs_leaves: list[Tensor]
    xs_spec: Any
    dim: int
    reverse: bool
    ragged: Ragged

    def split(self, result: Any) -> tuple[list[Tensor], Tree]:
        return split_result(result, self.init, self.carry_spec)


def checked(
    step: Step,
    init: Tree,
    xs: Tree,
    dim: int,
    reverse: bool,
    lengths: Any = None,
    resets: Any = None,
    restart: Any = None,
) -> Arguments:
    init_leaves, carry_spec = tree.flatten(init)
    check_tensors("init", init_leaves)
    xs_leaves, xs_spec = tree.flatten(xs)
    check_tensors("xs", xs_leaves)
    n_steps = time_length(xs_leaves, dim)
    ragged = Ragged.of(init, init_leaves, n_steps, lengths, resets, restart, reverse)
    return Arguments(step, init, init_leaves, carry_spec, xs_leaves, xs_spec, dim, reverse, ragged)


def _played(arguments: Arguments, engine: str) -> tuple[Tree, Tree] | None:
    """The scan by the engine; None if the eager loop must do it."""
    try:
        call, tensors, entry = find(arguments, engine)
    except cache.Elsewhere:
        return None
    except Unsupported as refusal:
        cache.refuse(arguments.step, refusal)
        return None
    if call is None:
        cache.refuse(arguments.step, entry.refusal)
        return None
    n_rows = tensors[-1].shape[1]
    if n_rows not in entry.verified:
        entry.verified[n_rows] = _differs(arguments, call, tensors, entry)
    if entry.verified[n_rows] is not None:
        cache.refuse(arguments.step, entry.verified[n_rows])
        return None
    ys, finals = play(call, tensors)
    if arguments.dim != 0:
        check_output_axes([y[0] for y in ys], arguments.dim)
        ys = [y.movedim(0, arguments.dim) for y in ys]
    y_spec = call.player.planner.recording.y_spec
    carry = tree.unflatten(finals, arguments.carry_spec)
    return carry, tree.unflatten(ys, y_spec)


def find(a: Arguments, engine: str) -> tuple[Scan | None, list[Tensor], cache.Entry]:
    """The recorded step with its tensors (captured, init, xs); no Scan where it is refused.

    Raises:
        Unsupported: these tensors cannot be played, whatever the step. Where that is not the
            step's doing, cache.Elsewhere.
    """
    step, xs_leaves, xs_spec = a.step, a.xs_leaves, a.xs_spec
    if a.dim != 0:
        xs_leaves = [leaf.movedim(a.dim, 0) for leaf in xs_leaves]
    if a.ragged.starts is not None:
        step, xs_leaves, xs_spec = _with_restarts(a, xs_leaves)
    n_rows = a.init_leaves[0].shape[0] if a.init_leaves[0].dim() else 0
    if n_rows == 0 and a.init_leaves[0].dim():
        raise cache.Elsewhere("there are no rows")
    if n_rows == 0 or any(x.dim() < 2 or x.shape[1] != n_rows for x in xs_leaves):
        raise Unsupported("a leaf of xs without the batch as its first axis beside time")
    cache.check_surroundings()
    cache.check_tensors(a.init_leaves)
    cache.check_tensors(xs_leaves)

    def new() -> cache.New:
        def first_x() -> Tree:
            return tree.unflatten([leaf[0] for leaf in xs_leaves], xs_spec)

        def check(result: Any) -> None:
            check_carry(a.init_leaves, a.split(result)[0])

        return cache.New(step, a.init, a.init_leaves, first_x, a.split, check)

    structure = a.carry_spec, xs_spec
    found = cache.find(step, a.init_leaves, xs_leaves, structure, engine, new)
    player = found.entry.player
    if player is None or found.entry.refusal is not None:
        return None, [], found.entry
    cache.check_tensors(found.captured)

    def replay(captured: Any, init: Any, xs: Any, recorded: bool = False) -> list[Tensor]:
        n_steps = xs[0].shape[0]
        lengths = None if a.ragged.lengths is None else a.ragged.lengths.clamp(max=n_steps)
        ragged = Ragged(lengths, None, [], n_steps)
        if recorded:
            again = recorded_step(player.planner.recording, captured)
            carry, ys = eager_scan(again, list(init), list(xs), 0, a.reverse, ragged)
            return [*ys, *carry]
        with swapped(found.captured, captured):
            first, elements = tree.unflatten(init, a.carry_spec), tree.unflatten(xs, xs_spec)
            carry, ys = eager_scan(step, first, elements, 0, a.reverse, ragged)
        return tree.leaves(ys) + tree.leaves(carry)

    rows = None if a.ragged.lengths is None else Rows.of(a.ragged.lengths)
    call = Scan(
        player, len(found.captured), len(a.init_leaves), a.reverse, rows, replay, step, xs_spec
    )
    return call, [*found.captured, *a.init_leaves, *xs_leaves], found.entry


def _with_restarts(a: Arguments, xs_leaves: list[Tensor]) -> tuple[Step, list[Tensor], Any]:
    """Resets as a part of the step: its carry is selected before, from marks that come with xs.

    xs_leaves and what is returned of them: `[T, B, …]`.
    """
    ragged, step = a.ragged, a.step
    assert ragged.starts is not None
    restarts = [r.expand(ragged.n_steps, *r.shape) for r in ragged.restart_leaves]
    n = len(xs_leaves)
    both = tree.flatten((list(range(n)), 0, list(range(len(restarts)))))[1]

    def restarting(carry: Tree, x: Tree) -> Any:
        leaves, start, values = x
        old = tree.leaves(carry)
        new = [torch.where(rows_like(start, c), v, c) for c, v in zip(old, values, strict=True)]
        return step(tree.unflatten(new, a.carry_spec), tree.unflatten(leaves, a.xs_spec))

    restarting.__wrapped__ = step  # type: ignore[attr-defined]  # for messages, and as its identity
    return restarting, [*xs_leaves, ragged.starts, *restarts], both


def _differs(
    a: Arguments, call: Scan, tensors: list[Tensor], entry: cache.Entry
) -> Unsupported | None:
    """Compare a few real steps with the eager loop, once for each batch size.

    And the course that the step takes with that many rows with the recorded one, since control flow
    on the batch size may show in the gradients alone. With a single row PyTorch itself takes other
    courses (nothing to sum over): there the gradients are compared.
    """
    n_rows = tensors[-1].shape[1]
    if entry.small is not None and n_rows > 1:
        element, captured = call.element(tensors), call.split(tensors)[0]
        try:
            check_batch(entry.small, call.step, a.init, element, captured, a.split)
        except Unsupported as refusal:
            return refusal
    with undisturbed(), torch.set_grad_enabled(n_rows == 1 and torch.is_grad_enabled()):
        inputs = [t.detach().requires_grad_(t.requires_grad) for t in tensors]
        captured, init, xs = call.split(inputs)
        few = [x[:3] for x in xs]
        rows = None if call.rows is None else Rows.of(call.rows.lengths.clamp(max=len(few[0])))
        ys, finals = play(replace(call, rows=rows), [*captured, *init, *few])
        expected = call.replay(captured, init, few)
        pairs = list(zip(ys + finals, expected, strict=True))
        if torch.is_grad_enabled():
            pairs += _gradients(pairs, inputs)
    tolerance = 1e-3 if init[0].dtype == torch.float32 else 1e-8
    if not all(_close(ours, theirs, tolerance) for ours, theirs in pairs):
        return Unsupported("a few steps by the engine differ from those of the loop")
    return None


def _gradients(
    pairs: list[tuple[Tensor, Tensor]], inputs: list[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """The gradients of both ways in all inputs, where there are any."""
    wanted = [t for t in inputs if t.requires_grad]
    if not any(theirs.requires_grad for _, theirs in pairs):
        return []
    both = []
    for outputs in ([ours for ours, _ in pairs], [theirs for _, theirs in pairs]):
        used = [o for o in outputs if o.requires_grad]
        weights = [torch.linspace(0.5, 1, o.numel(), dtype=o.dtype).view_as(o) for o in used]
        found = torch.autograd.grad(used, wanted, weights, allow_unused=True)
        pairs_of = zip(found, wanted, strict=True)
        both.append([torch.zeros_like(t) if g is None else g for g, t in pairs_of])
    return list(zip(*both, strict=True))


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    ours, theirs = ours.detach(), theirs.detach()
    if not ours.dtype.is_floating_point:
        return torch.equal(ours, theirs)
    scale = float(theirs.abs().nan_to_num(0, 0, 0).max()) if theirs.numel() else 0.0
    bound = tolerance * max(1.0, scale)
    return torch.allclose(ours, theirs, rtol=tolerance, atol=bound, equal_nan=True)
