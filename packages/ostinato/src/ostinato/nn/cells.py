"""RNNCell, GRUCell and LSTMCell: torch.nn's cells, each one step of `scan`.

A cell gives the same bits as a layer that runs the same steps. For a whole sequence, pass
`cell.step` to `scan`: this is one call, whereas a Python loop over the cell makes T calls.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ostinato._scan import scan, scan_layer
from ostinato.compiler import torch_compat, torch_private
from ostinato.eager import Step
from ostinato.nn.common import Hidden, map_hidden, playable, scriptable
from ostinato.nn.steps import ACTIVATIONS, gru_step, lstm_step, rnn_step


class _Cell(torch.nn.modules.rnn.RNNCellBase):
    """The common part of the three cells; each also inherits from torch.nn's class of its name."""

    @property
    def step(self) -> Step:
        """The step function with this cell's weights, for `scan`: step(carry, x) -> new carry."""
        return self._step(*self._weights())

    def _weights(self) -> tuple[Any, ...]:
        """The weights, read once a call: a parametrization computes a weight at every access."""
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def _step(self, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any) -> Step:
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
            torch.compiler.is_dynamo_compiling()  # torch's operations go into the compiled graph
            or torch_private.unavailable() is not None
            or torch_compat.is_recorded()  # a step that calls this cell keeps torch's operations
            or not self._fits(input, hx)
            or not playable(input, self.weight_ih)
        ):
            return super().forward(input, hx)  # raises torch's error if an argument is wrong
        batched = input.dim() == 2
        x = input if batched else input[None]
        if hx is None:
            h = x.new_zeros(len(x), self.hidden_size)
            carry = (h, h) if isinstance(self, torch.nn.LSTMCell) else h
        else:
            carry = map_hidden(lambda leaf: leaf if batched else leaf[None], hx)
        if type(self).step is not _Cell.step:  # a subclass may read anything
            carry, _ = scan(self.step, carry, x[None])
        else:
            play = torch_compat.disabled(scan_layer) if torch_compat.looks_on() else scan_layer
            weights = self._weights()
            captured = [w for w in weights if w is not None]
            variant = "cell", getattr(self, "nonlinearity", None), self.bias
            carry, _ = play(self._step(*weights), captured, variant, carry, x[None])
        return carry if batched else map_hidden(lambda leaf: leaf[0], carry)

    def _fits(self, input: Tensor, hx: Hidden) -> bool:
        """Whether input and hx have the axes, widths and dtype that the cell wants."""
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
    """torch.nn.RNNCell on `scan`: the same constructor, parameters and results.

    h' = f(W_ih x + b_ih + W_hh h + b_hh),   f = tanh or relu

    Source and shapes: `ostinato.nn.steps.rnn_step`.

    Example:
        >>> import torch, ostinato
        >>> cell = ostinato.nn.RNNCell(28, 128)
        >>> last, states = ostinato.scan(cell.step, torch.zeros(64, 128), torch.randn(28, 64, 28))
        >>> states.shape
        torch.Size([28, 64, 128])
    """

    torch_class = torch.nn.RNNCell

    def _step(self, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any) -> Step:
        return rnn_step(self.nonlinearity, w_ih, w_hh, b_ih, b_hh)


class GRUCell(_Cell, torch.nn.GRUCell):
    """torch.nn.GRUCell on `scan`: the same constructor, parameters and results.

    Equations and source: `ostinato.nn.steps.gru_step`.

    Example:
        >>> import torch, ostinato
        >>> cell = ostinato.nn.GRUCell(28, 128)
        >>> cell(torch.randn(64, 28)).shape
        torch.Size([64, 128])
    """

    torch_class = torch.nn.GRUCell

    def _step(self, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any) -> Step:
        return gru_step(w_ih, w_hh, b_ih, b_hh)


class LSTMCell(_Cell, torch.nn.LSTMCell):
    """torch.nn.LSTMCell on `scan`: the same constructor, parameters and results.

    Equations and source: `ostinato.nn.steps.lstm_step`. The carry is the pair (h, c), and so is
    the output of `scan(cell.step, …)`.

    Example:
        >>> import torch, ostinato
        >>> cell = ostinato.nn.LSTMCell(28, 128)
        >>> begin = torch.zeros(64, 128), torch.zeros(64, 128)
        >>> (h, c), (hs, cs) = ostinato.scan(cell.step, begin, torch.randn(28, 64, 28))
        >>> hs.shape, torch.equal(cs[-1], c)
        (torch.Size([28, 64, 128]), True)
    """

    torch_class = torch.nn.LSTMCell

    def _step(self, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any) -> Step:
        return lstm_step(w_ih, w_hh, b_ih, b_hh)
