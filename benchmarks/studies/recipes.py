"""Recipes for tags and words, chosen by validation on training parts alone.

    python -m benchmarks.studies.recipes tag        strokes: a grid around the default
    python -m benchmarks.studies.recipes words      words of Austen: a grid around the default
    python -m benchmarks.studies.recipes peers      tags, forecasts, words in PyTorch's layers
    python -m benchmarks.studies.recipes table      what was found

A run takes less than five minutes and adds a line to a file of results (--results); runs that are
there are not made again, so that a study goes on where it was stopped. Parts of the data on which
the studies of tags, forecasts and Austen measure are not read.

**tag**     320 recordings of `tagging.strokes` to learn from, 160 to validate by; accuracy.
**words**   the first 300,000 characters of *Emma* to learn from, the next 60,000 to validate by;
            128 units, 2,000 words, 150 updates; bits a character.
**peers**   the same networks, seeds and batches, the recurrent layers replaced by torch.nn's,
            which take ragged rows packed; score and CPU time of both, one after the other.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.studies import austen, forecasting, tagging
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ostinato_learn import LanguageModel, SequenceTagger, datasets
from ostinato_learn.models import body

RESULTS = Path(__file__).parents[1] / "results" / "recipes.jsonl"
SEEDS = (11, 12)  # none of those by which the studies measure
N_LEARNT, N_VALIDATED = 320, 160
LEARNT, VALIDATED = 300_000, 60_000  # characters
TAG = {
    "cell": "lstm",
    "hidden_size": 128,
    "epochs": 15,
    "batch_size": 32,
    "clip_norm": 1.0,
    "optimizer": "adamw",
    "schedule": "cosine",
    "learning_rate": 4e-3,
}
WORDS = {
    "level": "word",
    "vocabulary_size": 2000,
    "hidden_size": 128,
    "iterations": 150,
    "batch_size": 32,
    "embedding_size": 128,
    "tied": False,
    "warmup": 0,
}

Settings = dict[str, Any]
Run = tuple[str, Settings, int]


def grid(**choices: tuple[Any, ...]) -> Iterator[Settings]:
    """Every combination."""
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


GRIDS: dict[str, list[Settings]] = {
    "tag": list(
        grid(learning_rate=(2e-3, 4e-3, 8e-3, 16e-3), hidden_size=(64, 128), dropout=(0.0, 0.3))
    ),
    "words": list(grid(learning_rate=(1e-3, 3e-3, 1e-2, 2e-2), dropout=(0.0, 0.3, 0.5))),
    "peers": [
        {"study": study, "layers": layers}
        for study in ("tag", "forecast", "words")
        for layers in ("ostinato", "torch.nn")
    ],
}


def tag(settings: Settings, seed: int) -> float:
    """Validated accuracy."""
    X, y = tagging.recordings(N_LEARNT + N_VALIDATED, (seed, 2))
    model = SequenceTagger(**TAG | settings, random_state=seed)
    model.fit(X[:N_LEARNT], y[:N_LEARNT])
    return float(model.score(X[N_LEARNT:], y[N_LEARNT:]))


def words(settings: Settings, seed: int) -> float:
    """Validated bits a character."""
    text = datasets.austen()["Emma"]
    model = LanguageModel(**WORDS | settings, random_state=seed).fit([text[:LEARNT]])
    return float(model.evaluate([text[LEARNT : LEARNT + VALIDATED]])["bits_per_character"])


def peers(settings: Settings, seed: int) -> float:
    """The accuracy of tags, WQL of forecasts, or bits a character of words, with these layers."""
    if settings["layers"] == "ostinato":
        cells: dict[str, Any] = {}
    elif settings["study"] == "words":
        cells = {"lstm": austen.TorchLSTM}
    else:
        cells = {"gru": packed(torch.nn.GRU), "lstm": packed(torch.nn.LSTM)}
    with unittest.mock.patch.dict(body.CELLS, cells):
        if settings["study"] == "tag":
            return tag({}, seed)
        if settings["study"] == "words":
            return words({}, seed)
        return float(forecasting.measured("seasonal", seed)["measures"]["network"]["wql"])


def packed(layer: Any) -> Any:
    """A layer of torch.nn that takes lengths, by packing."""

    class Packed(layer):
        def forward(self, x: Any, hx: Any = None, lengths: Any = None) -> Any:
            if lengths is None:
                return super().forward(x, hx)
            rows = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            states, last = super().forward(rows, hx)
            steps = x.shape[1]
            return pad_packed_sequence(states, batch_first=True, total_length=steps)[0], last

    return Packed


STUDIES: dict[str, Callable[[Settings, int], float]] = {"tag": tag, "words": words, "peers": peers}
UNITS = {
    "tag": "accuracy",
    "words": "bits a character",
    "peers": "accuracy, WQL, or bits a character",
}


def runs(study: str, done: set[str]) -> Iterator[Run]:
    """The runs of a study that are not done, seed by seed."""
    for seed in SEEDS:
        for settings in GRIDS[study]:
            if key(study, settings, seed) not in done:
                yield study, settings, seed


def key(study: str, settings: Settings, seed: int) -> str:
    return json.dumps([study, settings, seed])


def table(rows: list[dict[str, Any]]) -> str:
    """Of each study the settings with their means over seeds, in the order of the grid."""
    lines = []
    for study in STUDIES:
        lines += [
            f"{study}: {UNITS[study]}",
            "| settings | seeds | mean | seconds of CPU |",
            "|---|---|---|---|",
        ]
        for settings in GRIDS[study]:
            of = [row for row in rows if row["study"] == study and row["settings"] == settings]
            if of:
                shown = ", ".join(f"{name} {value}" for name, value in settings.items())
                mean, spent = (statistics.mean(r[name] for r in of) for name in ("score", "cpu_s"))
                lines.append(f"| {shown} | {len(of)} | {mean:.4f} | {spent:.0f} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=[*STUDIES, "table"])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--minutes", type=float, help="begin no run after so long")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = options.results.read_text("utf-8").splitlines() if options.results.exists() else []
    rows = [json.loads(line) for line in lines]
    if options.what == "table":
        print(table(rows))
        return
    done = {key(row["study"], row["settings"], row["seed"]) for row in rows}
    end = np.inf if options.minutes is None else time.monotonic() + 60 * options.minutes
    for study, settings, seed in runs(options.what, done):
        if time.monotonic() >= end:
            break
        began = time.process_time()
        score = STUDIES[study](settings, seed)
        row = {
            "study": study,
            "settings": settings,
            "seed": seed,
            "score": score,
            "cpu_s": time.process_time() - began,
        }
        print(json.dumps(row), flush=True)
        with options.results.open("a", encoding="utf-8") as file:
            print(json.dumps(row), file=file)


if __name__ == "__main__":
    main()
