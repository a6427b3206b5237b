"""Step graphs as programs of the engine, run on NumPy arrays.

    step graph ──pass_spec──> PassSpec ──lower──> Lowered ──StepProgram──> played on arrays

Outputs have the same bits for any batch, padding, number of threads and instruction set.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ostinato.internal import HOIST_BELOW as HOIST_BELOW
from ostinato.internal import CarrySpec, Leaf, Node, Output, PassSpec, dealt, lower, native
from ostinato_learn import environment
from ostinato_learn.runtime.step_graph import StepGraph
from ostinato_learn.runtime.values import Array

# A single sequence runs like a stream if a step has at most this many multiplications: its weights,
# 256 KB, stay in L2, and no call packs them. On one thread the batch engine takes 1.6 to 4 times as
# long for 100 steps; with two threads that share a larger step it is as fast.
MOST_STEPWISE = 1 << 16

_FLOAT32 = np.dtype(np.float32)


def pass_spec(graph: StepGraph, *, reverse: bool = False, hoist: bool = False) -> PassSpec:
    """The pass to lower: arguments x0, x1, … and y0, y1, … over time, carry0, init0, final0, …

    An output that is a new state has no argument of its own: it is carry0, carry1, …, of which
    every step is kept.
    """
    kept = {n for n in graph.outputs if n in graph.new_states}
    leaves = {n: Leaf(f"x{i}", n.width) for i, n in enumerate(graph.inputs)}
    pairs = zip(graph.states, graph.new_states, strict=True)
    carries = [
        CarrySpec(
            f"carry{i}",
            graph.new_states.index(new) == i and new in kept,
            f"init{i}",
            f"final{i}",
            old,
            new,
        )
        for i, (old, new) in enumerate(pairs)
    ]
    outputs = [Output(n, f"y{i}") for i, n in enumerate(graph.outputs) if n not in kept]
    return PassSpec(
        leaves,
        tuple(carries),
        tuple(outputs),
        descending=reverse,
        hoist=hoist,
        joints=graph.joints,
    )


class StepProgram:
    """A step graph as a program of the engine.

    Args:
        graph: the step.
        tensors: float32 arrays by name; they are read at every run, not copied.
        reverse: from the last step to the first.
        hoist: products that do not need the carry are taken ahead of the loop: for few rows.
    """

    def __init__(
        self,
        graph: StepGraph,
        tensors: Mapping[str, Array],
        *,
        reverse: bool = False,
        hoist: bool = False,
    ):
        self.graph, self.reverse = graph, reverse
        self.lowered = lower(pass_spec(graph, reverse=reverse, hoist=hoist))
        self._made = native.make(self.lowered.program, _FLOAT32)
        self._weights = {
            n: _array(n, tensors) for n in self.lowered.arguments if isinstance(n, Node)
        }

    def play(
        self,
        xs: Sequence[Array],
        lengths: Sequence[int] | None = None,
        init: Sequence[Array | None] | None = None,
    ) -> tuple[list[Array], list[Array]]:
        """The outputs `[T, B, width]` and the last carry `[B, width]`.

        Args:
            xs: `[T, B, width]` float32, one for each input, in any memory order whose rows are
                dense.
            lengths: steps of each row; by default T. Outputs beyond them are undefined.
            init: the first carry, `[B, width]` float32; by default zeros.
        """
        n_steps, n_rows = xs[0].shape[:2]
        graph = self.graph
        named: dict[str, Array | None] = {f"x{i}": x for i, x in enumerate(xs)}
        finals = [np.empty((n_rows, n.width), np.float32) for n in graph.new_states]
        for i, final in enumerate(finals):
            named[f"final{i}"] = final
            named[f"init{i}"] = None if init is None else init[i]
        outputs = []
        for i, n in enumerate(graph.outputs):
            k = graph.new_states.index(n) if n in graph.new_states else None
            slots = n_steps if k is None else n_steps + 1  # of a carry: the one before, too
            name = f"y{i}" if k is None else f"carry{k}"
            memory = named.get(name)
            if memory is None:
                memory = named[name] = np.empty((slots, n_rows, n.width), np.float32)
            outputs.append(memory if k is None else memory[:-1] if self.reverse else memory[1:])
        order, of_rows = ([], []) if lengths is None else dealt(lengths)
        numbers: list[int] = []
        for key in self.lowered.arguments:
            if isinstance(key, Node):
                numbers += _address(self._weights[key], of_carry=False)
            else:
                numbers += _address(named[key], key.startswith(("init", "final")))
        self._made.play(
            native.addresses(numbers),
            n_steps,
            n_rows,
            order,
            of_rows,
            n_threads(),
            native.best_isa(),
        )
        return outputs, finals


def bound(graph: StepGraph, tensors: Mapping[str, Array]) -> Any:
    """A step for streams: with packed weights, and without hoisted products."""
    lowered = lower(pass_spec(graph))
    numbers: list[int] = []
    held = []  # arrays that are read until this returns
    number: dict[str, int] = {}
    for i, key in enumerate(lowered.arguments):
        array = _array(key, tensors) if isinstance(key, Node) else None
        if array is None:
            number[key] = i
        elif array.ndim == 1:
            array = np.ascontiguousarray(array)
        held.append(array)
        numbers += _address(array, of_carry=False)
    inputs = [number.get(f"x{i}", -1) for i in range(len(graph.inputs))]
    outputs = [number[f"y{i}"] for i in range(len(graph.outputs))]
    integers, scalars = lowered.program.numbers()
    return native.bound_plan(
        integers, scalars, native.addresses(numbers), inputs, outputs, native.best_isa()
    )


def _array(n: Node, tensors: Mapping[str, Array]) -> Array:
    """A tensor, or its transpose, as a view."""
    if n.op == "transpose":
        return _array(n.inputs[0], tensors).T
    return tensors[n.attrs[0]]


def _address(array: Array | None, of_carry: bool) -> list[int]:
    """Address and two strides in elements, as `native/play/request.h` wants them.

    Of `[slots, B, width]` and of a matrix those of the first two axes; of a first or last carry
    `[B, width]` the second is that of the rows.
    """
    if array is None:
        return [0, 0, 0]
    strides = [0, 0, *(s // array.itemsize for s in array.strides[: 1 if of_carry else 2])]
    return [array.__array_interface__["data"][0], *strides[-2:]]


def n_threads() -> int:
    """The engine's own number, OSTINATO_NUM_THREADS, or the cores that this process may use."""
    return native.n_threads(_cores())


@functools.cache
def _cores() -> int:
    """The cores of this process; kept, since every answer needs them and reading them is slow."""
    return environment.cores()
