"""The nodes of autograd's graph behind the results of a step."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor

from ostinato import tree
from ostinato.compiler.capture.recording import Sources


def behind(outputs: list[Tensor], states: list[Tensor]) -> tuple[set[Any], list[Sources]]:
    """The nodes of the autograd graph that lead to tensors, and the sources of each tensor."""
    bits = {id(t): 2 << i for i, t in enumerate(states)}  # 1 is all that is outside
    found: dict[Any, int] = {None: 0}  # node → the leaves behind it
    for output in outputs:
        stack: list[Any] = [output.grad_fn]
        while stack:
            node = stack[-1]
            before = () if node in found else [b for b, _ in node.next_functions]
            todo = [b for b in before if b not in found]
            stack += todo
            if not todo:
                stack.pop()
            if not todo and node not in found:
                found[node] = sum(bits.get(id(leaf), 1) for leaf in leaves_of({node}))
                for b in before:
                    found[node] |= found[b]

    def sources(output: Tensor) -> Sources:
        leaves = found[output.grad_fn]
        if output.grad_fn is None and output.requires_grad:  # an input that is returned unchanged
            leaves = bits.get(id(output), 1)
        of_states = frozenset(i for i in range(len(states)) if leaves >> i & 2)
        return Sources(bool(leaves & 1), of_states)

    return {*found} - {None}, list(map(sources, outputs))


def leaves_of(nodes: set[Any]) -> list[Tensor]:
    """The tensors that collect gradients, which a leaf's own node names."""
    return [n.variable for n in nodes if type(n).__name__ == "AccumulateGrad"]


def runs_python_backward(nodes: set[Any], values: list[Tensor]) -> bool:
    """Whether the backward pass calls Python: a custom autograd.Function, or hooks."""
    return bool(_of_python(nodes)) or any(t._backward_hooks for t in values)


def _of_python(nodes: set[Any]) -> list[Any]:
    """The nodes of custom autograd.Functions."""
    return [n for n in nodes if isinstance(n, torch.autograd.function.BackwardCFunction)]


def backward_code(nodes: set[Any], values: list[Tensor]) -> tuple[types.CodeType, ...]:
    """The code of the backward passes of custom Functions; () if other code may run, or objects
    that the context holds may be read."""
    found, functions = set(), torch.autograd.Function
    for node in _of_python(nodes):
        cls = node._forward_cls
        code = getattr(cls.backward if cls.vjp is functions.vjp else cls.vjp, "__code__", None)
        kept = tree.leaves(list(vars(node).values()))
        if code is None or not all(isinstance(leaf, _CONTEXT) for leaf in kept):
            return ()
        found.add(code)
    return () if any(t._backward_hooks for t in values) else tuple(found)


_CONTEXT = (Tensor, bool, int, float, str, type(None), torch.dtype, torch.device, torch.Size)
