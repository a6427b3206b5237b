"""`Language`: the task of predicting the next token of documents."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ostinato_learn.data.text.corpus import Corpus, Streams
from ostinato_learn.data.text.vocabulary import Vocabulary
from ostinato_learn.models.module_network import first_rows
from ostinato_learn.tasks.language.model import FARTHEST, READ_AT_ONCE, read_documents
from ostinato_learn.tasks.language.net import BLOCK, Carry, LanguageNet
from ostinato_learn.training.distributed import ALONE, Ranks, Share
from ostinato_learn.training.task import Carrying, Mean, Measured, digest, probed


class Language(Carrying):
    """Truncated backpropagation through time over documents (Williams and Peng 1990).

    Every batch is the next `truncate` tokens of each of `n_streams` streams. The state goes on from
    batch to batch, the gradient does not; at the begin of a document the state is zero.

    Args:
        corpus: the training documents as tokens.
        vocabulary: that of the tokens.
        n_streams, truncate: B and T, the shape of a batch.
        validation: further documents, as texts.
    """

    def __init__(
        self,
        corpus: Corpus,
        vocabulary: Vocabulary,
        n_streams: int,
        truncate: int,
        validation: Sequence[str] | None = None,
    ):
        self.streams = Streams(corpus, n_streams, truncate)
        self.n_examples = self.streams.chunks_per_epoch * n_streams
        self.batch_size = n_streams
        self.vocabulary = vocabulary
        self.validation = validation
        self.has_validation = validation is not None

    def loss(self, net: torch.nn.Module) -> Share:
        assert isinstance(net, LanguageNet)
        rows = self.ranks.rows(self.batch_size)  # each process reads its streams
        inputs, targets, resets = self.streams.next_chunk()
        features, carry = net(
            torch.from_numpy(inputs[rows]),
            self.carry,
            None if resets is None else torch.from_numpy(resets[rows]),
        )
        self.keep(carry)
        count = targets[rows].size
        return Share(net.loss(features, torch.from_numpy(targets[rows])), count, {}, count)

    def measures(self, loss: float, measured: Measured) -> Measured:
        return {"train_perplexity": _exp(loss)}

    def fingerprint(self) -> str:
        tokens = self.streams.corpus.tokens
        return digest(tokens[probed(len(tokens))], self.vocabulary.as_json())

    def validate(self, net: torch.nn.Module) -> dict[str, Mean]:
        assert self.validation is not None and isinstance(net, LanguageNet)
        characters = sum(map(len, self.validation))
        tokens = [self.vocabulary.encode(text) for text in self.validation]
        nats, n, n_all = 0.0, 0, sum(len(document) + 1 for document in tokens)
        for logits, targets in answers(net, tokens, self.ranks):
            nats += _nats(logits, targets)
            n += len(targets)
        if not n:
            return {"validation_loss": (0.0, 0), "validation_bits_per_character": (0.0, 0)}
        share = characters * (n / n_all)  # the same share of the characters as of the tokens
        return {
            "validation_loss": (nats / n, n),
            "validation_bits_per_character": (nats / math.log(2) / share, share),
        }

    def validated(self, means: Measured) -> Measured:
        return {**means, "validation_perplexity": _exp(means["validation_loss"])}

    def state_dict(self) -> dict[str, Any]:
        return self.streams.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.streams.load_state_dict(state)


def _nats(logits: Tensor, targets: Tensor) -> float:
    """The sum of the cross-entropy of tokens `[n]`."""
    right = logits.gather(1, targets[:, None])[:, 0]
    return (logits.logsumexp(1) - right).sum(dtype=torch.float64).item()


@torch.no_grad()
def answers(
    net: LanguageNet, documents: Sequence[np.ndarray], ranks: Ranks = ALONE
) -> Iterator[tuple[Tensor, Tensor]]:
    """The network's logits `[n, V]` and the tokens that came; see `read_documents`."""
    was_training = net.training
    net.eval()
    at_once = max(1, min(READ_AT_ONCE, BLOCK // net.config["n_tokens"]))

    def read(tokens: np.ndarray, carry: Carry) -> tuple[Tensor, Carry]:
        carry = None if carry is None else first_rows(carry, len(tokens))
        return net(torch.from_numpy(tokens), carry)

    try:
        for logits, came, _ in read_documents(
            read, documents, at_once, ranks.rank, ranks.size, net.logits
        ):
            yield logits, torch.from_numpy(came)
    finally:
        net.train(was_training)


def _exp(loss: float) -> float:
    """exp(loss), no larger than the largest float, since reports are JSON."""
    return math.exp(min(loss, FARTHEST))
