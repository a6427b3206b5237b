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

So derivatives of every order are scans in the engine. Whatever the engine cannot play is computed
by the Python loop of the recorded step, with PyTorch's own transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ostinato.compiler.errors import Unsupported
from ostinato.compiler.play.autograd import replayed
from ostinato.compiler.play.tape import Flags
from ostinato.compiler.torch_compat import gradients_of
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

    def __init__(self, call: ScanCall, tape: Tape | None = None, given: Tensors = ()):
        self.call, self._tape, self._given = call, tape, given
        self._tangents: dict[Flags, tuple[ScanRun, Tangents]] = {}

    def forward(self, tensors: Tensors) -> list[Tensor]:
        """Outputs and last carry of plain tensors."""
        outs, self._tape = self.call.forward(tensors, train=True)
        self._given = tensors
        return outs

    def backward(
        self, tensors: Tensors, grads: Optional, used: Flags, wanted: Flags
    ) -> list[Tensor | None]:
        """The gradients of plain tensors; the forward pass is played again if it was of others."""
        if self._tape is None or not all(map(_is_same, self._given, tensors)):
            self.forward(tensors)
        assert self._tape is not None
        try:
            return self.call.backward(self._tape, tensors, grads, used, wanted)
        except Unsupported:
            return self._by_the_loop(tensors, grads, wanted)

    def _by_the_loop(
        self, tensors: Tensors, grads: Optional, wanted: Flags
    ) -> list[Tensor | None]:
        inputs = [t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
        with torch.enable_grad():
            outs = self.call.replay(*self.call.split(inputs), recorded=True)
        pairs = zip(outs, grads, strict=False)
        given = [(o, g) for o, g in pairs if g is not None and o.requires_grad]
        if not given:
            return [None] * len(inputs)
        found = iter(gradients_of(given, [t for t in inputs if t.requires_grad]))
        return [next(found) if t.requires_grad else None for t in inputs]

    def tangent(
        self, tensors: Tensors, tangents: Optional
    ) -> tuple[ScanRun, Tangents, list[Tensor]]:
        """The run of the step's jvp with these tangents, and its tensors.

        Raises:
            Unsupported: the engine cannot play it.
        """
        given = tuple([v is not None for v in tangents])
        compiled = self.call.compiled
        recording = compiled.planner.recording
        of = Tangents.of(recording, given, compiled.handed_on)
        joined = of.joined(tensors, tangents)
        if given not in self._tangents:
            self._tangents[given] = ScanRun(tangent_call(self.call, of, joined)), of
        return *self._tangents[given], joined


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same memory; `a` keeps it from being another's."""
    return a is b or (
        a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()
    )


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
        return tuple(run.forward(tensors))

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
            return None, *_by_the_loop(ask, ctx.saved_tensors, directions)
        outs = _Scanned.apply(run, *joined)
        (_, places), (at, _) = of.output_places(), of.primal_places()
        d_grads = [
            None if place is None else outs[place]
            for place, is_used in zip(places, ask.used, strict=True)
            if is_used
        ]
        cotangents: list[Tensor | None] = [None] * len(outs)
        for place, g in zip(places, grads, strict=True):
            if place is not None:
                cotangents[place] = g
        wanted = [False] * len(joined)
        for i, needed in zip(at, ctx.needs_input_grad[1:], strict=False):
            wanted[i] = needed
        found = gradients(run, joined, cotangents, tuple(wanted))
        # Zeros, since autograd has paths through derivatives that are zero, as that of a sign.
        d_tensors = [
            torch.zeros_like(t) if wanted[i] and found[i] is None else found[i]
            for i, t in zip(at, tensors, strict=True)
        ]
        return None, *d_tensors, *d_grads


def _by_the_loop(
    ask: Ask, given: Sequence[Tensor], directions: Optional
) -> Sequence[Tensor | None]:
    """The gradients of a backward pass by the Python loop of the recorded step."""
    call = ask.run.call
    moving = [i for i, t in enumerate(given) if t.is_floating_point() or t.is_complex()]

    def backward(*moved: Tensor) -> Any:
        tensors, grads = ask.split(_replaced(given, moving, moved))
        wanted = [i for i in ask.reached if i in moving]

        def outputs(*inputs: Tensor) -> Any:
            outs = call.replay(*call.split(_replaced(tensors, wanted, inputs)), recorded=True)
            return [o for o, g in zip(outs, grads, strict=False) if g is not None]

        pulled = torch.func.vjp(outputs, *[tensors[i] for i in wanted])[1]
        found = pulled([g for g in grads if g is not None])
        return [g for g, u in zip(found, directions, strict=True) if u is not None]

    pulled = torch.func.vjp(backward, *[given[i] for i in moving])[1]
    found = dict(zip(moving, pulled([u for u in directions if u is not None]), strict=True))
    return [found.get(i) for i in range(len(given))]


def _replaced(of: Sequence[Tensor], at: Sequence[int], by: Sequence[Tensor]) -> list[Tensor]:
    new = list(of)
    for i, t in zip(at, by, strict=True):
        new[i] = t
    return new
