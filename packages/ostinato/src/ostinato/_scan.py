"""`scan`: one step, applied to every element of a sequence.

`arguments.py` checks the arguments, `forms/` finds the form in which the step can be recorded,
`compiler/cache.py` finds its recording or makes one, and `compiler/play/` plays it in the engine. A
step that cannot be recorded runs in the Python loop of `eager.py`, which defines scan.
"""

from __future__ import annotations

from collections.abc import Set
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato import tree
from ostinato.arguments import Arguments, Results, add_shapes, checked
from ostinato.compiler import cache, torch_compat
from ostinato.compiler.errors import Mispredicted, SideEffect, Unsupported
from ostinato.compiler.steps import warn_refused, warn_unbounded
from ostinato.compiler.verify import check_call
from ostinato.eager import Step, Tree, eager_scan
from ostinato.engine import native
from ostinato.forms import compiled

if TYPE_CHECKING:
    from ostinato.compiler.play.autograd import ScanCall


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
    memory: int | str | None = None,
    truncate: int | None = None,
) -> tuple[Tree, Tree]:
    """Apply `step` to every element of a sequence, carrying a state from one to the next.

        carry_t, y_t = step(carry_{t-1}, x_t),   t = 0 … T−1,   carry_{−1} = init

    The signature follows PyTorch's prototype `scan` (combine_fn, init, xs, dim, reverse).

    Args:
        step: a pure function of the carry and one element of `xs`, batch first. If its result has
            the structure of `init` it is the new carry, and also the output; otherwise it is a
            pair (new carry, y), where y is a tensor or any structure of tensors, or None for no
            output.
        init: the first carry: a tensor `[B, …]`, or a tuple, list or dict of tensors.
        xs: the sequence: a tensor, or a structure of tensors, all of the same length T along `dim`
            (`[T, B, F]` for `dim=0`).
        dim: the axis of `xs` and of `ys` that is time.
        reverse: run from t = T−1 down to 0. `ys` keep the order of `xs`.
        lengths: `[B]` integers in 0…T: row b has only the steps t < lengths[b]. At later steps its
            carry is unchanged, its outputs are zero, and it adds nothing to any gradient. Every
            leaf of `init`, of `xs` and of the outputs needs the rows as its first axis (beside
            time).
        resets: `[T, B]` bool: marks the first element of a new segment within a row. Going forward
            the row restarts before t; in reverse, where the segment ends at t, before t−1.
        restart: the carry that a row restarts from, shaped like `init` or broadcastable to it;
            zeros by default.
        memory: the most bytes that the scan takes for its backward pass beyond xs, ys and all
            gradients: a number, or a text like "64MB". If the whole run needs more, the states are
            kept at checkpoints, and the backward pass computes the steps between them again. Values
            and gradients have the same bits (docs/memory.md).
        truncate: the carry goes on, but its gradient stops before every element whose place is a
            multiple of this number; in reverse, after that element. A row that has ended passes the
            gradient of its last carry on. With T or more no gradient stops.

    Returns:
        `(carry, ys)`: the carry after the last step, with the structure of `init`, and the outputs
        of all steps, stacked along `dim`.

    Raises:
        TypeError: `init`, `xs` or a result is not a structure of tensors; a result's structure is
            neither that of `init` nor a pair that begins with it.
        ValueError: the time axis is empty or its length differs between leaves of `xs`; the step
            changes the shape or dtype of the carry; lengths, resets or restart do not fit;
            memory is too little; truncate is below 1.
        RuntimeError: OSTINATO_CHECK=1 is set, and the first steps differ from the Python loop.

    Example:
        >>> import torch, ostinato
        >>> U, W, b = torch.randn(28, 128), torch.randn(128, 128) / 12, torch.zeros(128)
        >>> def rnn_step(s, x):
        ...     return torch.tanh(x @ U + s @ W + b)
        >>> last, states = ostinato.scan(rnn_step, torch.zeros(64, 128), torch.randn(28, 64, 28))
        >>> last.shape, states.shape
        (torch.Size([64, 128]), torch.Size([28, 64, 128]))
    """
    scanned = torch_compat.disabled(_scanned) if torch_compat.looks_on() else _scanned
    return scanned(step, init, xs, dim, reverse, lengths, resets, restart, False, memory, truncate)


def scan_layer(
    step: Step,
    weights: list[Tensor],
    variant: Any,
    init: Tree,
    xs: Tree,
    *,
    reverse: bool = False,
    lengths: Any = None,
    resets: Any = None,
    restart: Any = None,
    of_layer: bool = False,
    memory: int | str | None = None,
    truncate: int | None = None,
) -> tuple[Tree, Tree]:
    """`scan` for a layer: the layer passes its weights, so its step needs no guards.

    The layer makes sure that torch.compile does not trace this call.

    Args:
        weights: every tensor that the step captures.
        variant: every other value that the step depends on, hashable.
        of_layer: the first and the last carry have torch.nn's axis of layers, `[1, B, …]`. Removing
            it by views would add an autograd node for each, a tenth of the time of a short call.
    """
    return _scanned(
        step,
        init,
        xs,
        0,
        reverse,
        lengths,
        resets,
        restart,
        of_layer,
        memory,
        truncate,
        weights,
        variant,
    )


def iterations(
    step: Step,
    body: Any,
    variant: Any,
    places: list[tuple[Any, Any]],
    init: list[Tensor],
    xs: list[Tensor],
    examined: bool,
) -> Arguments:
    """The arguments for the iterations of a loop: `step` runs `body`, the user's code, on a state.

    Args:
        step: of lists of tensors.
        body: what the guards are of.
        variant: everything else that the step depends on, hashable.
        places: containers and keys that `step` puts the state into while it runs.
        examined: whether the body was examined in this call, so that it may be recorded.

    Raises:
        TypeError, ValueError: as `scan`.
    """
    a = checked(step, init, xs, 0, False, variant=variant)
    return a._replace(given=body, places=places, of_loop=True, examined=examined)


def scan_iterations(a: Arguments, written: Set[int | None]) -> tuple[list[Tensor], list[Tensor]]:
    """Run the iterations of a loop: the last carry, and the outputs.

    Args:
        written: the memory of tensors that get the results; the step may not capture it.

    Raises:
        Unsupported: the engine cannot run them, or (Unexamined) not yet; nothing has happened.
    """
    call = compiled(a)
    if written:
        from ostinato.compiler.capture.captures import memory_of

        if any(memory_of(t) in written for t in call.taken):
            raise Unsupported("an iteration reads a tensor that iterations write, by another name")
    carry, ys = _by_the_engine(a, call)
    return tree.leaves(carry), tree.leaves(ys)


def _scanned(*arguments: Any) -> tuple[Tree, Tree]:
    """Run in the engine, or in the Python loop if the engine cannot run the step."""
    a = checked(*arguments)
    try:
        return _by_either(a)
    except (IndexError, RuntimeError, ValueError) as error:
        add_shapes(error, a)
        raise


def _by_either(a: Arguments) -> tuple[Tree, Tree]:
    step, found_answers = a.step, None
    if cache.engine() != "eager":
        try:
            return _by_the_engine(a, compiled(a))
        except Unsupported as found:
            refusal = found.bare()
        if isinstance(refusal, SideEffect):
            # Loops know scan; scan asks for them by name, where a step keeps state in attributes.
            found_by_loop = import_module("ostinato.loops.scanned").scanned(a)
            if found_by_loop is not None:
                result, native = found_by_loop
                if not native:
                    warn_refused(a.given, refusal)
                return result
        warn_refused(a.given, refusal)
        if isinstance(refusal, Mispredicted):
            from ostinato.forms import answers  # not a part of every start

            found_answers = list[answers.Answers]()
            step = answers.recording_answers(a, found_answers)
    bounded = a.memory is not None and torch.is_grad_enabled()
    if bounded and torch_compat.refuses_checkpoints():
        warn_unbounded(a.given)
        bounded = False
    if bounded:
        from ostinato.checkpointed import checkpointed_scan  # not a part of every start

        carry, ys = checkpointed_scan(a)
    else:
        xs = tree.unflatten(a.xs_leaves, a.xs_spec)
        carry, ys = eager_scan(step, a.init, xs, a.dim, a.reverse, a.ragged, a.truncate)
        if found_answers:
            answers.learn(a, found_answers)
    if a.of_layer:
        leaves = [leaf.unsqueeze(0) for leaf in tree.leaves(carry)]
        carry = tree.unflatten(leaves, a.carry_spec)
    return carry, ys


def _by_the_engine(a: Arguments, call: ScanCall) -> tuple[Tree, Tree]:
    """Run the call, with its random numbers; if that fails, they are as if not drawn."""
    if call.drawn is None:
        return _with_numbers(a, call)
    if call.applied is None:
        call.drawn.draw()
    else:
        from ostinato.compiler.capture import wrapped  # not a part of every start

        with wrapped.outside():
            call.drawn.draw()
    try:
        return _with_numbers(a, call)
    except BaseException:
        call.drawn.put_back()
        raise


def _with_numbers(a: Arguments, call: ScanCall) -> tuple[Tree, Tree]:
    if native.environment("OSTINATO_CHECK") not in (None, "", "0"):
        check_call(call)
    if call.compiled.totals and (a.memory is not None or a.truncate is not None):
        raise Unsupported("memory= and truncate= are for outputs with the batch")
    ys, finals = call.outputs(call.tensors())
    y_spec = call.compiled.y_spec
    for form in reversed(call.arguments.forms):
        if form.back is not None:
            ys, finals, y_spec = form.back(Results(ys, finals, y_spec))
    return tree.unflatten(finals, a.carry_spec), tree.unflatten(ys, y_spec)
