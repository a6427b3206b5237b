"""The compiler: from a step written in PyTorch to a program of the engine.

    capture/    runs the step and records its ATen calls, forward and backward; makes the guards
                that decide when the recording may be played again
    graph/      turns the recording into a step graph: named operations on rows, weights and sums
    backward/   liveness of gradients, values kept or rematerialized, sums of weight gradients
    lower/      turns one pass of the step graph, forward or backward, into a program; needs no
                torch
    plan.py     the programs that one call needs, made once and kept
    play/       plays programs on PyTorch's tensors, as one differentiable function
    cache.py    keeps recorded steps by code and guards; steps.py and inputs.py describe a call
    shared.py   leaves without a batch as rows
    verify.py   compares a few time steps with the Python loop, once for every batch size
    transforms/ rules for torch.func: its transforms of a scan are scans
    recorded.py the recorded step of a call, with the tensors of the call

Vocabulary: a *step* is the user's function. A *recording* is its ATen calls as numbered values. A
*guard* compares a value that the step read with its value now, by its path from the step. A *side
effect* is a change of such a value by the step itself. The *step graph* is one time step, forward
and backward. A *section* is the part of it that runs once, before the time loop, in the loop, or
after it. A *program* is a flat list of instructions. T time steps, B batch rows, F features, H
hidden size.

Imports point down this list: capture ← graph ← backward, lower ← plan ← play.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ostinato.compiler.lock import one_at_a_time

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from ostinato.arguments import Arguments
    from ostinato.compiler.capture.guards.observation import Observation
    from ostinato.compiler.play.step import CompiledStep


def compile_step(
    a: Arguments,
    captured: list[Tensor],
    observation: Observation | None,
    engine: str,
    generators: Collection[Generator] = (),
) -> CompiledStep:
    """The way of a step: from a PyTorch function to programs of the engine.

    Args:
        a: the arguments of the call of scan at which the step is recorded.
        captured: the captured tensors of the step.
        observation: observes the runs of the step; None for a layer's step, which needs no guards.
        engine: "native" or "reference".
        generators: the random generators that the step draws from.

    Raises:
        Unsupported: the engine cannot play the step, which then runs in the Python loop.
    """
    # Imported here, so that `import ostinato` stays fast and `lower` can be imported without torch.
    # A process that is forked while a module is imported could not import it itself.
    with one_at_a_time:
        from ostinato.compiler.capture.record import check_recording, record, step_type
        from ostinato.compiler.graph.from_aten import DifferentiableGraph
        from ostinato.compiler.plan import Planner
        from ostinato.compiler.play.step import CompiledStep

    recording, small = record(a, captured, observation, generators)  # capture/
    dtype = step_type(recording)
    check_recording(recording, a, observation)
    graph = DifferentiableGraph(recording, dtype)  # graph/
    planner = Planner(recording, graph)  # backward/ and lower/, when a call needs them
    planner.check(a.reverse, a.n_rows)
    return CompiledStep(planner, small, dtype, engine)  # play/
