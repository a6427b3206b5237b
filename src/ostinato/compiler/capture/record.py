"""Recording a step: its ATen calls, and those of `torch.autograd.grad` of it.

The gradients are PyTorch's own; there is no table of derivatives to get wrong. The step runs twice,
on batches of 3 and of 5 rows: what differs between the two recordings is the batch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Imported for the compositions that they enter into DECOMPOSITIONS.
import ostinato.compiler.capture.decompositions_attention
import ostinato.compiler.capture.decompositions_axes
import ostinato.compiler.capture.decompositions_losses
import ostinato.compiler.capture.decompositions_norms  # noqa: F401
from ostinato import tree
from ostinato.compiler.capture.captures import swapped
from ostinato.compiler.capture.decompositions import decomposition
from ostinato.compiler.capture.functions import CHANGES_IN_PLACE, FUNCTIONS
from ostinato.compiler.capture.recording import Call, Recording, Ref, Sources, refs_in
from ostinato.compiler.capture.unify import BATCHES, unify, without_unused
from ostinato.compiler.errors import NOT_OF_A_STEP, Unsupported, error_in_short
from ostinato.compiler.torch_compat import among_ours, undisturbed

if TYPE_CHECKING:
    from ostinato.arguments import Arguments
    from ostinato.compiler.capture.guards import Observation

aten = torch.ops.aten


class ViewChanged(Unsupported):
    """The step reads a tensor of which it changed another view in place."""


class _Recorder(TorchDispatchMode):
    """ATen calls as numbered values; an in-place call gives its target a new number."""

    def __init__(self, given: list[Tensor], outside: Collection[int] = ()) -> None:
        """outside: ids of tensors that are not the step's own, and have values of their own."""
        super().__init__()
        self.outside = outside
        self.calls: list[Call] = []
        self.number: dict[int, int] = {}
        self.values: list[Tensor] = []
        self.constants: dict[int, Tensor] = {}
        self.stale: set[int] = set()
        self.inner: set[int] = set()  # values within decompositions, which autograd does not see
        self.depth = 0
        self.arrays: list[int] = []
        self.given = given
        for t in given:
            self.new(t)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # importing torch._dynamo takes a second, and nothing here needs it

    def new(self, tensor: Tensor) -> int:
        number = self.number[id(tensor)] = len(self.values)
        self.values.append(tensor)
        if self.depth:
            self.inner.add(number)
        return number

    def ref(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) not in self.number:
            if leaf.requires_grad:
                raise Unsupported(
                    "a tensor that requires grad reached an operation without passing a torch "
                    "call (a custom autograd.Function, a checkpoint inside the step, or a captured "
                    "tensor that is init, too, or returned as it is)"
                )
            if id(leaf) in self.outside:
                raise Unsupported(
                    "a custom autograd.Function, or a hook, reads a tensor that it was not given: "
                    "give it to apply, and save it with ctx.save_for_backward"
                )
            self.meet(leaf)
        if id(leaf) in self.stale:
            raise ViewChanged("the step reads a view of a tensor that it changed in place")
        return Ref(self.number[id(leaf)])

    def meet(self, leaf: Tensor, of_numbers: bool = False) -> None:
        """Number a tensor that no call made; of_numbers: torch.tensor may have made it."""
        number = self.new(leaf)
        if of_numbers or not leaf.dim():
            self.constants[number] = leaf
        if leaf.dim():
            self.arrays.append(number)

    def bind_arrays(self, captured: Sequence[Tensor]) -> None:
        """Make captured tensors of those that are views of an array (from_numpy).

        The step makes them anew in every run, so that the one of this run is not the one that the
        search found: that has the same values, and no call has read it.
        """
        read = {i for call in self.calls for i in refs_in(call)}
        unread = [i for i in range(len(captured)) if i not in read]
        of: dict[int, int] = {}
        for number in self.arrays:
            leaf = self.values[number]
            same = [
                i for i in unread
                if captured[i].dtype is leaf.dtype and torch.equal(captured[i], leaf)
            ]  # fmt: skip
            if not same and number in self.constants:
                continue
            if not same:
                raise Unsupported(
                    "the step makes a tensor of memory that no guard sees: make it before, or copy "
                    "it with torch.tensor"
                )
            of[number] = same[0]
            self.constants.pop(number, None)
            unread.remove(same[0])

        def bound(leaf: Any) -> Any:
            return Ref(of.get(leaf.index, leaf.index)) if isinstance(leaf, Ref) else leaf

        if of:
            given = [tree.mapped(bound, (c.args, c.kwargs)) for c in self.calls]
            self.calls = [
                Call(c.name, args, kwargs, c.outs)
                for c, (args, kwargs) in zip(self.calls, given, strict=True)
            ]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        if name.startswith("profiler."):  # a label that torch.profiler shows: computes nothing
            return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            raise Unsupported(_why_a_value_is_looked_at(), name)
        if _shape_depends_on_values(func, args):
            raise Unsupported("the shape of a value depends on other values", name)
        if func is aten.lift_fresh.default and id(args[0]) not in self.number:
            self.meet(args[0], of_numbers=True)
        composition = decomposition(name)
        if composition is not None:
            out = self.composed(composition, args, kwargs)
            if out is not NotImplemented:
                return out
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise Unsupported(
                "the step draws random numbers; draw them before and pass them through xs, "
                "for instance masks for dropout",
                name,
            )
        if self.depth:  # below autograd, which would have taken it apart
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        recorded_args, recorded_kwargs = tree.mapped(self.ref, (args, kwargs))
        out = func(*args, **kwargs)
        if func._schema.is_mutable:
            self.mutate(args[0], name)
        outs = out if isinstance(out, (tuple, list)) else [out]
        if any(isinstance(value, (bool, int, float)) for value in outs):
            raise Unsupported("the step turns a tensor into a Python value", name)
        numbers = tuple(self.new(t) if isinstance(t, Tensor) else None for t in outs)
        self.calls.append(Call(name, recorded_args, recorded_kwargs, numbers))
        return out

    def composed(self, composition: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Record what an operation is a composition of, instead of itself."""
        self.depth += 1
        try:
            with self:
                out = composition(*args, **kwargs)
        finally:
            self.depth -= 1
        if out is not NotImplemented and not self.depth:
            self.inner -= {self.number[id(t)] for t in tree.leaves(out) if isinstance(t, Tensor)}
        return out

    def mutate(self, target: Tensor, name: str) -> None:
        storage = target.untyped_storage().data_ptr()
        if any(v.untyped_storage().data_ptr() == storage for v in self.given):
            raise Unsupported(
                "the step changes its carry, its input or a captured tensor in place", name
            )
        mine = None
        for value in self.values:
            if value is not target and value.untyped_storage().data_ptr() == storage:
                mine = mine if mine is not None else _elements(target)
                if mine & _elements(value):
                    self.stale.add(id(value))
        self.number.pop(id(target))


def _why_a_value_is_looked_at() -> str:
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if str(frame.f_globals.get("__name__")).startswith("torch.distributions"):
            return (
                "a distribution checks the values of its arguments: make it with "
                "validate_args=False"
            )
    return "the step turns a tensor into a Python value (.item(), if, int())"


def _shape_depends_on_values(func: Any, args: Any) -> bool:
    if torch.Tag.dynamic_output_shape not in func.tags:
        return False
    if func is not aten.index.Tensor:
        return True
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])


def _elements(view: Tensor) -> set[int]:
    size = view.untyped_storage().nbytes() // view.element_size()
    index = torch.arange(size, device=view.device).as_strided(
        view.size(), view.stride(), view.storage_offset()
    )
    return set(index.flatten().tolist())


def record(
    a: Arguments, captured: list[Tensor], observation: Observation | None
) -> tuple[Recording, Recording]:
    """Record a step at the two batch sizes and make one recording with a symbolic batch.

    Returns it, and the one on the small batch.

    Args:
        a: the call; real values of init and of the first element of xs are used, with other rows.
        captured: the tensors that the step takes from outside.
        observation: watches the step; a recorded operation must not read another tensor that it
            led to. None for a layer's step.

    Raises:
        Unsupported: the step cannot be recorded, or depends on the batch size.
    """
    outside = set() if observation is None else {id(t) for t in observation.tensors}
    with observation or nullcontext(), undisturbed(), among_ours():
        small, large = (_recorded(a, captured, n_rows, outside) for n_rows in BATCHES)
    return without_unused(unify(small, large, BATCHES[1])), small


def step_type(recording: Recording) -> torch.dtype:
    """The floating-point type that a step computes in: that of its carry, xs or parameters.

    Half precision is computed in float32. A step that computes whole numbers alone is computed in
    float64, where they are exact up to 2⁵³.
    """
    r = recording
    given = [r.dtypes[i] for i in (*r.states, *r.xs, *r.captured)]
    for dtype in (*given, *r.dtypes):
        if dtype.is_floating_point or dtype.is_complex:
            return torch.float32 if dtype.itemsize == 2 else dtype
    return torch.float64


def check_recording(recording: Recording, a: Arguments, observation: Observation | None) -> None:
    """Raise Unsupported where a step was recorded that the engine has no way to play."""
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
        raise Unsupported("a tensor in it is empty, where the engine has nothing to play")


def check_batch(small: Recording, a: Arguments, captured: list[Tensor]) -> None:
    """Whether the step takes the same course, forward and backward, with as many rows as `a` has.

    Raises:
        Unsupported: it does not.
    """
    n_rows = a.init_leaves[0].shape[0] if a.shared is None else a.shared.n_rows
    if n_rows not in BATCHES:
        with undisturbed(), among_ours():
            unify(small, _recorded(a, captured, n_rows, ()), n_rows)


def _recorded(
    a: Arguments, captured: list[Tensor], n_rows: int, outside: Collection[int]
) -> Recording:
    flat: Callable[..., Any] = a.flat
    functions: Mapping[Any, Any] = FUNCTIONS
    if a.shared is not None:
        flat, functions = a.shared.flat(a), a.shared.functions
    try:
        return _record_once(a, flat, functions, captured, n_rows, outside)
    except ViewChanged:
        functions = {**functions, **CHANGES_IN_PLACE}
        return _record_once(a, _without_changes(flat), functions, captured, n_rows, outside)


def _without_changes(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step on leaves, in which a change in place of a view is a new tensor."""

    def functional(states: list[Tensor], xs: list[Tensor]) -> Any:
        specs: list[tree.Spec] = []

        def flat(states: list[Tensor], xs: list[Tensor]) -> Any:
            new_states, y = step(states, xs)
            leaves, spec = tree.flatten(y)
            specs.append(spec)
            return list(new_states), list(leaves)

        new_states, leaves = torch.func.functionalize(flat)(states, xs)
        return new_states, tree.unflatten(leaves, specs[-1])

    return functional


def _record_once(
    a: Arguments, step: Callable[..., Any], functions: Mapping[Any, Any],
    captured: list[Tensor], n_rows: int, outside: Collection[int],
) -> Recording:  # fmt: skip
    def leaf(t: Tensor, needs_grad: bool) -> Tensor:
        index = torch.arange(n_rows, device=t.device) % t.shape[0]
        return t.detach()[index].contiguous().requires_grad_(needs_grad)

    state_leaves, x_leaves = a.init_leaves, a.first_x
    if a.shared is not None:
        init, xs_of_rows = a.rows
        state_leaves, x_leaves = init, [leaf[0] for leaf in xs_of_rows]
    params = [
        (t.clone() if t.is_inference() else t.detach()).requires_grad_(t.requires_grad)
        for t in captured
    ]
    states = [leaf(t, t.is_floating_point()) for t in state_leaves]
    xs = [leaf(t, t.requires_grad) for t in x_leaves]
    given = params + states + xs
    recorder = _Recorder(given, outside)
    with swapped(captured, params, functions):
        new_states, y = _watched(recorder, step, states, xs, _of_every_row(a, captured))
        if any(t._backward_hooks for t in params + states):
            # On a carry it sees the gradient of the last step's output, too: they are one tensor.
            raise Unsupported("the step hangs a hook on its carry or on a captured tensor")
        y_leaves, y_spec = tree.flatten(y)
        outputs = new_states + y_leaves
        n_forward = len(recorder.calls)
        needs_grad = [t.requires_grad or i in recorder.inner for i, t in enumerate(recorder.values)]
        behind = [_nodes_behind(t) for t in outputs]
        of_others = {id(v) for v in _leaves_of(set().union(*behind))} - {id(t) for t in given}
        if of_others:  # what it computes of that is recorded, and its gradient is not
            raise Unsupported(
                "a captured tensor goes into a custom autograd.Function as it is: give it W * 1"
            )
        out_numbers = [recorder.ref(t).index for t in outputs]
        cotangents = [torch.ones_like(t) for t in outputs]
        d_out_numbers = [recorder.new(t) for t in cotangents]
        gradients = _differentiated(recorder, outputs, cotangents, given)
    recorder.bind_arrays(captured)
    d_given = [None if g is None else recorder.ref(g).index for g in gradients]
    n, m, k = len(params), len(params) + len(states), len(new_states)
    return Recording(
        calls=tuple(recorder.calls),
        n_forward=n_forward,
        shapes=tuple(tuple(v.shape) for v in recorder.values),
        dtypes=tuple(v.dtype for v in recorder.values),
        constants={i: t.detach().clone() for i, t in recorder.constants.items()},
        captured=tuple(range(n)),
        states=tuple(range(n, m)),
        xs=tuple(range(m, len(given))),
        new_states=tuple(out_numbers[:k]),
        ys=tuple(out_numbers[k:]),
        d_new_states=tuple(d_out_numbers[:k]),
        d_ys=tuple(d_out_numbers[k:]),
        d_captured=tuple(d_given[:n]),
        d_states=tuple(d_given[n:m]),
        d_xs=tuple(d_given[m:]),
        y_spec=y_spec,
        init_needs_grad=tuple(t.requires_grad for t in state_leaves),
        differentiable_in=tuple(
            _sources(t, nodes, states) for t, nodes in zip(outputs, behind, strict=True)
        ),
        needs_grad=tuple(needs_grad),
        runs_python_backward=any(
            isinstance(node, torch.autograd.function.BackwardCFunction)
            for node in set().union(*behind)
        )
        or any(t._backward_hooks for t in recorder.values),
    )


def _of_every_row(a: Arguments, captured: list[Tensor]) -> str:
    """Of captured tensors that seem to hold something for each row: what to do."""
    n_rows = a.init_leaves[0].shape[0] if a.shared is None else a.shared.n_rows
    shapes = [list(t.shape) for t in captured if t.dim() > 1 and t.shape[0] == n_rows]
    if not shapes:
        return ""
    return (
        f"; if the captured tensor of shape {shapes[0]} holds something for each row of the "
        "batch, put it into the carry, or into xs"
    )


def _watched(recorder: _Recorder, step: Callable[..., Any], state: Any, x: Any, advice: str) -> Any:
    try:
        with recorder, torch.enable_grad():
            return step(state, x)
    except (Unsupported, *NOT_OF_A_STEP):
        raise
    except Exception as error:  # it ran on the real batch: only the size is new
        raise Unsupported(
            f"the step fails at another batch size ({error_in_short(error)}){advice}"
        ) from error


class _Weighted(torch.autograd.Function):
    """A scalar whose gradients for the outputs are the cotangents.

    `autograd.grad(outputs, inputs, cotangents)` means the same, but imports SymPy first: 0.2 s, and
    twice that while the recorded run is observed.
    """

    @staticmethod
    def forward(ctx: Any, cotangents: list[Tensor], *outputs: Tensor) -> Tensor:
        ctx.cotangents = cotangents
        return outputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        return (None, *ctx.cotangents)


def _differentiated(
    recorder: _Recorder, outputs: list[Tensor], cotangents: list[Tensor], given: list[Tensor]
) -> list[Tensor | None]:
    """Of what was given: the gradients, None where there is none."""
    wanted = [t for t in given if t.requires_grad]
    pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    if not pairs:
        return [None] * len(given)
    with torch.enable_grad():
        total = _Weighted.apply([c for _, c in pairs], *(o for o, _ in pairs))
    recorder.constants[recorder.new(total)] = total  # autograd makes a one like it, for nobody
    try:
        with recorder:
            gradients = torch.autograd.grad(total, wanted, allow_unused=True)
    except (Unsupported, *NOT_OF_A_STEP):
        raise
    except Exception as error:  # it may never be wanted
        raise Unsupported(
            f"the step cannot be differentiated here ({error_in_short(error)})"
        ) from error
    by_tensor = {id(t): g for t, g in zip(wanted, gradients, strict=True)}
    return [by_tensor.get(id(t)) for t in given]


def _nodes_behind(output: Tensor) -> set[Any]:
    """Those of the autograd graph that lead to a tensor."""
    found: set[Any] = set()
    stack: list[Any] = [output.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found.add(node)
            stack += [before for before, _ in node.next_functions]
    return found


def _leaves_of(nodes: set[Any]) -> list[Tensor]:
    """The tensors that gradients are collected in, which a leaf's own node names."""
    return [n.variable for n in nodes if type(n).__name__ == "AccumulateGrad"]


def _sources(output: Tensor, nodes: set[Any], states: list[Tensor]) -> Sources:
    # An input that is given back as it is has no node.
    leaves = {id(leaf) for leaf in _leaves_of(nodes)}
    if output.grad_fn is None and output.requires_grad:
        leaves.add(id(output))
    of_states = {i for i, t in enumerate(states) if id(t) in leaves}
    return Sources(len(leaves) > len(of_states), frozenset(of_states))
