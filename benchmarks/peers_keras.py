"""Keras 3 on JAX, the fastest of its backends on a CPU."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np

from benchmarks.peers_jax import require_jax
from benchmarks.problem import Answer, Entrant, Maker, NotHereError, Problem

LAYERS = {"rnn": "SimpleRNN", "gru": "GRU", "lstm": "LSTM"}
# The position of each of Keras's gates in torch's order: Keras's GRU has z, r, n and torch's r, z,
# n; the LSTM of both has i, f, g, o.
GATES = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 1, 2, 3)}


def peers(problem: Problem) -> list[Maker]:
    if problem.cell.name not in LAYERS:
        return []
    return [Maker(f"Keras {LAYERS[problem.cell.name]}", lambda: _make(problem))]


def require_keras() -> Any:
    """Keras with its JAX backend.

    Raises:
        NotHereError: Keras or JAX is not installed.
    """
    if importlib.util.find_spec("keras") is None:
        raise NotHereError("not installed")
    if importlib.util.find_spec("jax") is None:
        raise NotHereError("without JAX: on PyTorch it loops in Python, which has its own line")
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    return keras


def _make(problem: Problem) -> Entrant:
    keras, jax = require_keras(), require_jax()
    name = problem.cell.name
    layer = getattr(keras.layers, LAYERS[name])(problem.shape.H, return_sequences=True)
    xs, d_ys = (jax.numpy.asarray(a.swapaxes(0, 1).copy()) for a in (problem.xs, problem.d_ys))
    layer.build(xs.shape)
    variables = [jax.numpy.asarray(w) for w in weights(name, list(problem.params.values()))]
    init = tuple(map(jax.numpy.asarray, problem.init))
    rest = [v.value for v in layer.non_trainable_variables]

    @jax.jit
    def train(variables: Any, init: Any, xs: Any, d_ys: Any) -> Any:
        def play(variables: Any, init: Any) -> Any:
            return layer.stateless_call(variables, rest, xs, initial_state=list(init))[0]

        ys, pull = jax.vjp(play, variables, init)
        return ys, pull(d_ys)

    return Entrant(
        lambda: jax.block_until_ready(train(variables, init, xs, d_ys)),
        lambda ran: _answer(problem, ran),
        "backend jax, jit",
    )


def weights(name: str, params: list[Any]) -> list[Any]:
    """torch's weights in the layout of a Keras layer: kernel, recurrent kernel, bias."""
    w_ih, w_hh, b_ih, b_hh = (_reordered(name, p) for p in params)
    bias = np.stack([b_ih, b_hh]) if name == "gru" else b_ih + b_hh
    return [w_ih.T.copy(), w_hh.T.copy(), bias]


def _answer(problem: Problem, ran: Any) -> Answer:
    ys, ((kernel, recurrent, bias), init) = ran
    name = problem.cell.name
    # Keras's RNN and LSTM have one bias; its gradient is that of both biases of torch.
    biases = bias if name == "gru" else (bias, bias)
    torch_order = [_reordered(name, np.asarray(g)) for g in (kernel.T, recurrent.T, *biases)]
    found = dict(zip(problem.names, [*torch_order, *map(np.asarray, init)], strict=True))
    return {"ys": np.asarray(ys).swapaxes(0, 1), **found}


def _reordered(name: str, p: Any) -> Any:
    """`[G·H, …]` with the gates in the other library's order, from torch to Keras or back.

    The permutation is its own inverse.
    """
    gates = np.split(p, len(GATES[name]))
    return np.concatenate([gates[i] for i in GATES[name]])
