"""Searching a step: one run, which finds the tensors that it takes from outside, and its calls.

A step that guards cannot describe is searched at each call, and played from a recording with the
same calls.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ostinato import tree
from ostinato.compiler import torch_private
from ostinato.compiler.capture import wrapped
from ostinato.compiler.capture.draws import States, draws_numbers
from ostinato.compiler.errors import A_HOOK, BATCH_STATISTICS, IN_PLACE, Unsupported
from ostinato.compiler.inputs import described
from ostinato.compiler.torch_compat import (
    OwnMode,
    among_ours,
    undisturbed,
)
from ostinato.eager import check_carry

if TYPE_CHECKING:
    from ostinato.arguments import Arguments

_PLAIN = {
    int,
    bool,
    str,
    float,
    complex,
    slice,
    type(None),
    type(...),
    type,
    torch.dtype,
    torch.device,
    torch.Size,
    torch.layout,
    torch.memory_format,
}
_LEAVES = {Tensor, torch.nn.Parameter, *_PLAIN}
_FROM_VALUES = {"tensor", "as_tensor", "asarray", "new_tensor"}
# These calls change a tensor itself, not its elements. On a tensor from outside the Python loop
# runs.
_HOOKS = {"register_hook", "register_post_accumulate_grad_hook"}
_OF_ITSELF = {"__set__", "__delete__", "requires_grad_", *_HOOKS}
# Calls that show no value of a tensor, but properties that a recording depends on (as do those that
# begin with is_); and calls without a result.
_ABOUT = {
    "shape", "size", "dim", "ndim", "ndimension", "numel", "nelement", "stride", "dtype", "device",
    "layout", "itemsize", "element_size", "nbytes", "requires_grad", "names", "get_device",
    "type", "result_type", "__len__", "__hash__", "__setitem__", "retain_grad",
    *_OF_ITSELF,
}  # fmt: skip
_OF_GRAPH = {"grad_fn", "is_leaf", "grad", "retains_grad", "output_nr", "_version"}
_NOT_ABOUT = {"is_nonzero", "is_leaf", "is_inference"}  # no recording is made in inference mode
# Calls that read the value of a tensor. Short captured tensors are guarded by value.
_READS = {"__bool__", "__float__", "__index__", "__int__", "is_nonzero", "item", "tolist"}
MOST_READ = 64  # elements: each call compares them in some µs
# Their results are part of the trail: how a tensor lies in memory.
_OF_LAYOUT = {"is_contiguous", "is_non_overlapping_and_dense", "stride"}
_LOOKED_AT = {*_OF_ITSELF, *_FROM_VALUES, "backward"}
_count_modes, _is_inference = torch_private.count_dispatch_modes, torch.is_inference_mode_enabled
_is_autocast = torch.is_autocast_enabled


class _Writes(torch_private.TorchDispatchMode):
    """Refuses calls that would write into the memory of a tensor from outside, before they do."""

    def __init__(self, search: Search):
        super().__init__()
        self.search = search

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # importing torch._dynamo takes a second, and nothing here needs it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, search = kwargs or {}, self.search
        unseen = torch_private.current_function_mode() is search
        if unseen:  # the search sees this call, from_numpy or set_, only when it is made below
            search.must_watch = True
        if draws_numbers(func, args, kwargs):
            search.meet_generator(kwargs.get("generator"))
        if func._schema.is_mutable or func in _UNSAID:
            search.must_watch = True
            written = [t for t in tree.leaves(_written(func, args, kwargs)) if torch.is_tensor(t)]
            with torch_private.DisableTorchFunction():  # hidden from the search
                memory = {memory_of(t) for t, _ in search.outside} - {None}
                own = memory.isdisjoint(map(memory_of, written))
            if not own:
                raise Unsupported(BATCH_STATISTICS if func in _UNSAID else IN_PLACE, str(func))
        search.n_modes -= unseen  # this mode is not on the stack while it runs
        try:
            out = func(*args, **kwargs)
        finally:
            search.n_modes += unseen
        if wrapped.is_active(search.level):  # unwrapped later, without a call that the search sees
            search.below.update({id(t): t for t in tree.leaves(out) if isinstance(t, Tensor)})
        return out


# Their schemas do not say that they write running statistics.
_UNSAID = {
    torch.ops.aten.native_batch_norm.default,
    torch.ops.aten.batch_norm_update_stats.default,
}


def _written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The arguments that a call writes."""
    schema = func._schema.arguments
    given = {**dict(zip((of.name for of in schema), args, strict=False)), **kwargs}
    names = [of.name for of in schema if of.alias_info is not None and of.alias_info.is_write]
    if func in _UNSAID and given.get("training", True):
        names += ["running_mean", "running_var"]
    return [given.get(name) for name in names]


def version_of(t: Tensor) -> int | None:
    """How often a tensor was changed in place; None for an inference tensor, which has no count."""
    return None if t.is_inference() else t._version


def memory_of(t: Tensor) -> int | None:
    """The address of a tensor's memory; None if it has no memory of its own."""
    try:
        return wrapped.outermost(t).untyped_storage().data_ptr() or None
    except (RuntimeError, NotImplementedError):
        return None


class Search(OwnMode):
    """The tensors a step takes from outside, by identity, in order of first use.

    Writes are watched, which takes some µs a call of torch; but not while the step repeats the
    calls of an earlier run without writes.

    Attributes:
        marks: id of a tensor → its number in the trail, from 1.
        outside: the tensors that existed before, with their versions.
        made: those that the step made, by id.
        must_watch: a call wrote into some memory, or only the watch saw it.
        trail: the calls of the step: functions, their arguments and results.
        did: the trail, and the kinds of its tensors; hashable.
        unclear: an argument is of a kind whose text may not describe it fully, or it is in_context.
        in_context: there are hooks on saved tensors, or a mode that sees operations below autograd:
            their work is not a call of the step.
        asks_layout: the step asks how a tensor lies in memory.
        read: ids of captured tensors whose values the step read: the recording depends on them.
        generators: the random generators that the step draws from, by id.
        level: of the transforms of torch.func around the step.
        below: results of ATen's operations within transforms of the step, by id.
    """

    did: Any

    def __init__(self, given: list[Tensor], known: tuple[Any, ...], unread: Collection[int] = ()):
        super().__init__()
        self.unread, self.read = unread, set[int]()
        self.known = iter(known) if known else None
        self.marks: dict[int, int] = {}
        self.outside: list[tuple[Tensor, int | None]] = []
        self.made: dict[int, Tensor] = {}
        self.trail: list[Any] = []
        self.came: tuple[int, ...] = ()  # of the last call
        self.writes: _Writes | None = None
        self.must_watch = self.unclear = self.in_context = self.asks_layout = False
        self.n_modes, self.hooks = _count_modes(), torch_private.top_hooks(False)
        self.generators: dict[int, torch.Generator] = {}
        self.level, self.below = wrapped.depth(), dict[int, Tensor]()
        for t in given:
            if id(t) not in self.marks:
                self.meet_outside(t)
        self.n_given = len(self.outside)

    def meet_outside(self, t: Tensor) -> int:
        self.outside.append((t, version_of(t)))
        return self.marks.setdefault(id(t), len(self.marks) + 1)

    def watch(self) -> None:
        """Watch the writes of all calls from here on, and the random numbers that they draw.

        The calls of a known trail draw none: a step that draws some is watched in every run.
        """
        self.states = States()
        self.known, writes = None, _Writes(self)
        writes.__enter__()
        self.writes = writes

    def meet_generator(self, generator: torch.Generator | None) -> None:
        """Record that the step is about to draw; None: from PyTorch's own generator."""
        generator, self.must_watch = generator or torch.default_generator, True
        self.generators[id(generator)] = generator
        self.states.meet(generator)

    def __exit__(self, *error: object) -> None:
        writes, self.writes = self.writes, None  # a cycle would keep the tensors alive
        if writes is not None:
            writes.__exit__(*error)
        super().__exit__(*error)
        if writes is not None:
            self.states.put_back()  # as if it had not run

    def surroundings(self) -> Any:
        """The entry of the trail for the contexts around a call, except no_grad, which is a
        call."""
        n_modes = _count_modes() - (self.writes is not None)
        if n_modes != self.n_modes or torch_private.top_hooks(False) != self.hooks:
            self.unclear = self.in_context = True
        autocast, inference = _is_autocast("cpu"), _is_inference()
        if not (autocast or inference):  # the usual case, at every call of the step
            return None
        return autocast and torch.get_autocast_dtype("cpu"), inference

    def meet_within(self, t: Tensor) -> int | None:
        """The mark of a tensor that a transform of the step has wrapped or unwrapped; or None."""
        inner = wrapped.within(t, self.level)
        if inner is None:
            if id(t) not in self.below:
                return None
            self.unclear = True  # the trail does not say which operation has made it
        else:
            self.must_watch = True
            of = self.marks.get(id(inner)) or self.described(inner)
            self.follow((self.came, "wrapped", wrapped.kind(t, self.level), None, of))
        self.made[id(t)] = t
        mark = self.marks.setdefault(id(t), len(self.marks) + 1)
        self.came = (mark,)
        return mark

    def follow(self, call: Any) -> None:
        """Add a call to the trail; if it is not in the known one, watch from here on."""
        self.trail.append(call)
        if self.known is not None and next(self.known, None) != call:
            self.watch()

    def described(self, leaf: Any) -> Any:
        """The entry of the trail for an argument without a number."""
        if isinstance(leaf, Tensor):
            return self.meet_within(leaf) or self.meet_outside(leaf)
        kind = type(leaf)
        if kind is torch.Generator:  # by identity; kept, so that no other one gets its address
            return kind, leaf
        if kind not in _PLAIN and not issubclass(kind, np.generic):
            self.unclear = True
        # As text −0 is not 0, NaN is itself, and a slice can be hashed.
        return kind, leaf if kind is int or kind is bool or kind is str else repr(leaf)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.left:
            return func(*args, **(kwargs or {}))
        name, marks = getattr(func, "__name__", None) or str(func), self.marks
        if name == "__get__":  # of a property, whose name it has
            name = getattr(func.__self__, "__name__", name)
            if name == "grad":
                self.refuse_values(name)
        if not kwargs and _LEAVES.issuperset(map(type, args)):  # most often: a µs less
            kwargs, leaves, spec = {}, args, len(args)
        else:
            leaves, spec = tree.flatten((args, kwargs := kwargs or {}))
        said = [marks.get(id(leaf)) or self.described(leaf) for leaf in leaves]
        call = self.came, name, spec, self.surroundings(), *said
        if kwargs or name in _LOOKED_AT:
            self.refuse(name, args, kwargs)
        self.follow(call)
        out = func(*args, **kwargs)
        if out is NotImplemented:  # tensor == None: nothing was computed
            return out
        if name in _OF_LAYOUT:
            self.asks_layout = True
            self.trail.append(out)
        alone = isinstance(out, Tensor)
        outs = (out,) if alone else [t for t in tree.leaves(out) if isinstance(t, Tensor)]
        if any(map(wrapped.is_wrapped, outs)):
            outs = [inner for t in outs for inner in wrapped.chain(t, self.level)]
        for t in outs:
            if id(t) not in marks:
                marks[id(t)], self.made[id(t)] = len(marks) + 1, t
        self.came = (*[marks[id(t)] for t in outs],)
        of_none = not outs and not (type(out) in (tuple, list) and not out)
        if of_none and any(isinstance(leaf, Tensor) for leaf in leaves):
            self.refuse_values(name)
        return out

    def refuse_values(self, name: str) -> None:
        """Refuse a call that takes a tensor and returns none: it may show a value."""
        if name in _ABOUT or (name.startswith("is_") and name not in _NOT_ABOUT):
            return
        if name in _READS and self.reads_captured():
            return
        if name in _OF_GRAPH:
            raise Unsupported("the step reads the gradient graph of a tensor", name)
        raise Unsupported("the step turns a tensor into a Python value", name)

    def reads_captured(self) -> bool:
        """Whether the last call of the trail is on values computed from a few captured numbers
        alone.

        These are then among `read`.
        """
        trail, first = self.trail, self.n_given + 1
        needed = {mark for mark in trail[-1][3:] if type(mark) is int}
        computed = False
        for (_, _, _, *arguments), (came, *_) in zip(trail[-2::-1], trail[:0:-1], strict=True):
            if not needed.isdisjoint(came):
                computed = True
                needed = needed.difference(came).union(m for m in arguments if type(m) is int)
        outside = {self.marks[id(t)]: t for t, _ in self.outside}
        if not needed <= outside.keys() or (computed and self.must_watch):
            return False  # the step changed it in place, at an unknown time
        tensors = [outside[mark] for mark in needed]
        within = [m for m in needed if m < first]
        if within or any(t.numel() > MOST_READ or id(t) in self.unread for t in tensors):
            return False
        self.read.update(map(id, tensors))
        return True

    def finish(self, states: list[Tensor], y: Any, a: Arguments) -> None:
        """End the search when the step has returned."""
        leaves, spec = tree.flatten(y)
        self.y_shapes = [leaf.shape for leaf in leaves]
        result = (*states, *leaves)
        needing = [t for t in result if t.requires_grad and id(t) in self.made]
        if not torch.is_grad_enabled() and not all(t._is_view() for t in needing):
            raise Unsupported("the step turns gradients on where they are off")
        if any(version_of(t) != version for t, version in self.outside):
            raise Unsupported(IN_PLACE)
        self.captured = [t for t, _ in self.outside[self.n_given :]]
        marks = (*[self.marks.get(id(t)) for t in result],)
        self.did = (*self.trail, (self.came, spec, marks)), described(self.captured, a)

    def keeps_some(self) -> bool:
        """Whether a tensor that the step made is still alive: in an attribute, a cache."""
        made = [*map(weakref.ref, self.made.values())]
        self.made.clear()
        if all(ref() is None for ref in made):
            return False
        gc.collect()  # or in a cycle
        return any(ref() is not None for ref in made)

    def refuse(self, name: str, args: Any, kwargs: Any) -> None:
        """Stop before a call with effects besides its results, or whose results escape the
        search."""
        if name in _OF_ITSELF and isinstance(args[0], Tensor) and id(args[0]) not in self.made:
            raise Unsupported(A_HOOK if name in _HOOKS else IN_PLACE, name)
        if name == "backward":
            raise Unsupported("the step runs a backward pass")
        values = args[-1] if name in _FROM_VALUES else None
        if isinstance(values, (list, tuple)) and any(map(torch.is_tensor, tree.leaves(values))):
            raise Unsupported(
                f"{name}([…]) takes the values of tensors, which would then never change; "
                "torch.stack keeps them"
            )


class swapped(OwnMode):  # noqa: N801 (reads as a context)
    """Captured tensors replaced by fresh leaves wherever they enter a call.

    functions: functions of torch to replace, too, if the replacement takes the arguments.
    """

    def __init__(self, old: list[Tensor], new: list[Tensor], functions: Any = None):
        super().__init__()
        self.functions = functions or {}
        self.new = {id(o): n for o, n in zip(old, new, strict=True)}
        self.old, self.level = list(old), wrapped.depth()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.left:
            args, kwargs = self.replaced(args, kwargs or {})
            if func in self.functions:
                out = self.functions[func](*args, **kwargs)
                if out is not NotImplemented:
                    return out
        return func(*args, **(kwargs or {}))

    def replaced(self, args: Any, kwargs: Any) -> Any:
        """The arguments with fresh leaves."""
        new = self.new.get  # no other object has the id of an old one, which is kept
        if wrapped.is_active(self.level):
            for leaf in tree.leaves((args, kwargs)):
                if isinstance(leaf, Tensor) and id(leaf) not in self.new:
                    self.replace_within(leaf)
        elif not kwargs and _LEAVES.issuperset(map(type, args)):  # most often
            return tuple([new(id(leaf), leaf) for leaf in args]), kwargs
        return tree.mapped(lambda leaf: new(id(leaf), leaf), (args, kwargs))

    def replace_within(self, leaf: Tensor) -> None:
        """Replace what a transform of the step has wrapped around a captured tensor."""
        inner = wrapped.within(leaf, self.level)
        if inner is None:
            return
        if id(inner) not in self.new:
            self.replace_within(inner)
        if id(inner) in self.new:
            self.old.append(leaf)
            self.new[id(leaf)] = wrapped.like(leaf, self.new[id(inner)])


def search_step(
    a: Arguments,
    known: tuple[Any, ...] = (),
    reached: Collection[int] = (),
    unread: Collection[int] = (),
) -> Search:
    """Run a step once, to find the tensors that it takes from outside, and its calls.

    It runs with the tensors themselves, which it is stopped from changing, and in the caller's
    mode. Hooks of the caller on saved tensors see nothing, and the tensors are saved detached: an
    output that its own graph holds is never freed.

    Args:
        known: the trail of an earlier run, in which nothing had to be watched.
        reached: the ids of leaves of init that the step reaches from outside, too (a decoder may
            start from a tensor that it also reads at every step). The step gets views of them, so
            that the two can be distinguished.
        unread: the ids of tensors in place of Python floats, whose values the step may not read.

    Raises:
        Unsupported: only the Python loop can run the step.
        TypeError, ValueError: its result does not fit init.
    """
    with torch.enable_grad():
        states = [t.view_as(t) if id(t) in reached else t for t in a.init_leaves]
    xs = a.first_x
    with among_ours(), undisturbed(Tensor.detach):
        search = Search([*states, *xs], known, unread)
        before = torch.is_grad_enabled()
        with search:
            if not known:
                search.watch()
            new_states, y = a.flat(states, xs)
        if torch.is_grad_enabled() is not before:
            torch.set_grad_enabled(before)
            raise Unsupported("the step leaves gradients turned on, or off: it should do so `with`")
    check_carry(states, new_states)
    search.finish(new_states, y, a)
    return search
