"""A scan as a function that PyTorch can differentiate any number of times.

    scan        outputs y(θ) of the tensors θ: captured tensors, init, xs
    gradients   Jᵀ g: the gradients of θ, from those of the outputs, g

The derivatives of both need no more than these two, of the scan and of the scan of the step's jvp
(`tangents.py`), which computes y and J θ':

    scan        tangent   J θ'                                   the scan of the jvp
                gradient  Jᵀ g                                   gradients
    gradients   tangent   Jᵀ g' + (∂/∂θ ⟨g, J θ'⟩)               gradients of the scan of the jvp,
                          by θ, since ∂J is symmetric            from g' and g
                gradient  of g: J u;  of θ: ∂/∂θ ⟨g, J u⟩         the same two, with θ' = u

So derivatives of every order are scans in the engine. Under vmap, members that share all captured
tensors are rows of one call, and other members a call each. Whatever the engine cannot play is
computed by the Python loop of the recorded step, with PyTorch's own transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ostinato.compiler import torch_private
from ostinato.compiler.capture import wrapped
from ostinato.compiler.errors import Unsupported
from ostinato.compiler.play.autograd import replayed
from ostinato.compiler.play.tape import Flags
from ostinato.compiler.transforms import by_the_loop
from ostinato.compiler.transforms.folds import Axes, RowsOfMembers, can_fold, has_units
from ostinato.compiler.transforms.tangents import Tangents, tangent_call

if TYPE_CHECKING:
    from ostinato.compiler.play.autograd import ScanCall, Tape

Tensors = Sequence[Tensor]
Optional = Sequence["Tensor | None"]


class ScanRun:
    """A scan of which derivatives are taken, with the tape of its last forward pass.

    Attributes:
        given: the tensors that the tape is of.
    """

    def __init__(
        self, call: ScanCall, tape: Tape | None = None, given: Tensors = (), trains: bool = True
    ):
        self.call, self._tape, self._given, self.trains = call, tape, given, trains
        self._tangents: dict[Flags, tuple[ScanRun, Tangents]] = {}
        self._zeros: dict[int, Tensor] = {}  # tangents of leaves of the carry that have none
        self._fold: tuple[RowsOfMembers, ScanRun] | None = None
        self._members: list[ScanRun] = []

    def _of(self, call: ScanCall) -> ScanRun:
        return ScanRun(call, trains=self.trains)

    def forward(self, tensors: Tensors, trains: bool = True) -> list[Tensor]:
        """Outputs and last carry of plain tensors; `trains`: and a tape for a backward pass."""
        outs, tape = self.call.forward(tensors, trains)
        if trains:
            self._tape, self._given = tape, tensors
        return outs

    def backward(
        self, tensors: Tensors, grads: Optional, used: Flags, wanted: Flags, by_unit: bool = False
    ) -> list[Tensor | None]:
        """The gradients of plain tensors; the forward pass is played again if it was of others."""
        if self._tape is None or not all(map(_is_same, self._given, tensors)):
            self.forward(tensors)
        assert self._tape is not None
        try:
            return self.call.backward(self._tape, tensors, grads, used, wanted, by_unit)
        except Unsupported:
            if by_unit:
                raise
            return by_the_loop.plain_gradients(self.call, tensors, grads, wanted)

    def tangent(
        self, tensors: Tensors, tangents: Optional
    ) -> tuple[ScanRun, Tangents, list[Tensor]]:
        """The run of the step's jvp with these tangents, and its tensors.

        Raises:
            Unsupported: the engine cannot play it.
        """
        if self.call.arguments.truncate is not None:
            raise Unsupported("the derivative of a truncated gradient")
        given = tuple([v is not None for v in tangents])
        compiled = self.call.compiled
        recording = compiled.planner.recording
        of = Tangents.of(recording, given, compiled.handed_on)
        joined = of.joined(tensors, tangents, self._zeros)
        if given not in self._tangents:
            self._tangents[given] = self._of(tangent_call(self.call, of, joined)), of
        return *self._tangents[given], joined

    def can_fold(self, dims: Sequence[int | None]) -> bool:
        """Whether members of which these axes are taken are rows of one batch."""
        return can_fold(self.call, dims)

    def folded(
        self, n: int, tensors: Tensors, dims: Sequence[int | None]
    ) -> tuple[RowsOfMembers, ScanRun]:
        """The tensors of n members as those of one run; the last one, if it was of the same."""
        last = self._fold
        if last is None or not last[0].is_of(n, tensors, dims, _is_same):
            fold = RowsOfMembers(self.call, n, tensors, dims)
            self._fold = last = fold, self._of(fold.call)
        return last

    def members(self, n: int) -> list[ScanRun]:
        """A run for each of n members, each with its tape."""
        if len(self._members) != n:
            self._members = [self._of(self.call) for _ in range(n)]
        return self._members


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same memory; `a` keeps it from being another's."""
    if a is b or wrapped.is_wrapped(a) or wrapped.is_wrapped(b):
        return a is b
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


class Ask:
    """Gradients that are asked for: of which outputs they come, which are wanted, which exist."""

    def __init__(self, run: ScanRun, used: Flags, wanted: Flags):
        self.run, self.used, self.wanted = run, used, wanted
        self.reached: list[int] = []

    def split(self, given: Sequence[Any]) -> tuple[Sequence[Any], list[Any]]:
        """The tensors, and the gradients of all outputs: None for those not used."""
        n = len(self.wanted)
        grads = iter(given[n:])
        return given[:n], [next(grads) if is_used else None for is_used in self.used]


def gradients(
    run: ScanRun, tensors: Tensors, grads: Optional, wanted: Flags
) -> list[Tensor | None]:
    """The gradients of the wanted tensors, differentiable in tensors and grads."""
    ask = Ask(run, tuple([g is not None for g in grads]), wanted)
    outs = _Gradients.apply(ask, *tensors, *[g for g in grads if g is not None])
    found = dict(zip(ask.reached, outs, strict=False))
    return [found.get(i) for i in range(len(tensors))]


def scanned(call: ScanCall, tensors: list[Tensor]) -> Sequence[Tensor]:
    """Outputs and last carry of a call under transforms."""
    trains = wrapped.TransformType.Grad in wrapped.kinds() or (
        torch.is_grad_enabled() and any(wrapped.outermost(t).requires_grad for t in tensors)
    )
    run = ScanRun(call, trains=trains)
    outs: Sequence[Tensor] | None = None
    if wrapped.innermost() == wrapped.TransformType.Jvp:  # each is an object of its own
        outs = _with_tangents(run, tensors)
    return _Scanned.apply(run, *tensors) if outs is None else outs


def _with_tangents(run: ScanRun, tensors: Tensors) -> list[Tensor] | None:
    """Outputs and last carry with their tangents, by the scan of the jvp alone; None: not so.

    PyTorch calls a function's jvp after its forward pass, which that scan plays as well. Where only
    tangents are mapped over, as by `jacfwd`, the outputs must not be: one forward pass serves all.
    """
    duals = [forward_ad.unpack_dual(t) for t in tensors]
    primals, tangents = [d.primal for d in duals], [d.tangent for d in duals]
    given = [t for t in tangents if t is not None]
    if not given or not wrapped.mapped(given) <= wrapped.mapped(primals):
        return None
    try:
        of_jvp, of, joined = run.tangent(primals, tangents)
    except Unsupported:
        return None
    outs = _Scanned.apply(of_jvp, *joined)
    return [
        outs[at] if place is None else forward_ad.make_dual(outs[at], outs[place])
        for at, place in zip(*of.output_places(), strict=True)
    ]


def gradients_again(
    call: ScanCall, tape: Tape, tensors: Tensors, grads: Optional, wanted: Flags
) -> list[Tensor | None]:
    """The gradients of a call that ran, differentiable; see `ScanCall.again`."""
    if call.compiled.planner.recording.runs_python_backward or call.arguments.truncate is not None:
        return replayed(call, tensors, grads)
    return gradients(ScanRun(call, tape, tensors), tensors, grads, wanted)


class _Scanned(torch.autograd.Function):
    @staticmethod
    def forward(run: ScanRun, *tensors: Tensor) -> Any:
        return tuple(run.forward(tensors, run.trains))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        run, *tensors = inputs
        ctx.run = run
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)
        compiled = run.call.compiled
        if not compiled.all_need_grad:
            without = compiled.without_grad(tensors[-1].shape[0], run.call.rows is not None)
            ctx.mark_non_differentiable(*[output[i] for i in without])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        return None, *gradients(ctx.run, ctx.saved_tensors, grads, ctx.needs_input_grad[1:])

    @staticmethod
    def jvp(ctx: Any, _: Any, *along: Tensor | None) -> Any:
        run: ScanRun = ctx.run
        with _tangents_of_outer_levels():
            tensors = [_primal(t) for t in ctx.saved_tensors]
            try:
                of_jvp, of, joined = run.tangent(tensors, along)
            except Unsupported:
                return by_the_loop.tangents(run.call, tensors, along)
            outs = _Scanned.apply(of_jvp, *joined)
            pairs = zip(*of.output_places(), strict=True)
            return tuple(
                [
                    by_the_loop.no_tangent(outs[at]) if place is None else outs[place]
                    for at, place in pairs
                ]
            )

    @staticmethod
    def vmap(info: Any, in_dims: Any, run: ScanRun, *tensors: Tensor) -> Any:
        dims = in_dims[1:]
        if run.can_fold(dims):
            fold, of_all = run.folded(info.batch_size, tensors, dims)
            outs = _Scanned.apply(of_all, *fold.tensors)
            return fold.unfolded_outputs(outs)
        outs = [
            _Scanned.apply(of_one, *_member(tensors, dims, i))
            for i, of_one in enumerate(run.members(info.batch_size))
        ]
        return tuple(map(torch.stack, zip(*outs, strict=True))), (0,) * len(outs[0])


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(ask: Ask, *given: Tensor) -> Any:
        tensors, grads = ask.split(given)
        found = ask.run.backward(tensors, grads, ask.used, ask.wanted)
        ask.reached = [i for i, g in enumerate(found) if g is not None and ask.wanted[i]]
        # A function has an output, though no gradient is reached.
        return tuple([found[i] for i in ask.reached]) or (tensors[-1].new_zeros(()),)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ask, *given = inputs
        ctx.ask = ask
        ctx.save_for_backward(*given)
        ctx.save_for_forward(*given)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor | None) -> Any:
        ask: Ask = ctx.ask
        tensors, grads = ask.split(ctx.saved_tensors)
        along: list[Tensor | None] = [None] * len(tensors)
        for i, u in zip(ask.reached, directions, strict=False):
            along[i] = u
        if all(u is None for u in along):
            return None, *[None] * len(ctx.saved_tensors)
        try:
            run, of, joined = ask.run.tangent(tensors, along)
        except Unsupported:
            return None, *by_the_loop.gradients(ask, ctx.saved_tensors, directions)
        outs = _Scanned.apply(run, *joined)
        _, places = of.output_places()
        d_grads = [
            None if place is None else outs[place]
            for place, is_used in zip(places, ask.used, strict=True)
            if is_used
        ]
        wanted = ctx.needs_input_grad[1 : 1 + len(tensors)]
        return None, *_along(run, of, joined, grads, None, wanted), *d_grads

    @staticmethod
    def jvp(ctx: Any, _: Any, *along: Tensor | None) -> Any:
        ask: Ask = ctx.ask
        with _tangents_of_outer_levels():
            given = [_primal(t) for t in ctx.saved_tensors]
            tensors, grads = ask.split(given)
            of_tensors, of_grads = ask.split(along)
            if all(v is None for v in of_tensors):
                found = gradients(ask.run, tensors, of_grads, ask.wanted)
            else:
                try:
                    run, of, joined = ask.run.tangent(tensors, of_tensors)
                except Unsupported:
                    return by_the_loop.tangents_of_gradients(ask, given, along)
                found = _along(run, of, joined, grads, of_grads, ask.wanted)
        reached = [found[i] for i in ask.reached]
        pairs = zip(ask.reached, reached, strict=True)
        # A function has an output, though no gradient is reached.
        return tuple([torch.zeros_like(tensors[i]) if g is None else g for i, g in pairs]) or None

    @staticmethod
    def vmap(info: Any, in_dims: Any, ask: Ask, *given: Tensor) -> Any:
        tensors, grads = ask.split(given)
        dims, grad_dims = ask.split(in_dims[1:])
        n, run = info.batch_size, ask.run
        folds = run.can_fold(dims)
        if folds and not any(run.call.split(ask.wanted)[0]):
            fold, of_all = run.folded(n, tensors, dims)
            of_outputs = fold.of_outputs(grads, grad_dims)
            found = gradients(of_all, fold.tensors, of_outputs, ask.wanted)
            found, at = fold.unfolded(found)
        elif folds and (by_unit := _by_unit(ask, n, given, dims, grad_dims)) is not None:
            found, at = by_unit
        else:
            # One tape serves all, if only gradients of outputs differ.
            alike = all(dim is None for dim in dims)
            runs = [run] * n if alike else run.members(n)
            members = [
                gradients(
                    of_one, _member(tensors, dims, i), _member(grads, grad_dims, i), ask.wanted
                )
                for i, of_one in enumerate(runs)
            ]
            found = [_stacked(of_all) for of_all in zip(*members, strict=True)]
            at = [0] * len(found)
        ask.reached = [i for i, g in enumerate(found) if g is not None]
        outs = tuple([found[i] for i in ask.reached])
        return (outs, tuple([at[i] for i in ask.reached])) if outs else (_nothing(tensors), (None,))


def _by_unit(
    ask: Ask, n: int, given: Tensors, dims: Axes, grad_dims: Axes
) -> tuple[list[Tensor | None], Axes] | None:
    """The gradients of members that are rows, captured tensors' too; None: a member at a time."""
    if not has_units(ask.run.call, n) or any(map(_moves, given)):
        return None
    tensors, grads = ask.split(given)
    fold, of_all = ask.run.folded(n, tensors, dims)
    of_outputs = fold.of_outputs(grads, grad_dims)
    try:
        found = of_all.backward(fold.tensors, of_outputs, ask.used, ask.wanted, by_unit=True)
    except Unsupported:
        return None
    return fold.unfolded(found)


def _moves(t: Tensor) -> bool:
    """Whether derivatives by a tensor may be taken, or it is mapped over, at an outer level."""
    return wrapped.is_wrapped(t) or (t.requires_grad and torch.is_grad_enabled())


def _nothing(tensors: Tensors) -> tuple[Tensor]:
    """The output of a function of which no gradient is reached."""
    return (tensors[-1].new_zeros(()),)


def _along(
    run: ScanRun,
    of: Tangents,
    joined: Tensors,
    grads: Optional,
    of_grads: Optional | None,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Jᵀ g' + ∂/∂θ ⟨g, J θ'⟩, by θ where wanted: a gradient of the scan of the jvp.

    Args:
        run, of, joined: of that scan, along θ'.
        grads, of_grads: g and g'.
    """
    (at, _), (first, second) = of.primal_places(), of.output_places()
    cotangents: list[Tensor | None] = [None] * (len(first) + sum(p is not None for p in second))
    for i, (place, g) in enumerate(zip(second, grads, strict=True)):
        if place is not None:
            cotangents[place] = g
        if of_grads is not None:
            cotangents[first[i]] = of_grads[i]
    flags = [False] * len(joined)
    for i, is_wanted in zip(at, wanted, strict=True):
        flags[i] = is_wanted
    found = gradients(run, joined, cotangents, tuple(flags))
    # Zeros, since autograd has paths through derivatives that are zero, as that of a sign.
    return [torch.zeros_like(joined[i]) if flags[i] and found[i] is None else found[i] for i in at]


def _member(tensors: Sequence[Any], dims: Sequence[Any], i: int) -> list[Any]:
    """The tensors of one member of those that vmap maps over."""
    pairs = zip(tensors, dims, strict=True)
    return [t if t is None or dim is None else t.select(dim, i) for t, dim in pairs]


def _stacked(of_all: Sequence[Tensor | None]) -> Tensor | None:
    """A gradient of all members, zeros for those without; None if none has one."""
    like = next((g for g in of_all if g is not None), None)
    if like is None:
        return None
    return torch.stack([torch.zeros_like(like) if g is None else g for g in of_all])


def _tangents_of_outer_levels() -> Any:
    """PyTorch turns forward mode off while a function's jvp runs, for all levels of transforms."""
    return forward_ad._set_fwd_grad_enabled(True)


def _primal(t: Tensor) -> Tensor:
    """A tensor without its tangent of this level."""
    return forward_ad.unpack_dual(t).primal if torch_private.forward_mode_is_active() else t
