"""What batches of similar length would save: `python -m benchmarks.studies.similar_lengths`.

Sequences of log-normal lengths are learnt for one epoch in batches drawn at random, and in batches
of similar length: the same shuffled order, sorted by length within blocks of 16 batches, the
batches of a block shuffled. Rows play in place: a step beyond the end of a row is not computed. So
the padding of a batch costs copies and the elementwise work around the layers only.

The CPU time of forward and backward pass of the whole epoch is compared, on one thread, the two
orders taking turns, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from ostinato_learn.data import Ragged
from ostinato_learn.models import ClassifierNet
from ostinato_learn.models.inputs import tensors

N, B, F, CLASSES, BLOCK = 2048, 128, 8, 4, 16
REPETITIONS = 5


class Own(torch.nn.Module):
    """A cell that no layer has: a gated unit whose gate reads its own output."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.gate = torch.nn.Linear(input_size + hidden_size, hidden_size)
        self.new = torch.nn.Linear(input_size + hidden_size, hidden_size)

    def forward(self, h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([x, h], dim=-1)
        gate = torch.sigmoid(self.gate(both))
        return gate * h + (1 - gate) * torch.tanh(self.new(both))


NETS: dict[str, dict[str, object]] = {
    "GRU of 64, both directions": {"cell": "gru", "hidden_size": 64, "bidirectional": True},
    "LSTM of 128": {"cell": "lstm", "hidden_size": 128},
    "own cell of 64": {"cell": Own, "hidden_size": 64},
}


def similar(lengths: np.ndarray, order: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The order sorted by length within blocks of batches, the batches of a block shuffled."""
    blocks = []
    for start in range(0, len(order), B * BLOCK):
        block = order[start : start + B * BLOCK]
        block = block[np.argsort(lengths[block], kind="stable")].reshape(-1, B)
        blocks.append(generator.permutation(block).ravel())
    return np.concatenate(blocks)


def padding(lengths: np.ndarray, order: np.ndarray) -> float:
    """The share of the cells of all batches that are beyond the ends of their rows."""
    batches = lengths[order].reshape(-1, B)
    return float(1 - batches.sum() / (batches.max(axis=1) * B).sum())


def epoch_of(net: torch.nn.Module, X: Ragged, y: torch.Tensor) -> Callable[[np.ndarray], float]:
    """The CPU seconds of an epoch in an order."""

    def run(order: np.ndarray) -> float:
        began = time.process_time()
        for start in range(0, len(order), B):
            indices = order[start : start + B]
            x, lengths = tensors(X, indices)
            net.zero_grad()
            torch.nn.functional.cross_entropy(net(x, lengths), y[indices]).backward()
        return time.process_time() - began

    return run


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sigma", type=float, default=0.8, help="of the logarithm of lengths")
    sigma = arguments.parse_args().sigma
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    lengths = np.clip(np.exp(generator.normal(np.log(50), sigma, N)), 4, 600).astype(np.int64)
    values = generator.normal(size=(int(lengths.sum()), F)).astype(np.float32)
    X = Ragged(values, np.append(0, np.cumsum(lengths)))
    y = torch.from_numpy(generator.integers(0, CLASSES, N))
    drawn = [generator.permutation(N) for _ in range(REPETITIONS)]
    sorted_ = [similar(lengths, order, generator) for order in drawn]
    shares = [statistics.median(padding(lengths, o) for o in orders) for orders in (drawn, sorted_)]
    print(f"lengths {lengths.min()} to {lengths.max()}, median {np.median(lengths):.0f}")
    print(f"padding of the batches: {shares[0]:.0%} at random, {shares[1]:.0%} of similar length")
    for name, settings in NETS.items():
        torch.manual_seed(0)
        net = ClassifierNet(n_features=F, n_classes=CLASSES, **settings)  # type: ignore[arg-type]
        run = epoch_of(net, X, y)
        run(drawn[0]), run(sorted_[0])
        pairs = [(run(a), run(b)) for a, b in zip(drawn, sorted_, strict=True)]
        ratio = statistics.median(b / a for a, b in pairs)
        seconds = statistics.median(a for a, _ in pairs)
        print(f"{name}: {seconds:.2f} s of CPU an epoch at random; of similar length {ratio:.2f} x")


if __name__ == "__main__":
    main()
