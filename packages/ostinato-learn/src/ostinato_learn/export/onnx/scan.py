"""One direction of a recurrent layer over a whole sequence, as an operator of ONNX or as a Scan.

Shapes: x `[T, B, F]`; lengths `[B]`, the valid steps of each row. Beyond its length a row keeps its
state; its outputs there are undefined and never read. In a reverse direction a row begins at its
last valid step.

    Scan        the body selects the old state beyond the length; in reverse, that keeps a row at
                its initial zeros until its last valid step
    operators   take `sequence_lens`. OpenVINO ignores it if T is open (its pull request 10710).
                Therefore the last output is selected from all outputs, and a reverse direction is a
                forward one between two ReverseSequence, which leave the padding at the end
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ostinato_learn.export.onnx.cells import OnnxCell, recognised
from ostinato_learn.export.onnx.step import Tensors, write_step
from ostinato_learn.export.onnx.writer import BOOL, FLOAT, INT32, Writer
from ostinato_learn.runtime.step_graph import StepGraph


@dataclass(frozen=True)
class BatchRows:
    """The lengths and sizes of the batch, which all layers of a graph share.

    Attributes:
        lengths: `[B]` int64.
        valid: `[T, B, 1]` bool, true at the steps within each row's length.
        final: `[T, B, 1]` bool, true at the last valid step of each row.
        count: `[1]` int64, B.
    """

    lengths: str
    valid: str
    final: str
    count: str

    @staticmethod
    def of(w: Writer, x: str, lengths: str) -> BatchRows:
        """From x `[T, B, F]` and lengths `[B]` int64."""
        n_steps = w.node("Squeeze", w.node("Shape", x, start=0, end=1))
        zero, one = (w.constant(np.array(n, np.int64)) for n in (0, 1))
        steps = w.node("Unsqueeze", w.node("Range", zero, n_steps, one), w.integers(1))
        row = w.node("Unsqueeze", lengths, w.integers(0))
        valid = w.node("Less", steps, row)
        final = w.node("Equal", steps, w.node("Sub", row, one))
        valid, final = (w.node("Unsqueeze", each, w.integers(2)) for each in (valid, final))
        return BatchRows(lengths, valid, final, w.node("Shape", x, start=1, end=2))

    def reversed(self, w: Writer, x: str) -> str:
        """x `[T, B, …]` with the valid steps of each row in reverse order."""
        return w.node("ReverseSequence", x, self.lengths, time_axis=0, batch_axis=1)


@dataclass(frozen=True)
class Played:
    """The results of a direction.

    Attributes:
        outputs: `[T, B, D]`.
        last: `[B, D]`, the output of the step that is computed last.
        states: `[B, width]`, the states after that step; () for an operator other than Scan.
    """

    outputs: str
    last: str
    states: tuple[str, ...] = ()


def write_direction(
    w: Writer, step: StepGraph, tensors: Tensors, x: str, rows: BatchRows, reverse: bool
) -> Played:
    """Write a direction of a layer: as a Scan, or as an operator where that is proved equal."""
    cell = recognised(step, tensors)
    w.operators.append("Scan" if cell is None else cell.op)
    if cell is not None:
        return _operator(w, cell, x, rows, reverse)
    return write_scan(w, step, tensors, x, rows, reverse)


def _operator(w: Writer, cell: OnnxCell, x: str, rows: BatchRows, reverse: bool) -> Played:
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
    if cell.op != "RNN":  # ONNX Runtime's GRU and LSTM do not propagate NaN
        absent = w.float(w.node("And", w.node("IsNaN", x), rows.valid))
        spoilt = w.truth(w.node("ReduceMax", absent, w.integers(0, 2), keepdims=1))
        outputs = w.node("Where", spoilt, w.number(float("nan")), outputs)
    last = w.node("Where", rows.final, outputs, w.number(0))
    return Played(
        rows.reversed(w, outputs) if reverse else outputs,
        w.node("ReduceSum", last, w.integers(0), keepdims=0),
    )


def write_scan(
    w: Writer, step: StepGraph, tensors: Tensors, x: str, rows: BatchRows, reverse: bool
) -> Played:
    """A Scan whose body is the step. Its states are the carry, and the last output."""
    (x_node,) = step.inputs
    body = Writer(w)
    x_t, valid = body.name("x"), body.name("valid")
    olds = [body.name("state") for _ in step.states]
    given = {x_node: x_t, **dict(zip(step.states, olds, strict=True))}
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
    read = [x, rows.valid]
    results = w.nodes_of(
        "Scan",
        [*init, *read],
        len(outputs),
        body=graph,
        num_scan_inputs=len(read),
        scan_input_directions=[direction] * len(read),
        **attrs,
    )
    states, lasts = results[:n_states], results[n_states : len(kept)]
    if not step.outputs:
        return Played("", "", tuple(states))
    return Played(results[-1], lasts[-1], tuple(states))


def _shape(w: Writer, rows: BatchRows, width: int) -> str:
    return w.node("Concat", rows.count, w.integers(width), axis=0)
