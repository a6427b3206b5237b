"""The recipe for few examples, chosen and then measured: `python -m benchmarks.studies.vowels`.

Japanese Vowels: 270 utterances to learn from, 370 to test on. `--choose` compares settings by the
accuracy of five-fold cross-validation on the training part alone; `--measure` trains the recipe on
the whole training part and tests it: five seeds, and an ensemble of five. The recipe is the one of
`ostinato train vowels`. The same network in PyTorch's layers is trained beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import unittest.mock

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ostinato_learn import SequenceClassifier, datasets
from ostinato_learn.data.sequences.splits import folds
from ostinato_learn.models import body

RECIPE = {
    "cell": "gru",
    "hidden_size": 64,
    "bidirectional": True,
    "dropout": 0.3,
    "epochs": 30,
    "batch_size": 32,
    "optimizer": "adamw",
    "learning_rate": 4e-3,
    "clip_norm": 1.0,
    "schedule": "cosine",
    "warmup": 13,
    "standardize": True,
    "eval_every": 10**6,
}
CHOICES: dict[str, list[dict[str, object]]] = {
    "readout": [{"readout": r} for r in ("last", "mean", "max", "attention")],
    "length": [
        {"epochs": e, "learning_rate": r}
        for e, r in itertools.product((30, 60, 120), (2e-3, 4e-3, 8e-3))
    ],
    "size": [
        {"hidden_size": h, "dropout": d}
        for h, d in itertools.product((32, 64, 128), (0.0, 0.3, 0.5))
    ],
    "decay": [{"weight_decay": w} for w in (0.0, 0.01, 0.1)],
    "scale": [{"standardize": s} for s in (False, True)],
}


class _TorchGRU(torch.nn.GRU):
    """torch.nn.GRU on ragged batches, which it takes packed."""

    def forward(self, x, hx=None, lengths=None):  # type: ignore[no-untyped-def, override]
        if lengths is None:
            return super().forward(x, hx)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, last = super().forward(packed, hx)
        return pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])[0], last


def validated(settings: dict[str, object], seeds: int, k: int = 5) -> tuple[float, float]:
    """Mean accuracy of a cross-validation on the training part, and its standard error."""
    X, y = datasets.vowels().train
    scores = []
    for seed in range(seeds):
        for train, test in folds(len(y), k, seed=seed, stratify=y):
            model = SequenceClassifier(**RECIPE | settings, random_state=seed)
            model.fit(X[train], y[train])
            scores.append(model.score(X[test], y[test]))
    return float(np.mean(scores)), float(np.std(scores) / len(scores) ** 0.5)


def measured(seeds: int) -> dict[str, object]:
    """Accuracy on the test part: of each seed, and of an ensemble."""
    whole = datasets.vowels()
    begin = time.perf_counter()
    scores = []
    for seed in range(seeds):
        model = SequenceClassifier(**RECIPE, random_state=seed).fit(*whole.train)
        scores.append(model.score(*whole.test))
    spent = (time.perf_counter() - begin) / seeds
    begin = time.perf_counter()
    peers = [_in_torch(seed) for seed in range(seeds)]
    spent_by_torch = (time.perf_counter() - begin) / seeds
    together = SequenceClassifier(**RECIPE, random_state=100, ensemble=5).fit(*whole.train)
    return {
        "accuracies": scores,
        "mean": float(np.mean(scores)),
        "ensemble of five": together.score(*whole.test),
        "seconds": spent,
        "in PyTorch's layers": {
            "accuracies": peers,
            "mean": float(np.mean(peers)),
            "seconds": spent_by_torch,
        },
        "parameters": sum(p.numel() for p in model.net_.parameters()),
    }


def _in_torch(seed: int) -> float:
    """The accuracy of the same network and training, its layers replaced by torch.nn's."""
    with unittest.mock.patch.dict(body.CELLS, {"gru": _TorchGRU}):
        whole = datasets.vowels()
        model = SequenceClassifier(**RECIPE, random_state=seed).fit(*whole.train)
        return float(model.score(*whole.test))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--choose", choices=CHOICES, help="validate these settings")
    parser.add_argument("--measure", action="store_true", help="test the recipe")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.choose:
        for settings in CHOICES[options.choose]:
            mean, error = validated(settings, options.seeds)
            print(f"{json.dumps(settings):50} {100 * mean:.2f} ± {100 * error:.2f} %", flush=True)
    if options.measure:
        print(json.dumps(measured(options.seeds), indent=1))


if __name__ == "__main__":
    main()
