"""A step as formulas: computed by Python, they give what the step gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ostinato.engine.ops import OPS
from ostinato.runtime.equations import equations
from ostinato.runtime.reference import play_step
from ostinato.runtime.saved import read
from ostinato.runtime.step_graph import StepGraph

GOLDEN = Path(__file__).parent / "golden" / "0.1.0"
MODELS = sorted(path.name for path in GOLDEN.iterdir() if path.name != "ensemble")


def computed(step: StepGraph, inputs, states, tensors):
    """The new states and the outputs, computed by the formulas."""
    place = {name: f"tensor_{i}" for i, name in enumerate(tensors)}
    lines = equations(step, x="x", state="s", output="y", short=place.__getitem__)
    names = {place[name]: array for name, array in tensors.items()}
    names |= {"row_max": lambda a: a.max(1, keepdims=True), "max": np.maximum, "min": np.minimum}
    names |= {"row_sum": lambda a: a.sum(1, keepdims=True)}
    for name, op in OPS.items():
        names.setdefault(name, lambda *operands, op=op: op.meaning(*operands, 0.0))
    for i, x in enumerate(inputs):
        names["x" if len(inputs) == 1 else f"x{i + 1}"] = x
    of_states = ["s" if len(states) == 1 else f"s{i + 1}" for i in range(len(states))]
    names |= {f"{s}_before": state for s, state in zip(of_states, states, strict=True)}
    for line in lines:
        name, _, formula = line.replace("{t-1}", "before").partition(" = ")
        names[name] = eval(formula, {}, names)
    outputs = ["y" if len(step.outputs) == 1 else f"y{i + 1}" for i in range(len(step.outputs))]
    return [names[f"{s}_t"] for s in of_states], [names[name] for name in outputs]


def check(step: StepGraph, tensors):
    """In float64; sums of a few products are added up in another order."""
    rng = np.random.default_rng(0)
    tensors = {name: array.astype(np.float64) for name, array in tensors.items()}
    inputs, states = (
        [rng.normal(size=(5, n.width)) for n in nodes] for nodes in (step.inputs, step.states)
    )
    wanted = play_step(step, inputs, states, tensors)
    found = computed(step, inputs, states, tensors)
    for some, others in zip(wanted, found, strict=True):
        assert len(some) == len(others)
        for a, b in zip(some, others, strict=True):
            np.testing.assert_allclose(np.broadcast_to(b, a.shape), a, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", MODELS)
def test_formulas_of_saved_models_give_what_their_steps_give(name):
    model = read(GOLDEN / name)
    graph, tensors = model.graph, {n: a for n, a in model.tensors.items() if a.dtype.kind == "f"}
    for layer in graph.layers:
        for direction in layer.directions:
            check(direction.step, tensors)
    if graph.ahead is None:
        check(graph.head, tensors)


class Signs(torch.nn.Module):
    """A cell whose formulas need their parentheses."""

    def __init__(self, n_features: int, hidden_size: int):
        super().__init__()
        self.into = torch.nn.Linear(n_features, hidden_size, bias=False)

    def forward(self, h, x):
        a, b = self.into(x), h + 2.5
        c = a - (b - (a - h))
        d = (1 - h) / (3 + a * a) / (2 / (b * b + 1))
        e = ((1.5 + a * a) ** 0.3) ** 1.7 - (-(h - 1)) ** 2
        f = torch.where(a < b, -c, torch.clamp(d, min=-0.5)) * torch.lerp(a, b, h)
        return torch.tanh(c - (d + 0.1 * e) + f[:, :1] - torch.maximum(a, -b))


def test_signs_bind_as_in_python(tmp_path):
    from ostinato import SequenceClassifier

    X, y = np.random.default_rng(1).normal(size=(8, 3, 2)).astype(np.float32), [0, 1] * 4
    SequenceClassifier(cell=Signs, hidden_size=4, iterations=2).fit(X, y).save(tmp_path / "m")
    model = read(tmp_path / "m")
    step = model.graph.layers[0].directions[0].step
    check(step, model.tensors)
    assert all(len(line) <= 140 for line in equations(step))


def test_a_leaky_state_reads_as_one_wrote_it():
    step = read(GOLDEN / "own").graph.layers[0].directions[0].step
    short = {"folded.0": "W", "body.cells.0.into.bias": "b", "body.cells.0.into.weight": "U"}
    assert equations(step, short=short.__getitem__) == [
        "s_t = 0.9 * s_{t-1} + 0.1 * tanh(s_{t-1} @ W.T + b + x_t @ U.T)",
        "y_t = sin(s_t)",
    ]
