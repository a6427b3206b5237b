"""Small fitted models, and the directories that they are saved into."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ostinato_learn import LanguageModel, SequenceClassifier, SequenceForecaster, SequenceTagger

F, STEPS, N = 3, 9, 40


class Leaky(torch.nn.Module):
    """A cell of a user's own: a leak, a mask on its weights, an output that is no carry."""

    def __init__(self, n_features: int, hidden_size: int):
        super().__init__()
        self.into = torch.nn.Linear(n_features, hidden_size)
        self.back = torch.nn.Linear(hidden_size, hidden_size, bias=False)
        self.register_buffer("mask", torch.tril(torch.ones(hidden_size, hidden_size)))

    def forward(self, h: Any, x: Any) -> Any:
        recurrent = torch.nn.functional.linear(h, self.back.weight * self.mask)
        h = 0.9 * h + 0.1 * torch.tanh(recurrent + self.into(x))
        return h, torch.sin(h)


def sequences(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N, STEPS, F)).astype(np.float32)


def ragged(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, F)).astype(np.float32) for n in rng.integers(1, 40, 60)]


def classifier(path: Path, y: Any = None, **parameters: Any) -> SequenceClassifier:
    X = sequences()
    y = np.array(["down", "up", "still"])[np.arange(N) % 3] if y is None else y
    defaults = {"hidden_size": 8, "iterations": 3, "optimizer": "adam", "recipe": "notebook"}
    model = SequenceClassifier(**defaults | parameters).fit(X, y)
    model.save(path)
    return model


def tagger(path: Path, y: Any = None, **parameters: Any) -> SequenceTagger:
    X = sequences()
    y = list((X.cumsum(1).sum(2) > 0).astype(int)) if y is None else y
    defaults = {"hidden_size": 8, "iterations": 5, "random_state": 0, "cell": "gru"}
    model = SequenceTagger(**defaults | parameters).fit(X, y)
    model.save(path)
    return model


def words_tagger(path: Path, **parameters: Any) -> SequenceTagger:
    X = [["to", "be"], ["or", "not", "to", "be"], ["be"]] * 8
    y = [[word[:1] for word in words] for words in X]
    sizes = {"hidden_size": 3, "embedding_size": 2, "character_size": 2, "cell": "gru"}
    model = SequenceTagger(**sizes, iterations=3, random_state=0, **parameters).fit(X, y)
    model.save(path)
    return model


def forecaster(path: Path, **parameters: Any) -> SequenceForecaster:
    waves = [np.sin(np.arange(n) / 3) for n in (50, 40)]
    sizes = {"horizon": 3, "hidden_size": 3, "season": 4}
    model = SequenceForecaster(**sizes, iterations=3, random_state=0, **parameters).fit(waves)
    model.save(path)
    return model


def language_model(path: Path, **parameters: Any) -> LanguageModel:
    texts = ["to be or not to be, that is the question"] * 4
    defaults = {"hidden_size": 8, "iterations": 3, "embedding_size": 4, "random_state": 0}
    model = LanguageModel(**defaults | parameters).fit(texts)
    model.save(path)
    return model


def without_torch(script: str, **environment: str) -> str:
    """What a script prints in a process that has no torch."""
    blocked = "import sys\nsys.modules['torch'] = None\n" + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", blocked],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
