"""RNN, GRU and LSTM: torch.nn's layers on `scan`, one scan per layer and direction.

The *inner layout* is time-major and batched: xs `[T, B, F]`, hidden states `[L·D, B, H]` with D
directions. `forward` converts the user's layout (batch_first, unbatched or packed) to the inner
layout, and converts the results back. A *hidden* is a tensor h, or for LSTM a pair (h, c), as in
torch.nn.
"""

from __future__ import annotations

from operator import is_
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)

from ostinato._scan import scan_layer
from ostinato.arguments import bytes_in
from ostinato.compiler import torch_compat
from ostinato.compiler.play.segments import BudgetError
from ostinato.eager import Step
from ostinato.nn.common import Hidden, is_exporting, map_hidden, playable, scriptable
from ostinato.nn.ragged import EndToEnd, check_lengths, check_resets, expand_restart
from ostinato.nn.steps import gru_step, lstm_step, rnn_step


class _Asked(NamedTuple):  # each call makes one, in a third of the time of a frozen dataclass
    """The keywords of `forward`; once they are checked, in the inner layout."""

    lengths: Any = None  # [B] int64, or None
    resets: Tensor | None = None  # [T, B] bool
    restart: Hidden = None  # like hx
    all_states: bool = False
    memory: int | str | None = None  # of all layers and directions
    truncate: int | None = None
    packed: bool = False  # whether the input was packed; then rows are sorted, the longest first

    @property
    def needs_scan(self) -> bool:
        """Whether torch's layers cannot do it: they only have lengths."""
        limited = self.memory is not None or self.truncate is not None
        return limited or self.all_states or self.resets is not None


class _Layer(torch.nn.RNNBase):
    """The common part of the three layers; each also inherits from torch.nn's class of its name."""

    memory_budget = None  # the default of `memory` in training
    gradient_steps = None  # the default of `truncate` in training

    def _step(self, weights: list[Any], all_states: bool) -> Step:
        """The step function with these weights: w_ih, w_hh, and if there are b_ih, b_hh, w_hr.

        all_states: whether the output of a step is its whole hidden, not h alone.
        """
        raise NotImplementedError

    @torch_compat.own_frame
    def forward(
        self,
        input: Tensor | PackedSequence | EndToEnd,
        hx: Hidden = None,
        *,
        lengths: Tensor | list[int] | int | None = None,
        resets: Tensor | None = None,
        restart: Hidden = None,
        return_all_states: bool = False,
        memory: int | str | None = None,
        truncate: int | None = None,
    ) -> tuple[Any, ...]:
        """Run over a sequence: torch.nn's forward with six more keywords.

        Args:
            input: `[T, B, F]`, with batch_first `[B, T, F]`, unbatched `[T, F]`, or packed: a
                PackedSequence, or sequences end to end with their offsets (`EndToEnd`), whose
                output is a PackedSequence.
            hx: the first hidden state `[L·D, B, H]` (unbatched `[L·D, H]`; for LSTM a pair h, c);
                zeros by default.
            lengths: `[B]` integers in 0…T, in any order (unbatched: one integer): row b has only
                the steps t < lengths[b]. At later steps its outputs are zero, its state is
                unchanged, and it adds nothing to any gradient. A row of length 0 keeps its first
                state.
            resets: bool, `[T, B]`, laid out as the input is (with batch_first `[B, T]`, unbatched
                `[T]`; for a packed input `[T, B]`, rows as before packing): marks the first element
                of a new segment. Going forward the row restarts before t; in reverse, where the
                segment ends at t, before t−1.
            restart: the state that a row restarts from, like hx or broadcastable to it; zeros by
                default.
            return_all_states: return the hidden states after every step as a third result.
            memory: a budget for the backward pass, as for `ostinato.scan`; each layer and direction
                has an equal share.
            truncate: the number of steps after which the gradient of the state stops, as for
                `ostinato.scan`.

        Returns:
            `(output, h_n)` as torch.nn gives them: the top layer's `[T, B, D·H]`, laid out as the
            input, and the state after each row's last step, like hx. With return_all_states
            `(output, h_n, states)`: the states of every layer and direction after every step,
            `[L·D, T, B, H]` (with batch_first `[L·D, B, T, H]`, unbatched `[L·D, T, H]`, for a
            packed input padded and time-major); for LSTM a pair, the cell states second.

        Raises:
            RuntimeError, ValueError: as torch.nn, when input or hx do not fit the layer.
            ValueError: lengths, resets or restart do not fit the input; memory is too little;
                truncate is below 1.
        """
        if torch_compat.looks_on() and not is_exporting():
            return torch_compat.disabled(_Layer.forward)(
                self,
                input,
                hx,
                lengths=lengths,
                resets=resets,
                restart=restart,
                return_all_states=return_all_states,
                memory=memory,
                truncate=truncate,
            )
        if self.training:
            memory = self.memory_budget if memory is None else memory
            truncate = self.gradient_steps if truncate is None else truncate
        asked = _Asked(lengths, resets, restart, return_all_states, memory, truncate)
        if lengths is None and restart is None and not asked.needs_scan:
            played = self._forward_usual(input, hx)
            if played is not None:
                return played
        return self._forward_asked(input, hx, asked)

    def _forward_asked(
        self, input: Tensor | PackedSequence | EndToEnd, hx: Hidden, asked: _Asked
    ) -> tuple[Any, ...]:
        """`forward` of any input, by torch's own layer if `scan` would gain nothing."""
        self._refresh()
        if asked.restart is not None and asked.resets is None:
            raise ValueError("restart= was given without resets=, so it would do nothing")
        if not isinstance(input, Tensor | PackedSequence):
            if not hasattr(input, "offsets"):
                return super().forward(input, hx)  # raises torch's error
            input = self._pack(input)
        if not asked.needs_scan and asked.lengths is None and not self._plays(input):
            return super().forward(input, hx)
        dtype, device_type = self._weight.dtype, self._weight.device.type
        if asked.needs_scan and torch.is_autocast_enabled(device_type):
            if hx is not None:
                hx = map_hidden(lambda h: h.to(dtype), hx)
            with torch.autocast(device_type, enabled=False):  # it changes the dtype of the carry
                return self._forward_asked(input.to(dtype), hx, asked)
        if isinstance(input, PackedSequence):
            if asked.lengths is not None:
                raise ValueError("lengths= was given with a packed input, which brings its own")
            return self._forward_packed(input, hx, asked)
        if not self._has_known_axes(input, hx):
            return super().forward(input, hx)  # raises torch's error
        return self._forward_padded(input, hx, asked)

    def _forward_usual(self, input: Any, hx: Hidden) -> tuple[Tensor, Hidden] | None:
        """One layer in one direction over a batch, time-major or batch_first; None otherwise.

        This short way saves a tenth of a call that takes 150 µs.
        """
        if type(input) is not Tensor or input.dim() != 3:
            return None
        if self.num_layers > 1 or self.bidirectional:
            return None
        xs = _swap(input, 0) if self.batch_first else input
        n_steps, n_rows, n_features = xs.shape
        self._refresh()
        weights: list[Any] = self._flat_weights
        if not n_steps or n_features != self.input_size or not playable(xs, weights[0]):
            return None
        if hx is None:
            hx = self._zero_hidden(xs)
        elif not self._fits(hx, n_rows):
            return None
        hx = hx if isinstance(hx, Tensor) else tuple(hx)
        h_n, ys = self._scan(weights, False, hx, xs, of_layer=True)
        return _swap(ys, 0) if self.batch_first else ys, h_n

    def _scan(
        self, weights: list[Any], all_states: bool, hx: Hidden, xs: Tensor, **options: Any
    ) -> tuple[Hidden, Any]:
        """Run one layer in one direction; options are those of `scan_layer`."""
        captured = [w for w in weights if w is not None]
        variant = self.mode, self.bias, self.proj_size > 0, all_states
        step = self._step(weights, all_states)
        return scan_layer(step, captured, variant, hx, xs, **options)

    def _forward_padded(self, input: Tensor, hx: Hidden, asked: _Asked) -> tuple[Any, ...]:
        """`forward` of a batched or unbatched tensor."""
        batched = input.dim() == 3
        swapped = batched and self.batch_first

        def enter(given: Tensor) -> Tensor:
            """From the user's layout to `[T, B, …]`."""
            return given.unsqueeze(1) if not batched else _swap(given, 0) if swapped else given

        def leave(played: Tensor, dim: int) -> Tensor:
            """From the inner layout, T and B at the axes `dim` and `dim + 1`, to the user's."""
            if not batched:
                return played.squeeze(dim + 1)
            return _swap(played, dim) if swapped else played

        def rows(hidden: Hidden) -> Hidden:
            """From the user's layout to `[L·D, B, H]`."""
            return hidden if batched else map_hidden(lambda leaf: leaf.unsqueeze(1), hidden)

        xs = enter(input)
        hx = self._zero_hidden(xs) if hx is None else rows(hx)
        self.check_forward_args(_swap(xs, 0) if self.batch_first else xs, hx, None)
        lengths, resets, restart = asked.lengths, asked.resets, asked.restart
        checked = asked._replace(
            lengths=None if lengths is None else check_lengths(lengths, xs),
            resets=None if resets is None else enter(check_resets(resets, input.shape[:-1], xs)),
            restart=None if restart is None else expand_restart(rows(restart), hx),
        )
        output, h_n, states = self._all_layers(xs, hx, checked)
        if not batched:
            h_n = map_hidden(lambda leaf: leaf.squeeze(1), h_n)
        if asked.all_states:
            return leave(output, 0), h_n, map_hidden(lambda leaf: leave(leaf, 1), states)
        return leave(output, 0), h_n

    def _forward_packed(self, packed: PackedSequence, hx: Hidden, asked: _Asked) -> tuple[Any, ...]:
        """`forward` of a packed input."""
        data, batch_sizes, sorted_indices, unsorted_indices = packed
        resets, restart = asked.resets, asked.restart
        xs, lengths = pad_packed_sequence(PackedSequence(data, batch_sizes))  # rows stay sorted
        hx = self._zero_hidden(xs) if hx is None else self.permute_hidden(hx, sorted_indices)
        self.check_forward_args(data, hx, batch_sizes)
        if resets is not None:
            resets = _select(check_resets(resets, xs.shape[:-1], xs), 1, sorted_indices)
        if restart is not None:
            restart = self.permute_hidden(expand_restart(restart, hx), sorted_indices)
        checked = asked._replace(lengths=lengths, resets=resets, restart=restart, packed=True)
        output, h_n, states = self._all_layers(xs, hx, checked)
        repacked = pack_padded_sequence(output, lengths).data
        result = PackedSequence(repacked, batch_sizes, sorted_indices, unsorted_indices)
        h_n = self.permute_hidden(h_n, unsorted_indices)
        if asked.all_states:
            return result, h_n, map_hidden(lambda leaf: _select(leaf, 2, unsorted_indices), states)
        return result, h_n

    def _all_layers(self, xs: Tensor, hx: Hidden, asked: _Asked) -> tuple[Tensor, Hidden, Hidden]:
        """Run all layers and directions, in the inner layout: (output, h_n, states)."""
        if asked.lengths is not None and not asked.needs_scan and not self._plays(xs):
            return self._play_in_torch(xs, hx, asked.lengths)
        if asked.memory is not None:
            asked = asked._replace(memory=bytes_in(asked.memory))
        n_directions = 2 if self.bidirectional else 1
        h_n: list[Hidden] = []
        states: list[Hidden] = []
        for layer in range(self.num_layers):
            ys = []
            for direction in range(n_directions):
                i = layer * n_directions + direction
                carry, y = self._one_direction(i, xs, hx, asked, reverse=direction == 1)
                h_n.append(carry)
                if asked.all_states:
                    states.append(y)
                ys.append(y[0] if isinstance(y, tuple) else y)
            xs = torch.cat(ys, 2) if self.bidirectional else ys[0]
            if layer < self.num_layers - 1 and self.dropout and self.training:
                xs = self._drop(xs, asked)
        return xs, _stack(h_n), _stack(states) if asked.all_states else None

    def _one_direction(
        self, i: int, xs: Tensor, hx: Hidden, asked: _Asked, reverse: bool
    ) -> tuple[Hidden, Any]:
        """Run layer and direction number i of L · D, with its share of the memory."""
        n_scans, n_weights = len(self._all_weights), len(self._all_weights[0])
        restart, memory = asked.restart, cast("int | None", asked.memory)  # read by _all_layers
        try:
            return self._scan(
                self._flat_weights[i * n_weights : (i + 1) * n_weights],
                asked.all_states,
                _row(hx, i),
                xs,
                reverse=reverse,
                lengths=asked.lengths,
                resets=asked.resets,
                restart=None if restart is None else _row(restart, i),
                memory=None if memory is None else max(1, memory // n_scans),
                truncate=asked.truncate,
            )
        except BudgetError as error:
            assert memory is not None
            raise error.shared(memory, n_scans) from None

    def _drop(self, xs: Tensor, asked: _Asked) -> Tensor:
        """Dropout between layers, in torch's layout: the same seed drops the same elements."""
        if not asked.packed:
            return F.dropout(xs, self.dropout)
        data, batch_sizes, _, _ = pack_padded_sequence(xs, asked.lengths)
        dropped = PackedSequence(F.dropout(data, self.dropout), batch_sizes)
        return pad_packed_sequence(dropped)[0]

    def _play_in_torch(
        self, xs: Tensor, hx: Hidden, lengths: Tensor
    ) -> tuple[Tensor, Hidden, None]:
        """Run rows of given lengths by torch's packed path, which accepts no row of length 0.

        Rows of length 0 are given one step of zeros; their results are replaced afterwards.
        """
        empty = (lengths == 0).to(xs.device)[:, None]
        packed = pack_padded_sequence(
            torch.where(empty, 0.0, xs), lengths.clamp(min=1), enforce_sorted=False
        )
        packed_output, ends = super().forward(packed, hx)
        output, _ = pad_packed_sequence(packed_output, total_length=len(xs))
        begins = (hx,) if isinstance(hx, Tensor) else hx
        pairs = zip(begins, (ends,) if isinstance(ends, Tensor) else ends, strict=True)
        h_n = tuple(torch.where(empty, first.to(last.dtype), last) for first, last in pairs)
        return torch.where(empty, 0.0, output), h_n[0] if isinstance(hx, Tensor) else h_n, None

    def _refresh(self) -> None:
        """Update `_flat_weights` if a parameter was replaced.

        torch's `_update_flat_weights` alone would make two calls for every parameter.
        """
        now = map(self._parameters.get, self._flat_weights_names)
        # A parametrized weight is not a parameter: it is computed anew here.
        if not all(map(is_, now, self._flat_weights)):
            self._update_flat_weights()

    @property
    def _weight(self) -> Any:
        # Taken from the list, since a parametrized attribute is computed anew at every access.
        return self._flat_weights[0]

    def _plays(self, input: Tensor | PackedSequence) -> bool:
        """Whether `scan` should run this input; see `playable`."""
        x = input.data if isinstance(input, PackedSequence) else input
        return playable(x, self._weight)

    def _pack(self, ragged: EndToEnd) -> PackedSequence:
        like = {"dtype": self._weight.dtype, "device": self._weight.device}
        return pack_sequence([torch.tensor(row, **like) for row in ragged], enforce_sorted=False)

    def _zero_hidden(self, xs: Tensor) -> Hidden:
        """torch.nn's default for hx, in the inner layout."""
        n_states = self.num_layers * (2 if self.bidirectional else 1)
        h = xs.new_zeros(n_states, xs.shape[1], self.proj_size or self.hidden_size)
        if self.mode != "LSTM":
            return h
        return h, xs.new_zeros(n_states, xs.shape[1], self.hidden_size)

    def _fits(self, hx: Hidden, n_rows: int) -> bool:
        """Whether hx has the shape for one layer in one direction.

        torch's `check_forward_args`, which raises the error, takes five times as long.
        """
        top = 1, n_rows, self.proj_size or self.hidden_size
        if self.mode != "LSTM":
            return isinstance(hx, Tensor) and hx.shape == top
        return len(hx) == 2 and hx[0].shape == top and hx[1].shape == (1, n_rows, self.hidden_size)

    def _has_known_axes(self, input: Tensor, hx: Hidden) -> bool:
        """Whether the axes are those of a batch or of one sequence, with at least one time step."""
        if input.dim() not in (2, 3):
            return False
        leaves = () if hx is None else (hx,) if isinstance(hx, Tensor) else hx
        time_dim = 1 if self.batch_first and input.dim() == 3 else 0
        return input.shape[time_dim] > 0 and all(leaf.dim() == input.dim() for leaf in leaves)

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return scriptable(self)


class RNN(_Layer, torch.nn.RNN):
    """torch.nn.RNN on `scan`: the same constructor, parameters, results and state_dict.

    h_t = f(W_ih x_t + b_ih + W_hh h_{t−1} + b_hh),   f = tanh or relu

    Source: `ostinato.nn.steps.rnn_step`. `forward` also takes lengths, resets, restart and
    return_all_states.

    Example:
        >>> import torch, ostinato
        >>> rnn = ostinato.nn.RNN(28, 128, batch_first=True)
        >>> output, h_n = rnn(torch.randn(3, 50, 28), lengths=[50, 7, 21])
        >>> output.shape, h_n.shape
        (torch.Size([3, 50, 128]), torch.Size([1, 3, 128]))
        >>> bool((output[1, 7:] == 0).all()), bool((h_n[0, 1] == output[1, 6]).all())
        (True, True)
    """

    torch_class = torch.nn.RNN

    def _step(self, weights: list[Any], all_states: bool) -> Step:
        return rnn_step("relu" if self.mode == "RNN_RELU" else "tanh", *weights)


class GRU(_Layer, torch.nn.GRU):
    """torch.nn.GRU on `scan`: the same constructor, parameters, results and state_dict.

    Equations and source: `ostinato.nn.steps.gru_step`. `forward` also takes lengths, resets,
    restart and return_all_states.

    Example: two episodes in one row, the second beginning at t = 6.
        >>> import torch, ostinato
        >>> gru = ostinato.nn.GRU(4, 8)
        >>> x, resets = torch.randn(10, 1, 4), torch.zeros(10, 1, dtype=torch.bool)
        >>> resets[6] = True
        >>> output, _ = gru(x, resets=resets)
        >>> torch.allclose(output[6:], gru(x[6:])[0])
        True
    """

    torch_class = torch.nn.GRU

    def _step(self, weights: list[Any], all_states: bool) -> Step:
        return gru_step(*weights)


class LSTM(_Layer, torch.nn.LSTM):
    """torch.nn.LSTM on `scan`: the same constructor, parameters, results and state_dict.

    Equations and source: `ostinato.nn.steps.lstm_step`. `forward` also takes lengths, resets,
    restart and return_all_states.

    Example: the cell states of all steps.
        >>> import torch, ostinato
        >>> lstm = ostinato.nn.LSTM(4, 8, num_layers=2)
        >>> output, (h_n, c_n), (h, c) = lstm(torch.randn(10, 3, 4), return_all_states=True)
        >>> c.shape, torch.equal(c[:, -1], c_n)
        (torch.Size([2, 10, 3, 8]), True)
    """

    torch_class = torch.nn.LSTM

    def _step(self, weights: list[Any], all_states: bool) -> Step:
        w_ih, w_hh = weights[:2]
        b_ih, b_hh = weights[2:4] if self.bias else (None, None)
        w_hr = weights[-1] if self.proj_size else None
        return lstm_step(w_ih, w_hh, b_ih, b_hh, w_hr, give_cells=all_states)


def _row(hidden: Hidden, i: int) -> Hidden:
    """The hidden state of one layer and direction, `[B, H]`."""
    if isinstance(hidden, Tensor):
        # A hidden of one layer is squeezed, since the backward pass of an index makes a copy.
        return hidden.squeeze(0) if len(hidden) == 1 else hidden[i]
    return tuple([_row(leaf, i) for leaf in hidden])


def _stack(hiddens: list[Hidden]) -> Hidden:
    """`[L·D, …]` from the hiddens of the layers and directions in order."""
    if isinstance(hiddens[0], Tensor):
        return hiddens[0].unsqueeze(0) if len(hiddens) == 1 else torch.stack(hiddens)
    return tuple([_stack(list(leaves)) for leaves in zip(*hiddens, strict=True)])


def _swap(tensor: Tensor, dim: int) -> Tensor:
    return tensor.transpose(dim, dim + 1)


def _select(tensor: Tensor, dim: int, indices: Tensor | None) -> Tensor:
    return tensor if indices is None else tensor.index_select(dim, indices)
