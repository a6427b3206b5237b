"""`Tagging`: the task of giving every step of a sequence its label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ostinato_learn.data import Batches
from ostinato_learn.data.sequences.step_labels import lengths_of
from ostinato_learn.data.text.words import UNKNOWN, Integers
from ostinato_learn.hyperparameters import Declared, declare
from ostinato_learn.models.inputs import Inputs, WordBatch, tensors
from ostinato_learn.tasks.tag.net import NO_LABEL, TaggerNet
from ostinato_learn.training.distributed import Share
from ostinato_learn.training.evaluation import Evaluation
from ostinato_learn.training.examples import fingerprint
from ostinato_learn.training.task import Mean, OfBatches, probed

Allowed = tuple[np.ndarray, np.ndarray]  # see `Labelling`

# Steps, padding included, that are answered at a time: 33 MB for states of 2 · 128.
STEPS_AT_ONCE = 2**15
# In training this share of the words that occur once is read as the unknown word, so that the
# network learns to read unknown words (Lample et al. 2016).
HIDDEN_SHARE = 0.5


@dataclass(frozen=True)
class TaggerSettings(Declared):
    """The parameters of a tagger beside those of its recurrent layers."""

    crf: bool = declare(False, "Learn which labels follow each other (a linear-chain CRF).")
    scheme: Literal["iob2", "iobes", "bilou"] | None = declare(
        None, "How the labels write spans, if they do; predictions are then valid iob2."
    )
    standardize: bool = declare(
        True, "Scale each feature by its mean and deviation in the training."
    )
    embedding_size: int = declare(100, "Size of a word's embedding.", low=1)
    character_size: int = declare(
        25, "Size of a character's embedding and of the states over characters; 0: none.", low=0
    )
    vocabulary_size: int = declare(20_000, "Number of words known, the most frequent.", low=2)


class Tagging(OfBatches):
    """−log P of a `models.TaggerNet`'s labels, per step, on batches of labelled sequences.

    A batch's loss is the sum over its sequences divided by the number of its steps.

    Args:
        X: the sequences, N of them.
        y: the labels of each as classes 0…C−1.
        batch_size, seed: of the batches.
        similar_lengths: whether a batch has sequences of similar length.
        once: `[V]`, which words of the vocabulary occur once in the training, if X are words.
        allowed: see `models.TaggerNet.best`.
        validation: further (X, y).
    """

    def __init__(
        self,
        X: Inputs,
        y: Integers,
        batch_size: int,
        seed: int,
        *,
        similar_lengths: bool = False,
        once: np.ndarray | None = None,
        allowed: Allowed | None = None,
        validation: tuple[Inputs, Integers] | None = None,
    ):
        everyone = np.arange(len(y))
        lengths = y.lengths if similar_lengths else None
        batches = Batches(everyone, everyone, batch_size, seed=seed, lengths=lengths)
        super().__init__(batches, validation)
        self.X, self.y = X, y
        self.once = None if once is None else torch.from_numpy(once)
        self.allowed = allowed

    def loss(self, net: torch.nn.Module) -> Share:
        assert isinstance(net, TaggerNet)
        chosen = self.next_rows()
        x, lengths = tensors(self.X, chosen)
        y = torch.from_numpy(self.y.padded(chosen, NO_LABEL))
        if isinstance(x, WordBatch) and self.once is not None:
            x = x._replace(words=_hidden(x.words, self.once))
        scores = net(x, lengths)
        labelled = y != NO_LABEL
        n_steps = int(labelled.sum())
        right = (net.best(scores.detach(), lengths, self.allowed) == y)[labelled]
        accuracy = right.double().mean().item()
        loss = net.losses(scores, y, lengths).sum() / n_steps
        return Share(loss, n_steps, {"train_accuracy": accuracy}, n_steps)

    def fingerprint(self) -> str:
        chosen = probed(len(self.y))
        return fingerprint(self.X, chosen, self.y.padded(chosen, NO_LABEL))

    def validate(self, net: torch.nn.Module) -> dict[str, Mean]:
        assert self.validation is not None and isinstance(net, TaggerNet)
        X, y = self.validation
        result = measure(net, X, y, self.allowed, self.ranks.rows(len(y)))
        return {
            "validation_loss": (result.loss, result.n),
            "validation_accuracy": (result.accuracy, result.n),
        }


@torch.no_grad()
def measure(
    net: TaggerNet,
    X: Inputs,
    y: Integers,
    allowed: Allowed | None = None,
    rows: slice = slice(None),
) -> Evaluation:
    """Loss per step and accuracy over the steps of labelled sequences, or of some rows of them.

    It answers in evaluation mode, batches of similar length, and keeps the mode it had.
    """
    was_training = net.training
    net.eval()
    loss = right = 0.0
    wanted = np.arange(len(X))[rows]
    for positions in _by_length(np.asarray(lengths_of(X))[wanted]):
        chosen = wanted[positions]
        x, lengths = tensors(X, chosen)
        scores, labels = net(x, lengths), torch.from_numpy(y.padded(chosen, NO_LABEL))
        loss += net.losses(scores, labels, lengths).double().sum().item()
        right += (net.best(scores, lengths, allowed) == labels).sum().item()
    net.train(was_training)
    n = int(y.lengths[rows].sum())
    return Evaluation(loss / max(n, 1), right / max(n, 1), n)


def _by_length(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """All sequences in order of their length, in batches of STEPS_AT_ONCE or one sequence."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * lengths[order[stop]] <= STEPS_AT_ONCE:
            stop += 1
        yield order[start:stop]
        start = stop


def _hidden(words: Tensor, once: Tensor) -> Tensor:
    """Words `[U]`; some of those that occur once are replaced by the unknown word."""
    hidden = once[words] & (torch.rand(len(words)) < HIDDEN_SHARE)
    return torch.where(hidden, UNKNOWN, words)
