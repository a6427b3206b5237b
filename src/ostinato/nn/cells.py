"""RNNCell, GRUCell and LSTMCell: torch.nn's cells, each one step of `scan`.

A cell gives the same bits as a layer that plays the same steps. For a whole sequence, hand
`cell.step` to `scan`: that is one call, where a Python loop over the cell is T.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ostinato._scan import scan
from ostinato.compiler.torch_compat import is_recorded
from ostinato.eager import Step
from ostinato.nn.common import Hidden, map_hidden, playable, scriptable
from ostinato.nn.steps import ACTIVATIONS, gru_step, lstm_step, rnn_step


class _Cell(torch.nn.modules.rnn.RNNCellBase):
    """What the three cells share. torch.nn's own class stands behind it in their bases."""

    @property
    def step(self) -> Step:
        """The step function with this cell's weights, for `scan`: step(carry, x) -> new carry."""
        raise NotImplementedError

    def forward(self, input: Tensor, hx: Hidden = None) -> Any:
        """One step: torch.nn's forward.

        Args:
            input: `[B, F]`, or unbatched `[F]`.
            hx: the hidden state `[B, H]`, unbatched `[H]`; for LSTMCell a pair (h, c).
                Zeros by default.

        Returns:
            The next hidden state, like hx.

        Raises:
            RuntimeError, ValueError: as torch.nn, when input or hx do not fit the cell.
        """
        if (
            torch.compiler.is_dynamo_compiling()  # one step, which goes into the compiled graph
            or is_recorded()  # or into that of a step which calls this cell
            or not self._fits(input, hx)
            or not playable(input, self.weight_ih)
        ):
            return super().forward(input, hx)  # where something is wrong, torch says what
        batched = input.dim() == 2
        x = input if batched else input[None]
        if hx is None:
            h = x.new_zeros(len(x), self.hidden_size)
            carry = (h, h) if isinstance(self, torch.nn.LSTMCell) else h
        else:
            carry = map_hidden(lambda leaf: leaf if batched else leaf[None], hx)
        carry, _ = scan(self.step, carry, x[None])
        return carry if batched else map_hidden(lambda leaf: leaf[0], carry)

    def _fits(self, input: Tensor, hx: Hidden) -> bool:
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size:
            return False
        if isinstance(self, torch.nn.RNNCell) and self.nonlinearity not in ACTIVATIONS:
            return False
        leaves: Any = ()
        if hx is not None:
            is_pair = isinstance(self, torch.nn.LSTMCell)
            if isinstance(hx, Tensor) == is_pair or (is_pair and len(hx) != 2):
                return False
            leaves = hx if is_pair else (hx,)
        shape = (*input.shape[:-1], self.hidden_size)
        return all(leaf.shape == shape and leaf.dtype == input.dtype for leaf in leaves)

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return scriptable(self)


class RNNCell(_Cell, torch.nn.RNNCell):
    """torch.nn.RNNCell as a step function.

    h' = f(W_ih x + b_ih + W_hh h + b_hh),   f = tanh or relu

    Example:
        >>> import torch, ostinato
        >>> cell = ostinato.nn.RNNCell(28, 128)
        >>> last, states = ostinato.scan(cell.step, torch.zeros(64, 128), torch.randn(28, 64, 28))
        >>> states.shape
        torch.Size([28, 64, 128])
    """

    torch_class = torch.nn.RNNCell

    @property
    def step(self) -> Step:
        return rnn_step(
            self.nonlinearity, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        )


class GRUCell(_Cell, torch.nn.GRUCell):
    """torch.nn.GRUCell as a step function; the equations: `ostinato.nn.steps.gru_step`."""

    torch_class = torch.nn.GRUCell

    @property
    def step(self) -> Step:
        return gru_step(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)


class LSTMCell(_Cell, torch.nn.LSTMCell):
    """torch.nn.LSTMCell as a step function; the equations: `ostinato.nn.steps.lstm_step`.

    Its carry is the pair (h, c), and so are the outputs of `scan(cell.step, …)`.
    """

    torch_class = torch.nn.LSTMCell

    @property
    def step(self) -> Step:
        return lstm_step(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
