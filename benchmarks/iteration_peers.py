"""The notebook's training iteration in PyTorch, JAX and Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import peers_jax
from benchmarks.notebook import DECAY, EPS, RATE, SHAPE, Task, TorchNet, entrant
from benchmarks.peers_keras import require_keras
from benchmarks.problem import Entrant, Maker, NotHereError


def makers(task: Task, quick: bool) -> list[Maker]:
    return [
        Maker("PyTorch", lambda: _torch(task, compiled=False)),
        Maker("PyTorch, compiled", lambda: _torch(task, compiled=True)),
        Maker("JAX, jit", lambda: _jax(task, quick)),
        Maker("Keras train_on_batch", lambda: _keras(task)),
    ]


def _torch(task: Task, compiled: bool) -> Entrant:
    net, run = torch_script(task, compiled)
    return entrant(run, lambda: (net.body.weight_hh_l0, net.readout.weight))


def torch_script(task: Task, compiled: bool = False) -> tuple[TorchNet, Callable[[], float]]:
    """The network, and a function that makes one iteration and returns the loss."""
    net, batches = TorchNet(task.net()), task.batches()
    optimizer = torch.optim.RMSprop(net.parameters(), lr=RATE, alpha=DECAY, eps=EPS, foreach=True)
    for p in net.parameters():  # mean squares begin at one as in TensorFlow; in torch at zero
        optimizer.state[p] = {"step": torch.tensor(0.0), "square_avg": torch.ones_like(p)}

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(net(x), y)

    played = torch.compile(loss_of, dynamic=False) if compiled else loss_of

    def run() -> float:
        x, y = batches.next_batch()
        loss = played(torch.from_numpy(x), torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return net, run


def _jax(task: Task, quick: bool) -> Entrant:
    jax = peers_jax.require_jax()
    try:
        import optax
    except ImportError:
        raise NotHereError("optax is not installed") from None
    optimizer = optax.rmsprop(RATE, decay=DECAY, eps=EPS, initial_scale=1.0, eps_in_sqrt=True)

    def form(unroll: int, hoist: bool) -> _JaxRun:
        play = peers_jax.recurrence("rnn", unroll, hoist)

        def loss_of(params: Any, x: Any, y: Any) -> Any:
            init = (jax.numpy.zeros((x.shape[0], SHAPE.H)),)
            last = play(params["cell"], init, x.swapaxes(0, 1))[-1]
            logits = last @ params["v"] + params["c"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        def update(params: Any, state: Any, x: Any, y: Any) -> Any:
            loss, grads = jax.value_and_grad(loss_of)(params, x, y)
            steps, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, steps), state, loss

        return _JaxRun(task, jax.jit(update, donate_argnums=(0, 1)), optimizer)

    forms = peers_jax.FORMS[:1] if quick else peers_jax.FORMS
    run, note = peers_jax.fastest(forms, form)
    run.begin()

    def weights() -> Any:
        return np.asarray(run.params["cell"][1]).T, np.asarray(run.params["v"]).T

    return entrant(run, weights, note)


class _JaxRun:
    """Training under jit; each call is one iteration and updates the state."""

    def __init__(self, task: Task, update: Any, optimizer: Any):
        self.task, self.update, self.optimizer = task, update, optimizer
        self.begin()

    def begin(self) -> None:
        import jax

        start = {k: p.detach().numpy() for k, p in self.task.net().state_dict().items()}
        w_ih, w_hh, b_ih, b_hh, v, c = (
            jax.numpy.array(start[k].T)
            for k in (
                "body.weight_ih_l0",
                "body.weight_hh_l0",
                "body.bias_ih_l0",
                "body.bias_hh_l0",
                "readout.weight",
                "readout.bias",
            )
        )
        self.params: Any = {"cell": (w_ih, w_hh, b_ih, b_hh), "v": v, "c": c}
        self.state = self.optimizer.init(self.params)
        self.batches = self.task.batches()

    def __call__(self) -> float:
        x, y = self.batches.next_batch()
        self.params, self.state, loss = self.update(self.params, self.state, x, y)
        return float(loss)


def _keras(task: Task) -> Entrant:
    keras = require_keras()
    net, batches = task.net(), task.batches()
    model = keras.Sequential(
        [
            keras.Input((SHAPE.T, SHAPE.F)),
            keras.layers.SimpleRNN(SHAPE.H),
            keras.layers.Dense(10),
        ]
    )
    start = {k: p.detach().numpy() for k, p in net.state_dict().items()}
    model.set_weights(
        [
            start["body.weight_ih_l0"].T,
            start["body.weight_hh_l0"].T,
            start["body.bias_ih_l0"] + start["body.bias_hh_l0"],
            start["readout.weight"].T,
            start["readout.bias"],
        ]
    )
    optimizer = keras.optimizers.RMSprop(RATE, rho=DECAY, epsilon=EPS)
    optimizer.build(model.trainable_variables)
    for square in optimizer._velocities:  # mean squares begin at one as in TensorFlow
        square.assign(np.ones(square.shape, np.float32))
    model.compile(
        optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )

    def run() -> float:
        return float(model.train_on_batch(*batches.next_batch()))

    def weights() -> Any:
        _, w_hh, _, v, _ = model.get_weights()
        return w_hh.T, v.T

    return entrant(run, weights, "backend jax")
