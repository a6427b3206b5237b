"""Recording a step: its ATen calls, and those of `torch.autograd.grad` of it.

The gradients are PyTorch's own; there is no table of derivatives to get wrong. The step runs twice,
on batches of 3 and of 5 rows: the differences between the two recordings are the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ostinato import tree
from ostinato.compiler.capture.captured_rows import (
    PerRow,
    batch_first,
    captured_rows,
    parted,
    rejoined,
)
from ostinato.compiler.capture.captures import swapped
from ostinato.compiler.capture.draws import (
    Draw,
    Draws,
    FindDraws,
    GiveNumbers,
    States,
    sample,
    unified,
)
from ostinato.compiler.capture.nodes import (
    backward_code,
    behind,
    leaves_of,
    runs_python_backward,
)
from ostinato.compiler.capture.recorder import Recorder, ViewChanged
from ostinato.compiler.capture.recording import Recording
from ostinato.compiler.capture.replaced.functions import CHANGES_IN_PLACE, FUNCTIONS
from ostinato.compiler.capture.row_products import Products, RowProducts, common, computed
from ostinato.compiler.capture.unify import BATCHES, unify, without_unused
from ostinato.compiler.capture.whole_numbers import WholeNumbers
from ostinato.compiler.errors import A_HOOK, NOT_OF_A_STEP, Unsupported, refused
from ostinato.compiler.torch_compat import among_ours, gradients_of, undisturbed

if TYPE_CHECKING:
    from ostinato.arguments import Arguments
    from ostinato.compiler.capture.guards.observation import Observation


def record(
    a: Arguments,
    captured: list[Tensor],
    observation: Observation | None,
    generators: Collection[torch.Generator] = (),
) -> tuple[Recording, Recording]:
    """Record a step at the two batch sizes and make one recording with a symbolic batch.

    Returns it, and the one on the small batch.

    Args:
        a: the call; real values of init and of the first element of xs are used, with other rows.
        captured: the tensors that the step takes from outside.
        observation: watches the step; a recorded operation may read no other tensor that a walk led
            to. None for a layer's step.
        generators: the random generators that the step draws from.

    Raises:
        Unsupported: the step cannot be recorded, or depends on the batch size.
    """
    stand_ins = set() if a.stand_ins is None else a.stand_ins.unread
    outside = None if observation is None else _Outside(observation, stand_ins)
    ids = () if observation is None else observation.read
    read = tuple([i for i, t in enumerate(captured) if id(t) in ids])
    of = _Taken(a, captured, outside, read)
    in_context = observation is not None and observation.in_context
    # The step may turn autocast off for a product, but PyTorch would compute that product with it.
    alone = torch.is_autocast_enabled("cpu") or in_context
    found = None
    states = States(generators) if generators else None
    with observation or nullcontext(), undisturbed(), among_ours():
        try:
            of = replace(of, per_row=_per_row(of))
            if generators:
                of = replace(of, draws=_draws(of))
        finally:
            if states is not None:
                states.put_back()
        products = _products(of) if of.per_row and not alone else ()
        if products:
            with suppress(Unsupported):  # for example a product that the step changes in place
                found = _at_both(replace(of, products=products))
        recording, small = found or _at_both(of)
    if in_context:
        recording = replace(recording, runs_python_backward=True, backward_code=())
    return recording, small


class _Outside:
    """The ids of the tensors that a step reaches, also through code that began later: a hook."""

    def __init__(self, observation: Observation, stand_ins: Container[int]):
        self.observation, self.stand_ins = observation, stand_ins

    def __contains__(self, number: object) -> bool:
        reached = self.observation.walk.tensors
        return number in self.stand_ins or any(id(t) == number for t in reached)


@dataclass(frozen=True)
class _Taken:
    """A step to be recorded, and what it takes from outside.

    Attributes:
        a: the call.
        captured: the tensors that it takes.
        outside: the ids of tensors that no recorded operation may read unless they are captured;
            None for a layer's step.
        read: the captured tensors whose values it reads, by position.
        per_row: the captured tensors that have the batch's rows.
        draws: the random numbers that it draws.
        products: products of captured rows alone, which are computed once a call.
    """

    a: Arguments
    captured: list[Tensor]
    outside: Container[int] | None
    read: tuple[int, ...]
    per_row: PerRow = ()
    draws: Draws = ()
    products: Products = ()

    @property
    def flat(self) -> Callable[..., Any]:
        """The step on leaves that have the batch."""
        a = self.a
        return a.flat if a.shared is None else a.shared.flat(a)

    def replacing(self, leaves: Leaves) -> list[Tensor]:
        """Leaves in place of the captured tensors."""
        return rejoined(leaves.fixed, leaves.rows, self.per_row)


def _at_both(of: _Taken) -> tuple[Recording, Recording]:
    small, large = (_recorded(of, n) for n in BATCHES)
    if of.products and small.runs_python_backward:
        raise Unsupported("the backward pass runs the step again, which then reads other tensors")
    return without_unused(unify(small, large, BATCHES[1])), small


def step_type(recording: Recording) -> torch.dtype:
    """The floating-point type that a step computes in: that of its carry, xs or parameters.

    Half precision is computed in float32. A step that computes whole numbers alone is computed in
    float64, where they are exact up to 2⁵³.
    """
    r = recording
    given = [r.dtypes[i] for i in (*r.states, *r.xs, *r.captured)]
    return _type_of((*given, *r.dtypes))


def _type_of(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """The first floating-point type; see `step_type`."""
    for dtype in dtypes:
        if dtype.is_floating_point or dtype.is_complex:
            dtype = dtype.to_real()
            return torch.float32 if dtype.itemsize == 2 else dtype
    return torch.float64


def check_recording(recording: Recording, a: Arguments, observation: Observation | None) -> None:
    """Raise Unsupported if the engine cannot play a recorded step."""
    dtype = step_type(recording)
    if dtype not in (torch.float32, torch.float64):
        raise Unsupported(f"the step computes in {dtype}; the engine plays float32 and float64")
    asks = observation is not None and "is_inference_mode_enabled" in observation.names
    if asks and torch.is_inference_mode_enabled():
        raise Unsupported(
            "the step asks for inference mode, in which nothing is recorded: use torch.no_grad"
        )
    outs = (i for call in recording.calls for i in call.outs if i is not None)
    given = (*recording.captured, *recording.states, *recording.xs)
    if a.shared is not None and recording.runs_python_backward:
        raise Unsupported(
            "a leaf has no batch, and the step a backward pass in Python (a custom "
            "autograd.Function, or hooks): give every leaf of init and xs the batch"
        )
    if any(0 in recording.shapes[i] for i in (*given, *outs)):
        raise Unsupported("a tensor in it is empty, so that the engine has nothing to play")


def check_batch(small: Recording, a: Arguments, captured: list[Tensor]) -> None:
    """Raise Unsupported if the step behaves differently with the number of rows of `a`."""
    n_rows = a.n_rows
    if n_rows not in BATCHES:
        with undisturbed(), among_ours():
            outside = () if small.sized else None
            of = _Taken(
                a, captured, outside, small.read, small.per_row, small.draws, small.products
            )
            unify(small, _recorded(of, n_rows), n_rows)


def _per_row(of: _Taken) -> PerRow:
    """The captured tensors that become leaves of the carry."""
    a = of.a
    # An index of gather may have fewer rows than its source. A single row would be broadcast.
    sizes = (a.n_rows + 1, a.n_rows - 1 if a.n_rows > 2 else a.n_rows + 2)

    def reached(per_row: PerRow, at_least: float) -> float:
        n = 0.0
        for i, other in enumerate(sizes):
            n += _reached(replace(of, per_row=per_row), other)
            if n + (len(sizes) - 1 - i) * _END <= at_least:
                break  # it runs no further, whatever happens on the other batch
        return math.inf if n == len(sizes) * _END else n

    return captured_rows(a, of.captured, reached)


def _draws(of: _Taken) -> Draws:
    """The random numbers that the step draws."""
    flat = of.flat

    def found(n_rows: int) -> list[Draw]:
        leaves = _copies(of, n_rows)
        run = FindDraws()
        replaced = swapped(of.captured, of.replacing(leaves), FUNCTIONS)
        with refused(_FAILS), replaced, torch.enable_grad(), run:
            flat(leaves.init, leaves.xs)
        return run.draws

    small, large = map(found, BATCHES)
    return unified(small, large, BATCHES, of.a)


def _products(of: _Taken) -> Products:
    """The products that the step computes from captured rows alone."""
    flat, runs = of.flat, []
    for n_rows in BATCHES:
        leaves = _copies(of, n_rows)
        run = RowProducts(of.captured, of.replacing(leaves), FUNCTIONS, of.per_row, None)
        with refused(_FAILS), run, torch.enable_grad(), _given(leaves):
            flat(leaves.init, leaves.xs)
        runs.append(run)
    return common(runs, BATCHES)


_END = 1e6  # further than any call
_FAILS = "the step fails at another batch size ({})"  # it ran on the real one: only the size is new


class _Counted(swapped):
    """Counts the calls of torch."""

    n_calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n_calls += 1
        return super().__torch_function__(func, types, args, kwargs)


def _reached(of: _Taken, other: int) -> float:
    """The number of calls that the step runs, forward; `_END` if its results have `other` rows.

    That the results can be differentiated counts as one more call.
    """
    leaves = _copies(of, other)
    calls = _Counted(of.captured, of.replacing(leaves), FUNCTIONS)
    try:
        with calls, torch.enable_grad():
            new_states, y = of.a.flat(leaves.init, leaves.xs)
        ys = tree.leaves(y)
        pairs = [(t, torch.ones_like(t)) for t in (*new_states, *ys) if t.requires_grad]
        given = (*leaves.fixed, *leaves.rows, *leaves.init, *leaves.xs)
        if pairs:
            gradients_of(pairs, [t for t in given if t.requires_grad])
        calls.n_calls += 1
    except NOT_OF_A_STEP:
        raise
    except Exception:  # a shape; if it is a mistake in the step, the recording says so
        return calls.n_calls
    carry = zip(new_states, leaves.init, strict=True)
    fit = [new.shape == leaf.shape for new, leaf in carry]
    fit += [t.dim() == 0 or t.shape[0] != of.a.n_rows for t in ys]
    return _END if all(fit) else calls.n_calls + sum(fit)


def _recorded(of: _Taken, n_rows: int) -> Recording:
    flat = of.flat
    try:
        return _record_once(of, flat, FUNCTIONS, _copies(of, n_rows))
    except ViewChanged:
        functions = {**FUNCTIONS, **CHANGES_IN_PLACE}
        flat = transformed(flat, torch.func.functionalize)  # each change makes a new tensor
        return _record_once(of, flat, functions, _copies(of, n_rows))


def transformed(step: Callable[..., Any], transform: Callable[..., Any]) -> Callable[..., Any]:
    """The step on leaves under a transform of torch.func, for which its output is a list."""
    # PyTorch 2.6 imports torch._dynamo in a first call, and with it runs operations: not in a step.
    transform(torch.neg)(torch.zeros(1))

    def whole(states: list[Tensor], xs: list[Tensor]) -> Any:
        specs: list[tree.Spec] = []

        def of_lists(states: list[Tensor], xs: list[Tensor]) -> Any:
            new_states, y = step(states, xs)
            leaves, spec = tree.flatten(y)
            specs.append(spec)
            return list(new_states), list(leaves)

        new_states, leaves = transform(of_lists)(states, xs)
        return new_states, tree.unflatten(leaves, specs[-1])

    return whole


def _leaves_given(a: Arguments) -> tuple[list[Tensor], list[Tensor]]:
    """The leaves of init, and of the first element of xs, with rows."""
    if a.shared is None:
        return a.init_leaves, a.first_x
    init, xs = a.rows
    return init, [leaf[0] for leaf in xs]


class Leaves(NamedTuple):
    """The inputs of a recording: leaves in place of the tensors of the call.

    Attributes:
        fixed: leaves for captured tensors without a batch.
        rows: leaves for the other captured tensors, with the batch first.
        products: products of captured rows alone, with the batch first.
        init, xs: leaves of the carry, and of the first element.
        draws, drawn: the step's draws of random numbers, and numbers for them.
    """

    fixed: list[Tensor]
    rows: list[Tensor]
    products: list[Tensor]
    init: list[Tensor]
    xs: list[Tensor]
    draws: Draws
    drawn: list[Tensor]


def _given(leaves: Leaves) -> AbstractContextManager[Any]:
    """A context that gives a step the random numbers that it draws."""
    return GiveNumbers(leaves.draws, leaves.drawn) if leaves.draws else nullcontext()


def _copies(of: _Taken, n_rows: int) -> Leaves:
    """Leaves of a batch of n_rows rows.

    Captured tensors share their memory, which may be large; the recorder stops the step before it
    changes one. Tensors with rows are copied.
    """

    def leaf(t: Tensor, needs_grad: bool) -> Tensor:
        index = torch.arange(n_rows, device=t.device) % t.shape[0]
        return t.detach()[index].contiguous().requires_grad_(needs_grad)

    fixed, rows = parted(of.captured, of.per_row)
    fixed = [
        (t.clone() if t.is_inference() else t.detach()).requires_grad_(t.requires_grad)
        for t in fixed
    ]
    rows = [leaf(t, t.requires_grad) for t in rows]
    with torch.enable_grad():
        taken = [t.clone() if t.is_inference() else t for t in of.captured] if of.products else []
        made = [leaf(t, t.requires_grad) for t in computed(of.products, taken)]
    init, first_x = _leaves_given(of.a)
    states = [leaf(t, t.is_floating_point()) for t in init]
    xs = [leaf(t, t.requires_grad) for t in first_x]
    return Leaves(fixed, rows, made, states, xs, of.draws, sample(of.draws, n_rows))


def _record_once(
    of: _Taken, step: Callable[..., Any], functions: Mapping[Any, Any], leaves: Leaves
) -> Recording:
    captured, per_row, products, read = of.captured, of.per_row, of.products, of.read
    handed_on = leaves.rows + leaves.products
    params, states, xs = leaves.fixed, leaves.init + handed_on, leaves.xs + leaves.drawn
    given = params + states + xs
    with_rows = {row.position for row in per_row}
    fixed = [i for i in range(len(captured)) if i not in with_rows]
    recorder = Recorder(given, of.outside or (), {fixed.index(i) for i in read if i in fixed})
    n, m = len(params), len(params) + len(states)
    whole = WholeNumbers(recorder, range(n), range(n, len(given)), len(leaves.init[0]))
    with recorder, torch.enable_grad():  # a batch that is not first is put there by a call
        replacing = of.replacing(leaves)
        made = [batch_first(t, p.axis) for t, p in zip(leaves.products, products, strict=True)]
    replaced = swapped(captured, replacing, functions)
    if products:
        replaced = RowProducts(captured, replacing, functions, per_row, made)
    with replaced:
        recorder.whole = None if of.outside is None else whole
        try:
            with refused(_FAILS), recorder, torch.enable_grad(), _given(leaves):
                new_states, y = step(leaves.init, leaves.xs)
        finally:
            recorder.whole = None  # they hold each other, and the step: breaks the cycle
        if isinstance(replaced, RowProducts):
            replaced.check(products)
        with recorder:
            sized = whole.largest(_type_of([t.dtype for t in (*states, *xs, *recorder.values)]))
        so_far, largest = ([], []) if sized is None else ([t] for t in sized)
        new_states = [*new_states, *handed_on, *largest]
        y_leaves, y_spec = tree.flatten(y)
        outputs = new_states + y_leaves
        nodes, sources = behind(outputs, states)
        _check_result(given, y_leaves, nodes)
        n_forward, needs_grad = len(recorder.calls), recorder.needs_grad()
        out_numbers = [recorder.ref(t).index for t in outputs]
        cotangents = [torch.ones_like(t) for t in outputs]
        d_out_numbers = [recorder.new(t) for t in cotangents]
        gradients = _differentiated(recorder, outputs, cotangents, given)
    arrays = recorder.captured_arrays(params)
    d_given = [None if g is None else recorder.gradient(g) for g in gradients]
    k, first = len(new_states), (*_leaves_given(of.a)[0], *handed_on, *so_far)
    return Recording(
        calls=tuple(recorder.connected(needs_grad)),
        n_forward=n_forward,
        shapes=tuple(recorder.shapes),
        dtypes=tuple(v.dtype for v in recorder.values),
        constants={i: t.detach().clone() for i, t in recorder.constants.items()},
        captured=tuple([arrays.get(i, i) for i in range(n)]),
        states=(*range(n, m), *[recorder.number[id(t)] for t in so_far]),
        xs=tuple(range(m, len(given))),
        new_states=tuple(out_numbers[:k]),
        ys=tuple(out_numbers[k:]),
        d_new_states=tuple(d_out_numbers[:k]),
        d_ys=tuple(d_out_numbers[k:]),
        d_captured=tuple(d_given[:n]),
        d_states=(*d_given[n:m], *[None for _ in so_far]),
        d_xs=tuple(d_given[m:]),
        y_spec=y_spec,
        init_needs_grad=tuple(t.requires_grad for t in first),
        differentiable_in=tuple(sources),
        needs_grad=tuple(needs_grad),
        runs_python_backward=runs_python_backward(nodes, recorder.values),
        backward_code=backward_code(nodes, recorder.values),
        per_row=per_row,
        products=products,
        read=read,
        sized=sized is not None,
        draws=leaves.draws,
    )


def _check_result(given: list[Tensor], y_leaves: list[Tensor], nodes: set[Any]) -> None:
    """Raise Unsupported if a result or a gradient of the step cannot be recorded.

    Args:
        given: the leaves that the step was given.
        y_leaves: its outputs.
        nodes: the nodes of the autograd graph behind its results.
    """
    if any(t._backward_hooks or t._post_accumulate_grad_hooks for t in given):
        # A hook on a carry sees the gradient of the last step's output, too: they are one tensor.
        raise Unsupported(A_HOOK)
    if any(t.is_complex() for t in y_leaves):  # it would be a pair, were a leaf complex
        raise Unsupported(
            "the output is complex, and init and xs are real: return torch.view_as_real(y), "
            "and call torch.view_as_complex on what scan returns"
        )
    if {id(v) for v in leaves_of(nodes)} - {id(t) for t in given}:
        # The recording has the function's result, but not the gradient of the captured tensor.
        raise Unsupported(
            "a captured tensor goes into a custom autograd.Function as it is: give it W * 1"
        )


def _differentiated(
    recorder: Recorder, outputs: list[Tensor], cotangents: list[Tensor], given: list[Tensor]
) -> list[Tensor | None]:
    """The gradient of each given tensor; None without one."""
    pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    if not pairs:
        return [None] * len(given)
    wanted = [t for t in given if t.requires_grad]
    with recorder, refused("the step cannot be differentiated here ({})"):  # it may not need to be
        gradients = iter(gradients_of(pairs, wanted))
    return [next(gradients) if t.requires_grad else None for t in given]
