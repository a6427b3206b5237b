"""`scan`: one step, applied to every element of a sequence.

`arguments.py` checks the arguments, `compiler/cache.py` finds the recorded step or records it, and
`compiler/play/` plays it in the engine. A step that cannot be recorded runs in the Python loop of
`eager.py`, which defines scan.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato import tree
from ostinato.arguments import Arguments, add_shapes, checked
from ostinato.compiler import cache, torch_compat
from ostinato.compiler.adapted import as_given, has_complex, kinds_in, turned, with_pairs
from ostinato.compiler.capture.captured_rows import parted
from ostinato.compiler.errors import (
    BatchNotFirst,
    Elsewhere,
    Mispredicted,
    SideEffect,
    Spared,
    Transformed,
    Unsupported,
)
from ostinato.compiler.lock import one_at_a_time
from ostinato.compiler.play.autograd import ScanCall
from ostinato.compiler.play.tape import RowOrder
from ostinato.compiler.shared import as_one_row, folded, folds, remember, ways
from ostinato.compiler.steps import (
    code_key,
    known_answers,
    known_numbers,
    known_rows,
    warn_refused,
    warn_unbounded,
)
from ostinato.compiler.verify import check_call, verified
from ostinato.eager import RowSpans, Step, Tree, check_output_axes, chosen, eager_scan
from ostinato.engine import native

if TYPE_CHECKING:
    from ostinato.compiler.capture.draws import Drawn
    from ostinato.compiler.play.step import CompiledStep


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
        step, init, xs, 0, reverse, lengths, resets, restart, of_layer, memory, truncate,
        weights, variant,
    )  # fmt: skip


def iterations(
    step: Step, body: Any, variant: Any, places: list[tuple[Any, Any]], init: list[Tensor],
    xs: list[Tensor], examined: bool,
) -> Arguments:  # fmt: skip
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
    a.given, a.places, a.of_loop, a.examined = body, places, True, examined
    return a


def scan_iterations(
    a: Arguments, written: Set[int | None]
) -> tuple[list[Tensor], list[Tensor]]:
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
    step, answers = a.step, None
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
            from ostinato.compiler import speculation  # not a part of every start

            answers = list[speculation.Answers]()
            step = speculation.noting(a, answers)
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
        if answers:
            speculation.learn(a, answers)
    if a.of_layer:
        leaves = [leaf.unsqueeze(0) for leaf in tree.leaves(carry)]
        carry = tree.unflatten(leaves, a.carry_spec)
    return carry, ys


def compiled(a: Arguments) -> ScanCall:
    """The recorded step with its tensors.

    Raises:
        Unsupported: the call runs in the Python loop.
        Elsewhere: the same, for a reason that needs no warning (a GPU, say).
    """
    try:
        return _compiled_as_given(a)
    except Transformed:
        from ostinato.compiler.transforms.stand_ins import StandIns  # not a part of every start

        return _compiled_as_given(replace(a, stand_ins=StandIns()))


def _compiled_as_given(a: Arguments) -> ScanCall:
    if a.dim != 0:
        a = replace(a, xs_leaves=[leaf.movedim(a.dim, 0) for leaf in a.xs_leaves], dim=0)
    if known_numbers:
        from ostinato.compiler import batch_numbers  # not a part of every start

        a = batch_numbers.known(a)
    row = as_one_row(a, known=True) if known_rows and a.of_loop else None
    if row is not None:
        found = _found(row)
        if isinstance(found, ScanCall):
            return found
    try:
        return _answered(a)
    except (Elsewhere, SideEffect, Spared):
        raise
    except Unsupported as refusal:
        with one_at_a_time:
            from ostinato.compiler import batch_numbers
        for form in batch_numbers.ways(a, cache.codes_of):
            # What was given up may be the number's doing.
            known_answers.pop(code_key(a.given), None)
            with suppress(Unsupported):
                found = _answered(form)
                batch_numbers.remember(form)
                return found
        may_be_one = a.of_loop and "batch" in refusal.reason
        row = as_one_row(a, known=False) if may_be_one else None
        if row is not None:
            found = _found(row)
            if isinstance(found, ScanCall):
                remember(row)
                return found
        raise refusal.bare() from None


def _answered(a: Arguments) -> ScanCall:
    """The recorded step; if it branches on values of the batch, with the guessed answers."""
    if known_answers and a.stand_ins is None:
        from ostinato.compiler import speculation  # not a part of every start

        answers = speculation.answers_of(a)
        if answers is not None:
            return _compiled(speculation.speculating(a, answers))
    try:
        return _compiled(a)
    except Elsewhere:
        raise
    except Unsupported as refusal:
        with one_at_a_time:
            from ostinato.compiler import speculation
        # Under a transform an answer cannot be checked afterwards.
        asks = refusal.op in speculation.QUESTIONS and a.stand_ins is None
        answers = speculation.first_answers(a) if asks else None
        if answers is None:
            raise
        try:
            return _compiled(speculation.speculating(a, answers))
        except Unsupported:
            speculation.give_up(a)
            raise refusal.bare() from None


def _compiled(a: Arguments) -> ScanCall:
    if has_complex(a):
        a = with_pairs(a)
    if a.ragged.starts is not None:
        a = _with_restarts(a)
    refusals: list[tuple[bool, Unsupported]] = []
    for shared in folded(a):
        found = _found(replace(a, shared=shared))
        if isinstance(found, ScanCall) and folds(a, found.compiled.planner.recording):
            return found
    for form in itertools.chain((a,), _other_forms(a, refusals)):
        found = _found(form)
        if isinstance(found, ScanCall):
            return found
        refusals.append((form.shared is not None, found))
    # Leaves without a batch are refused first; the reason from sharing them says more.
    raise next((why for is_shared, why in refusals if is_shared), refusals[0][1]).bare()


def _other_forms(
    a: Arguments, refusals: list[tuple[bool, Unsupported]]
) -> Iterator[Arguments]:
    """Try leaves that all rows share, then the batch as second axis; refusals[0] is that of `a`."""
    for shared in ways(a):
        yield replace(a, shared=shared)
    yield from turned(a, isinstance(refusals[0][1], BatchNotFirst))


def _found(a: Arguments) -> ScanCall | Unsupported:
    """The recorded step, verified, or the refusal; raises Elsewhere, as `compiled` does."""
    return _found_plain(a) if a.stand_ins is None else a.stand_ins.found(a, _found_plain)


def _found_plain(a: Arguments) -> ScanCall | Unsupported:
    try:
        found = cache.find(a)
        call = _verified(a, found)
        if found.lifted and isinstance(call, Unsupported):
            call = _verified(a, cache.find_with_numbers(a))
        return call
    except Elsewhere:
        raise
    except Unsupported as refusal:
        return refusal.bare()


def _verified(a: Arguments, found: cache.Found) -> ScanCall | Unsupported:
    if found.compiled is None:
        assert found.refusal is not None
        return found.refusal
    rows = None if a.ragged.lengths is None else RowOrder.of(a.ragged.lengths)
    python = found.compiled.planner.recording.runs_python_backward
    unchanged = found.guards.for_backward(a.given, a.n_rows) if python and found.guards else None
    captured, per_row = parted(found.captured, found.compiled.planner.recording.per_row)
    if per_row and any(len(t) != a.n_rows for t in per_row):
        raise Unsupported("a captured tensor has not as many rows as the batch; give it as many")
    drawn = _drawn(found.compiled, a, per_row)
    call = ScanCall(
        found.compiled, a, found.captured, captured, per_row, a.n_rows, rows, unchanged,
        _differentiable_gradients, drawn,
    )  # fmt: skip
    return verified(call, found.guards, found.lifted) or call


def _differentiable_gradients(*given: Any) -> list[Tensor | None]:
    from ostinato.compiler.transforms.functions import gradients_again  # not a part of every start

    return gradients_again(*given)


def _drawn(compiled: CompiledStep, a: Arguments, per_row: list[Tensor]) -> Drawn | None:
    """Room for the random numbers of a step that draws.

    Raises:
        Unsupported: a leaf, like which the step draws, has another memory order than was recorded.
    """
    draws = compiled.planner.recording.draws
    if not draws:
        return None
    from ostinato.compiler.capture.draws import Drawn, in_order  # not a part of every start

    if not all(map(in_order, (*a.leaves, *per_row, *[x[0] for x in a.xs_leaves]))):
        raise Unsupported(
            "the step draws random numbers, in the order in which its tensors lie in memory, and "
            "one of init or xs has its axes in another order: call contiguous() on it"
        )
    return Drawn(draws, a.ragged.n_steps, a.n_rows, a.reverse)


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
    if call.arguments.adapted:
        kinds, y_spec = kinds_in(y_spec)
        of_carry, _ = kinds_in(call.arguments.carry_spec)
        ys = [as_given(y, kind, 1) for y, kind in zip(ys, kinds, strict=True)]
        finals = [as_given(leaf, kind) for leaf, kind in zip(finals, of_carry, strict=True)]
    if call.arguments.answers is not None:
        from ostinato.compiler import speculation  # not a part of every start

        ys, y_spec = speculation.checked(call.arguments, list(ys), y_spec)
    if a.dim != 0:
        check_output_axes([y[0] for y in ys], a.dim)
        ys = [y.movedim(0, a.dim) for y in ys]
    carry = tree.unflatten(finals, a.carry_spec)
    return carry, tree.unflatten(ys, y_spec)


def _with_restarts(a: Arguments) -> Arguments:
    """The arguments with the resets made a part of the step.

    The new step replaces the carry of rows that restart, then calls the given step. The marks
    `[T, B]` and the restart values, repeated to `[T, B, …]`, become further leaves of xs.
    """
    ragged, step, carry_spec, xs_spec = a.ragged, a.step, a.carry_spec, a.xs_spec
    assert ragged.starts is not None
    restarts = [r.expand(ragged.n_steps, *r.shape) for r in ragged.restart_leaves]
    n = len(a.xs_leaves)
    both = tree.flatten((list(range(n)), 0, list(range(len(restarts)))))[1]

    def restarting(carry: Tree, x: Tree) -> Any:
        leaves, start, values = x
        new = chosen(start, values, tree.leaves(carry))
        return step(tree.unflatten(new, carry_spec), tree.unflatten(leaves, xs_spec))

    xs_leaves = [*a.xs_leaves, ragged.starts, *restarts]
    lengths = RowSpans(ragged.lengths, None, [], ragged.n_steps)
    return replace(a, step=restarting, xs_leaves=xs_leaves, xs_spec=both, ragged=lengths)
