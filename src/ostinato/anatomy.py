"""A network on paper: the shapes in its equations, its number of parameters, and its cost.

Everything follows from a few integers, so that nothing is built and no torch is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

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
class Letter:
    """One letter of the equations: its shape without the batch, and its number of parameters."""

    name: str
    meaning: str
    shape: tuple[int, ...]
    parameters: int  # 0 for what is computed, such as x_t


@dataclass(frozen=True)
class Anatomy:
    """The sizes of a classifier and what follows from them.

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
    batch_size: int = 128
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

    def letters(self) -> list[Letter]:
        """The letters of the equations: inputs and states, then parameters, layer by layer."""
        H, C = self.hidden_size, self.n_classes
        letters = [
            Letter("x_t", "one element of the sequence", (self.n_features,), 0),
            Letter("s_t", "hidden state", (H,), 0),
        ]
        if self.n_words is not None:
            E = (self.n_words, self.n_features)
            letters.insert(0, Letter("E", "embeddings of words", E, math.prod(E)))
        if self.cell == "lstm":
            letters.append(Letter("c_t", "cell state", (H,), 0))
        for suffix, n_inputs in self._bodies():
            letters += self._body(suffix, n_inputs)
        read = H * self.n_directions
        if self.readout == "attention":
            letters.append(Letter("v", "state to its weight among all steps", (read,), read))
        what = "last state" if self.readout == "last" else "what is read of the states"
        letters.append(Letter("V", f"{what} to classes", (read, C), read * C))
        letters.append(Letter("c", "bias of the readout", (C,), C))
        return letters

    def _bodies(self) -> Iterator[tuple[str, int]]:
        """(how it is told apart, size of its input) of each layer and direction."""
        for layer in range(self.n_layers):
            n_inputs = self.hidden_size * self.n_directions if layer else self.n_features
            for direction in ("→", "←") if self.bidirectional else ("",):
                yield (f"{layer + 1}" if self.n_layers > 1 else "") + direction, n_inputs

    def _body(self, suffix: str, n_inputs: int) -> list[Letter]:
        H, GH = self.hidden_size, GATES[self.cell] * self.hidden_size
        gates = "" if self.cell == "rnn" else f", {GATES[self.cell]} gates side by side"
        return [
            Letter(f"U{suffix}", f"input to state{gates}", (n_inputs, GH), n_inputs * GH),
            Letter(f"W{suffix}", f"state to state{gates}", (H, GH), H * GH),
            Letter(f"b{suffix}", "bias, kept in two halves (of U and of W)", (2, GH), 2 * GH),
        ]

    @property
    def parameters(self) -> int:
        """How many numbers the network learns."""
        # All layers but the first are alike, so that a million of them takes no time.
        one, two = (
            sum(letter.parameters for letter in replace(self, n_layers=n).letters()) for n in (1, 2)
        )
        return one + (self.n_layers - 1) * (two - one)

    @property
    def flops_per_step(self) -> int:
        """A multiply and an add for every weight of U and W, and of v, on one row."""
        return 2 * sum(n for name, n in self._weights() if name[0] in "UWv")

    @property
    def flops_readout(self) -> int:
        """A multiply and an add for every weight of V, on one row."""
        return 2 * sum(n for name, n in self._weights() if name == "V")

    @property
    def flops_forward(self) -> int | None:
        """The forward pass of one batch takes B (T · 2 Σ(U, W, v) + 2 V)."""
        if self.n_steps is None:
            return None
        return self.batch_size * (self.n_steps * self.flops_per_step + self.flops_readout)

    @property
    def flops_training(self) -> int | None:
        """One iteration: backward, each product has two, for its input and its weight."""
        return None if self.flops_forward is None else 3 * self.flops_forward

    def _weights(self) -> list[tuple[str, int]]:
        return [(letter.name, letter.parameters) for letter in self.letters()]

    @property
    def marks(self) -> tuple[str, str, str]:
        """What pictures call the weights of inputs, of states and of the readout."""
        return "U", "W", "V"

    @property
    def products(self) -> tuple[str, str]:
        """The products of a step, and of the readout, in the letters of the equations."""
        weights = "U + W + v" if self.readout == "attention" else "U + W"
        several = "" if self.n_layers * self.n_directions == 1 else "Σ "
        return f"2 {several}({weights})", "2 V"

    def as_dict(self) -> dict[str, Any]:
        """Sizes, equations, shapes, parameters and FLOPs as plain values, for JSON."""
        return {
            **{field.name: getattr(self, field.name) for field in fields(Anatomy)},
            "equations": self.equations,
            "letters": {letter.name: list(letter.shape) for letter in self.letters()},
            "parameters": self.parameters,
            "flops": {
                "per_step_and_row": self.flops_per_step,
                "forward_per_iteration": self.flops_forward,
                "training_per_iteration": self.flops_training,
            },
        }


@dataclass(frozen=True)
class OwnAnatomy(Anatomy):
    """The same of a network of a person's own cell, as its saved graph says.

    Attributes:
        formulas: of all layers, and of the readout.
        tensors: and what is computed.
        per_step, per_readout: multiplications by weights, of one row.
    """

    formulas: tuple[str, ...] = ()
    tensors: tuple[Letter, ...] = ()
    per_step: int = 0
    per_readout: int = 0

    @property
    def equations(self) -> list[str]:
        return list(self.formulas)

    def letters(self) -> list[Letter]:
        return list(self.tensors)

    @property
    def parameters(self) -> int:
        return sum(letter.parameters for letter in self.tensors)

    @property
    def flops_per_step(self) -> int:
        return 2 * self.per_step

    @property
    def flops_readout(self) -> int:
        return 2 * self.per_readout

    @property
    def marks(self) -> tuple[str, str, str]:
        return "", "", ""

    @property
    def products(self) -> tuple[str, str]:
        return "2 Σ (weights by @)", "2 Σ (weights of the readout)"


def table(anatomy: Anatomy) -> str:
    """What the notebook tells its reader to write down, then what it costs."""
    lines = [*anatomy.equations, ""]
    rows = [
        (
            f"{letter.name} ∈ R^" + "×".join(map(str, letter.shape)),
            letter.meaning,
            f"{letter.parameters:,}" if letter.parameters else "",
        )
        for letter in anatomy.letters()
    ]
    rows.append(("parameters", "", f"{anatomy.parameters:,}"))
    first, second, third = (max(len(row[i]) for row in rows) for i in range(3))
    lines += [f"{a:<{first}}   {b:<{second}}   {n:>{third}}".rstrip() for a, b, n in rows]
    return "\n".join([*lines, "", *_costs(anatomy)])


def _costs(a: Anatomy) -> list[str]:
    weights, readout = a.products
    lines = [
        f"one step, one row: {weights} = {a.flops_per_step:,} FLOPs "
        "(a multiply and an add for each weight)"
    ]
    if a.flops_forward is None or a.flops_training is None:
        return [*lines, "an iteration: times the number of steps, which the sequences decide"]
    return [
        *lines,
        f"forward:  B (T · {weights} + {readout}) = {a.batch_size} × ({a.n_steps} × "
        f"{a.flops_per_step:,} + {a.flops_readout:,}) = {a.flops_forward / 1e6:,.1f} MFLOPs",
        f"training: 3 × forward = {a.flops_training / 1e6:,.1f} MFLOPs an iteration "
        "(backwards, each product is met twice: for its input and for its weight)",
    ]
