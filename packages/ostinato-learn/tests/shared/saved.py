"""Steps of the zoo as step graphs without torch, with their tensors as arrays."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from ostinato.arguments import checked
from ostinato.compiler.graph.saved import TensorNames, saved_step
from ostinato.forms import compiled
from ostinato_learn.runtime.step_graph import StepGraph
from zoo.steps import Case


def step_graph(step: Any, parameters: Any, init: Any, x: Any) -> tuple[StepGraph, dict[str, Any]]:
    """The step graph and the tensors that it reads.

    Args:
        parameters: tensors of the step that get names of their own.
        init, x: the carry and one element, `[B, …]`, float32.
    """
    xs = pytree.tree_map(lambda leaf: leaf[None], x)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*was recorded")  # one code at many sizes: meant
        call = compiled(checked(step, init, xs, 0, False))
    named = {f"p{i}": p.detach() for i, p in enumerate(parameters)}
    names = TensorNames(named)
    f = saved_step(call.compiled.planner.graph, call.captured, names)
    graph = StepGraph(f.xs, f.states, f.new_states, f.ys)
    tensors = {n: t.detach().numpy() for n, t in {**named, **names.folded}.items()}
    return graph, {name: tensors[name] for name in graph.tensors}


def of_case(case: Case, B: int = 3) -> tuple[StepGraph, dict[str, Any]]:
    return step_graph(case.step, case.parameters, case.init(B), case.x(B))


def rows(tree: Any) -> list[np.ndarray]:
    """Leaves `[B, …]` as flat rows `[B, width]`."""
    return [t.detach().numpy().reshape(len(t), -1) for t in pytree.tree_leaves(tree)]


def torch_step(case: Case, carry: Any, x: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """New carry and outputs, as `StepGraph` has them, in float64 if the case is."""
    with torch.no_grad():
        result = case.step(carry, x)
    same = pytree.tree_structure(result) == pytree.tree_structure(carry)
    new, y = (result, result) if same else result
    return rows(new), rows(y)
