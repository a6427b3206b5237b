"""Searching a step: one run of it, for the tensors it takes from outside and what it did.

Where a step can't be watched for changes it is searched at each call, and played from its recording
if it did the same.
"""

from __future__ import annotations

import gc
import sys
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ostinato import tree
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.inputs import check_tensors, described
from ostinato.compiler.torch_compat import OwnMode, among_ours, searching, undisturbed
from ostinato.eager import check_carry

if TYPE_CHECKING:
    from ostinato.arguments import Arguments

_IN_PLACE = {
    "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__",
    "__iand__", "__ior__", "__ixor__", "__setitem__", "__set__",
}  # fmt: skip
_PLAIN = {
    int, bool, str, float, complex, slice, type(None), type(...), type, torch.dtype, torch.device,
    torch.Size, torch.layout, torch.memory_format,
}  # fmt: skip
_LEAVES = {Tensor, torch.nn.Parameter, *_PLAIN}
# Functions that may change an argument in place: the position and the name of what says so.
_MAY_BE_IN_PLACE = {
    **dict.fromkeys(
        ("relu", "relu6", "selu", "silu", "mish", "hardswish", "hardsigmoid"), (1, "inplace")
    ),
    **dict.fromkeys(("elu", "celu", "leaky_relu"), (2, "inplace")),
    **dict.fromkeys(
        ("hardtanh", "threshold", "dropout", "alpha_dropout", "dropout1d", "dropout2d", "dropout3d",
         "feature_alpha_dropout"),
        (3, "inplace"),
    ),
    "rrelu": (4, "inplace"),
    "embedding": (3, "max_norm"),
}  # fmt: skip
# And of these all but the first, where they normalise by the batch: running statistics.
_STATISTICS = {
    "batch_norm": (5, "training"),
    "native_batch_norm": (5, "training"),
    "_native_batch_norm_legit": (5, "training"),
    "instance_norm": (5, "use_input_stats"),
    "batch_norm_update_stats": (0, "input"),
}
_LOOKED_AT = {
    *_MAY_BE_IN_PLACE,
    *_STATISTICS,
    "backward",
    "tensor",
    "as_tensor",
    "asarray",
    "new_tensor",
}
_FROM_VALUES = {"tensor", "as_tensor", "asarray", "new_tensor"}
_HOOKS = {"register_hook", "register_post_accumulate_grad_hook"}
# What a step may learn of a tensor, beside what begins with is_: a recording depends on it.
_ABOUT = {
    "shape", "size", "dim", "ndim", "ndimension", "numel", "nelement", "stride", "dtype", "device",
    "layout", "itemsize", "element_size", "nbytes", "requires_grad", "names", "get_device",
    "storage_offset", "type", "result_type", "__len__", "__hash__",
}  # fmt: skip
_NOT_ABOUT = {"is_nonzero", "is_leaf", "is_inference"}  # a recording is not made under it


class Search(OwnMode):
    """The tensors a step takes from outside, by identity, in order of first use."""

    def __init__(self, known: list[Tensor]):
        super().__init__()
        self.marks: dict[int, int] = {}  # id → the tensor's number in the trail
        self.alive: list[Tensor] = []  # so that ids stay theirs
        self.outside: list[tuple[Tensor, int | None]] = []  # with their versions
        for t in known:
            if id(t) not in self.marks:
                self.meet(t)
                self.outside.append((t, version_of(t)))
        self.made: set[int] = set()  # by the step
        self.captured: list[Tensor] = []
        # What the step did: functions, their arguments, and what came of them.
        self.trail: list[Any] = []
        self.did: Any = None  # the trail and what it is of, hashable
        self.unclear = False  # an argument is of a kind whose text may not say all of it

    def meet(self, t: Tensor) -> None:
        self.marks[id(t)] = len(self.alive)
        self.alive.append(t)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.left:
            return func(*args, **(kwargs or {}))
        name, kwargs = getattr(func, "__name__", None) or str(func), kwargs or {}
        if kwargs or name[-1:] == "_" or name in _HOOKS or name in _LOOKED_AT:
            self.refuse_traces(name, args, kwargs)
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
                    self.meet(leaf)
                    self.captured.append(leaf)
                    self.outside.append((leaf, version_of(leaf)))
                trail.append(marks[id(leaf)])
            else:
                kind = type(leaf)
                trail.append(kind)
                # As text −0 is not 0, NaN is itself, and a slice can be hashed.
                trail.append(leaf if kind is int or kind is bool or kind is str else repr(leaf))
                if kind not in _PLAIN and not issubclass(kind, np.generic):
                    self.unclear = True
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
        if name in _ABOUT or (name.startswith("is_") and name not in _NOT_ABOUT):
            return
        if name in _IN_PLACE or name in _HOOKS or name == "retain_grad":
            return
        frame: Any = sys._getframe()
        while frame is not None:
            if str(frame.f_globals.get("__name__")).startswith("torch.distributions"):
                raise Unsupported(
                    "a distribution checks the values of its arguments: make it with "
                    "validate_args=False",
                    name,
                )
            frame = frame.f_back
        raise Unsupported("the step turns a tensor into a Python value, or reads its history", name)

    def finish(self, result: Any, n_ys: int, a: Arguments) -> None:
        """The step has returned; the last `n_ys` leaves of its result are the output."""
        leaves, spec = tree.flatten(result)
        self.y_shapes = [leaf.shape for leaf in leaves[-n_ys:]] if n_ys else []
        self.trail += [spec, *(self.marks.get(id(leaf)) for leaf in leaves)]
        if any(version_of(t) != version for t, version in self.outside):
            raise Unsupported("the step changes its carry, its input or a captured tensor in place")
        check_tensors(self.captured)
        self.did = tuple(self.trail), described(self.captured, a)

    def made_with_gradient(self, result: Any) -> bool:
        """Whether the step made something with a gradient; not by views of what has one."""
        return any(
            id(t) in self.made and t.requires_grad and not t._is_view() for t in tree.leaves(result)
        )

    def keeps_some(self) -> bool:
        """Whether a tensor that the step made is alive without us: in an attribute, a cache."""
        made = [weakref.ref(t) for t in self.alive if id(t) in self.made]
        self.alive.clear()
        self.marks.clear()
        if all(ref() is None for ref in made):
            return False
        gc.collect()  # or in a cycle
        return any(ref() is not None for ref in made)

    def refuse_traces(self, name: str, args: Any, kwargs: Any) -> None:
        """Stop before an extra call leaves a trace: in a tensor from outside, in a generator."""
        changed = [kwargs.get("out")]
        if (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE:
            changed += args[:1]
        if name in _MAY_BE_IN_PLACE and _said(_MAY_BE_IN_PLACE[name], args, kwargs):
            changed += args[1:2] if name == "embedding" else args[:1]
        if name in _STATISTICS and _said(_STATISTICS[name], args, kwargs):
            changed += [*args[1:], kwargs.get("running_mean"), kwargs.get("running_var")]
        if name == "backward":
            raise Unsupported("the step runs a backward pass")
        if (
            name in _FROM_VALUES
            and isinstance(args[-1], (list, tuple))
            and any(isinstance(leaf, Tensor) for leaf in tree.leaves(args[-1]))
        ):
            raise Unsupported(
                f"{name}([…]) takes the values of tensors, which are then the same for ever; "
                "torch.stack keeps them"
            )
        if name in _HOOKS and isinstance(args[0], Tensor) and id(args[0]) not in self.made:
            raise Unsupported("the step hangs a hook on its carry, its input or a captured tensor")
        for target in tree.leaves(changed):
            if isinstance(target, Tensor) and self.is_outside(target):
                raise Unsupported(
                    "the step changes its carry, its input or a captured tensor in place", name
                )
        if kwargs.get("generator") is not None:
            raise Unsupported("the step draws random numbers from a generator", name)

    def is_outside(self, t: Tensor) -> bool:
        """Whether it is from outside the step, or a view of what is."""
        if id(t) not in self.made:
            return True
        at = _memory_of(t)
        return at is not None and any(_memory_of(other) == at for other, _ in self.outside)


def _said(where: tuple[int, str], args: Any, kwargs: Any) -> bool:
    position, keyword = where
    found = args[position] if len(args) > position else kwargs.get(keyword)
    return found is not None and found is not False


def version_of(t: Tensor) -> int | None:
    return None if t.is_inference() else t._version


def _memory_of(t: Tensor) -> int | None:
    try:
        return t.untyped_storage().data_ptr() or None
    except (RuntimeError, NotImplementedError):  # it has none of its own
        return None


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

    It runs with the very tensors, and in the caller's mode: a tensor that the step keeps is then
    one that the loop would have, with a gradient. Where the caller has hooks on saved tensors,
    these see nothing, and the tensors are saved detached: an output that its own graph holds is
    never freed.

    Raises:
        Unsupported: it does what the loop alone can do.
        TypeError, ValueError: what it returned does not fit init.
    """
    states, xs = a.init_leaves, a.first_x
    search = Search([*states, *xs])
    with among_ours(), undisturbed(Tensor.detach), searching(), search:
        before = torch.is_grad_enabled()
        new_states, y = a.flat(states, xs)
        if torch.is_grad_enabled() is not before:
            torch.set_grad_enabled(before)
            raise Unsupported("the step leaves gradients turned on, or off: it should do so `with`")
        if not before and search.made_with_gradient((new_states, y)):
            raise Unsupported("the step turns gradients on where they are off")
    check_carry(states, new_states)
    search.finish((new_states, y), len(tree.leaves(y)), a)
    return search
