"""torch.nn's recurrent layers and cells, computed by `scan`; `accelerate` swaps the layers in."""

from ostinato.nn.cells import GRUCell, LSTMCell, RNNCell
from ostinato.nn.layers import GRU, LSTM, RNN
from ostinato.nn.swap import accelerate, inspect, restore

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "accelerate",
    "inspect",
    "restore",
]
