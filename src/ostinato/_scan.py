"""`scan`: one step, played over every element of a sequence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ostinato import tree
from ostinato.arguments import Arguments, checked
from ostinato.compiler import cache, torch_compat
from ostinato.compiler.captures import reach
from ostinato.compiler.errors import NOT_OF_A_STEP, Elsewhere, Unsupported, error_in_short
from ostinato.compiler.play.autograd import Scan, play
from ostinato.compiler.play.step import Rows
from ostinato.compiler.purity import changes_of, traces_of
from ostinato.compiler.torch_compat import undisturbed
from ostinato.eager import Ragged, Step, Tree, check_output_axes, eager_scan, rows_like


@torch_compat.out_of_graph
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
            stays, its outputs are zero, and nothing flows back from them. Every leaf of `init`, of
            `xs` and of the outputs then has the rows as its first axis (beside time).
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
    if torch_compat.looks_on():
        return torch_compat.disabled(_scan)(step, init, xs, dim, reverse, lengths, resets, restart)
    return _scan(step, init, xs, dim, reverse, lengths, resets, restart)


def scan_layer(
    step: Step,
    hx: Tree,
    xs: Tree,
) -> tuple[Tree, Tree]:
    """`scan` for a layer: the first and the last carry have torch.nn's axis of layers, `[1, B, …]`.

    Views of them would do the same, at a node in the graph for each: a tenth of a short call. A
    layer sees to it that it is not traced.
    """
    return _scan(step, hx, xs, 0, False, None, None, None, True)


def _scan(
    step: Step,
    init: Tree,
    xs: Tree,
    dim: int,
    reverse: bool,
    lengths: Any,
    resets: Any,
    restart: Any,
    of_layer: bool = False,
) -> tuple[Tree, Tree]:
    call = checked(step, init, xs, dim, reverse, lengths, resets, restart, of_layer)
    engine = cache.engine()
    if engine != "eager":
        played = _played(call, engine)
        if played is not None:
            return played
    carry, ys = eager_scan(step, call.init, xs, call.dim, reverse, call.ragged)
    if of_layer:
        leaves = [leaf.unsqueeze(0) for leaf in tree.leaves(carry)]
        carry = tree.unflatten(leaves, call.carry_spec)
    return carry, ys


def _played(arguments: Arguments, engine: str) -> tuple[Tree, Tree] | None:
    """The scan by the engine; None if the eager loop must do it."""
    try:
        call, tensors, entry = find(arguments, engine)
    except Elsewhere:
        return None
    except Unsupported as refusal:
        cache.refuse(arguments.given, refusal)
        return None
    if call is None:
        cache.refuse(arguments.given, entry.refusal)
        return None
    n_rows = call.n_rows
    if n_rows not in entry.verified:
        entry.verified[n_rows] = _compared(arguments, call, tensors, entry)
    why_not = entry.verified[n_rows]
    if why_not is not None:
        cache.refuse(arguments.given, why_not)
        return None
    ys, finals = play(call, tensors)
    if arguments.dim != 0:
        check_output_axes([y[0] for y in ys], arguments.dim)
        ys = [y.movedim(0, arguments.dim) for y in ys]
    carry = tree.unflatten(finals, arguments.carry_spec)
    return carry, tree.unflatten(ys, call.player.y_spec)


def find(a: Arguments, engine: str) -> tuple[Scan | None, list[Tensor], cache.Entry]:
    """The recorded step with its tensors (captured, init, xs); no Scan where it is refused.

    Raises:
        Unsupported: these tensors cannot be played, whatever the step. Where that is not the
            step's doing, Elsewhere.
    """
    if a.dim != 0:
        a = replace(a, xs_leaves=[leaf.movedim(a.dim, 0) for leaf in a.xs_leaves], dim=0)
    if a.ragged.starts is not None:
        a = _with_restarts(a)
    entry, captured = cache.find(a, engine)
    player = entry.player
    if player is None or entry.refusal is not None:
        return None, [], entry
    rows = None if a.ragged.lengths is None else Rows.of(a.ragged.lengths)
    call = Scan(player, a, captured, a.xs_leaves[0].shape[1], rows)
    if player.planner.recording.runs_python_backward:
        call.reached = reach(a.given).signature
    return call, [*captured, *a.leaves, *a.xs_leaves], entry


def _with_restarts(a: Arguments) -> Arguments:
    """Resets as a part of the step: its carry is selected before, from marks that come with xs.

    xs_leaves, before and after: `[T, B, …]`.
    """
    ragged, step, carry_spec, xs_spec = a.ragged, a.step, a.carry_spec, a.xs_spec
    assert ragged.starts is not None
    restarts = [r.expand(ragged.n_steps, *r.shape) for r in ragged.restart_leaves]
    n = len(a.xs_leaves)
    both = tree.flatten((list(range(n)), 0, list(range(len(restarts)))))[1]

    def restarting(carry: Tree, x: Tree) -> Any:
        leaves, start, values = x
        old = tree.leaves(carry)
        new = [torch.where(rows_like(start, c), v, c) for c, v in zip(old, values, strict=True)]
        return step(tree.unflatten(new, carry_spec), tree.unflatten(leaves, xs_spec))

    xs_leaves = [*a.xs_leaves, ragged.starts, *restarts]
    lengths = Ragged(ragged.lengths, None, [], ragged.n_steps)
    return replace(a, step=restarting, xs_leaves=xs_leaves, xs_spec=both, ragged=lengths)


def _compared(
    a: Arguments, call: Scan, tensors: list[Tensor], entry: cache.Entry
) -> Unsupported | None:
    """`_differs`, and whether the step leaves something with that many rows: then it is undone."""
    try:
        traces = traces_of(a.given)
    except Unsupported as refusal:
        return refusal.bare()
    why_not = _differs(a, call, tensors, entry)
    changes = changes_of(traces)
    if why_not is not None or changes is not None:
        traces.put_back()
    return why_not or changes


def _differs(
    a: Arguments, call: Scan, tensors: list[Tensor], entry: cache.Entry
) -> Unsupported | None:
    """Compare a few real steps with the eager loop, once for each batch size.

    And the course that the step takes with that many rows with the recorded one, since control flow
    on the batch size may show in the gradients alone. Not with a single row, where PyTorch itself
    takes other courses (nothing to sum over).
    """
    n_rows = call.n_rows
    if entry.small is not None and n_rows > 1:
        from ostinato.compiler.capture.record import check_batch  # not a part of every start

        played = call.arguments
        try:
            check_batch(entry.small, played.step, a.init, played.first_x(), call.captured, a.split)
        except Unsupported as refusal:
            return refusal.bare()
    differentiable = torch.is_grad_enabled()
    with undisturbed(), torch.set_grad_enabled(differentiable):
        # Those made under torch.inference_mode can have no gradients.
        inputs = [
            (t.clone() if t.is_inference() else t.detach()).requires_grad_(t.requires_grad)
            for t in tensors
        ]
        captured, init, xs = call.split(inputs)
        few = [x[:3] for x in xs]
        rows = None if call.rows is None else Rows.of(call.rows.lengths.clamp(max=len(few[0])))
        try:
            expected = call.replay(captured, init, few)
        except NOT_OF_A_STEP:
            raise
        except Exception as error:  # as it will in the loop
            return Unsupported(f"the step fails ({error_in_short(error)})")
        ys, finals = play(replace(call, rows=rows), [*captured, *init, *few])
        pairs = list(zip([*ys, *finals], expected, strict=True))
        if differentiable:
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
        weights = [
            torch.linspace(0.5, 1, o.numel(), dtype=o.dtype, device=o.device).view_as(o)
            for o in used
        ]
        found = torch.autograd.grad(used, wanted, weights, allow_unused=True)
        pairs_of = zip(found, wanted, strict=True)
        both.append([torch.zeros_like(t) if g is None else g for g, t in pairs_of])
    return list(zip(*both, strict=True))


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    ours, theirs = ours.detach(), theirs.detach()
    if ours.shape != theirs.shape:
        return False
    if not ours.dtype.is_floating_point:
        return torch.equal(ours, theirs)
    scale = float(theirs.abs().nan_to_num(0, 0, 0).max()) if theirs.numel() else 0.0
    bound = tolerance * max(1.0, scale)
    return torch.allclose(ours, theirs, rtol=tolerance, atol=bound, equal_nan=True)
