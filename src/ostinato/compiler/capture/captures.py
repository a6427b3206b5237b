"""Searching a step: one run of it, for the tensors it takes from outside and what it did.

Where a step can't be watched for changes it is searched at each call, and played from its recording
if it did the same.
"""

from __future__ import annotations

import gc
import traceback
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ostinato import tree
from ostinato.compiler.errors import A_HOOK, IN_PLACE, Unsupported
from ostinato.compiler.inputs import check_tensors, described
from ostinato.compiler.torch_compat import OwnMode, among_ours, undisturbed
from ostinato.eager import check_carry

if TYPE_CHECKING:
    from ostinato.arguments import Arguments

_PLAIN = {
    int, bool, str, float, complex, slice, type(None), type(...), type, torch.dtype, torch.device,
    torch.Size, torch.layout, torch.memory_format,
}  # fmt: skip
_LEAVES = {Tensor, torch.nn.Parameter, *_PLAIN}
_FROM_VALUES = {"tensor", "as_tensor", "asarray", "new_tensor"}
# What a step may learn of a tensor, beside what begins with is_: a recording depends on it.
_ABOUT = {
    "shape", "size", "dim", "ndim", "ndimension", "numel", "nelement", "stride", "dtype", "device",
    "layout", "itemsize", "element_size", "nbytes", "requires_grad", "names", "get_device",
    "storage_offset", "type", "result_type", "__len__", "__hash__",
}  # fmt: skip
# These calls change a tensor itself, not its elements. For a tensor from outside, the loop plays.
_HOOKS = {"register_hook", "register_post_accumulate_grad_hook"}
_OF_ITSELF = {"__set__", "__delete__", "requires_grad_", *_HOOKS}
_WITHOUT_RESULT = {*_OF_ITSELF, "__setitem__", "retain_grad"}
_NOT_ABOUT = {"is_nonzero", "is_leaf", "is_inference"}  # a recording is not made under it


class _Writes(TorchDispatchMode):
    """Refuses calls that would write into the memory of a tensor from outside, before they do."""

    def __init__(self, outside: list[tuple[Tensor, int | None]]):
        super().__init__()
        self.outside = outside

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # importing torch._dynamo takes a second, and nothing here needs it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable or func in _UNSAID:
            written = [t for t in tree.leaves(_written(func, args, kwargs)) if torch.is_tensor(t)]
            with torch._C.DisableTorchFunction():  # the search does not see us
                memory = {_memory_of(t) for t, _ in self.outside} - {None}
                own = memory.isdisjoint(map(_memory_of, written))
            if not own:
                raise Unsupported(IN_PLACE, str(func))
        return func(*args, **kwargs)


# Running statistics, of which the schema does not say that they are written.
_UNSAID = {
    torch.ops.aten.native_batch_norm.default: ("running_mean", "running_var"),
    torch.ops.aten.batch_norm_update_stats.default: ("running_mean", "running_var"),
}


def _written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The arguments that a call writes."""
    schema, unsaid = func._schema.arguments, _UNSAID.get(func, ())
    given = {**dict(zip((of.name for of in schema), args, strict=False)), **kwargs}
    if not given.get("training", True):  # statistics are read
        unsaid = ()
    said = [of.name for of in schema if of.alias_info is not None and of.alias_info.is_write]
    return [given.get(name) for name in (*said, *unsaid)]


def _memory_of(t: Tensor) -> int | None:
    """The address of a tensor's memory; None where it has none of its own."""
    try:
        return t.untyped_storage().data_ptr() or None
    except (RuntimeError, NotImplementedError):
        return None


def _version_of(t: Tensor) -> int | None:
    return None if t.is_inference() else t._version


class Search(OwnMode):
    """The tensors a step takes from outside, by identity, in order of first use."""

    def __init__(self, given: list[Tensor]):
        super().__init__()
        self.marks: dict[int, int] = {}  # id → the tensor's number in the trail
        self.alive: list[Tensor] = []  # so that ids stay theirs
        self.outside: list[tuple[Tensor, int | None]] = []  # with their versions
        self.made: set[int] = set()  # by the step
        self.captured: list[Tensor] = []
        self.writes = _Writes(self.outside)
        for t in given:
            if id(t) not in self.marks:
                self.meet_outside(t)
        # What the step did: functions, their arguments, and what came of them.
        self.trail: list[Any] = []
        self.did: Any = None  # the trail and what it is of, hashable
        self.unclear = False  # an argument is of a kind whose text may not say all of it

    def meet(self, t: Tensor) -> None:
        self.marks[id(t)] = len(self.alive)
        self.alive.append(t)

    def meet_outside(self, t: Tensor) -> None:
        self.meet(t)
        self.outside.append((t, _version_of(t)))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.left:
            return func(*args, **(kwargs or {}))
        name, kwargs = getattr(func, "__name__", None) or str(func), kwargs or {}
        trail, marks = self.trail, self.marks
        if not kwargs and _LEAVES.issuperset(map(type, args)):  # most often: a µs less
            leaves, spec = args, len(args)
        else:
            leaves, spec = tree.flatten((args, kwargs))
        trail.append(spec)
        of_tensors = False
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                of_tensors = True
                if id(leaf) not in marks:
                    self.captured.append(leaf)
                    self.meet_outside(leaf)
                trail.append(marks[id(leaf)])
            else:
                kind = type(leaf)
                trail.append(kind)
                # As text −0 is not 0, NaN is itself, and a slice can be hashed.
                trail.append(leaf if kind is int or kind is bool or kind is str else repr(leaf))
                if kind not in _PLAIN and not issubclass(kind, np.generic):
                    self.unclear = True
        self.refuse(name, args, kwargs)
        out = func(*args, **kwargs)
        trail.append(name)
        if name == "__get__":  # of a property, whose name it has
            name = getattr(func.__self__, "__name__", name)
            trail.append(name)
            if name == "grad":
                self.refuse_values(name)
        for leaf in (out,) if isinstance(out, Tensor) else tree.leaves(out):
            if isinstance(leaf, Tensor):
                of_tensors = False
                if id(leaf) not in marks:
                    self.meet(leaf)
                    self.made.add(id(leaf))
                trail.append(marks[id(leaf)])
        if of_tensors and not (type(out) in (tuple, list) and not out):  # and gives none
            self.refuse_values(name)
        return out

    def refuse_values(self, name: str) -> None:
        """Refuse a call that was given a tensor and gave none: it may show a value."""
        if (
            name in _ABOUT
            or name in _WITHOUT_RESULT
            or (name.startswith("is_") and name not in _NOT_ABOUT)
        ):
            return
        modules = [str(f.f_globals.get("__name__")) for f, _ in traceback.walk_stack(None)]
        why = "the step turns a tensor into a Python value, or reads its history"
        if any(module.startswith("torch.distributions") for module in modules):
            why = "a distribution checks its arguments: make it with validate_args=False"
        raise Unsupported(why, name)

    def finish(self, result: Any, n_ys: int, a: Arguments) -> None:
        """The step has returned; the last `n_ys` leaves of its result are the output."""
        leaves, spec = tree.flatten(result)
        self.y_shapes = [leaf.shape for leaf in leaves[-n_ys:]] if n_ys else []
        self.trail += [spec, *(self.marks.get(id(leaf)) for leaf in leaves)]
        if any(_version_of(t) != version for t, version in self.outside):
            raise Unsupported(IN_PLACE)
        check_tensors(self.captured)
        self.did = tuple(self.trail), described(self.captured, a)

    def keeps_some(self) -> bool:
        """Whether a tensor that the step made is alive without us: in an attribute, a cache."""
        made = [weakref.ref(t) for t in self.alive if id(t) in self.made]
        self.alive.clear()
        self.marks.clear()
        if all(ref() is None for ref in made):
            return False
        gc.collect()  # or in a cycle
        return any(ref() is not None for ref in made)

    def refuse(self, name: str, args: Any, kwargs: Any) -> None:
        """Stop before a call that leaves more than its results, or whose results leave us."""
        if name in _OF_ITSELF and isinstance(args[0], Tensor) and id(args[0]) not in self.made:
            raise Unsupported(A_HOOK if name in _HOOKS else IN_PLACE, name)
        if name == "backward":
            raise Unsupported("the step runs a backward pass")
        values = args[-1] if name in _FROM_VALUES else None
        if isinstance(values, (list, tuple)) and any(map(torch.is_tensor, tree.leaves(values))):
            raise Unsupported(
                f"{name}([…]) takes the values of tensors, which are then the same for ever; "
                "torch.stack keeps them"
            )
        if kwargs.get("generator") is not None:
            raise Unsupported("the step draws random numbers from a generator", name)


class swapped(OwnMode):  # noqa: N801 (reads as a context)
    """Captured tensors replaced by fresh leaves wherever they enter a call.

    functions: those of torch that are replaced, too, where the replacement takes the arguments.
    """

    def __init__(self, old: list[Tensor], new: list[Tensor], functions: Any = None):
        super().__init__()
        self.functions = functions or {}
        self.new = {id(o): n for o, n in zip(old, new, strict=True)}
        self.old = old

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def swap(leaf: Any) -> Any:
            return self.new.get(id(leaf), leaf) if isinstance(leaf, Tensor) else leaf

        if not self.left:
            args, kwargs = tree.mapped(swap, (args, kwargs or {}))
            if func in self.functions:
                out = self.functions[func](*args, **kwargs)
                if out is not NotImplemented:
                    return out
        return func(*args, **(kwargs or {}))


def search_step(a: Arguments) -> Search:
    """Run a step once, for the tensors it takes from outside and for what it did.

    It runs with the very tensors, which it is stopped from changing, and in the caller's mode.
    Where the caller has hooks on saved tensors, these see nothing, and the tensors are saved
    detached: an output that its own graph holds is never freed.

    Raises:
        Unsupported: it does what the loop alone can do.
        TypeError, ValueError: what it returned does not fit init.
    """
    states, xs = a.init_leaves, a.first_x
    with among_ours(), undisturbed(Tensor.detach):
        search = Search([*states, *xs])
        before = torch.is_grad_enabled()
        with search, search.writes:
            new_states, y = a.flat(states, xs)
        if torch.is_grad_enabled() is not before:
            torch.set_grad_enabled(before)
            raise Unsupported("the step leaves gradients turned on, or off: it should do so `with`")
        made = [t for t in tree.leaves((new_states, y)) if id(t) in search.made]
        if not before and any(t.requires_grad and not t._is_view() for t in made):
            raise Unsupported("the step turns gradients on where they are off")
    check_carry(states, new_states)
    search.finish((new_states, y), len(tree.leaves(y)), a)
    return search
