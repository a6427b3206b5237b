"""Recording a step: its ATen calls, and those of `torch.autograd.grad` of it.

The gradients are PyTorch's own; there is no table of derivatives to get wrong. The step runs twice,
on batches of 3 and of 5 rows: what differs between the two recordings is the batch.

What this needs of PyTorch beyond its everyday surface (two modes, schema flags) is in this file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import TorchDispatchMode

from ostinato import tree
from ostinato.compiler.graph import Unsupported
from ostinato.engine import native

aten = torch.ops.aten
BATCHES = (3, 5)
_IN_PLACE = {
    "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__",
    "__iand__", "__ior__", "__ixor__", "__setitem__", "__set__",
}  # fmt: skip
_PLAIN = {
    int, bool, str, float, complex, slice, type(None), type(...), type, torch.dtype, torch.device,
    torch.Size, torch.layout, torch.memory_format,
}  # fmt: skip
_MARKS: list[object] = []  # of tensors in a trail, by the order in which they are met
_HOOKS = {"register_hook", "register_post_accumulate_grad_hook"}
# ATen calls whose arguments may hold the batch size: as a shape.
_SHAPED = {
    "view", "_unsafe_view", "reshape", "_reshape_alias", "expand", "slice", "narrow",
    "slice_backward", "select_backward", "zeros", "ones", "full", "empty", "new_zeros", "new_ones",
    "new_full", "new_empty", "unsafe_split", "split",
}  # fmt: skip


@dataclass(frozen=True)
class Ref:
    """In recorded arguments: the value of that number."""

    index: int


@dataclass(frozen=True)
class Batch:
    """In recorded arguments and shapes: `times` · B."""

    times: int


@dataclass(frozen=True)
class Call:
    name: str  # "aten.mm.default"
    args: Any
    kwargs: Any
    outs: tuple[int | None, ...]


class Sources(NamedTuple):
    """What an output of the step is differentiable in."""

    outside: bool  # a captured tensor, or an element of xs
    states: frozenset[int]


@dataclass(frozen=True)
class Recording:
    """One step, forward and backward, as numbered values."""

    calls: tuple[Call, ...]
    n_forward: int
    shapes: tuple[tuple[int | Batch, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    constants: dict[int, Tensor]  # values that came from outside without being captured
    captured: tuple[int, ...]
    states: tuple[int, ...]
    xs: tuple[int, ...]
    new_states: tuple[int, ...]
    ys: tuple[int, ...]
    d_new_states: tuple[int, ...]
    d_ys: tuple[int, ...]
    d_captured: tuple[int | None, ...]
    d_states: tuple[int | None, ...]
    d_xs: tuple[int | None, ...]
    y_spec: tree.Spec
    init_needs_grad: tuple[bool, ...]
    differentiable_in: tuple[Sources, ...]  # new states, then ys
    runs_python_backward: bool  # a custom autograd.Function, or hooks: what they read is not seen


class CaptureSearch(TorchFunctionMode):
    """The tensors a step takes from outside, by identity, in order of first use."""

    def __init__(self, known: list[Tensor]):
        super().__init__()
        self.marks: dict[int, object] = {}  # id → what stands for the tensor in the trail
        self.alive: list[Tensor] = []  # so that ids stay theirs
        for t in known:
            self.meet(t)
        self.made: set[int] = set()  # by the step
        self.captured: list[Tensor] = []
        # What the step did: functions, their arguments, and what came of them.
        self.trail: list[Any] = []
        self.unclear = False  # an argument is of a kind whose text may not say all of it

    def meet(self, t: Tensor) -> bool:
        """Whether it is new."""
        if id(t) in self.marks:
            return False
        n = len(self.alive)
        if n == len(_MARKS):
            _MARKS.append(object())
        self.marks[id(t)] = _MARKS[n]
        self.alive.append(t)
        return True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.refuse_traces(func, args, kwargs)
        trail, marks = self.trail, self.marks
        leaves, spec = tree.flatten((args, kwargs) if kwargs else args)
        trail.append(spec)
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                if self.meet(leaf):
                    self.captured.append(leaf)
                trail.append(marks[id(leaf)])
            else:
                kind = type(leaf)
                trail.append(kind)
                # As text −0 is not 0, NaN is itself, and a slice can be hashed.
                trail.append(leaf if kind is int or kind is bool or kind is str else repr(leaf))
                if kind not in _PLAIN and not issubclass(kind, np.generic):
                    self.unclear = True
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        trail.append(name)
        if name == "__get__":  # of a property, whose name it has
            trail.append(getattr(func.__self__, "__name__", None))
        for leaf in tree.leaves(out):
            if isinstance(leaf, Tensor):
                if self.meet(leaf):
                    self.made.add(id(leaf))
                trail.append(marks[id(leaf)])
        return out

    def refuse_traces(self, func: Any, args: Any, kwargs: Any) -> None:
        """Stop before an extra call leaves a trace: in a tensor from outside, in a generator."""
        name = getattr(func, "__name__", "")
        changed = [kwargs["out"]] if isinstance(kwargs.get("out"), Tensor) else []
        if (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE:
            changed += args[:1]
        if name in _HOOKS and isinstance(args[0], Tensor) and id(args[0]) not in self.made:
            raise Unsupported("the step hangs a hook on its carry, its input or a captured tensor")
        for target in changed:
            if isinstance(target, Tensor) and id(target) not in self.made:
                raise Unsupported(
                    "the step changes its carry, its input or a captured tensor in place", name
                )
        if kwargs.get("generator") is not None:
            raise Unsupported("the step draws random numbers from a generator", name)


class swapped(TorchFunctionMode):  # noqa: N801 (reads as a context)
    """Captured tensors replaced by fresh leaves wherever they enter a call."""

    def __init__(self, old: list[Tensor], new: list[Tensor]):
        super().__init__()
        self.new = {id(o): n for o, n in zip(old, new, strict=True)}
        self.old = old

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def swap(leaf: Any) -> Any:
            return self.new.get(id(leaf), leaf) if isinstance(leaf, Tensor) else leaf

        args, kwargs = pytree.tree_map(swap, (args, kwargs or {}))
        return func(*args, **kwargs)


class _Recorder(TorchDispatchMode):
    """ATen calls as numbered values; an in-place call gives its target a new number."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.number: dict[int, int] = {}
        self.values: list[Tensor] = []
        self.constants: dict[int, Tensor] = {}
        self.stale: set[int] = set()
        self.n_inputs = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # importing torch._dynamo takes a second, and nothing here needs it

    def new(self, tensor: Tensor) -> int:
        self.number[id(tensor)] = len(self.values)
        self.values.append(tensor)
        return len(self.values) - 1

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
            self.constants[self.new(leaf)] = leaf
        if id(leaf) in self.stale:
            raise Unsupported("the step reads a view of a tensor that it changed in place")
        return Ref(self.number[id(leaf)])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        if func is aten._local_scalar_dense.default:
            raise Unsupported(
                "the step turns a tensor into a Python value (.item(), if, int())", name
            )
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise Unsupported(
                "the step draws random numbers; draw them before and pass them through xs, "
                "for instance masks for dropout",
                name,
            )
        recorded_args, recorded_kwargs = pytree.tree_map(self.ref, (args, kwargs))
        out = func(*args, **kwargs)
        if func._schema.is_mutable:
            self.mutate(args[0], name)
        outs = out if isinstance(out, (tuple, list)) else [out]
        numbers = tuple(self.new(t) if isinstance(t, Tensor) else None for t in outs)
        self.calls.append(Call(name, recorded_args, recorded_kwargs, numbers))
        return out

    def mutate(self, target: Tensor, name: str) -> None:
        storage = target.untyped_storage().data_ptr()
        inputs = self.values[: self.n_inputs]
        if any(v.untyped_storage().data_ptr() == storage for v in inputs):
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


def _elements(view: Tensor) -> set[int]:
    size = view.untyped_storage().nbytes() // view.element_size()
    index = torch.arange(size, device=view.device).as_strided(
        view.size(), view.stride(), view.storage_offset()
    )
    return set(index.flatten().tolist())


_forward_ad = torch.autograd.forward_ad


def transformed() -> str | None:
    """What is active that must see every operation, so that the eager loop has to run."""
    if native.modes() is not None and not is_searching():
        return None
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transform is active"
    if _forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    if torch._C._len_torch_dispatch_stack() > 0 or is_searching():
        return "another mode is recording operations"
    if torch._C._is_tracing():
        return "the call is being traced"
    if torch._C._len_torch_function_stack() > 0 and default_devices() is None:
        return "a mode that overrides torch's functions is active"
    return None


def default_devices() -> tuple[torch.device, ...] | None:
    """Where a step's new tensors go by `with torch.device` or set_default_device, outermost first.

    None if a mode is among them that overrides functions in another way.
    """
    modes = torch.overrides._get_current_function_mode_stack()
    if not all(isinstance(mode, DeviceContext) for mode in modes):
        return None
    return tuple([mode.device for mode in modes])


class _Searching(threading.local):
    active = False


_searching = _Searching()


def is_searching() -> bool:
    """Whether a step is being searched for what it captures: a scan within it plays the loop."""
    return _searching.active


@contextmanager
def undisturbed() -> Iterator[None]:
    """Extra calls of a step must not be noticed.

    The random state is put back; hooks on saved tensors (checkpoints) see nothing; what is recorded
    under inference mode can be differentiated later.
    """
    state = torch.get_rng_state()

    def same(x: Tensor) -> Tensor:
        return x

    try:
        with torch.inference_mode(False), torch.autograd.graph.saved_tensors_hooks(same, same):
            yield
    finally:
        torch.set_rng_state(state)


def search_captured(
    step: Callable[..., Any], state: Any, x: Any, check: Callable[[Any], None]
) -> CaptureSearch:
    """Run a step once, for the tensors it takes from outside; `check` sees what it returned."""
    search = CaptureSearch(tree.leaves((state, x)))
    try:
        with undisturbed(), torch.no_grad():
            _searching.active = True  # a scan within the step must show its operations
            try:
                with search:
                    result = step(state, x)
            finally:
                _searching.active = False
    except Unsupported:
        raise
    except Exception as error:
        before = torch.get_rng_state()
        step(state, x)  # a mistake in it is raised here, as by the loop
        torch.set_rng_state(before)
        raise Unsupported(f"the step fails while it is watched ({_in_short(error)})") from error
    check(result)
    leaves, spec = tree.flatten(result)
    search.trail += [spec, *(search.marks.get(id(leaf)) for leaf in leaves)]
    return search


def _in_short(error: Exception) -> str:
    first_line = str(error).split("\n")[0]
    return f"{type(error).__name__}: {first_line}"


def record(
    step: Callable[..., Any],
    init: Any,
    x: Any,
    captured: list[Tensor],
    split: Callable[[Any], tuple[list[Tensor], Any]],
) -> tuple[Recording, Recording]:
    """Record `step` at the two batch sizes and make one recording with a symbolic batch.

    Returns it, and the one on the small batch.

    Args:
        init, x: the carry and one element of xs, with real values and any number of rows.
        captured: what `search_captured` found.
        split: separates what step returns into (leaves of the new carry, output).

    Raises:
        Unsupported: the step cannot be recorded, or depends on the batch size.
    """
    with undisturbed():
        small, large = (_record_once(step, init, x, captured, split, b) for b in BATCHES)
    return _unify(small, large, BATCHES[1]), small


def recorded_step(recording: Recording, captured: Any) -> Callable[[Any, Any], Any]:
    """The step as it was recorded, as a differentiable function of lists of leaves.

    It computes what was computed when the step was recorded, whatever the step has become since.
    """

    def step(states: Any, xs: Any) -> tuple[list[Tensor], list[Tensor]]:
        n_rows = states[0].shape[0]
        values: dict[int, Any] = dict(recording.constants)
        numbers = (*recording.captured, *recording.states, *recording.xs)
        values.update(zip(numbers, (*captured, *states, *xs), strict=True))

        def filled(leaf: Any) -> Any:
            if isinstance(leaf, Ref):
                return values[leaf.index]
            return leaf.times * n_rows if isinstance(leaf, Batch) else leaf

        for call in recording.calls[: recording.n_forward]:
            args, kwargs = pytree.tree_map(filled, (call.args, call.kwargs))
            _, name, overload = call.name.split(".")
            out = getattr(getattr(aten, name), overload)(*args, **kwargs)
            outs = out if isinstance(out, (tuple, list)) else [out]
            values.update({i: t for i, t in zip(call.outs, outs, strict=True) if i is not None})
        return [values[i] for i in recording.new_states], [values[i] for i in recording.ys]

    return step


def check_batch(
    small: Recording,
    step: Callable[..., Any],
    init: Any,
    x: Any,
    captured: list[Tensor],
    split: Callable[[Any], tuple[list[Tensor], Any]],
) -> None:
    """Whether the step takes the same course, forward and backward, with as many rows as `x` has.

    Raises:
        Unsupported: it does not.
    """
    n_rows = tree.leaves(init)[0].shape[0]
    if n_rows not in BATCHES:
        with undisturbed():
            _unify(small, _record_once(step, init, x, captured, split, n_rows), n_rows)


def _record_once(
    step: Callable[..., Any],
    init: Any,
    x: Any,
    captured: list[Tensor],
    split: Callable[[Any], tuple[list[Tensor], Any]],
    n_rows: int,
) -> Recording:
    def leaf(t: Tensor, needs_grad: bool) -> Tensor:
        index = torch.arange(n_rows, device=t.device) % t.shape[0]
        return t.detach()[index].contiguous().requires_grad_(needs_grad)

    state_leaves, state_spec = tree.flatten(init)
    x_leaves, x_spec = tree.flatten(x)
    params = [
        (t.clone() if t.is_inference() else t.detach()).requires_grad_(t.requires_grad)
        for t in captured
    ]
    states = [leaf(t, t.is_floating_point()) for t in state_leaves]
    xs = [leaf(t, t.requires_grad) for t in x_leaves]
    recorder = _Recorder()
    numbers = [recorder.new(t) for t in params + states + xs]
    recorder.n_inputs = len(numbers)
    with swapped(captured, params):
        with recorder, torch.enable_grad():
            state, element = (
                tree.unflatten(states, state_spec),
                tree.unflatten(xs, x_spec),
            )
            try:
                result = step(state, element)
            except Unsupported:
                raise
            except Exception as error:  # it ran on the real batch: only the size is new
                raise Unsupported(
                    f"the step fails at another batch size ({_in_short(error)})"
                ) from error
        if any(t._backward_hooks for t in params + states):
            # On a carry it sees the gradient of the last step's output, too: they are one tensor.
            raise Unsupported("the step hangs a hook on its carry or on a captured tensor")
        new_states, y = split(result)
        y_leaves, y_spec = tree.flatten(y)
        n_forward = len(recorder.calls)
        outputs = new_states + y_leaves
        nodes = [_nodes_behind(t) for t in outputs]
        output_numbers = [recorder.ref(t).index for t in outputs]
        cotangents = [torch.ones_like(t) for t in outputs]
        d_numbers = [recorder.new(t) for t in cotangents]
        wanted = [t for t in params + states + xs if t.requires_grad]
        pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
        grads: Any = [None] * len(wanted)
        if pairs:
            try:
                with recorder:
                    grads = torch.autograd.grad(
                        [o for o, _ in pairs], wanted, [c for _, c in pairs], allow_unused=True
                    )
            except Unsupported:
                raise
            except Exception as error:  # it may never be wanted
                raise Unsupported(
                    f"the step cannot be differentiated here ({_in_short(error)})"
                ) from error
    by_tensor = {id(t): g for t, g in zip(wanted, grads, strict=True)}

    def gradient(t: Tensor) -> int | None:
        g = by_tensor.get(id(t))
        return None if g is None else recorder.ref(g).index

    n, m = len(params), len(params) + len(states)
    k = len(new_states)
    return Recording(
        calls=tuple(recorder.calls),
        n_forward=n_forward,
        shapes=tuple(tuple(v.shape) for v in recorder.values),
        dtypes=tuple(v.dtype for v in recorder.values),
        constants={i: t.detach().clone() for i, t in recorder.constants.items()},
        captured=tuple(numbers[:n]),
        states=tuple(numbers[n:m]),
        xs=tuple(numbers[m:]),
        new_states=tuple(output_numbers[:k]),
        ys=tuple(output_numbers[k:]),
        d_new_states=tuple(d_numbers[:k]),
        d_ys=tuple(d_numbers[k:]),
        d_captured=tuple(gradient(t) for t in params),
        d_states=tuple(gradient(t) for t in states),
        d_xs=tuple(gradient(t) for t in xs),
        y_spec=y_spec,
        init_needs_grad=tuple(t.requires_grad for t in state_leaves),
        differentiable_in=tuple(
            _sources(t, behind, states) for t, behind in zip(outputs, nodes, strict=True)
        ),
        runs_python_backward=any(
            isinstance(node, torch.autograd.function.BackwardCFunction)
            for node in set().union(*nodes)
        )
        or any(t._backward_hooks for t in recorder.values),
    )


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


def _sources(output: Tensor, nodes: set[Any], states: list[Tensor]) -> Sources:
    # An input that is given back as it is has no node; a leaf's own node names it.
    leaves = {id(n.variable) for n in nodes if type(n).__name__ == "AccumulateGrad"}
    if output.grad_fn is None and output.requires_grad:
        leaves.add(id(output))
    of_states = {i for i, t in enumerate(states) if id(t) in leaves}
    return Sources(len(leaves) > len(of_states), frozenset(of_states))


def _unify(small: Recording, large: Recording, n_large: int) -> Recording:
    """Two recordings that differ in the batch alone, as one."""

    def same(a: Any, b: Any, name: str) -> Any:
        return _same(a, b, name, n_large)

    if [c.name for c in small.calls] != [c.name for c in large.calls]:
        raise Unsupported("the step takes another course at another batch size")
    calls = []
    for a, b in zip(small.calls, large.calls, strict=True):
        leaves_a, spec = pytree.tree_flatten((a.args, a.kwargs))
        leaves_b, spec_b = pytree.tree_flatten((b.args, b.kwargs))
        if spec != spec_b:
            raise Unsupported("the step takes another course at another batch size", a.name)
        both = [same(p, q, a.name) for p, q in zip(leaves_a, leaves_b, strict=True)]
        if any(isinstance(v, Batch) for v in both) and a.name.split(".")[1] not in _SHAPED:
            raise Unsupported("the step computes with the batch size", a.name)
        args, kwargs = pytree.tree_unflatten(both, spec)
        calls.append(Call(a.name, args, kwargs, a.outs))
    shapes = tuple(
        tuple(same(p, q, "shape") for p, q in zip(s, t, strict=True))
        for s, t in zip(small.shapes, large.shapes, strict=True)
    )
    for i, value in small.constants.items():
        if i not in large.constants or not torch.equal(value, large.constants[i]):
            raise Unsupported(
                "the step makes a tensor from Python values that change with the data"
            )
    fields = {**small.__dict__, "calls": tuple(calls), "shapes": shapes}
    return Recording(**fields)


def _same(a: Any, b: Any, name: str, n_large: int) -> Any:
    if type(a) is int and type(b) is int and a != b:
        if a % BATCHES[0] == 0 and b * BATCHES[0] == a * n_large:
            return Batch(a // BATCHES[0])
        raise Unsupported("the step computes with the batch size", name)
    if a != b and not (a != a and b != b):  # NaN equals itself here
        raise Unsupported("the step computes with the batch size", name)
    return a
