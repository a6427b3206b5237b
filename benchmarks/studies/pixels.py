"""MNIST pixel by pixel, in reading order and permuted: `python -m benchmarks.studies.pixels`.

784 steps of one pixel each. 55,000 images to learn from, 5,000 to choose the best weights by, and
10,000 to test on once. Two cells, each with a linear readout of the last state:

    gru   a GRU whose update gates begin open for 1 to 784 steps (Tallec & Ollivier 2018, "Can
          recurrent neural networks warp time?")
    lem   Long Expressive Memory (Rusch, Mishra, Erichson & Mahoney 2022): two states, each with a
          time step that is learnt

A run takes tens of minutes on two cores. It keeps checkpoints in --folder, goes on from them when
it is started again, and appends its result to results/pixels.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

from ostinato import SequenceClassifier, datasets, nn, training

RESULTS = Path(__file__).parents[1] / "results" / "pixels.jsonl"
N_STEPS = 784
ORDERS = ("pixels", "permuted")
RECIPE = {
    "hidden_size": 128,
    "batch_size": 128,
    "optimizer": "adamw",
    "clip_norm": 1.0,
    "schedule": "cosine",
    "warmup": 400,
    "validation_fraction": 1 / 12,
    "eval_every": 429,  # an epoch
}
RATES = {"gru": 4e-3, "lem": 2e-3}


class LongGRU(nn.GRUCell):
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


class LEM(torch.nn.Module):
    """y and z, each moved by its own learnt share of a step towards a new value."""

    def __init__(self, n_features: int, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.of_x = torch.nn.Linear(n_features, 4 * hidden_size)
        self.of_y = torch.nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.of_z = torch.nn.Linear(hidden_size, hidden_size, bias=False)

    def initial(self, x: Tensor) -> tuple[Tensor, Tensor]:
        zeros = x.new_zeros(len(x), self.hidden_size)
        return zeros, zeros

    def forward(
        self, carry: tuple[Tensor, Tensor], x: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        y, z = carry
        x1, x2, x3, x4 = self.of_x(x).chunk(4, 1)
        y1, y2, y3 = self.of_y(y).chunk(3, 1)
        first, second = torch.sigmoid(x1 + y1), torch.sigmoid(x2 + y2)
        z = z + first * (torch.tanh(x3 + y3) - z)
        y = y + second * (torch.tanh(x4 + self.of_z(z)) - y)
        return (y, z), y


CELLS = {"gru": LongGRU, "lem": LEM}


def measured(order: str, cell: str, seed: int, epochs: float, folder: Path) -> dict[str, object]:
    whole = datasets.mnist(order)
    checkpoints = folder / f"{order}-{cell}-{seed}"
    model = SequenceClassifier(
        cell=CELLS[cell], learning_rate=RATES[cell], epochs=epochs, random_state=seed, **RECIPE
    )
    begin = time.perf_counter()
    model.fit(
        *whole.train,
        callbacks=[training.Checkpoint(checkpoints, every=100), training.Progress()],
        resume=checkpoints if checkpoints.is_dir() else None,
    )
    spent = time.perf_counter() - begin
    return {
        "order": order,
        "cell": cell,
        "seed": seed,
        "epochs": epochs,
        "accuracy": float(model.score(*whole.test)),
        "validation": max(model.history_["validation_accuracy"]),
        "minutes": spent / 60,
        "parameters": sum(p.numel() for p in model.net_.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--order", choices=ORDERS, default="pixels")
    parser.add_argument("--cell", choices=CELLS, default="gru")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--folder", type=Path, default=Path("runs/pixels"))
    given = parser.parse_args()
    result = measured(given.order, given.cell, given.seed, given.epochs, given.folder)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
