"""The recurrent steps in plain PyTorch, and the shapes in which they are played.

The steps are written as a user writes them. `ostinato.scan`, PyTorch's own scan and the Python loop
play the same functions. Weights have torch.nn's layout, `[G·H, F]` and `[G·H, H]`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

Params = Any  # a tuple of tensors, in the order of Cell.shapes


@dataclass(frozen=True)
class Shape:
    """Sizes of one problem: B batch rows, T time steps, F features, H hidden size."""

    name: str
    B: int
    T: int
    F: int
    H: int

    def __str__(self) -> str:
        return f"B {self.B}, T {self.T}, F {self.F}, H {self.H}"


SHAPES = (
    Shape("notebook", 128, 28, 28, 128),
    Shape("pixels", 32, 784, 1, 128),
    Shape("sensor", 32, 100, 8, 32),
    Shape("stream", 1, 100, 8, 64),
    Shape("large", 64, 128, 256, 512),
    Shape("few", 4, 100, 64, 256),
)
# For steps that no library has.
CUSTOM_SHAPES = (*SHAPES[:2], Shape("stream128", 1, 100, 8, 128))


# For --quick: one shape fills the register tiles, one has a single row.
QUICK_SHAPES = (Shape("notebook", 16, 6, 16, 32), Shape("stream", 1, 6, 8, 32))


@dataclass(frozen=True)
class Cell:
    """A step and the shapes of its parameters.

    Attributes:
        name: "gru", for instance.
        gates: G; the products of a step are [B, F]·[F, G·H] and [B, H]·[H, G·H].
        step: (params, carry, x) → (carry, y); the carry is a tuple of tensors `[B, H]`.
        shapes: (F, H) → the shape of each parameter, by name.
        starts: the value that fills each tensor of the first carry.
    """

    name: str
    gates: int
    step: Callable[[Params, tuple[Any, ...], Any], tuple[tuple[Any, ...], Any]]
    shapes: Callable[[int, int], dict[str, tuple[int, ...]]]
    starts: tuple[float, ...] = (0.0,)

    def gflop(self, shape: Shape) -> float:
        """GFLOP of the matrix products of one training call, forward and backward.

        With the weights of the carry there are three products, with those of x two, since no
        gradient of x is wanted. Elementwise operations are not counted.
        """
        T, B, F, H = shape.T, shape.B, shape.F, shape.H
        return 2 * T * B * self.gates * H * (2 * F + 3 * H) / 1e9


def _torch_shapes(gates: int) -> Callable[[int, int], dict[str, tuple[int, ...]]]:
    def shapes(F: int, H: int) -> dict[str, tuple[int, ...]]:
        G = gates * H
        return {"w_ih": (G, F), "w_hh": (G, H), "b_ih": (G,), "b_hh": (G,)}

    return shapes


def rnn_step(params: Params, carry: Any, x: Any) -> Any:
    """A simple recurrent network (Elman 1990)."""
    w_ih, w_hh, b_ih, b_hh = params
    (h,) = carry
    h = torch.tanh(F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh))
    return (h,), h


def gru_step(params: Params, carry: Any, x: Any) -> Any:
    """A gated recurrent unit (Cho et al. 2014), the reset gate after the product as in torch.nn."""
    w_ih, w_hh, b_ih, b_hh = params
    (h,) = carry
    x_r, x_z, x_n = F.linear(x, w_ih, b_ih).chunk(3, 1)
    h_r, h_z, h_n = F.linear(h, w_hh, b_hh).chunk(3, 1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    h = n + z * (h - n)
    return (h,), h


def lstm_step(params: Params, carry: Any, x: Any) -> Any:
    """Long short-term memory (Hochreiter & Schmidhuber 1997)."""
    w_ih, w_hh, b_ih, b_hh = params
    h, c = carry
    i, f, g, o = (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h, c), h


def lem_step(params: Params, carry: Any, x: Any) -> Any:
    """Long expressive memory (Rusch et al. 2022), Δt = 1."""
    w_x, w_y, w_z, b_x, b_y, b_z = params
    y, z = carry
    x1, x2, x_z, x_y = F.linear(x, w_x, b_x).chunk(4, 1)
    y1, y2, y_z = F.linear(y, w_y, b_y).chunk(3, 1)
    d1, d2 = torch.sigmoid(x1 + y1), torch.sigmoid(x2 + y2)
    z = (1 - d1) * z + d1 * torch.tanh(x_z + y_z)
    y = (1 - d2) * y + d2 * torch.tanh(x_y + F.linear(z, w_z, b_z))
    return (y, z), y


def _lem_shapes(F: int, H: int) -> dict[str, tuple[int, ...]]:
    return {
        "w_x": (4 * H, F),
        "w_y": (3 * H, H),
        "w_z": (H, H),
        "b_x": (4 * H,),
        "b_y": (3 * H,),
        "b_z": (H,),
    }


def slstm_step(params: Params, carry: Any, x: Any) -> Any:
    """sLSTM with exponential gates and the max stabiliser (Beck et al. 2024, xLSTM)."""
    w, r, b = params
    c, n, h, m = carry
    z, i, f, o = (F.linear(x, w, b) + F.linear(h, r)).chunk(4, 1)
    log_f = F.logsigmoid(f)
    m_new = torch.maximum(log_f + m, i)
    i, f = torch.exp(i - m_new), torch.exp(log_f + m - m_new)
    c = f * c + i * torch.tanh(z)
    n = f * n + i
    h = torch.sigmoid(o) * c / n
    return (c, n, h, m_new), h


def _slstm_shapes(F: int, H: int) -> dict[str, tuple[int, ...]]:
    return {"w": (4 * H, F), "r": (4 * H, H), "b": (4 * H,)}


RNN = Cell("rnn", 1, rnn_step, _torch_shapes(1))
GRU = Cell("gru", 3, gru_step, _torch_shapes(3))
LSTM = Cell("lstm", 4, lstm_step, _torch_shapes(4), (0.0, 0.0))
LEM = Cell("lem", 4, lem_step, _lem_shapes, (0.0, 0.0))
SLSTM = Cell("slstm", 4, slstm_step, _slstm_shapes, (0.0, 1.0, 0.0, 0.0))
