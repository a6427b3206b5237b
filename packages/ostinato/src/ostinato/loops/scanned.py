"""`scan` of a step that keeps state in attributes: the defining Python loop, rewritten.

The first iteration shows the attributes that the step changes. They become state beside the carry.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any, cast

import torch

from ostinato import tree
from ostinato.arguments import Arguments
from ostinato.compiler.steps import Recent, code_key
from ostinato.eager import Tree, check_carry, check_output_axes, split_result
from ostinato.loops.rewriting import with_loops


def _run(
    step: Any, init: Tree, carry_spec: tree.Spec, xs: Any, xs_spec: tree.Spec, dim: int
) -> tuple[list[Any], list[Any], tree.Spec]:
    """The last carry, the outputs and their structure."""
    leaves, outs, spec = tree.leaves(init), list[Any](), ()
    for x in zip(*xs, strict=True):
        result = step(tree.unflatten(leaves, carry_spec), tree.unflatten(x, xs_spec))
        after, y = split_result(result, init, carry_spec)
        check_carry(leaves, after)
        leaves = after
        parts, spec = tree.flatten(y)
        check_output_axes(parts, dim)
        if not outs:
            outs = list(map(_empty, parts))
        for i, part in enumerate(parts):
            outs[i].append(part)
    ys = list(map(lambda out: torch.stack(out, dim), outs))  # noqa: C417 (a comprehension is a loop)
    return leaves, ys, spec


def _empty(part: Any) -> list[Any]:
    return []


_loops = Recent()


def scanned(a: Arguments) -> tuple[tuple[Tree, Tree], bool] | None:
    """The carry and the outputs of a scan, and whether the engine ran its steps.

    None for a call with lengths, resets, memory= or truncate=, and for a scan in reverse.
    """
    ragged = a.ragged
    is_ragged = ragged.lengths is not None or ragged.starts is not None
    if is_ragged or a.reverse or a.of_layer or a.memory is not None or a.truncate is not None:
        return None
    key = code_key(a.given)
    run: Any = _loops.get(key)
    if run is None:
        run = _loops[key] = with_loops(cast(FunctionType, _run))
        run.__ostinato_loops__[0].warned = True  # `scan` warns itself
    xs = [leaf.movedim(a.dim, 0) for leaf in a.xs_leaves]
    leaves, ys, spec = run(a.step, a.init, a.carry_spec, xs, a.xs_spec, a.dim)
    found = tree.unflatten(leaves, a.carry_spec), tree.unflatten(ys, spec)
    return found, bool(run.__ostinato_loops__[0].native)
