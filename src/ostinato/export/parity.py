"""How far an exported model may be from the runtime's answers, and how far it is.

The bound. Float32 rounds each operation by ε/2 of its result, and a sum of K products by about
√K · ε/2, since roundings are as often up as down. The tanh and σ of other runtimes are right to
some 8 ε. So a step adds errors of about (√K + 8) ε to a state of size 1. A network that forgets
does not amplify them, so that after T steps of L layers, and the head, they sum up to

    bound = 2 · ε · (√K + 8) · (T · L + 1)

where K is the largest number of products in one sum (at most: all that a step multiplies), and 2 is
for the other side, which rounds as well. An error of a wrong gate or of a wrong order is a thousand
times as large.
"""

from __future__ import annotations

import math

import numpy as np

from ostinato.runtime.model_graph import ModelGraph

EPS = float(np.finfo(np.float32).eps)


def bound(graph: ModelGraph, n_steps: int) -> float:
    """The largest difference of an answer after `n_steps`, for answers of size 1."""
    steps = [d.step for layer in graph.layers for d in layer.directions]
    if graph.readout.step is not None:
        steps.append(graph.readout.step)
    factors = [{n.inputs[0] for n in step.nodes if n.op == "matmul"} for step in steps]
    K = max(sum(n.width for n in each) for each in factors)
    return 2 * EPS * (math.sqrt(K) + 8) * (n_steps * len(steps) + 1)
