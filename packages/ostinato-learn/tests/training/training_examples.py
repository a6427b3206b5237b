"""A small training that uses everything at once, so that a test can break it anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ostinato_learn.data import Batches, Ragged
from ostinato_learn.models import ClassifierNet
from ostinato_learn.training import History, Plan, train


class Leaky(torch.nn.Module):
    """A cell of one's own."""

    def __init__(self, n_features: int, hidden_size: int):
        super().__init__()
        self.into = torch.nn.Linear(n_features, hidden_size)

    def forward(self, h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.9 * h + self.into(x))


class Remembering(torch.nn.Module):
    """A cell whose carry has the last input, a learnt first state and a count; see `initial`."""

    def __init__(self, n_features: int, hidden_size: int):
        super().__init__()
        self.into = torch.nn.Linear(n_features, hidden_size)
        self.before = torch.nn.Linear(n_features, hidden_size, bias=False)
        self.first = torch.nn.Parameter(torch.linspace(-1, 1, hidden_size))

    def initial(self, x: torch.Tensor) -> dict[str, Any]:
        h = self.first.expand(len(x), -1)
        return {"h": h, "last": (torch.zeros_like(x), x.new_ones(len(x), 1))}

    def forward(self, carry: dict[str, Any], x: torch.Tensor) -> Any:
        last, n = carry["last"]
        h = torch.tanh(0.9 * carry["h"] + self.into(x) + self.before(last) / n)
        return {"h": h, "last": (x, n + 1)}, torch.sin(h)


def ragged_examples(n: int = 23, seed: int = 3) -> tuple[Ragged, np.ndarray]:
    """Sequences of 2 to 5 steps and 2 features; the class is the sign of the sum of the first."""
    rng = np.random.default_rng(seed)
    X = Ragged.from_list([rng.normal(size=(rng.integers(2, 6), 2)) for _ in range(n)])
    y = np.array([x[:, 0].sum() > 0 for x in X]).astype(np.int64)
    return X, y


@dataclass
class Experiment:
    """Everything `train` needs, built anew for every run: equal experiments must end equal."""

    cell: str = "gru"
    dropout: float = 0.3
    plan: dict[str, Any] = field(default_factory=dict)
    validated: bool = True

    def run(self, **options: Any) -> tuple[ClassifierNet, History]:
        X, y = ragged_examples()
        torch.manual_seed(1)
        net = ClassifierNet(2, 2, cell=self.cell, hidden_size=4, num_layers=2, dropout=self.dropout)
        settings: dict[str, Any] = {
            "iterations": 14,
            "batch_size": 5,  # 23 examples: epochs end within batches
            "optimizer": "adam",
            "learning_rate": 0.05,
            "schedule": "cosine",
            "warmup": 3,
            "clip_norm": 1.0,
            "eval_every": 3,
            "seed": 5,
        }
        plan = Plan(**settings | self.plan)
        if self.validated:
            options["validation"] = ragged_examples(9, seed=4)
        weights = np.linspace(0.5, 2, len(y))
        batches = Batches(X, y, plan.batch_size, seed=plan.seed)
        history = train(
            net, batches, plan, class_weight="balanced", sample_weight=weights, **options
        )
        return net, history


def without_clock(history: History) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k != "elapsed_s"} for r in history.reports]


def assert_same_end(
    one: tuple[ClassifierNet, History], other: tuple[ClassifierNet, History]
) -> None:
    """The same bits: weights, reports, outcome."""
    for (name, a), (_, b) in zip(
        one[0].state_dict().items(), other[0].state_dict().items(), strict=True
    ):
        assert a.numpy().tobytes() == b.numpy().tobytes(), name
    assert without_clock(one[1]) == without_clock(other[1])
    for name in ("iterations", "best_iteration", "outcome", "losses"):
        assert getattr(one[1], name) == getattr(other[1], name)
