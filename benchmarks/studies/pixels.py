"""MNIST pixel by pixel, in reading order and permuted: `python -m benchmarks.studies.pixels`.

784 steps of one pixel each. 55,000 images to learn from, 5,000 to choose the best weights by, and
10,000 to test on once. Two cells, each with a linear readout of the mean state:

    gru   a GRU whose update gates begin open for 1 to 784 steps (Tallec & Ollivier 2018, "Can
          recurrent neural networks warp time?")
    lru   four layers of linear recurrent units: diagonal, complex, each followed by a gate (Orvieto
          et al. 2023, "Resurrecting recurrent neural networks for long sequences")

An epoch takes two minutes of one core (gru), or five (lru). A run keeps checkpoints in --folder,
goes on from them when it is started again, and appends its result to results/pixels.jsonl.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ostinato.nn
from ostinato import SequenceClassifier, datasets, training

RESULTS = Path(__file__).parents[1] / "results" / "pixels.jsonl"
N_STEPS = 784
ORDERS = ("pixels", "permuted")
RECIPE = {
    "readout": "mean",
    "batch_size": 64,
    "optimizer": "adamw",
    "clip_norm": 1.0,
    "schedule": "cosine",
    "warmup": 300,
    "validation_fraction": 1 / 12,
    "eval_every": 859,  # an epoch
}
OF_CELL = {
    "gru": {"hidden_size": 128, "learning_rate": 3e-3, "weight_decay": 0.01},
    "lru": {"hidden_size": 64, "num_layers": 4, "dropout": 0.1, "learning_rate": 4e-3,
            "weight_decay": 0.05},
}  # fmt: skip


class LongGRU(ostinato.nn.GRUCell):
    """A GRU whose state lasts, at the start, for 1 to 784 steps, evenly by its logarithm."""

    def __init__(self, n_features: int, hidden_size: int):
        super().__init__(n_features, hidden_size)
        lasting = torch.empty(hidden_size).uniform_(1, N_STEPS - 1)
        with torch.no_grad():
            update = slice(hidden_size, 2 * hidden_size)
            self.bias_ih[update] = torch.log(lasting)
            self.bias_hh[update] = 0.0

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return self.step(h, x)


class LRU(nn.Module):
    """One layer: h ← λ ∘ h + √(1 − |λ|²) ∘ B u of the normalized input u, N complex values; then

        y = gelu(C h + u),  and the output  x + (W₁ y) ∘ σ(W₂ y).

    |λ| begins so that a value lasts for 1.5 to 784 steps, evenly by the logarithm.
    """

    def __init__(self, n_features: int, hidden_size: int):
        super().__init__()
        N = self.n_values = hidden_size
        self.enter = nn.Identity()
        if n_features != hidden_size:
            self.enter = nn.Linear(n_features, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.B = nn.Linear(hidden_size, 2 * N, bias=False)
        self.C = nn.Linear(2 * N, hidden_size)
        self.gate = nn.Linear(hidden_size, 2 * hidden_size)
        lasting = torch.empty(N).uniform_(math.log(1.5), math.log(N_STEPS))
        self.log_decay = nn.Parameter(-lasting)  # |λ| = exp(−exp(log_decay))
        self.log_phase = nn.Parameter(torch.log(torch.empty(N).uniform_(1e-3, 1) * math.pi / 10))

    def initial(self, x: Tensor) -> tuple[Tensor, Tensor]:
        zeros = x.new_zeros(len(x), self.n_values)
        return zeros, zeros

    def forward(
        self, carry: tuple[Tensor, Tensor], x: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        real, imaginary = carry
        x = self.enter(x)
        u = self.norm(x)
        size, phase = torch.exp(-torch.exp(self.log_decay)), torch.exp(self.log_phase)
        a, b = size * torch.cos(phase), size * torch.sin(phase)
        scale = torch.sqrt(1 - size * size)
        to_real, to_imaginary = self.B(u).chunk(2, 1)
        real, imaginary = (
            a * real - b * imaginary + scale * to_real,
            a * imaginary + b * real + scale * to_imaginary,
        )
        y = F.gelu(self.C(torch.cat([real, imaginary], 1)) + u, approximate="tanh")
        value, opening = self.gate(y).chunk(2, 1)
        return (real, imaginary), x + value * torch.sigmoid(opening)


CELLS = {"gru": LongGRU, "lru": LRU}


def measured(order: str, cell: str, seed: int, epochs: float, folder: Path) -> dict[str, object]:
    whole = datasets.mnist(order)
    checkpoints = folder / f"{order}-{cell}-{seed}"
    model = SequenceClassifier(
        cell=CELLS[cell], epochs=epochs, random_state=seed, **RECIPE | OF_CELL[cell]
    )
    model.fit(
        *whole.train,
        callbacks=[training.Checkpoint(checkpoints, every=100), training.Progress()],
        resume=checkpoints if checkpoints.is_dir() else None,
    )
    return {
        "order": order,
        "cell": cell,
        "seed": seed,
        "epochs": epochs,
        "accuracy": float(model.score(*whole.test)),
        "validation": max(model.history_["validation_accuracy"]),
        "minutes": model.history_["elapsed_s"][-1] / 60,  # all parts of a resumed run
        "parameters": sum(p.numel() for p in model.net_.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--order", choices=ORDERS, default="pixels")
    parser.add_argument("--cell", choices=CELLS, default="gru")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/pixels"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    result = measured(given.order, given.cell, given.seed, given.epochs, given.folder)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
