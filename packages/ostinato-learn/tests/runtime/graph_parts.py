"""Parts of models as values, and models made of them."""

from __future__ import annotations

import copy

import torch

from ostinato.nn.steps import gru_step, lstm_step, rnn_step
from ostinato_learn.runtime.compose import Composer
from ostinato_learn.runtime.model_graph import Direction, ModelGraph, ReadoutGraph, Scan
from ostinato_learn.runtime.step_graph import StepGraph
from shared.saved import step_graph
from zoo.steps import Kit


class Parts:
    """Makes parts of models; their tensors are collected under names of their own."""

    def __init__(self, seed=0):
        self.kit = Kit(torch.float32, seed=seed)
        self.tensors = {}

    def graph(self, step, parameters, init, x):
        graph, found = step_graph(step, parameters, init, x)
        prefix = f"{len(self.tensors)}."
        self.tensors |= {prefix + name: array for name, array in found.items()}
        value = copy.deepcopy(graph.as_json())
        for node in value["nodes"]:
            if node["op"] == "tensor":
                node["attrs"] = [prefix + node["attrs"][0]]
        return StepGraph.from_json(value, {n: a.shape for n, a in self.tensors.items()})

    def step(self, cell, F, H):
        k, n_gates = self.kit, {"rnn": 1, "gru": 3, "lstm": 4, "own": 1}[cell]
        weights = [
            k.weight(n_gates * H, F),
            k.weight(n_gates * H, H),
            k.weight(n_gates * H),
            k.weight(n_gates * H),
        ]
        weights = [w.detach() for w in weights]
        h, x = torch.zeros(3, H), k.normal(3, F)
        if cell == "rnn":
            return self.graph(rnn_step("tanh", *weights), weights, h, x)
        if cell == "gru":
            return self.graph(gru_step(*weights), weights, h, x)
        if cell == "lstm":
            return self.graph(lstm_step(*weights, give_cells=False), weights, (h, h), x)
        U, W, b, c = weights

        def step(h, x):  # its output is not the state, and sums are in an unusual order
            new = torch.tanh(h @ W.t() + b + x @ U.t()) * 0.9 + 0.1 * h
            return new, torch.sin(new) * c + x.sum(1, keepdim=True)

        return self.graph(step, weights, h, x)

    def map(self, f, parameters, width):
        """A map of one input as a step without states."""
        value = self.graph(
            lambda h, x: (h, f(x)), parameters, torch.zeros(3, 1), self.kit.normal(3, width)
        )
        return StepGraph(value.inputs, (), (), value.outputs)

    def head(self, width, C=3):
        V, c = (self.kit.weight(*shape).detach() for shape in [(C, width), (C,)])
        return self.map(
            lambda s: torch.softmax(torch.nn.functional.linear(s, V, c), 1), [V, c], width
        )

    def mean(self, width):
        step, _ = step_graph(
            lambda s, y: ((s[0] + y, s[1] + 1), None),
            [],
            (torch.zeros(3, width), torch.zeros(3, 1)),
            torch.randn(3, width),
        )
        c = Composer()
        total, count = c.input(width), c.input(1)
        mean = c.node("div", [total, count], (0.0,), "rows", (width,))
        return ReadoutGraph("scan", step, StepGraph((total, count), (), (), (mean,)))

    def model(self, cells, readout="last", F=5, H=8, directions=(False,)):
        layers, width = [], F
        for i, cell in enumerate(cells):
            played = tuple(Direction(self.step(cell, width, H), r) for r in directions)
            layers.append(Scan(f"{cell} layer {i}", played))
            width = H * len(directions)
        read = self.mean(width) if readout == "mean" else ReadoutGraph(readout)
        return ModelGraph(None, tuple(layers), read, self.head(width))
