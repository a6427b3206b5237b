"""Graphs for the tests of the ONNX export, and ways to run what was made of them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from ostinato.nn.steps import gru_step, lstm_step, rnn_step
from ostinato_learn.export.onnx.step import write_step
from ostinato_learn.export.onnx.writer import IR_VERSION, OPSET, Writer
from ostinato_learn.runtime.model_graph import Direction, ModelGraph, ReadoutGraph, Scan
from ostinato_learn.runtime.step_graph import StepGraph
from shared.reference import play_step
from shared.saved import step_graph

EPS = np.finfo(np.float32).eps


def session(proto):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(proto.SerializeToString(), options)


def onnx_runtime(proto):
    """A function of the inputs by name."""
    of = session(proto)
    return lambda feeds: of.run(None, feeds)


def openvino(proto):
    """A function of the inputs by name; in float32, also where the machine could multiply less."""
    core = pytest.importorskip("openvino").Core()  # of the extra dev
    model = core.read_model(proto.SerializeToString())
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda feeds: [np.array(v) for v in compiled(feeds).values()]


def proto_of(w, inputs, outputs):
    proto = onnx.helper.make_model(
        w.graph("test", inputs, outputs),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto


def step_proto(graph, tensors):
    """One step: inputs x0, x1, … and state0, …; outputs new0, … and y0, …"""
    w = Writer()
    names = {n: f"x{i}" for i, n in enumerate(graph.inputs)}
    names |= {n: f"state{i}" for i, n in enumerate(graph.states)}
    wanted = [*graph.new_states, *graph.outputs]
    found = write_step(w, wanted, names, tensors, next(iter(names.values())))
    shown = [f"new{i}" for i in range(len(graph.new_states))]
    shown += [f"y{i}" for i in range(len(graph.outputs))]
    for name, value in zip(shown, found, strict=True):
        w.called(name, value)
    return proto_of(
        w,
        [w.value(name, ("batch", n.width)) for n, name in names.items()],
        [w.value(name, ("batch", n.width)) for n, name in zip(wanted, shown, strict=True)],
    )


def double(tensors):
    return {name: t.astype(np.float64) for name, t in tensors.items()}


# ---- whole networks, by hand

CELLS = {
    "rnn": (lambda *w: rnn_step("tanh", *w), 1, 1),
    "relu": (lambda *w: rnn_step("relu", *w), 1, 1),
    "gru": (gru_step, 3, 1),
    "lstm": (lambda *w: lstm_step(*w, give_cells=False), 4, 2),
}


class Network:
    """Collects tensors of several steps under names of their own."""

    def __init__(self, seed=0):
        import torch

        self.random = torch.Generator().manual_seed(seed)
        self.tensors = {}
        self.n_steps = 0

    def normal(self, *shape):
        import torch

        return torch.randn(*shape, generator=self.random)

    def step(self, step, parameters, init, x):
        """A recorded step as a graph."""
        graph, tensors = step_graph(step, parameters, init, x)
        prefix = f"step{self.n_steps}."
        self.n_steps += 1
        self.tensors |= {prefix + name: t for name, t in tensors.items()}
        value = graph.as_json()
        for node in value["nodes"]:
            if node["op"] == "tensor":
                node["attrs"] = [prefix + node["attrs"][0]]
        shapes = {name: t.shape for name, t in self.tensors.items()}
        return StepGraph.from_json(value, shapes)

    def cell(self, name, F, H, bias=True):
        make, gates, n_states = CELLS[name]
        shapes = [(gates * H, F), (gates * H, H), *[(gates * H,)] * (2 * bias)]
        weights = [self.normal(*s) / 2 for s in shapes]
        states = tuple(self.normal(2, H) for _ in range(n_states))
        init = states[0] if n_states == 1 else states
        return self.step(make(*weights), weights, init, self.normal(2, F))

    def map(self, f, *widths):
        """A function of rows as a map: the outputs of a step with a carry that it ignores."""
        xs = tuple(self.normal(2, n) for n in widths)

        def step(h, x):
            return h * 1, f(*x)

        graph = self.step(step, [], self.normal(2, 1), xs)
        return StepGraph(graph.inputs, (), (), graph.outputs)

    def head(self, D, C):
        import torch

        V, c = self.normal(D, C), self.normal(C)
        return self.map(lambda s: torch.softmax(s @ V + c, 1), D)

    def mean(self, D):
        """The readout that takes the mean of all outputs."""
        carry = (self.normal(2, D), self.normal(2, 1))
        graph = self.step(lambda c, x: (c[0] + x, c[1] + 1), [], carry, self.normal(2, D))
        step = StepGraph(graph.inputs, graph.states, graph.new_states, ())
        return ReadoutGraph("scan", step, self.map(lambda total, count: total / count, D, 1))


def network(cell="gru", F=3, H=4, layers=1, two=False, readout="last", C=3, bias=True, seed=0):
    """A classifier's graph with random weights, and its tensors."""
    n = Network(seed)
    stages, width = [], F
    for i in range(layers):
        directions = [
            Direction(n.cell(cell, width, H, bias), r) for r in ([False, True][: 1 + two])
        ]
        stages.append(Scan(f"{cell} layer {i + 1}", tuple(directions)))
        width = H * len(directions)
    read = n.mean(width) if readout == "mean" else ReadoutGraph(readout)
    return ModelGraph(None, tuple(stages), read, n.head(width, C)), n.tensors


def truth(graph, tensors, x, lengths):
    """The answers of a network in float64, by the meaning of every node.

    Args:
        x: `[B, T, F]`.
        lengths: `[B]`.

    Returns:
        `[B, C]`; of a model that answers at each step `[B, T, C]`, zeros beyond the lengths.
    """
    tensors = double(tensors)
    x = x.astype(np.float64).transpose(1, 0, 2)
    for layer in graph.layers:
        played = [_played(d.step, tensors, x, lengths, d.reverse) for d in layer.directions]
        x = np.concatenate([ys for ys, _, _ in played], axis=2)
    if graph.readout.kind == "each":
        answers = [play_step(graph.answer, [row], [], tensors)[1][0] for row in x]
        valid = np.arange(len(x))[:, None] < lengths
        return np.where(valid[:, :, None], np.stack(answers), 0).transpose(1, 0, 2)
    if graph.readout.kind == "last":
        read = [np.concatenate([last for _, last, _ in played], axis=1)]
    else:
        read = _played(graph.readout.step, tensors, x, lengths, False)[2]
    return play_step(graph.answer, read, [], tensors)[1][0]


def _played(step, tensors, x, lengths, reverse):
    """Outputs `[T, B, D]`, the last of each row, and the states."""
    T, B = x.shape[:2]
    states = [np.zeros((B, n.width)) for n in step.states]
    ys = np.zeros((T, B, step.outputs[0].width if step.outputs else 0))
    last = np.zeros(ys.shape[1:])
    for t in range(T - 1, -1, -1) if reverse else range(T):
        new, outputs = play_step(step, [x[t]], states, tensors)
        valid = (t < lengths)[:, None]
        states = [np.where(valid, n, old) for n, old in zip(new, states, strict=True)]
        if outputs:
            ys[t] = np.where(valid, outputs[0], 0)
            last = np.where(valid, outputs[0], last)
    return ys, last, states
