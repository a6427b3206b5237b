"""The mode that numbers the values of a step, and records its ATen calls on them."""

from __future__ import annotations

import functools
import inspect
from collections import defaultdict
from collections.abc import Callable, Container, Sequence
from typing import Any

import torch
from torch import Tensor

import ostinato.compiler.capture.replaced.axes
import ostinato.compiler.capture.replaced.images
import ostinato.compiler.capture.replaced.losses
import ostinato.compiler.capture.replaced.norms  # noqa: F401
from ostinato import tree

# Imported for the compositions that they enter into DECOMPOSITIONS.
from ostinato.compiler import torch_private
from ostinato.compiler.capture.captures import memory_of
from ostinato.compiler.capture.draws import draws_numbers
from ostinato.compiler.capture.recording import Call, Ref
from ostinato.compiler.capture.replaced.complex_numbers import PAIRED, Pair, is_complex
from ostinato.compiler.capture.replaced.elementwise import decomposition
from ostinato.compiler.capture.whole_numbers import WholeNumbers
from ostinato.compiler.errors import IN_PLACE, Unsupported

aten = torch.ops.aten


class ViewChanged(Unsupported):
    """The step reads a tensor after changing another view of it in place."""


class Recorder(torch_private.TorchDispatchMode):
    """ATen calls as numbered values; an in-place call gives its target a new number."""

    def __init__(
        self, given: list[Tensor], outside: Container[int] = (), read: Container[int] = ()
    ) -> None:
        """A recorder.

        Args:
            given: the tensors that the step gets, from outside or as arguments.
            outside: ids of tensors from outside whose values the recording does not have.
            read: the numbers of captured tensors whose values the step may read: they are guarded.
        """
        super().__init__()
        self.outside, self.read = outside, read
        self.calls: list[Call] = []
        self.number: dict[int, int] = {}
        self.values: list[Tensor] = []
        self.shapes: list[tuple[int, ...]] = []  # when they were made: transpose_ changes them
        self.constants: dict[int, Tensor] = {}
        self.stale: set[int] = set()
        self.views: dict[int, int] = {}  # a differentiable view → the value that it is a view of
        self.inner: set[int] = set()  # values within decompositions, which autograd does not see
        self.depth = 0
        self.pairs: dict[int, Pair] = {}  # of complex tensors, by id
        self.arrays: list[int] = []
        self.in_memory: dict[int | None, list[Tensor]] = defaultdict(list)  # the values
        self.given = {memory_of(t) for t in given}
        self.whole: WholeNumbers | None = None  # sees each call
        for t in given:
            self.new(t)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # importing torch._dynamo takes a second, and nothing here needs it

    def new(self, tensor: Tensor) -> int:
        """Number a tensor that the recording has not seen, and keep it alive."""
        number = self.number[id(tensor)] = len(self.values)
        self.values.append(tensor)
        self.shapes.append(tuple(tensor.shape))
        self.in_memory[memory_of(tensor)].append(tensor)
        if self.depth:
            self.inner.add(number)
        return number

    def ref(self, leaf: Any) -> Any:
        """An argument as recorded: a tensor by its number, all others unchanged.

        Raises:
            Unsupported: the recording does not know the origin of the tensor.
        """
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) not in self.number:
            if leaf.requires_grad and not leaf._is_zerotensor():
                raise Unsupported(
                    "a tensor that requires grad reached an operation without passing a torch "
                    "call (a custom autograd.Function, or a captured tensor that is init, too, or "
                    "returned as it is)"
                )
            if id(leaf) in self.outside:
                raise Unsupported(
                    "the step returns a captured tensor as it is (return W * 1), or a custom "
                    "autograd.Function, or a hook, reads a tensor that it was not given: give it "
                    "to apply, and save it with ctx.save_for_backward"
                )
            self.meet(leaf)
        if id(leaf) in self.stale:
            raise ViewChanged("the step reads a view of a tensor that it changed in place")
        return Ref(self.number[id(leaf)])

    def meet(self, leaf: Tensor, of_numbers: bool = False) -> None:
        """Number a tensor that no call made; of_numbers: torch.tensor may have made it."""
        number = self.new(leaf)
        if leaf._is_zerotensor():  # the tangent of a tensor without one
            self.calls.append(Call(_ZEROS, (list(leaf.shape),), {}, (number,)))
            return
        if of_numbers or not leaf.dim():
            self.constants[number] = leaf
        if leaf.dim():
            self.arrays.append(number)

    def is_guarded(self, leaf: Tensor) -> bool:
        """Whether a value is computed only from captured tensors whose values are guarded."""
        needed = {self.ref(leaf).index}
        for call in reversed(self.calls):
            if not needed.isdisjoint(call.outs):
                needed = needed.difference(call.outs).union(call.refs)
        return all(i in self.read or i in self.constants for i in needed)

    def captured_arrays(self, captured: Sequence[Tensor]) -> dict[int, int]:
        """The numbers of captured tensors that are views of an array (from_numpy), by place.

        The step makes them anew in every run, so that the tensor of this run is not the one that
        the search found, which has the same values and was read by no call.
        """
        read = {i for call in self.calls for i in call.refs}
        unread = [i for i in range(len(captured)) if i not in read]
        found: dict[int, int] = {}
        for number in self.arrays:
            leaf = self.values[number]
            same = [
                i
                for i in unread
                if captured[i].dtype is leaf.dtype and torch.equal(captured[i], leaf)
            ]
            if same:
                unread.remove(same[0])
                found[same[0]] = number
                self.constants.pop(number, None)
            elif number not in self.constants:
                raise Unsupported(
                    "the step makes a tensor of memory that no guard sees: make it before, or copy "
                    "it with torch.tensor"
                )
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        # A label that torch.profiler shows computes nothing.
        if name.startswith("profiler.") or func in _OF_SIZES:
            return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            if self.is_guarded(args[0]):
                return func(*args, **kwargs)
            raise Unsupported(
                "the step turns a tensor into a Python value (.item(), if, int())", name
            )
        if _shape_depends_on_values(func, args):
            raise Unsupported("the shape of a value depends on other values", name)
        if func is aten.lift_fresh.default and id(args[0]) not in self.number:
            self.meet(args[0], of_numbers=True)
        if any(map(is_complex, tree.leaves((args, kwargs)))) or name in _MAKES_COMPLEX:
            return self.of_pairs(func, name, args, kwargs)
        out = self.taken_apart(func, name, args, kwargs)
        return self.recorded(func, name, args, kwargs) if out is NotImplemented else out

    def taken_apart(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """The results of a call that is a composition of others; else NotImplemented."""
        composition = decomposition(name)
        if composition is not None:
            out = self.composed(composition, args, kwargs)
            if out is not NotImplemented:
                return out
        if draws_numbers(func, args, kwargs):  # those of the step itself are given
            raise Unsupported(
                "the step draws random numbers in its backward pass, or with some sizes of the "
                "batch only; draw them before and pass them through xs",
                name,
            )
        if not _is_composite(func):
            return NotImplemented
        with self:  # composite calls that were not decomposed: below autograd, or in inference mode
            return func.decompose(*args, **kwargs)

    def recorded(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """The results of a call, which is recorded unchanged."""
        recorded_args, recorded_kwargs = tree.mapped(self.ref, (args, kwargs))
        out = self.called(func, args, kwargs)
        outs = out if isinstance(out, (tuple, list)) else [out]
        if any(isinstance(value, (bool, int, float)) for value in outs):
            raise Unsupported("the step turns a tensor into a Python value", name)
        numbers = tuple(self.new(t) if isinstance(t, Tensor) else None for t in outs)
        call = Call(name, recorded_args, recorded_kwargs, numbers)
        self.calls.append(call)
        if func.is_view and func is not aten.detach.default and torch.is_grad_enabled():
            self.views.update(dict.fromkeys(filter(None, numbers), call.refs[0]))
        if self.whole is not None:
            self.whole.see(func, args, kwargs, call)
        return out

    def of_pairs(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Record a call on complex numbers as calls on their real and imaginary parts."""
        packet = name.split(".")[1]
        functional = packet if packet not in _PAIRED_IN_PLACE else packet.removesuffix("_")
        composition = PAIRED.get(functional)
        if composition is None or "out" in kwargs:
            raise Unsupported(
                f"the engine has no {packet} of complex numbers: write it in pairs of real "
                "tensors, (a, b) for a + ib, or as a last axis of two",
                name,
            )
        paired_args, paired_kwargs = tree.mapped(self.pair_of, (args, kwargs))
        if "overload" in inspect.signature(composition).parameters:
            paired_kwargs["overload"] = func
        found = self.composed(composition, paired_args, paired_kwargs)
        if found is NotImplemented:
            raise Unsupported(f"the engine has no {packet} of such complex numbers", name)
        if isinstance(found, Tensor):
            return found
        if torch.is_grad_enabled():  # autograd sees the whole, but not that a conjugate is copied
            parts = tree.leaves(list(found) if isinstance(found, Pair) else found)
            self.inner |= {self.number[id(t)] for t in parts if isinstance(t, Tensor)}
        out = self.called(func, args, kwargs)
        outs, pairs = ([out], [found]) if isinstance(found, Pair) else (out, found)
        for tensor, pair in zip(outs, pairs, strict=True):
            self.new(tensor)
            self.pairs[id(tensor)] = pair
        return out

    def pair_of(self, leaf: Any) -> Any:
        """The parts of a complex argument, on which the calls are recorded."""
        if not (isinstance(leaf, Tensor) and leaf.is_complex()):
            return leaf
        if id(leaf) not in self.pairs:
            number = self.ref(leaf)
            if number.index in self.constants:
                parts = [leaf.real.clone(), leaf.imag.clone()]
                for part in parts:
                    self.meet(part, of_numbers=True)
                self.pairs[id(leaf)] = Pair(*parts)
            else:
                self.pairs[id(leaf)] = self.parts_of_captured(leaf, number)
        if id(leaf) in self.stale:
            raise ViewChanged("the step reads a view of a tensor that it changed in place")
        return self.pairs[id(leaf)]

    def parts_of_captured(self, leaf: Tensor, number: Ref) -> Pair:
        """The real and the imaginary part of a complex captured tensor, recorded."""
        whole = torch.view_as_real(leaf.resolve_conj())
        out = self.new(whole)
        self.inner.add(out)  # autograd sees the captured tensor and its parts
        self.calls.append(Call(_AS_REAL, (number,), {}, (out,)))
        with self:
            return Pair(whole.select(-1, 0), whole.select(-1, 1))

    def gradient(self, leaf: Tensor) -> int:
        """The number of a gradient; a complex one is assembled from its parts."""
        if not leaf.is_complex():
            number: int = self.ref(leaf).index
            return number
        pair = self.pair_of(leaf)
        with self:
            whole = torch.stack([part.expand(leaf.shape) for part in pair], -1)
        out = self.new(torch.view_as_complex(whole))
        self.calls.append(Call(_AS_COMPLEX, (self.ref(whole),), {}, (out,)))
        return out

    def needs_grad(self) -> list[bool]:
        """Whether each value needs a gradient; the parts of a complex tensor do if it does."""
        found = [t.requires_grad or i in self.inner for i, t in enumerate(self.values)]
        for view, of in self.views.items():
            # Within a transform of torch.func, autograd's view is another object than the one here.
            found[view] = found[view] or found[of]
        for t in self.values:
            if t.requires_grad and id(t) in self.pairs:
                for part in self.pairs[id(t)]:
                    if isinstance(part, Tensor):
                        found[self.number[id(part)]] = True
        return found

    def connected(self, needs_grad: list[bool]) -> list[Call]:
        """The calls, where values that autograd saved for a backward pass of the step are the
        values themselves, not detached ones that it gave their gradient back.

        Args:
            needs_grad: for the values of the forward pass.
        """
        calls, origins = [], dict[int, int]()
        for call in self.calls:
            if call.name == "aten.detach.default":
                of, out = call.refs[0], call.outs[0] or 0
                origin = origins[out] = origins.get(of, of)
                if out < len(needs_grad) and needs_grad[out] and needs_grad[origin]:
                    call = Call("aten.alias.default", (Ref(origin),), {}, (out,))
            calls.append(call)
        return calls

    def composed(self, composition: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Record the composition of an operation instead of the operation."""
        self.depth += 1
        n_before = len(self.calls)
        try:
            with self:
                out = composition(*args, **kwargs)
        finally:
            self.depth -= 1
        if out is not NotImplemented and not self.depth:
            made = {self.number[id(t)] for t in tree.leaves(out) if isinstance(t, Tensor)}
            # Outputs with a gradient may be computed from an output without one.
            self.inner -= made - {i for call in self.calls[n_before:] for i in call.refs}
        return out

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The results of a call, which must not change a tensor that the step did not make."""
        if not func._schema.is_mutable:
            return func(*args, **kwargs)
        target = args[0]
        memory = memory_of(target)
        if memory in self.given:
            raise Unsupported(IN_PLACE, str(func))
        out = func(*args, **kwargs)
        others = [value for value in self.in_memory[memory] if value is not target]
        mine = _elements(target) if others else set()
        self.stale |= {id(value) for value in others if mine & _elements(value)}
        self.number.pop(id(target))
        return out


# Whether two tensors are of one size is no value of theirs.
_OF_SIZES = {aten.is_same_size.default, aten._has_same_storage_numel.default}
_ZEROS = "aten._efficientzerotensor.default"
_AS_REAL, _AS_COMPLEX = "aten.view_as_real.default", "aten.view_as_complex.default"
_MAKES_COMPLEX = {"aten.complex.default", "aten.polar.default", _AS_COMPLEX}
_PAIRED_IN_PLACE = {"add_", "div_", "masked_fill_", "mul_", "sub_"}


@functools.lru_cache(maxsize=1024)
def _is_composite(func: Any) -> bool:
    """Whether an operation is a composition of others, in Python or C++."""
    key = torch_private.DispatchKey.CompositeImplicitAutograd
    return key in func.py_kernels or torch_private.has_kernel(func.name(), key)


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
