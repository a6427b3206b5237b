"""One direction of a recurrent layer over a whole sequence, as an operator of ONNX or as a Scan.

Shapes: x `[T, B, F]`; lengths `[B]`, the valid steps of each row. Beyond its length a row keeps its
state; its outputs there are anything, and are never read. In a reverse direction a row begins at
its last valid step.

    Scan        a selection in the body; in reverse, it keeps a row at its initial zeros until then
    operators   `sequence_lens`. OpenVINO ignores it where T is open (its pull request 10710), so
                that the last output is looked up among all, and a reverse direction is a forward
                one between two ReverseSequence, which leave the padding behind
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ostinato.export.onnx_cells import Cell, recognised
from ostinato.export.onnx_step import Tensors, write_step
from ostinato.export.onnx_writer import BOOL, FLOAT, INT32, Writer
from ostinato.runtime.step_graph import StepGraph


@dataclass(frozen=True)
class Rows:
    """What all layers of a graph know of the batch.

    Attributes:
        lengths: `[B]` int64.
        valid: `[T, B, 1]` bool, which steps are within the rows.
        final: `[T, B, 1]` bool, which steps are the last of the rows.
        count: `[1]` int64, B.
    """

    lengths: str
    valid: str
    final: str
    count: str

    @staticmethod
    def of(w: Writer, x: str, lengths: str) -> Rows:
        """Of x `[T, B, F]`, and lengths `[B]` int64."""
        n_steps = w.node("Squeeze", w.node("Shape", x, start=0, end=1))
        zero, one = (w.constant(np.array(n, np.int64)) for n in (0, 1))
        steps = w.node("Unsqueeze", w.node("Range", zero, n_steps, one), w.integers(1))
        row = w.node("Unsqueeze", lengths, w.integers(0))
        valid = w.node("Less", steps, row)
        final = w.node("Equal", steps, w.node("Sub", row, one))
        return Rows(
            lengths,
            w.node("Unsqueeze", valid, w.integers(2)),
            w.node("Unsqueeze", final, w.integers(2)),
            w.node("Shape", x, start=1, end=2),
        )

    def reversed(self, w: Writer, x: str) -> str:
        """x `[T, B, …]` with the valid steps of each row in reverse order."""
        return w.node("ReverseSequence", x, self.lengths, time_axis=0, batch_axis=1)


@dataclass(frozen=True)
class Played:
    """What a direction gives.

    Attributes:
        operator: by which operator of ONNX.
        outputs: `[T, B, D]`.
        last: `[B, D]`, the output of the step that was played last.
        states: `[B, width]`, after it; none of an operator.
    """

    operator: str
    outputs: str
    last: str
    states: tuple[str, ...] = ()


def write_direction(
    w: Writer,
    step: StepGraph,
    tensors: Tensors,
    x: str,
    rows: Rows,
    reverse: bool,
    operators: bool = True,
) -> Played:
    """Write a direction of a layer; with `operators`, as one where the step is proved to be one."""
    cell = recognised(step, tensors) if operators else None
    if cell is not None:
        return _operator(w, cell, x, rows, reverse)
    return write_scan(w, step, tensors, x, rows, reverse)


def _operator(w: Writer, cell: Cell, x: str, rows: Rows, reverse: bool) -> Played:
    weights = [w.constant(v, "weight") for v in (cell.W, cell.R, cell.B)]
    lengths = w.node("Cast", rows.lengths, to=INT32)
    played = w.node(
        cell.op,
        rows.reversed(w, x) if reverse else x,
        *weights,
        lengths,
        hidden_size=cell.hidden_size,
        **cell.attrs,
    )
    outputs = w.node("Squeeze", played, w.integers(1))
    last = w.node("Where", rows.final, outputs, w.number(0))
    return Played(
        cell.op,
        rows.reversed(w, outputs) if reverse else outputs,
        w.node("ReduceSum", last, w.integers(0), keepdims=0),
    )


def write_scan(
    w: Writer, step: StepGraph, tensors: Tensors, x: str, rows: Rows, reverse: bool
) -> Played:
    """A Scan whose body is the step. Its states are the carry, and the last output."""
    (x_node,) = step.inputs
    body = Writer(w)
    x_t, valid = body.name("x"), body.name("valid")
    given = {x_node: x_t}
    olds = []
    for n in step.states:
        given[n] = body.name("state")
        olds.append(given[n])
    new = write_step(body, [*step.new_states, *step.outputs], given, tensors, like=x_t)
    widths = [n.width for n in (*step.states, *step.outputs)]
    olds += [body.name("last") for _ in step.outputs]
    kept = [body.node("Where", valid, n, old) for n, old in zip(new, olds, strict=True)]
    n_states = len(step.states)
    shown = [body.node("Identity", n) for n in new[n_states:]]
    inputs = [body.value(n, ("batch", k)) for n, k in zip(olds, widths, strict=True)]
    inputs += [body.value(x_t, ("batch", x_node.width)), body.value(valid, ("batch", 1), BOOL)]
    outputs = [body.value(n, ("batch", k), FLOAT) for n, k in zip(kept, widths, strict=True)]
    outputs += [body.value(n, ("batch", k)) for n, k in zip(shown, widths[n_states:], strict=True)]
    graph = body.graph(w.name("body"), inputs, outputs)
    init = [w.node("Expand", w.number(0), _shape(w, rows, k)) for k in widths]
    direction = int(reverse)
    attrs = {"scan_output_directions": [direction] * len(shown)} if shown else {}
    results = w.nodes_of(
        "Scan",
        [*init, x, rows.valid],
        len(outputs),
        body=graph,
        num_scan_inputs=2,
        scan_input_directions=[direction, direction],
        **attrs,
    )
    states, lasts = results[:n_states], results[n_states : len(kept)]
    if not step.outputs:
        return Played("Scan", "", "", tuple(states))
    return Played("Scan", results[-1], lasts[-1], tuple(states))


def _shape(w: Writer, rows: Rows, width: int) -> str:
    return w.node("Concat", rows.count, w.integers(width), axis=0)
