"""The Python loop with PyTorch's checkpointing: `memory=` for a step that is not native."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ostinato import tree
from ostinato.arguments import Arguments
from ostinato.compiler.capture.draws import States
from ostinato.compiler.play.segments import Span, scheduled, windows
from ostinato.compiler.steps import warn_checkpointed
from ostinato.compiler.torch_compat import OwnMode
from ostinato.eager import Tree, eager_scan


def checkpointed_scan(a: Arguments) -> tuple[Tree, Tree]:
    """`eager_scan` that keeps the carry every √T steps and runs the steps between them again.

    The bytes that PyTorch keeps for a step are known only after it ran, so that no budget can be
    kept. √T spans of √T steps each need the least memory, if a step keeps about as much as a carry.
    """
    warn_checkpointed(a.given)
    n_steps = a.ragged.n_steps
    lengths = a.ragged.lengths
    # A span in which no row has a step would run steps on zeros, where a step may have a pole.
    n_live = n_steps if lengths is None else max(1, int(lengths.max()))
    live = [s._replace(end=min(s.end, n_live)) for s in windows(n_steps, a.truncate, a.reverse)]
    most = math.isqrt(n_live - 1) + 1
    groups = scheduled([s for s in live if s.begin < s.end], a.reverse, most, 1)
    carry = a.init_leaves
    found: dict[int, list[Tensor]] = {}  # the outputs of a span, by its first step
    spec: Any = None
    for span in (span for group in groups for span in group):
        begin, end = min(s.begin for s in span), max(s.end for s in span)
        xs = [leaf.narrow(a.dim, begin, end - begin) for leaf in a.xs_leaves]
        play = _Span(a, span, begin)
        outs = checkpoint(play, len(carry), *carry, *xs, use_reentrant=False)
        carry, found[begin] = list(outs[: len(carry)]), list(outs[len(carry) :])
        spec = play.spec
    parts = [found[begin] for begin in sorted(found)]
    ys = [torch.cat(of_time, a.dim) for of_time in zip(*parts, strict=True)]
    if n_live < n_steps:
        ys = [_with_zeros(y, n_steps - n_live, a.dim) for y in ys]
    return tree.unflatten(carry, a.carry_spec), tree.unflatten(ys, spec)


def _with_zeros(y: Tensor, n_steps: int, dim: int) -> Tensor:
    shape = list(y.shape)
    shape[dim] = n_steps
    return torch.cat([y, y.new_zeros(shape)], dim)


class _Generators(OwnMode):
    """Saves the state of each generator that a step passes, before the step first draws from it."""

    def __init__(self) -> None:
        super().__init__()
        self.states = States()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.left and kwargs.get("generator") is not None:
            self.states.meet(kwargs["generator"])
        return func(*args, **kwargs)


class _Span:
    """Runs a span of steps, given the leaves of its carry and of xs.

    When it runs again it draws the same random numbers: PyTorch restores its own generator, this
    class those that the step passes.

    Attributes:
        spec: the structure of the outputs, after the first run.
        before: the generators' states before the first run.
    """

    def __init__(self, a: Arguments, span: Span, begin: int):
        self.a, self.span, self.begin = a, span, begin
        self.spec: Any = None
        self.before: States | None = None

    def __call__(self, n: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        if self.before is None:
            with _Generators() as generators:
                self.before = generators.states
                return self.played(n, tensors)
        now = self.before.now()
        self.before.put_back()
        try:
            return self.played(n, tensors)
        finally:
            now.put_back()

    def played(self, n: int, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The last carry and the outputs; `tensors` are the leaves of the carry, then those of
        xs."""
        a, carry, xs = self.a, list(tensors[:n]), tensors[n:]
        found: dict[int, list[Tensor]] = {}
        for segment in self.span:
            if segment.cut:
                border = segment.end if a.reverse else segment.begin
                carry = a.ragged.detached(carry, border)
            length = segment.end - segment.begin
            part = [leaf.narrow(a.dim, segment.begin - self.begin, length) for leaf in xs]
            last, ys = eager_scan(
                a.step,
                tree.unflatten(carry, a.carry_spec),
                tree.unflatten(part, a.xs_spec),
                a.dim,
                a.reverse,
                a.ragged.between(segment.begin, segment.end),
            )
            carry = tree.leaves(last)
            found[segment.begin], self.spec = tree.flatten(ys)
        parts = [found[begin] for begin in sorted(found)]
        return (*carry, *(torch.cat(of_time, a.dim) for of_time in zip(*parts, strict=True)))
