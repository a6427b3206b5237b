"""The recurrent cells as step functions in plain PyTorch.

Every layer of `ostinato.nn` is one of these, run by `scan`. Each step has one projection of x
and one of the carry. They are separate products, since the projection of x can be hoisted out of
the time loop.
Shapes: x `[B, F]`, h and c `[B, H]` (with a projection h is `[B, P]`). The weights are torch.nn's:
w_ih `[G·H, F]`, w_hh `[G·H, H or P]`, biases `[G·H]` or None, w_hr `[P, H]` or None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ostinato.eager import Step

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


def rnn_step(
    nonlinearity: str,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Step:
    """The step of a simple recurrent network (Elman 1990).

    h' = f(W_ih x + b_ih + W_hh h + b_hh),   f = tanh or relu
    """
    activation = ACTIVATIONS[nonlinearity]

    def step(h: Tensor, x: Tensor) -> Tensor:
        return activation(F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh))

    return step


def gru_step(
    w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Step:
    """The step of a gated recurrent unit (Cho et al. 2014).

    As in torch.nn and cuDNN, the reset gate is applied after the product with the carry.

    r  = σ(W_ir x + b_ir + W_hr h + b_hr)
    z  = σ(W_iz x + b_iz + W_hz h + b_hz)
    n  = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))
    h' = (1 − z) ⊙ n + z ⊙ h
    """

    def step(h: Tensor, x: Tensor) -> Tensor:
        x_r, x_z, x_n = F.linear(x, w_ih, b_ih).chunk(3, 1)
        h_r, h_z, h_n = F.linear(h, w_hh, b_hh).chunk(3, 1)
        r = torch.sigmoid(x_r + h_r)
        z = torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * h_n)
        return n + z * (h - n)

    return step


def lstm_step(
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    w_hr: Tensor | None = None,
    *,
    give_cells: bool = True,
) -> Step:
    """The step of a long short-term memory (Hochreiter & Schmidhuber 1997).

    The forget gate is that of Gers et al. 2000, the projection that of Sak et al. 2014.
    i, f, o = σ(W_i· x + b_i· + W_h· h + b_h·)
    g  = tanh(W_ig x + b_ig + W_hg h + b_hg)
    c' = f ⊙ c + i ⊙ g
    h' = W_hr (o ⊙ tanh(c')),   without a projection o ⊙ tanh(c')

    The carry is (h, c). The output is (h', c') if give_cells, else h'.
    """

    def step(carry: tuple[Tensor, Tensor], x: Tensor) -> tuple[Any, Tensor]:
        h, c = carry
        i, f, g, o = (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        if w_hr is not None:
            h = F.linear(h, w_hr)
        return (h, c) if give_cells else ((h, c), h)

    return step
