"""The equations of a network, and its number of parameters.

They follow from a few integers: no network is built, and torch is not imported.
"""

from __future__ import annotations

from dataclasses import dataclass

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
EQUATIONS = {
    "rnn": ["s_t = tanh(x_t U + s_{t-1} W + b)"],
    "gru": [
        "r_t, z_t = sigmoid(x_t U_rz + s_{t-1} W_rz + b_rz)",
        "n_t = tanh(x_t U_n + b_n + r_t * (s_{t-1} W_n + b'_n))",
        "s_t = (1 - z_t) * n_t + z_t * s_{t-1}",
    ],
    "lstm": [
        "i_t, f_t, o_t = sigmoid(x_t U_ifo + s_{t-1} W_ifo + b_ifo)",
        "g_t = tanh(x_t U_g + s_{t-1} W_g + b_g)",
        "c_t = f_t * c_{t-1} + i_t * g_t",
        "s_t = o_t * tanh(c_t)",
    ],
}
READOUTS = {  # how the states of all steps become r; see models/readout.py
    "mean": ["r = mean_t {s}"],
    "max": ["r = max_t {s}"],
    "attention": ["a_t = softmax_t({s} v)", "r = Σ_t a_t {s}"],
}


@dataclass(frozen=True)
class Anatomy:
    """The sizes of a classifier, its equations and its number of parameters.

    T time steps (None: it depends on the sequence), F features, H hidden, C classes, L layers. If
    the elements are words, V of them (`n_words`), F is the size of their embeddings.
    """

    cell: str
    n_steps: int | None
    n_features: int
    hidden_size: int
    n_classes: int
    n_layers: int = 1
    bidirectional: bool = False
    n_words: int | None = None
    readout: str = "last"

    @property
    def n_directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def equations(self) -> list[str]:
        """The equations of one time step and of the answer, a line each."""
        read = [] if self.n_words is None else ["x_t = E[w_t]"]
        if self.readout == "last":
            last = "[s_T forwards, s_1 backwards]" if self.bidirectional else "s_T"
            return [*read, *EQUATIONS[self.cell], f"y = softmax({last} V + c)"]
        state = "[s_t forwards, s_t backwards]" if self.bidirectional else "s_t"
        answer = [line.format(s=state) for line in READOUTS[self.readout]]
        return [*read, *EQUATIONS[self.cell], *answer, "y = softmax(r V + c)"]

    @property
    def parameters(self) -> int:
        """The number of parameters: embeddings, U, W, two biases a layer and direction, readout."""
        H, C, D, F = self.hidden_size, self.n_classes, self.n_directions, self.n_features
        embeddings = 0 if self.n_words is None else self.n_words * F
        inputs = F + (self.n_layers - 1) * H * D  # of all layers
        body = D * GATES[self.cell] * H * (inputs + self.n_layers * (H + 2))
        scores = H * D if self.readout == "attention" else 0
        return embeddings + body + scores + (H * D + 1) * C
