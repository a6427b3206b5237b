"""Steps whose rows are arrays, as ONNX and as C: a sample of `zoo.modern` leaves both ways.

The truth is the meaning of the nodes in float64. The bound is the one that `c_play` derives: each
result of the step is moved by as much as rounding may move it, step after step. ONNX Runtime rounds
a tanh twice as coarsely as that (an absolute error of 4e-7), so that ONNX has twice the bound.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx_examples as ex
import pytest
import torch
from c_examples import library_of, needs_gcc, reference_answers, source_of, with_one_input

import ostinato
from ostinato_learn.export.c.play import bound
from ostinato_learn.export.onnx.model import Exportable, sequence_model, step_model
from ostinato_learn.runtime.compose import Composer
from ostinato_learn.runtime.model_graph import Direction, ModelGraph, ReadoutGraph, Scan
from ostinato_learn.runtime.step_graph import StepGraph
from shared.saved import of_case, rows
from zoo.modern import MODERN
from zoo.steps import Kit
from zoo.suites import sample

pytestmark = pytest.mark.slow

SAMPLE = sample(10, MODERN)
LENGTHS = np.array([6, 1, 4])


def test_there_are_fifty():
    assert len(MODERN) >= 50


@functools.cache
def step_of(name):
    """A step and its tensors, as they come from a file. Its carry begins with that of the case:
    some divide by the length of their state, or look for its largest element."""
    case = MODERN[name](Kit(torch.float32))
    ostinato.forget(case.step)
    graph, tensors = of_case(case)
    for i, row in enumerate(rows(case.init(1))):
        tensors[f"first.{i}"] = row[0]
    c = Composer()
    inputs, states = (
        [c.input(n.width) for n in graph.inputs],
        [c.state(n.width) for n in graph.states],
    )
    begun = c.state(1)
    firsts = [c.node("tensor", (), (f"first.{i}",), "once", n.shape) for i, n in enumerate(states)]
    values = [
        c.node("select", (begun, state, first), (0.0,), "rows", state.shape)
        for state, first in zip(states, firsts, strict=True)
    ]
    new, outputs = c.inlined(graph, inputs, values)
    one = c.node("const", (), (1.0,), "rows", (1,))
    whole = StepGraph(tuple(inputs), (*states, begun), (*new, one), tuple(outputs))
    return StepGraph.from_json(whole.as_json(), {n: t.shape for n, t in tensors.items()}), tensors


@functools.cache
def compared(name):
    """Inputs of three rows `[B, T, F]`; their carries after each step; and the bound of each."""
    graph, tensors = step_of(name)
    s = source_of(graph, tensors)
    x = np.random.default_rng(1).normal(size=(3, 6, s.prepare.n_inputs)).astype(np.float32)
    meant = np.stack([reference_answers(graph, tensors, row) for row in x])
    allowed = np.stack([bound(s.step, s.answer, row) for row in x])
    assert allowed.max() < 1e-3  # so that the comparison means something
    return x, meant, allowed


@needs_gcc
@pytest.mark.parametrize("name", SAMPLE)
def test_c(name, tmp_path):
    x, meant, allowed = compared(name)
    s = source_of(*step_of(name))
    library = library_of(s, tmp_path)
    for row, wanted, off in zip(x, meant, allowed, strict=True):
        assert (np.abs(library.stream().answers(row) - wanted) <= off).all()


def as_model(name):
    """A model whose answer at each step is the whole carry."""
    graph, tensors = step_of(name)
    step = with_one_input(graph)
    c = Composer()
    x, states = c.input(step.inputs[0].width), [c.state(n.width) for n in step.states]
    new, _ = c.inlined(step, [x], states)
    step = StepGraph((x,), tuple(states), tuple(new), (c.concat(new),))
    c = Composer()
    y = c.input(step.outputs[0].width)
    layer = Scan("own", (Direction(step),))
    return Exportable(
        ModelGraph(None, (layer,), ReadoutGraph("each"), StepGraph((y,), (), (), (y,))), tensors
    )


@pytest.mark.parametrize("name", SAMPLE)
def test_onnx_sequence(name):
    """As a Scan, rows of different lengths."""
    x, meant, allowed = compared(name)
    (came,) = ex.onnx_runtime(sequence_model(as_model(name)).proto)({"x": x, "lengths": LENGTHS})
    valid = np.arange(x.shape[1]) < LENGTHS[:, None]
    assert (np.abs(came - meant) <= 2 * allowed)[valid].all()
    assert (came[~valid] == 0).all()


@pytest.mark.parametrize("name", SAMPLE)
def test_onnx_step(name):
    """Step by step, the states handed on."""
    x, meant, allowed = compared(name)
    proto = step_model(as_model(name)).proto
    run = ex.onnx_runtime(proto)
    states = {
        i.name: np.zeros((len(x), i.type.tensor_type.shape.dim[1].dim_value), np.float32)
        for i in proto.graph.input[1:]
    }
    for t in range(x.shape[1]):
        came, *new = run({"x": x[:, t], **states})
        states = dict(zip(states, new, strict=True))
        assert (np.abs(came - meant[:, t]) <= 2 * allowed[:, t]).all()
