"""A small network, task and plan of every kind, built anew in each process of a training.

As a program it trains all of them in the processes of `torchrun`:

    torchrun --nproc-per-node N distributed_examples.py FOLDER

Process r writes NAME-r.safetensors for each: the weights, and the gradient of each update. Then
they go on with the checkpoint in FOLDER/one/NAME, and write resumed-NAME-r.safetensors. Their own
checkpoint of the middle is left in FOLDER/several/NAME. Each process r sends the first one r rows;
FOLDER/received-r.json has what it received.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from forecasting_examples import HORIZON, panel, windows
from tagging_examples import sentences
from training_examples import ragged_examples

from ostinato_learn.data import Batches
from ostinato_learn.data.series.windows import every_window, last_windows
from ostinato_learn.data.text.corpus import Corpus
from ostinato_learn.data.text.vocabulary import Vocabulary
from ostinato_learn.data.text.words import Integers, Words, WordVocabulary
from ostinato_learn.models import ClassifierNet, ForecasterNet, LanguageNet, TaggerNet
from ostinato_learn.tasks.classify.loss import MultiLabels
from ostinato_learn.tasks.forecast.loss import Forecasting
from ostinato_learn.tasks.language.loss import Language
from ostinato_learn.tasks.tag.loss import Tagging
from ostinato_learn.training import Callback, Checkpoint, Plan, distributed
from ostinato_learn.training.classification import Classification
from ostinato_learn.training.loop import learn
from ostinato_learn.training.task import Task

TEXTS = ["the cat sat on the mat. " * 3, "a dog, and a cat! " * 4, "", "the end"]
LEVELS = (0.1, 0.5, 0.9)
Made = tuple[torch.nn.Module, Task]

UPDATES, RATE = 6, 0.05
PLAN = Plan(
    iterations=UPDATES, batch_size=7, optimizer="sgd", learning_rate=RATE, eval_every=3, seed=5
)


def classes() -> Made:
    """Weights from 0 on, which the shares of a batch do not have alike; ragged sequences."""
    X, y = ragged_examples()
    weights = np.linspace(0, 3, len(y))
    task = Classification(
        Batches(X, y, 7, seed=5), 2, "balanced", weights, ragged_examples(9, seed=4)
    )
    return ClassifierNet(2, 2, cell="gru", hidden_size=4, num_layers=2), task


def labels() -> Made:
    X, y = ragged_examples()
    many = np.stack([y, 1 - y, y], axis=1)
    validation = X[np.arange(4, 6)], many[4:6]  # of three processes one has nothing to measure
    task = MultiLabels(Batches(X, many, 7, seed=5), np.linspace(0, 3, len(y)), validation)
    return ClassifierNet(2, 3, cell="rnn", hidden_size=4), task


def tags() -> Made:
    """Words and a CRF; sentences differ in length, and each step counts."""
    X, y = sentences(30)
    words = Words.of(X)
    vocabulary = WordVocabulary.fit(words, 1000)
    numbers = np.concatenate([[["O", "B-one", "B-two", "I-two"].index(t) for t in s] for s in y])
    coded, tags = vocabulary.code(words), Integers(numbers, words.lengths)
    task = Tagging(coded, tags, 7, seed=5, validation=(coded, tags))
    net = TaggerNet(4, n_words=vocabulary.n_words, n_characters=9, hidden_size=4, crf=True)
    return net, task


def quantiles() -> Made:
    """SeriesWindows of which values are missing, some more than others."""
    given = panel(missing=0.3)
    cut = windows(given)
    learnt = every_window(given, cut.context, cut.horizon, np.zeros(len(given), dtype=int))
    sizes = given.n_past, given.n_future, given.n_static, cut.n_lags
    net = ForecasterNet(HORIZON, *sizes, LEVELS, hidden_size=4)
    last = last_windows(given, cut.context, cut.horizon, windows=3, stride=2)
    return net, Forecasting(given, cut, learnt, LEVELS, 7, seed=5, validation=last)


def tokens() -> Made:
    """The state goes on from batch to batch."""
    vocabulary = Vocabulary.fit(TEXTS, "character")
    task = Language(Corpus.of(TEXTS, vocabulary), vocabulary, 7, 5, TEXTS[:2])
    return LanguageNet(len(vocabulary), "lstm", 5, num_layers=2, embedding_size=4), task


EXAMPLES: dict[str, Callable[[], Made]] = {
    make.__name__: make for make in (classes, labels, tags, quantiles, tokens)
}


def made(name: str) -> Made:
    torch.manual_seed(1)
    return EXAMPLES[name]()


class Middle(Checkpoint):
    """Keeps the checkpoint of the middle of a training."""

    def on_start(self, run):
        pass

    def on_iteration(self, run):
        if run.iteration == UPDATES // 2:
            self._write(run)


class Gradients(Callback):
    """Keeps the gradient of each update, of each parameter that has one."""

    everywhere = True

    def __init__(self) -> None:
        self.kept: dict[str, torch.Tensor] = {}

    def on_iteration(self, run):
        for name, p in run.net.named_parameters():
            if p.grad is not None:
                self.kept[f"gradient.{run.iteration}.{name}"] = p.grad.clone()


def trained(
    name: str, keep: Path | None = None, resume: Path | None = None
) -> dict[str, torch.Tensor]:
    """The weights of a training, the gradients on its way, and what it reported.

    Args:
        name: of the example.
        keep: where the checkpoint of the middle is left.
        resume: a checkpoint to go on from.
    """
    net, task = made(name)
    gradients = Gradients()
    callbacks = [gradients, *([Middle(keep)] if keep else [])]
    history = learn(net, task, PLAN, callbacks=callbacks, resume=resume)
    reports = [
        [value for key, value in report.items() if key != "elapsed_s"] for report in history.reports
    ]
    return {
        **{f"weight.{name}": p for name, p in net.state_dict().items()},
        **gradients.kept,
        "reports": torch.tensor(reports, dtype=torch.float64),
    }


def main(folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    torch.manual_seed(rank)  # which must not matter
    for name in EXAMPLES:
        for resume, prefix in ((None, ""), (folder / "one" / name, "resumed-")):
            result = trained(name, folder / "several" / name, resume)
            safetensors.torch.save_file(result, folder / f"{prefix}{name}-{rank}.safetensors")
    rows = distributed.current().at_first(torch.full((rank, 2), rank))
    (folder / f"received-{rank}.json").write_text(json.dumps(rows and [t.tolist() for t in rows]))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
