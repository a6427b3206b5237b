"""Language models of Jane Austen: five novels against the sixth, *Persuasion*.

    python -m benchmarks.studies.austen ngrams        modified Kneser-Ney, the baseline
    python -m benchmarks.studies.austen characters    a network over characters
    python -m benchmarks.studies.austen words         a network over words
    python -m benchmarks.studies.austen table         what was measured, as a table

Each run adds a line to a file of results (--results). Recipes are chosen with --hold-out, which
measures on the last twentieth of each training novel and never opens Persuasion.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ostinato_learn import datasets
from ostinato_learn.data.text.ngram import KneserNey
from ostinato_learn.data.text.vocabulary import Vocabulary
from ostinato_learn.models import saved_model
from ostinato_learn.tasks.language.fit import Reading, fit
from ostinato_learn.tasks.language.net import LanguageArchitecture
from ostinato_learn.training import Callback, Checkpoint, Plan, Progress, Run

TEST = "Persuasion"
RESULTS = Path(__file__).parents[1] / "results" / "austen.jsonl"
HELD_OUT = 0.05
RECIPES: dict[str, dict[str, Any]] = {
    "characters": {
        "level": "character",
        "vocabulary_size": None,
        "embedding_size": 128,
        "tied": False,
        "dropout": 0.0,
        "epochs": 4.0,
    },
    "words": {
        "level": "word",
        "vocabulary_size": None,
        "embedding_size": 256,
        "tied": True,
        "dropout": 0.5,
        "epochs": 10.0,
    },
}
SHARES = ("top1", "top3")
NGRAMS = [("character", None, 8), ("word", None, 5), ("word", 5828, 5)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["ngrams", "characters", "words", "table"])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--hold-out", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--embedding-size", type=int)
    parser.add_argument("--vocabulary-size", type=int)
    parser.add_argument("--dropout", type=float)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--truncate", type=int, default=128)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--torch", action="store_true", help="the same network in PyTorch's LSTM")
    parser.add_argument("--checkpoint", type=Path, help="a directory; an interrupted run goes on")
    parser.add_argument("--save", type=Path, help="a directory for the trained model")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "table":
        print(table(options.results), end="")
        return 0
    results = ngrams(options) if options.what == "ngrams" else [network(options)]
    with options.results.open("a", encoding="utf-8") as file:
        for result in results:
            line = json.dumps({"command": _command(), **result})
            print(line)
            print(line, file=file)
    return 0


def novels(hold_out: bool) -> tuple[list[str], list[str]]:
    """The novels to learn from, and what is measured."""
    books = datasets.austen()
    test = books.pop(TEST)
    if not hold_out:
        return list(books.values()), [test]
    cuts = [(text, round(len(text) * (1 - HELD_OUT))) for text in books.values()]
    return [text[:cut] for text, cut in cuts], [text[cut:] for text, cut in cuts]


def ngrams(options: argparse.Namespace) -> list[dict[str, Any]]:
    training, test = novels(options.hold_out)
    results = []
    for level, size, order in NGRAMS:
        begin = time.perf_counter()
        vocabulary = Vocabulary.fit(training, level, size)
        encoded = [vocabulary.encode(text) for text in training]
        model = KneserNey(encoded, order, len(vocabulary))
        nats = -sum(model.log_probabilities(vocabulary.encode(text)).sum() for text in test)
        n = sum(len(vocabulary.encode(text)) + 1 for text in test)
        results.append(
            {
                "model": f"modified Kneser-Ney, {order}-grams",
                "level": level,
                "hold_out": options.hold_out,
                "vocabulary_size": len(vocabulary),
                "bits_per_character": nats / math.log(2) / sum(map(len, test)),
                "perplexity": math.exp(nats / n),
                "elapsed_s": time.perf_counter() - begin,
            }
        )
    return results


def network(options: argparse.Namespace) -> dict[str, Any]:
    training, test = novels(options.hold_out)
    recipe = dict(RECIPES[options.what])
    for name in ("epochs", "embedding_size", "vocabulary_size", "dropout"):
        if getattr(options, name) is not None:
            recipe[name] = getattr(options, name)
    architecture = LanguageArchitecture(
        cell="lstm",
        hidden_size=options.hidden_size,
        num_layers=options.layers,
        dropout=recipe["dropout"],
        embedding_size=recipe["embedding_size"],
        tied=recipe["tied"],
    )
    plan = Plan(
        epochs=recipe["epochs"],
        batch_size=options.streams,
        optimizer="adamw",
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        clip_norm=1.0,
        schedule="cosine",
        warmup=100,
        eval_every=200,
        truncate=options.truncate,
        seed=options.seed,
    )
    reading = Reading(recipe["level"], recipe["vocabulary_size"])
    callbacks: list[Any] = [Progress(), *([InTorch()] if options.torch else [])]
    resume = None
    if options.checkpoint is not None:
        callbacks.append(Checkpoint(options.checkpoint, every=100))
        resume = options.checkpoint if options.checkpoint.exists() else None
    model, history = fit(training, architecture, reading, plan, callbacks=callbacks, resume=resume)
    if options.save is not None:
        saved_model.save(model, options.save, {}, history.iterations)
    result = model.evaluate(test)
    return {
        "model": f"LSTM {options.hidden_size}"
        + f", {options.layers} layers" * (options.layers > 1)
        + ", PyTorch's" * options.torch,
        "level": recipe["level"],
        "hold_out": options.hold_out,
        "vocabulary_size": len(model.vocabulary),
        "bits_per_character": result["bits_per_character"],
        "perplexity": result["perplexity"],
        "unknown": result["unknown"],
        "top1": result["top1"],
        "top3": result["top3"],
        "parameters": sum(w.numel() for w in model.net.parameters()),
        "iterations": history.iterations,
        "seed": options.seed,
        "threads": options.threads,
        "elapsed_s": history.reports[-1]["elapsed_s"],
    }


class TorchLSTM(torch.nn.LSTM):
    """PyTorch's layer over the parts between the places where a state is reset."""

    def forward(self, x: Tensor, hx: Any = None, *, resets: Tensor | None = None) -> Any:
        if resets is None:
            return super().forward(x, hx)
        begins = resets.any(0).nonzero().flatten().tolist()
        bounds = sorted({0, *begins, x.shape[1]})
        if hx is None:
            zeros = x.new_zeros(self.num_layers, len(x), self.hidden_size)
            hx = (zeros, zeros)
        outputs = []
        for begin, end in itertools.pairwise(bounds):
            keep = ~resets[:, begin, None]
            hx = tuple(torch.where(keep, leaf, 0.0) for leaf in hx)
            output, hx = super().forward(x[:, begin:end].contiguous(), hx)
            outputs.append(output)
        return torch.cat(outputs, 1), hx


class InTorch(Callback):
    """Plays the network by PyTorch's LSTM, with the same weights."""

    def on_start(self, run: Run) -> None:
        run.net.body.__class__ = TorchLSTM


def table(path: Path) -> str:
    """The runs over Persuasion in Markdown: means over the seeds of a network, least to largest."""
    rows = [
        "| model | tokens | V | seeds | bits a char | perplexity | top 1 | top 3 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    of_model: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        run = json.loads(line)
        if not run["hold_out"]:
            kind = run["model"], run["level"], run["vocabulary_size"]
            of_model.setdefault(kind, []).append(run)
    for (model, level, size), runs in of_model.items():
        bits = _of_seeds(runs, "bits_per_character", 3) if level == "character" else ""
        shares = [statistics.mean(run.get(name) or 0 for run in runs) for name in SHARES]
        cells = [
            model,
            f"{level}s",
            f"{size:,}",
            f"{len(runs)}",
            bits,
            _of_seeds(runs, "perplexity", 2),
            *("" if not share else f"{100 * share:.1f} %" for share in shares),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _of_seeds(runs: list[dict[str, Any]], name: str, digits: int) -> str:
    values = [run[name] for run in runs]
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} … {max(values):.{digits}f})"


def _command() -> str:
    return shlex.join(["python", "-m", "benchmarks.studies.austen", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
