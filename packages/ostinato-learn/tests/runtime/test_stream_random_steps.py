"""Steps of all kinds: streams and pools have the bits of the batch engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stream_cases import FINGERPRINT

from ostinato_learn.runtime.compose import Composer
from ostinato_learn.runtime.model_graph import Direction, ModelGraph, ReadoutGraph, Scan
from ostinato_learn.runtime.network import Network
from ostinato_learn.runtime.pool import Pool
from ostinato_learn.runtime.step_graph import StepGraph
from ostinato_learn.runtime.stream import BATCH_FROM, Stream
from ostinato_learn.runtime.stream_source import StreamSource
from shared.saved import of_case
from zoo import steps
from zoo.modern import MODERN
from zoo.random_steps import Draw, random_case
from zoo.suites import one_in, sample

T, B = BATCH_FROM + 4, 5


def layer_of(graph):
    """A step with one input and one output, of one with several: all side by side."""
    c = Composer()
    x = c.input(sum(n.width for n in graph.inputs))
    columns = np.cumsum([0, *(n.width for n in graph.inputs)])
    inputs = [c.slice(x, int(i), n.width) for i, n in zip(columns, graph.inputs, strict=False)]
    states = [c.state(n.width) for n in graph.states]
    new_states, outputs = c.inlined(graph, inputs, states)
    output = c.concat([c.joint(n) for n in [*new_states, *outputs]])
    return StepGraph((x,), tuple(states), tuple(new_states), (output,), frozenset(c.joints))


def source_of_case(case):
    try:
        graph, tensors = of_case(case)
    except AssertionError as refused:  # the step is not recorded
        pytest.skip(str(refused))
    layer = layer_of(graph)
    c = Composer()
    read = c.input(layer.outputs[0].width)
    head = StepGraph((read,), (), (), (c.node("mul_s", [read], (1.0,), "rows", read.shape),))
    layers = (Scan("own layer 0", (Direction(layer),)),)
    network = Network(ModelGraph(None, layers, ReadoutGraph("each"), head), tensors)
    return StreamSource(network, range(read.width), fingerprint=FINGERPRINT)


@pytest.mark.parametrize("name", one_in(2, sample(16, sorted(steps.ZOO))))
def test_steps_of_the_zoo(name):
    check(source_of_case(steps.make(name, torch.float32)))


@pytest.mark.parametrize("name", one_in(2, sample(12, sorted(MODERN))))
def test_modern_steps(name):
    check(source_of_case(MODERN[name](steps.Kit(torch.float32))))


@pytest.mark.parametrize("seed", one_in(4, range(40)))
def test_random_steps(seed):
    check(source_of_case(random_case(Draw(seed), torch.float32)))


def check(made):
    x = np.random.default_rng(0).normal(size=(B, T, made.n_inputs)).astype(np.float32)
    wanted = made.network.answers(x)
    streams, pool = [Stream(made) for _ in range(B)], Pool(made, B)
    slots = pool.slots(range(B))
    for t in range(6):
        alone = [s.push(row).proba for s, row in zip(streams, x[:, t], strict=True)]
        np.testing.assert_array_equal(alone, wanted[:, t])
        together = pool.push(slots, np.ascontiguousarray(x[:, t]))
        np.testing.assert_array_equal(together.proba, wanted[:, t])
    np.testing.assert_array_equal(streams[0].push(x[0, 6:]).proba, wanted[0, 6:])
    streams[1].restore(pool.save(1))
    np.testing.assert_array_equal(streams[1].push(x[1, 6]).proba, wanted[1, 6])
