"""The notebook's training iteration: data, initial weights, right answer.

Every contender draws the same batches from `Batches`, starts from the same weights,
reads the last state through a linear layer, takes the mean cross-entropy, and updates by RMSProp as
in TensorFlow 1 (decay 0.9, ε = 1e-10, mean squares that begin at one). The losses and weights of
the first iterations are compared with a float64 run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cells import SHAPES
from benchmarks.problem import Answer, Entrant
from ostinato_learn.data import Batches
from ostinato_learn.models import ClassifierNet

SHAPE = SHAPES[0]
RATE, DECAY, EPS = 1e-3, 0.9, 1e-10
CHECKED = 3  # iterations whose losses are compared


class TorchNet(torch.nn.Module):
    """The network in torch.nn's layers, with the weights of ours."""

    def __init__(self, net: Any):
        super().__init__()
        H, F_ = net.body.weight_ih_l0.shape
        self.body = torch.nn.RNN(F_, H, batch_first=True)
        self.readout = torch.nn.Linear(H, net.readout.out_features)
        self.load_state_dict(net.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        _, last = self.body(x)
        return self.readout(last[0])


class Task:
    """The notebook's data and initial weights."""

    def __init__(self) -> None:
        from ostinato_learn import datasets

        mnist = datasets.mnist()
        self.X, self.y = mnist.train
        self.test = mnist.test

    def batches(self) -> Batches:
        return Batches(self.X, self.y, SHAPE.B, seed=0)

    def net(self) -> ClassifierNet:
        """A new network, always with the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return ClassifierNet(SHAPE.F, 10, hidden_size=SHAPE.H)

    @cached_property
    def right(self) -> Answer:
        """The answer after the first iterations: torch.nn in float64, the update written out."""
        net = TorchNet(self.net()).double()
        batches, params = self.batches(), list(net.parameters())
        squares = [torch.ones_like(p) for p in params]
        losses = []
        for _ in range(CHECKED):
            x, y = batches.next_batch()
            loss = F.cross_entropy(net(torch.from_numpy(x).double()), torch.from_numpy(y))
            losses.append(loss.item())
            grads = torch.autograd.grad(loss, params)
            with torch.no_grad():
                for p, g, s in zip(params, grads, squares, strict=True):
                    s.mul_(DECAY).addcmul_(g, g, value=1 - DECAY)
                    p.sub_(RATE * g / (s + EPS).sqrt())
        return answer(losses, net.body.weight_hh_l0, net.readout.weight)


def answer(losses: list[float], w_hh: Any, v: Any) -> Answer:
    """An answer from tensors or arrays: w_hh `[H, H]` and v `[C, H]`, in torch's layout."""
    found = {"losses": losses, "w_hh": w_hh, "v": v}
    return {
        name: np.asarray(a.detach() if isinstance(a, torch.Tensor) else a)
        for name, a in found.items()
    }


def entrant(
    run: Callable[[], float], weights: Callable[[], tuple[Any, Any]], note: str = ""
) -> Entrant:
    """An entrant whose answer is the losses of the first iterations and the weights after them.

    Args:
        run: makes one iteration and returns the loss.
        weights: the present (w_hh, v).
        note: a remark for the table.
    """

    def checked(first: float) -> Answer:
        losses = [first, *(run() for _ in range(CHECKED - 1))]
        return answer(losses, *weights())

    return Entrant(run, checked, note)
