"""The compiler: from a step written in PyTorch to a program of the engine.

    capture/    the step runs, and is recorded: its ATen calls forward and backward; and guards,
                which say when the recording may be played again
    graph/      the recording as a step graph: named operations on rows, weights and sums
    backward/   which gradients live, what the forward pass keeps, how weight gradients are summed
    lower/      a pass over the step graph as a program: an ordered list of passes; without torch
    plan.py     the passes that one call needs, made once and kept
    play/       programs on PyTorch's tensors, as one differentiable function
    cache.py    recorded steps by code and guards
    verify.py   a few real steps beside the eager loop, for every batch size once

Vocabulary: a *step* is the user's function. A *recording* is its ATen calls as numbered values. A
*guard* is a value that the step read, by its path. A *side effect* is a change of such a value by
the step itself. The *step graph* is one time step, forward and backward. A *section* is a part of
it by when it may run: once, before the loop, in it, after it. A *program* is a flat list of
instructions. T time steps, B batch rows, F features, H hidden size.

Imports point down this list: capture ← graph ← backward, lower ← plan ← play.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ostinato.arguments import Arguments
    from ostinato.compiler.capture.guards import Observation
    from ostinato.compiler.play.step import CompiledStep


def compile_step(
    a: Arguments, captured: list[Tensor], observation: Observation | None, engine: str
) -> CompiledStep:
    """The way of a step: from a function of PyTorch to one that the engine plays.

    Args:
        a: the arguments of the call of scan that records it.
        captured: the tensors that the step takes from outside.
        observation: watches its runs; None for a layer's step, which says what it takes.
        engine: "native" or "reference".

    Raises:
        Unsupported: the engine cannot play the step; the loop will.
    """
    # Here, so that the first `import ostinato` does not pay for it, and `lower` needs no torch.
    from ostinato.compiler.capture.record import check_recording, record
    from ostinato.compiler.graph.from_aten import StepGraph
    from ostinato.compiler.plan import Planner
    from ostinato.compiler.play.step import CompiledStep

    dtype = a.init_leaves[0].dtype
    recording, small = record(a, captured, observation)  # capture/
    check_recording(recording, a, observation)
    graph = StepGraph(recording, dtype)  # graph/
    planner = Planner(recording, graph)  # backward/, lower/: as calls need them
    planner.check()
    return CompiledStep(planner, small, dtype, engine)  # play/
