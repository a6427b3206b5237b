"""Verification: the engine's first time steps are compared with those of the Python loop.

This happens once for every batch size of a step, with gradients; with OSTINATO_CHECK=1 at every
call.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from types import CodeType
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ostinato.compiler.errors import NOT_OF_A_STEP, Unsupported, error_in_short
from ostinato.compiler.play.autograd import ScanCall
from ostinato.compiler.play.tape import RowOrder
from ostinato.compiler.steps import name_of
from ostinato.compiler.torch_compat import undisturbed

if TYPE_CHECKING:
    from ostinato.compiler.capture.draws import Drawn
    from ostinato.compiler.capture.guards.observation import Guards, Observation

N_STEPS = 3  # compared time steps, at most
N_MOVES = 4  # movements of the inputs, if rounding flipped a comparison


def verified(
    call: ScanCall, guards: Guards | None, lifted: Mapping[str, Tensor] | None = None
) -> Unsupported | None:
    """Why this step must run in the Python loop with this many rows, or None.

    The steps are compared at the first call with this many rows, and again at the first of several
    steps: a single step does not show errors that accumulate. The verdicts are kept.

    Args:
        lifted: path of a Python float → the captured tensor in its place.
    """
    known, n_rows = call.compiled.verified, call.n_rows
    key = n_rows, call.arguments.ragged.n_steps > 1 or (n_rows, True) in known
    if key not in known:
        if call.arguments.weights is not None:
            known[key] = _difference(call)
        else:
            codes = {} if guards is None else guards.codes
            known[key] = _difference_or_side_effect(call, codes, lifted)
    return known[key]


def check_call(call: ScanCall) -> None:
    """Compare the first time steps with the Python loop, at every call with OSTINATO_CHECK=1.

    Raises:
        RuntimeError: they differ.
    """
    why_not = _difference(call)
    if why_not is not None:
        raise RuntimeError(
            f"OSTINATO_CHECK: {name_of(call.arguments.given)}: {why_not.reason}. It reads what no "
            "guard sees (docs/semantics.md); ostinato.forget(step) records it anew"
        )


def _difference_or_side_effect(
    call: ScanCall, codes: Mapping[int, CodeType], lifted: Mapping[str, Tensor] | None
) -> Unsupported | None:
    """The difference from the Python loop, or else a side effect of the step with this many rows.

    Side effects are undone.
    """
    from ostinato.compiler.capture.guards.observation import Observation

    observation = None
    try:
        of = call.arguments
        observation = Observation(of.given, codes, lifted, of.places)
        why_not = _difference(call, observation)
        observation.snapshots.check()
        return why_not
    except Unsupported as refusal:
        return refusal.bare()
    finally:
        if observation is not None:
            observation.snapshots.put_back()


def _difference(call: ScanCall, observation: Observation | None = None) -> Unsupported | None:
    """The difference of the engine's first time steps from those of the Python loop, or None.

    The step is also recorded with this many rows, and its operations are compared with those of the
    recording: control flow on the batch size may change the gradients alone. A single row is left
    out, since PyTorch itself uses other operations for it (there is nothing to sum over).
    """
    if call.arguments.truncate is not None or call.arguments.memory is not None:
        # Not the segments are verified, but the steps in them.
        call = replace(call, arguments=call.arguments._replace(truncate=None, memory=None))
    if call.n_rows > 1:
        from ostinato.compiler.capture.record import check_batch  # here, to keep imports fast

        try:
            with observation or nullcontext():
                check_batch(call.compiled.small, call.arguments, call.taken)
        except Unsupported as refusal:
            return refusal.bare()
    found = _compared(call, observation)
    if isinstance(found, Unsupported) or _agree(call, found.pairs):
        return found if isinstance(found, Unsupported) else None
    return _flipped(call, observation, found)


class _Compared(NamedTuple):
    """Results of the engine and of the loop: outputs and last carry, then gradients."""

    pairs: list[tuple[Tensor, Tensor]]
    n_outputs: int


def _compared(
    call: ScanCall, observation: Observation | None, moved: float = 0.0, phase: int = 0
) -> _Compared | Unsupported:
    """The results of the first time steps, with init and xs moved by a share of their size."""
    differentiable = torch.is_grad_enabled()
    with undisturbed(), torch.set_grad_enabled(differentiable):
        # A tensor made under torch.inference_mode can get gradients only as a clone.
        inputs = [
            (t.clone() if t.is_inference() else t.detach()).requires_grad_(t.requires_grad)
            for t in call.tensors()
        ]
        if moved:
            first = len(call.captured)
            inputs[first:] = [_moved(t, moved, phase) for t in inputs[first:]]
        captured, init, xs = call.split(inputs)
        few = [x[:N_STEPS] for x in xs]
        given, drawn = few, None
        if call.drawn is not None:
            drawn = _numbers(call, len(few[0]))
            given = few[: len(call.arguments.xs_leaves)]
            few = [*given, *drawn.leaves]
        rows = None if call.rows is None else RowOrder.of(call.rows.lengths.clamp(max=len(few[0])))
        if observation is not None:
            observation.lifts = []  # the Python loop takes plain numbers
        try:
            with observation or nullcontext():
                expected = call.replay(captured, init, given)
        except NOT_OF_A_STEP:
            raise
        except Exception as error:  # the Python loop will raise it to the user
            return Unsupported(f"the step fails ({error_in_short(error)})")
        finally:
            as_drawn = drawn is None or drawn.ended_now()
            if drawn is not None:
                drawn.put_back()
        if not as_drawn:
            return Unsupported(
                "the step draws random numbers in another order than was recorded, or sets the "
                "state of a generator (fork_rng, manual_seed)"
            )
        ys, finals = replace(call, rows=rows).outputs([*captured, *init, *few])
        pairs = list(zip([*ys, *finals], expected, strict=True))
        n_outputs = len(pairs)
        if differentiable:
            pairs += _gradients(pairs, inputs)
    return _Compared(pairs, n_outputs)


def _agree(call: ScanCall, pairs: list[tuple[Tensor, Tensor]]) -> bool:
    tolerance = 1e-3 if call.compiled.dtype == torch.float32 else 1e-8
    if call.compiled.coarse:
        tolerance = 0.1
    return all(_close(ours, theirs, tolerance) for ours, theirs in pairs)


def _flipped(
    call: ScanCall, observation: Observation | None, found: _Compared
) -> Unsupported | None:
    """Why a step whose results differ must run in the Python loop; None if rounding flipped a
    comparison.

    A spike, a sign or a rounded number jumps where its argument crosses a threshold. Rounding
    decides there, and the engine adds in another order. That is the cause if the loop's own outputs
    jump when init and xs move by some rounding errors, and engine and loop agree on other inputs.
    """
    differ = "in a few time steps the engine's results differ from the Python loop's"
    if _agree(call, found.pairs[: found.n_outputs]):
        return Unsupported(differ + ", in their gradients")
    jumps = _jumps(call, observation, found)
    if jumps is not True:
        return jumps or Unsupported(differ)
    agreed = False
    for phase in range(N_MOVES):
        elsewhere = _compared(call, observation, 1e-2, phase)
        if isinstance(elsewhere, Unsupported):
            continue
        if _agree(call, elsewhere.pairs):
            agreed = True
        elif _jumps(call, observation, elsewhere, 1e-2, phase) is not True:
            return Unsupported(differ)
    if agreed:
        return None
    return Unsupported(
        differ + ", also where no comparison (a spike, say) is within rounding of its threshold"
    )


def _jumps(
    call: ScanCall,
    observation: Observation | None,
    found: _Compared,
    moved: float = 0.0,
    phase: int = 0,
) -> Unsupported | bool:
    """Whether the loop's own outputs jump when its inputs move by some rounding errors."""
    eps = torch.finfo(call.compiled.dtype).eps
    for by in (32 * eps, -32 * eps):
        near = _compared(call, observation, moved + by, phase)
        if isinstance(near, Unsupported):
            return near
        outputs = zip(near.pairs[: near.n_outputs], found.pairs, strict=False)
        if not _agree(call, [(a, b) for (_, a), (_, b) in outputs]):
            return True
    return False


def _moved(leaf: Tensor, by: float, phase: int) -> Tensor:
    """A leaf of init or xs, each element moved by a share of the largest one."""
    if not leaf.dtype.is_floating_point or not leaf.numel():
        return leaf
    t = leaf.detach()
    step = by * (float(t.abs().nan_to_num(0, 0, 0).max()) or 1.0)
    angle = torch.arange(t.numel(), dtype=t.dtype, device=t.device).view(t.shape)
    return (t + step * torch.cos(1.7 * angle + phase)).requires_grad_(leaf.requires_grad)


def _numbers(call: ScanCall, n_steps: int) -> Drawn:
    """The random numbers of the first steps; the generators are restored."""
    from ostinato.compiler.capture.draws import Drawn  # not a part of every start

    draws = call.compiled.planner.recording.draws
    drawn = Drawn(draws, n_steps, call.n_rows, call.arguments.reverse)
    drawn.draw()
    drawn.put_back()
    return drawn


def _gradients(
    pairs: list[tuple[Tensor, Tensor]], inputs: list[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Pairs of the gradients of all inputs, by the engine and by the Python loop; [] without
    gradients."""
    wanted = [t for t in inputs if t.requires_grad]
    if not any(theirs.requires_grad for _, theirs in pairs):
        return []
    both = []
    for outputs in ([ours for ours, _ in pairs], [theirs for _, theirs in pairs]):
        used = [o for o in outputs if o.requires_grad]
        if not used:  # those of the loop are views made under no_grad: they require a gradient
            both.append([torch.zeros_like(t) for t in wanted])
            continue
        weights = [
            torch.linspace(0.5, 1, o.numel(), dtype=o.dtype, device=o.device).view_as(o)
            for o in used
        ]
        # A scalar: given gradients of the outputs, autograd.grad imports SymPy, for 0.2 s.
        total = sum((o * w).sum() for o, w in zip(used, weights, strict=True))
        found = torch.autograd.grad(total, wanted, allow_unused=True)  # type: ignore[arg-type]
        pairs_of = zip(found, wanted, strict=True)
        both.append([torch.zeros_like(t) if g is None else g for g, t in pairs_of])
    return list(zip(*both, strict=True))


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    """Whether two results agree within `tolerance`, relative to the largest value or to 1."""
    ours, theirs = ours.detach(), theirs.detach()
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    if ours.is_complex() and theirs.is_complex():
        ours, theirs = (torch.view_as_real(t.resolve_conj()) for t in (ours, theirs))
    if not ours.dtype.is_floating_point:
        return torch.equal(ours, theirs)
    scale = float(theirs.abs().nan_to_num(0, 0, 0).max()) if theirs.numel() else 0.0
    bound = tolerance * max(1.0, scale)
    return torch.allclose(ours, theirs, rtol=tolerance, atol=bound, equal_nan=True)
