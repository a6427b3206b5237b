"""MNIST pixel by pixel, in reading order and permuted: `python -m benchmarks.studies.pixels`.

784 steps of one pixel each. 55,000 images to learn from, 5,000 to choose the best weights by, and
10,000 to test on once. Two cells, in layers of which the later ones take fewer steps: a stride of 4
hands the outputs of four steps to the next layer as one input. A linear layer reads the mean of the
last layer's outputs, and of the GRU its last output beside it.

    gru   a GRU whose update gates begin with biases for which a state lasts 1 to T steps (Tallec &
          Ollivier 2018, "Can recurrent neural networks warp time?"), evenly by the logarithm
    lru   a linear recurrent unit: diagonal, complex, followed by a gate (Orvieto et al. 2023,
          "Resurrecting recurrent neural networks for long sequences")

An epoch takes about a minute of one core (gru), or two (lru). A run keeps checkpoints in --folder,
goes on from them when it is started again, and appends its result to results/pixels.jsonl, which
--table shows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ostinato
import ostinato.nn
from ostinato_learn import datasets, training
from ostinato_learn.data import Batches

RESULTS = Path(__file__).parents[1] / "results" / "pixels.jsonl"
N_STEPS, N_CLASSES = 784, 10
N_VALIDATED = 5000
ORDERS = ("pixels", "permuted")


class Recipe(NamedTuple):
    """A network and its training.

    Attributes:
        widths: the units of each layer.
        strides: how many of a layer's steps the next one takes at once.
        reads_last: whether the readout takes the last output, beside the mean.
        epochs: by the order of the pixels.
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...]
    reads_last: bool
    epochs: dict[str, int]
    weight_decay: float


RECIPES = {
    "gru": Recipe((32, 128), (4, 1), True, {"pixels": 12, "permuted": 6}, 0.05),
    "lru": Recipe((24, 64, 96, 96), (4, 2, 1, 1), False, {"pixels": 8, "permuted": 8}, 0.05),
}


class LongGRU(nn.Module):
    """A GRU whose state lasts, at the start, for 1 to n_steps steps, evenly by the logarithm."""

    def __init__(self, n_features: int, hidden_size: int, n_steps: int):
        super().__init__()
        self.cell = ostinato.nn.GRUCell(n_features, hidden_size)
        self.hidden_size = hidden_size
        lasting = torch.empty(hidden_size).uniform_(0, math.log(n_steps))
        with torch.no_grad():
            update = slice(hidden_size, 2 * hidden_size)
            self.cell.bias_ih[update] = lasting
            self.cell.bias_hh[update] = 0.0

    def forward(self, xs: Tensor) -> Tensor:
        """`[T, B, n_features]` to `[T, B, hidden_size]`."""
        begin = xs.new_zeros(xs.shape[1], self.hidden_size)
        _, outputs = ostinato.scan(self.cell.step, begin, xs)
        return outputs


class LRU(nn.Module):
    """h ← λ ∘ h + √(1 − |λ|²) ∘ B u of the normalized input u, N complex values; then

        y = gelu(C h + u),  and the output  x + (W₁ y) ∘ σ(W₂ y).

    |λ| begins so that a value lasts for 1.5 to n_steps steps, evenly by the logarithm. What is
    learnt is added to that beginning, so that a decay of weights pulls to it.
    """

    def __init__(self, n_features: int, hidden_size: int, n_steps: int):
        super().__init__()
        N = self.n_values = hidden_size
        self.enter = nn.Identity()
        if n_features != hidden_size:
            self.enter = nn.Linear(n_features, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.B = nn.Linear(hidden_size, 2 * N, bias=False)
        self.C = nn.Linear(2 * N, hidden_size)
        self.gate = nn.Linear(hidden_size, 2 * hidden_size)
        lasting = torch.empty(N).uniform_(math.log(1.5), math.log(n_steps))
        turning = torch.empty(N).uniform_(1e-3, 1) * math.pi * min(1, 30 / n_steps)
        self.register_buffer("first_decay", -lasting)  # |λ| = exp(−exp(decay))
        self.register_buffer("first_phase", torch.log(turning))
        self.decay, self.phase = nn.Parameter(torch.zeros(N)), nn.Parameter(torch.zeros(N))

    def forward(self, xs: Tensor) -> Tensor:
        """`[T, B, n_features]` to `[T, B, hidden_size]`."""
        zeros = xs.new_zeros(xs.shape[1], self.n_values)
        _, outputs = ostinato.scan(self.step, (zeros, zeros), xs)
        return outputs

    def step(self, carry: tuple[Tensor, Tensor], x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        real, imaginary = carry
        x = self.enter(x)
        u = self.norm(x)
        size = torch.exp(-torch.exp(self.first_decay + self.decay))
        phase = torch.exp(self.first_phase + self.phase)
        a, b, scale = size * torch.cos(phase), size * torch.sin(phase), torch.sqrt(1 - size * size)
        to_real, to_imaginary = self.B(u).chunk(2, 1)
        real, imaginary = (
            a * real - b * imaginary + scale * to_real,
            a * imaginary + b * real + scale * to_imaginary,
        )
        y = F.gelu(self.C(torch.cat([real, imaginary], 1)) + u, approximate="tanh")
        value, opening = self.gate(y).chunk(2, 1)
        return (real, imaginary), x + value * torch.sigmoid(opening)


LAYERS = {"gru": LongGRU, "lru": LRU}


class Pixels(nn.Module):
    """Layers with strides between them, and a linear readout of the mean."""

    def __init__(self, cell: str, recipe: Recipe, dropout: float = 0.1):
        super().__init__()
        self.config = {"n_classes": N_CLASSES}  # training.train looks at this and at the body
        self.strides, self.reads_last = recipe.strides, recipe.reads_last
        self.body = nn.ModuleList()
        size, n_steps = 1, N_STEPS
        for width, stride in zip(recipe.widths, recipe.strides, strict=True):
            self.body.append(LAYERS[cell](size, width, n_steps))
            size, n_steps = width * stride, n_steps // stride
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(2 * size if recipe.reads_last else size, N_CLASSES)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`[B, T, 1]` to logits `[B, 10]`; all images are of one length."""
        xs = x.transpose(0, 1).contiguous()
        for layer, stride in zip(self.body, self.strides, strict=True):
            xs = self.dropout(layer(xs))
            T, B, _ = xs.shape
            xs = xs.view(T // stride, stride, B, -1).transpose(1, 2).reshape(T // stride, B, -1)
        read = torch.cat([xs.mean(0), xs[-1]], 1) if self.reads_last else xs.mean(0)
        return self.readout(read)


def measured(
    order: str, cell: str, seed: int, epochs: float | None, folder: Path
) -> dict[str, Any]:
    whole, recipe = datasets.mnist(order), RECIPES[cell]
    (X, y), (X_test, y_test) = whole.train, whole.test
    chosen = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).numpy()
    learnt, validated = chosen[N_VALIDATED:], chosen[:N_VALIDATED]
    torch.manual_seed(seed)
    net = Pixels(cell, recipe)
    batch_size = 64
    an_epoch = len(learnt) // batch_size
    plan = training.Plan(
        iterations=int(an_epoch * (epochs or recipe.epochs[order])),
        batch_size=batch_size,
        seed=seed,
        optimizer="adamw",
        learning_rate=4e-3,
        weight_decay=recipe.weight_decay,
        clip_norm=1.0,
        schedule="cosine",
        warmup=300,
        eval_every=an_epoch,
        restore_best=True,
    )
    checkpoints = folder / f"{order}-{cell}-{seed}"
    history = training.train(
        net,
        Batches(X[learnt], y[learnt], batch_size, seed=seed),
        plan,
        validation=(X[validated], y[validated]),
        callbacks=[training.Checkpoint(checkpoints, every=100), training.Progress()],
        resume=checkpoints if checkpoints.is_dir() else None,
    )
    return {
        "order": order,
        "cell": cell,
        "seed": seed,
        "widths": recipe.widths,
        "strides": recipe.strides,
        "epochs": plan.iterations / an_epoch,
        "accuracy": training.evaluate(net, X_test, y_test).accuracy,
        "validation": max(history["validation_accuracy"][1:]),
        "minutes": history["elapsed_s"][-1] / 60,  # all parts of a resumed run
        "parameters": sum(p.numel() for p in net.parameters()),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, with the least and the largest."""
    lines = [
        "| order | layers | parameters | epochs | minutes | seeds | accuracy |",
        "|---|---|---|---|---|---|---|",
    ]

    def kind(row: dict[str, Any]) -> tuple[Any, ...]:
        return (row["order"], row["cell"], row["widths"], row["strides"], row["epochs"])

    for _, same in itertools.groupby(sorted(rows, key=kind), kind):
        of = list(same)
        order, cell = of[0]["order"], of[0]["cell"]
        layers = ", ".join(map(str, of[0]["widths"]))
        right = [100 * row["accuracy"] for row in of]
        shown = f"{statistics.mean(right):.2f} % ({min(right):.2f} to {max(right):.2f})"
        minutes = statistics.mean(row["minutes"] for row in of)
        lines.append(
            f"| {order} | {cell.upper()} {layers} | {of[0]['parameters']:,} | "
            f"{of[0]['epochs']:.0f} | {minutes:.0f} | {len(of)} | {shown} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--order", choices=ORDERS, default="pixels")
    parser.add_argument("--cell", choices=LAYERS, default="gru")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=float, help="by default those of the cell's recipe")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/pixels"))
    parser.add_argument("--table", action="store_true", help="show what was found")
    given = parser.parse_args()
    if given.table:
        lines = RESULTS.read_text("utf-8").splitlines()
        print(table([json.loads(line) for line in lines]))
        return
    torch.set_num_threads(given.threads)
    result = measured(given.order, given.cell, given.seed, given.epochs, given.folder)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
