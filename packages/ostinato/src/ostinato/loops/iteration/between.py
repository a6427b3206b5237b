"""The states between iterations, whose own gradients a scan does not show.

In Python the gradient of `hs[10]` has a part from the loss and one from the later iterations. The
second stays inside the backward pass of a scan: a hook on this tensor would miss it.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from ostinato.compiler import torch_private

_WHY = (
    "a state that ostinato's loop made has a hook or keeps its gradient, but the loop does not "
    "know the part of this gradient that comes from other iterations. Call retain_grad() or "
    "register_hook() in the body of the loop, which then runs in Python"
)


def passed_on(
    carry: Sequence[Tensor],
    given: Sequence[Tensor],
    outputs: Sequence[Tensor],
    new: Sequence[Tensor],
    how: Sequence[str],
) -> tuple[tuple[bool, ...], frozenset[int]]:
    """The outputs, and the tensors of the state, whose gradient has a hidden part.

    Something else that the iteration made is the same tensor, or depends on it; or it is handed on
    from before, so that something may have depended on it. All have one in a run without gradients,
    which does not show what depends on what.

    Args:
        carry: the state before the iteration.
        given: the elements that the iteration reads.
        outputs, new: its results and its new state, with their graph.
        how: "same" for each tensor of the state that is the user's own, unchanged; see `LoopPlan`.
    """
    with torch_private.DisableTorchFunction():
        nodes = {id(t): t.grad_fn for t in (*outputs, *new) if t.grad_fn is not None}
        behind: set[Any] = set()
        todo = [of for node in set(nodes.values()) for of, _ in node.next_functions]
        while todo:
            node = todo.pop()
            if node is not None and node not in behind:
                behind.add(node)
                todo += [of for of, _ in node.next_functions]
    count, inputs = Counter(map(id, (*outputs, *new))), set(map(id, (*carry, *given)))

    def is_hidden(t: Tensor) -> bool:
        handed_on = count[id(t)] > 1 or id(t) in inputs
        return handed_on or not nodes or nodes.get(id(t)) in behind

    own = {i for i, of in enumerate(how) if of == "same"}
    ends = frozenset([i for i, t in enumerate(new) if i not in own and is_hidden(t)])
    return tuple(map(is_hidden, outputs)), ends


def watch(items: Iterable[Tensor], results: Iterable[Tensor]) -> None:
    """Raise RuntimeError in the backward pass if an item has a hook or keeps its gradient.

    Args:
        items: tensors whose gradients have a part that is not shown.
        results: those of the scan, whose graph holds the check; it holds no item.
    """
    nodes = {t.grad_fn for t in results if t.grad_fn is not None}
    of = [weakref.ref(t) for t in items] if nodes else []

    def check(*_: Any) -> None:
        alive = [t for t in (ref() for ref in of) if t is not None]
        with torch_private.DisableTorchFunction():
            if any(t.retains_grad or t._backward_hooks for t in alive):
                raise RuntimeError(_WHY)

    for node in nodes if of else ():
        node.register_prehook(check)
