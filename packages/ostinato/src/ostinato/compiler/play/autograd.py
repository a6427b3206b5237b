"""`scan` as one differentiable operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from ostinato import tree
from ostinato.arguments import Arguments
from ostinato.compiler import torch_compat, torch_private
from ostinato.compiler.capture.captured_rows import rejoined
from ostinato.compiler.errors import NOT_OF_A_STEP, Unsupported, error_in_short
from ostinato.compiler.play.tape import Flags, RowOrder, SavedForward
from ostinato.compiler.torch_compat import among_ours, transformed
from ostinato.eager import RowSpans, eager_scan

if TYPE_CHECKING:
    from ostinato.compiler.capture.draws import Drawn
    from ostinato.compiler.play.segmented import SegmentedRun
    from ostinato.compiler.play.step import CompiledStep

    Tape: TypeAlias = SavedForward | SegmentedRun

_is_vectorised = torch_private.is_legacy_batchedtensor


@dataclass(slots=True)  # made with every call
class ScanCall:
    """One call of scan, without the tensors that autograd sees: captured, init and xs."""

    compiled: CompiledStep
    arguments: Arguments  # time first, resets a part of the step
    taken: list[Tensor]  # all tensors that the step takes from outside
    captured: list[Tensor]  # those without a batch
    per_row: list[Tensor]  # the others, batch first: a part of the carry
    n_rows: int
    rows: RowOrder | None  # for a ragged batch
    # For a step whose backward pass runs Python code: whether the values that it may read are
    # unchanged.
    unchanged: Callable[[], bool] | None
    # The backward pass as a differentiable function of tensors and gradients: `transforms/`.
    again: Callable[[ScanCall, Tape, Any, Any, Flags], list[Tensor | None]]
    drawn: Drawn | None = None  # random numbers of a step that draws: further leaves of xs
    # Under transforms: applies the scan as a function that has rules for them; see `transforms/`.
    applied: Callable[[ScanCall, list[Tensor]], Sequence[Tensor]] | None = None
    unit_rows: int = 1  # of a member's rows, if members are rows of this call

    def tensors(self) -> list[Tensor]:
        """Everything that autograd sees of the call, in the order that `split` takes apart."""
        a = self.arguments
        tensors = [*self.captured, *a.leaves, *self.per_row, *a.xs_leaves]
        return tensors if self.drawn is None else tensors + self.drawn.leaves

    @property
    def numbers(self) -> list[Tensor]:
        """The random numbers of all steps, `[T, B, …]`."""
        return [] if self.drawn is None else self.drawn.leaves

    def split(self, tensors: Any) -> tuple[Any, Any, Any]:
        """Split the tensors of a call into captured tensors, the first carry and leaves of xs."""
        n_xs = len(self.arguments.xs_leaves) + len(self.numbers)
        a, b = len(self.captured), len(tensors) - n_xs
        return tensors[:a], tensors[a:b], tensors[b:]

    def played(self, tensors: list[Tensor]) -> list[Tensor]:
        """The tensors for the engine, with further leaves of the carry that only it has.

        These are products of captured rows alone, and the largest whole number so far.
        """
        recording = self.compiled.planner.recording
        if not (recording.products or recording.sized):
            return tensors
        captured, init, xs = self.split(tensors)
        made: list[Tensor] = []
        if recording.products:
            from ostinato.compiler.capture.row_products import computed  # not a part of every start

            taken = rejoined(captured, init[len(self.arguments.leaves) :], recording.per_row)
            made = computed(recording.products, taken)
        if recording.sized:
            made.append(xs[0].new_zeros(self.n_rows, 1, dtype=self.compiled.dtype))
        return [*captured, *init, *made, *xs]

    def outputs(self, tensors: list[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Outputs and last carry, differentiable in `tensors` (captured, init, xs)."""
        shared, n_ys = self.arguments.shared, self.compiled.n_ys
        tensors = self.played(tensors)
        if self.without_batch:
            shared = None  # the autograd function takes and gives them as they are
        outs = self._of_rows(tensors if shared is None else self._with_batch(tensors))
        ys, finals = outs[:n_ys], outs[n_ys : n_ys + len(self.arguments.leaves)]
        if shared is None:
            return ys, finals
        return shared.as_given(ys, finals, self.arguments, self.compiled.y_shapes)

    @property
    def without_batch(self) -> bool:
        """Whether the autograd function takes and gives tensors without a batch.

        Outside of it, the view that adds a batch would be a node of autograd's graph for each leaf.
        """
        a = self.arguments
        is_one_row = a.shared is not None and a.shared.alone
        is_plain = self.applied is None and self.drawn is None
        return is_one_row and is_plain and a.memory is None and a.truncate is None

    def _with_batch(self, tensors: Any) -> list[Tensor]:
        """The tensors with the leaves of init and xs as rows."""
        shared = self.arguments.shared
        assert shared is not None
        captured, init, xs = self.split(tensors)
        n, n_xs = len(self.arguments.leaves), len(self.arguments.xs_leaves)
        leaves, rows = shared.rows(init[:n], xs[:n_xs])
        return [*captured, *leaves, *init[n:], *rows, *xs[n_xs:]]

    def in_rows(self, tensors: Any, grads: Any) -> tuple[Any, Any]:
        """Tensors and gradients of the autograd function as rows; differentiable."""
        if not self.without_batch:
            return tensors, grads
        n_ys = self.compiled.n_ys
        finals = [g if g is None else g.unsqueeze(0) for g in grads[n_ys:]]
        return self._with_batch(tensors), [*self.grads_of_rows(grads)[:n_ys], *finals]

    def for_engine(self, tensors: Any) -> Any:
        """The tensors of the autograd function as the engine reads them: xs have the batch."""
        if not self.without_batch:
            return tensors
        at = len(tensors) - len(self.arguments.xs_leaves)
        return [*tensors[:at], *[x.unsqueeze(1) for x in tensors[at:]]]

    def grads_of_rows(self, grads: Any) -> Any:
        """The gradients as the engine reads them: those of ys have the batch."""
        if not self.without_batch:
            return grads
        totals, shapes = dict(self.compiled.totals), self.compiled.row_shapes
        ys = [
            g if g is None or i in totals else g.reshape(g.shape[0], 1, *shape)
            for i, (g, shape) in enumerate(zip(grads, shapes, strict=False))
        ]
        return [*ys, *grads[len(ys) :]]

    def as_given(self, outs: list[Tensor]) -> list[Tensor]:
        """The outputs that the autograd function gives; not views of others, to autograd."""
        if self.without_batch:
            for i, shape in enumerate(self.compiled.y_shapes):
                if outs[i].shape[1:] != shape:
                    outs[i] = outs[i].reshape(outs[i].shape[0], *shape).detach()
        return outs

    def _of_rows(self, tensors: list[Tensor]) -> Sequence[Tensor]:
        if self.applied is not None:
            return self.applied(self, tensors)
        if torch.is_grad_enabled():
            for i, of_init in self.compiled.without_path:
                # A row without steps ends as it began.
                if tensors[i].requires_grad and not (of_init and self.rows is not None):
                    tensors[i] = tensors[i].detach()
            for t in tensors:  # a generator takes longer
                if t.requires_grad:
                    return self._differentiable(tensors)
        return self.as_given(self.forward(self.for_engine(tensors), train=False)[0])

    def _differentiable(self, tensors: list[Tensor]) -> Sequence[Tensor]:
        try:
            outs: Sequence[Tensor] = _apply(self, *tensors)
        except RuntimeError:  # a tensor made under torch.inference_mode cannot be saved
            if not any(t.is_inference() for t in tensors):
                raise
            outs = _apply(self, *[t.clone() if t.is_inference() else t for t in tensors])
        return outs

    def forward(self, tensors: Any, train: bool) -> tuple[list[Tensor], Tape]:
        """Outputs and last carry, in one list; and the tape, of use if `train`."""
        a = self.arguments
        if train and (a.memory is not None or a.truncate is not None):
            from ostinato.compiler.play.segmented import run_in_segments  # rarely needed

            run = run_in_segments(self, tensors)
            if run is not None:
                return run.forward(tensors), run
        return self._played_forward(tensors, train)

    def _played_forward(self, tensors: Any, train: bool) -> tuple[list[Tensor], SavedForward]:
        return self.compiled.forward(
            tensors, self.n_rows, self.arguments.reverse, self.rows, train, unit_rows=self.unit_rows
        )

    def backward(
        self,
        tape: Tape,
        tensors: Any,
        grads: Any,
        used: Flags,
        wanted: Flags,
        by_unit: bool = False,
    ) -> list[Tensor | None]:
        """See `CompiledStep.backward`."""
        if not isinstance(tape, SavedForward):
            return tape.backward(tensors, grads, used, wanted)
        if not tape.held.holds():  # an output was changed in place, as those of a loop may be
            _, tape = self._played_forward(tensors, True)
        ragged = self.rows is not None
        return self.compiled.backward(tape, tensors, grads, used, wanted, ragged, by_unit)

    def replay(self, captured: Any, init: Any, xs: Any, recorded: bool = False) -> list[Tensor]:
        """Outputs and last carry by the Python loop, for the step or for its recording.

        Without its random numbers in xs, the step draws anew.
        """
        a, n_steps = self.arguments, xs[0].shape[0]
        lengths = None if a.ragged.lengths is None else a.ragged.lengths.clamp(max=n_steps)
        ragged = RowSpans(lengths, None, [], n_steps)
        n = len(a.leaves)
        if a.of_layer:
            init = [leaf.squeeze(0) for leaf in init]
        if recorded:
            from ostinato.compiler.capture import recording  # not a part of every start

            # Captured rows stay outside the carry: truncate= stops only the gradient of the carry.
            of, rows = self.compiled.planner.recording, init[n:]
            again = recording.recorded_step(of, captured, rows)
            first, elements = list(init[:n]), list(xs)
            carry, ys = eager_scan(again, first, elements, 0, a.reverse, ragged, a.truncate)
        else:
            from ostinato.compiler.capture.captures import swapped

            per_row = self.compiled.planner.recording.per_row
            rows = list(init[n : n + len(per_row)])
            replacing = rejoined(list(captured), rows, per_row)
            step, n_xs = a.step, len(a.xs_leaves)
            of_xs: Any = tree.unflatten(xs[:n_xs], a.xs_spec)
            if len(xs) > n_xs:
                from ostinato.compiler.capture.draws import given_numbers  # rarely needed

                step = given_numbers(a.step, self.compiled.planner.recording.draws)
                of_xs = of_xs, list(xs[n_xs:])
            with among_ours(), swapped(self.taken, replacing):
                first = tree.unflatten(init[:n], a.carry_spec)
                carry, ys = eager_scan(step, first, of_xs, 0, a.reverse, ragged, a.truncate)
        last = tree.leaves(carry)[: len(a.leaves)]
        if a.of_layer:
            last = [leaf.unsqueeze(0) for leaf in last]
        return tree.leaves(ys) + last


class _ScanFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: ScanCall, *tensors: Tensor) -> Any:
        outs, ctx.tape = call.forward(call.for_engine(tensors), train=True)
        outs = call.as_given(outs)
        ctx.call = call
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        if not call.compiled.all_need_grad:
            without = call.compiled.without_grad(tensors[-1].shape[0], call.rows is not None)
            ctx.mark_non_differentiable(*[outs[i] for i in without])
        return tuple(outs)

    @staticmethod
    @torch_compat.out_of_graph
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        if torch_compat.looks_on():  # compiled autograd
            return torch_compat.disabled(_backward)(ctx, grads)
        return _backward(ctx, grads)


def _backward(ctx: Any, grads: tuple[Tensor | None, ...]) -> Any:
    call, tensors = ctx.call, ctx.saved_tensors
    found = _gradients(ctx, call, tensors, grads)
    if call.without_batch:
        both = zip(found, tensors, strict=False)
        found = [g if g is None or g.shape == t.shape else g.reshape(t.shape) for g, t in both]
    return (None, *found)


def _gradients(
    ctx: Any, call: ScanCall, tensors: Any, grads: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    tape = ctx.tape
    again = torch.is_grad_enabled() or transformed() is not None  # itself being differentiated
    for g in grads:  # a generator takes longer
        if g is not None and _is_vectorised(g):
            return replayed(call, *call.in_rows(tensors, grads))
    if call.unchanged is not None and not call.unchanged():
        # The code of the backward pass would read other values than were recorded.
        return replayed(call, *call.in_rows(tensors, grads))
    if again:
        return call.again(call, tape, *call.in_rows(tensors, grads), ctx.needs_input_grad[1:])
    if not torch_private.graph_is_kept():  # its memory is free for the next call at once
        ctx.call = ctx.tape = None
    used = tuple([g is not None for g in grads])
    wanted = ctx.needs_input_grad[1:]
    try:
        of_rows = call.grads_of_rows(grads)
        return call.backward(tape, call.for_engine(tensors), of_rows, used, wanted)
    except Unsupported:
        return replayed(call, *call.in_rows(tensors, grads))


# Function's own apply first looks for torch.func transforms. Under these the Python loop runs, so
# that the apply of Function's base class is enough.
_apply = super(torch.autograd.Function, _ScanFunction).apply


def _again(call: ScanCall, inputs: list[Tensor]) -> list[Tensor]:
    """The forward pass of the recording, differentiable, even if the step has changed since.

    Raises:
        RuntimeError: the step has changed, and the code of its backward pass is not recorded.
    """
    if not call.compiled.planner.recording.runs_python_backward:
        return call.replay(*call.split(inputs), recorded=True)
    try:
        outs = call.replay(*call.split(inputs))
    except NOT_OF_A_STEP:
        raise
    except Exception as error:
        raise RuntimeError(
            f"scan: the step fails ({error_in_short(error)}) where it runs once more for the "
            "backward pass, since it has one in Python (a custom autograd.Function, or hooks): "
            "keep what it reaches until then"
        ) from error
    with torch.no_grad():
        recorded = call.replay(*call.split([t.detach() for t in inputs]), recorded=True)
    tolerance = 1e-4 if call.compiled.dtype == torch.float32 else 1e-8
    for ours, theirs in zip(outs, recorded, strict=True):
        if not torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True):
            raise RuntimeError(
                "scan: the step computes something else than it did in the forward pass; what it "
                "reaches was changed before the backward pass"
            )
    return outs


def replayed(call: ScanCall, tensors: Any, grads: Any) -> list[Tensor | None]:
    """The gradients by the Python loop, themselves differentiable: slower, never wrong."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [t.view_as(t) if t.requires_grad else t for t in tensors]
        outs = _again(call, inputs)
    grads = grads[: len(outs)]  # captured rows, leaves of the engine's carry, are not outputs
    pairs = [(o, g) for o, g in zip(outs, grads, strict=True) if g is not None and o.requires_grad]
    wanted = [i for i, t in enumerate(inputs) if t.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    found = torch.autograd.grad(
        [o for o, _ in pairs],
        [inputs[i] for i in wanted],
        [g for _, g in pairs],
        create_graph=differentiable,
        allow_unused=True,
    )
    gradients = dict(zip(wanted, found, strict=True))
    return [gradients.get(i) for i in range(len(inputs))]
