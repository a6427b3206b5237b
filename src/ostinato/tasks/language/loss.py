"""`Language`: the task of predicting the next token of documents."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ostinato.data.text.corpus import Corpus, Streams
from ostinato.data.text.keyboard import SUGGESTED
from ostinato.data.text.vocabulary import END, UNKNOWN, Vocabulary
from ostinato.tasks.language.net import BLOCK, Carry, LanguageNet
from ostinato.training.distributed import ALONE, Ranks, Share
from ostinato.training.task import Mean, Measured, Task, digest, probed

# A long document is measured in parts of 8192 tokens. Before each part 512 tokens are read again to
# warm up the state, which forgets within hundreds of tokens.
PART, WARM_UP = 8192, 512
READ_AT_ONCE = 128  # tokens of a row between two readouts
ROWS_AT_ONCE = 32


class Language(Task):
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
        self.carry: Carry = None

    def loss(self, net: torch.nn.Module) -> Share:
        assert isinstance(net, LanguageNet)
        rows = self.ranks.rows(self.batch_size)  # each process reads its streams
        inputs, targets, resets = self.streams.next_chunk()
        features, carry = net(
            torch.from_numpy(inputs[rows]),
            self.carry,
            None if resets is None else torch.from_numpy(resets[rows]),
        )
        self.carry = _detached(carry)
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

    def tensors(self) -> dict[str, Tensor]:
        if self.carry is None:
            return {}
        leaves = self.carry if isinstance(self.carry, tuple) else (self.carry,)
        n = self.batch_size
        return {f"carry.{i}": self.ranks.gathered(leaf, n, 1) for i, leaf in enumerate(leaves)}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        # Copied into memory that PyTorch has aligned, as for `training.examples.tensors`.
        rows = self.ranks.rows(self.batch_size)
        leaves = [tensors[f"carry.{i}"][:, rows].clone() for i in range(len(tensors))]
        self.carry = None if not leaves else leaves[0] if len(leaves) == 1 else tuple(leaves)


@dataclass(frozen=True)
class LanguageEvaluation:
    """Measures of a model's predictions of documents.

    Attributes:
        loss: mean cross-entropy of a token, in nats; the END of each document counts as a token.
        bits_per_character: bits of all tokens divided by the characters of the text. At the level
            "word" it leaves out blanks and the letters of unknown words, which tokens do not have.
        perplexity: exp(loss). It only compares models of the same vocabulary; V and the share of
            unknown words are therefore given, too.
        n_tokens: the number of predicted tokens.
        vocabulary_size: V.
        unknown: share of tokens that are UNKNOWN.
        top1, top3: share of tokens that were the likeliest, or among the three likeliest.
    """

    loss: float
    bits_per_character: float
    perplexity: float
    n_tokens: int
    vocabulary_size: int
    unknown: float
    top1: float
    top3: float


class Counts(NamedTuple):
    """Sums over predicted tokens; `LanguageEvaluation` has the means.

    Attributes:
        nats: cross-entropy.
        first, third, unknown, n: the numbers of tokens that were the likeliest; that were among the
            three likeliest; that are UNKNOWN; of all tokens.
    """

    nats: float
    first: float
    third: float
    unknown: float
    n: float


def measure(
    net: LanguageNet, vocabulary: Vocabulary, documents: Sequence[str]
) -> LanguageEvaluation:
    """Measure a network on documents, in evaluation mode.

    Args:
        net, vocabulary: the network and its tokens.
        documents: the texts.

    Raises:
        ValueError: there is no character in any document.
    """
    return measured(counted(net, vocabulary, documents), vocabulary, documents)


def counted(
    net: LanguageNet,
    vocabulary: Vocabulary,
    documents: Sequence[str],
    ranks: Ranks = ALONE,
) -> Counts:
    """The sums of `measure`; each process has the sums of its parts of the documents.

    Raises:
        ValueError: the documents have no character.
    """
    if not any(documents):
        raise ValueError(
            f"the {len(documents)} documents have no character; wanted a text to measure"
        )
    nats, first, third, unknown, n = 0.0, 0, 0, 0, 0
    for logits, targets in answers(net, [vocabulary.encode(text) for text in documents], ranks):
        right = logits.gather(1, targets[:, None])
        nats += _nats(logits, targets)
        better = (logits > right).sum(1)
        first += int((better < 1).sum())
        third += int((better < SUGGESTED).sum())
        unknown += int((targets == UNKNOWN).sum())
        n += len(targets)
    return Counts(nats, first, third, unknown, n)


def measured(
    counts: Counts, vocabulary: Vocabulary, documents: Sequence[str]
) -> LanguageEvaluation:
    """The measures from the sums over all documents; see `measure`."""
    nats, n = counts.nats, counts.n
    return LanguageEvaluation(
        loss=nats / n,
        bits_per_character=nats / math.log(2) / sum(map(len, documents)),
        perplexity=_exp(nats / n),
        n_tokens=int(n),
        vocabulary_size=len(vocabulary),
        unknown=counts.unknown / n,
        top1=counts.first / n,
        top3=counts.third / n,
    )


def _nats(logits: Tensor, targets: Tensor) -> float:
    """The sum of the cross-entropy of tokens `[n]`."""
    right = logits.gather(1, targets[:, None])[:, 0]
    return (logits.logsumexp(1) - right).sum(dtype=torch.float64).item()


@torch.no_grad()
def answers(
    net: LanguageNet, documents: Sequence[np.ndarray], ranks: Ranks = ALONE
) -> Iterator[tuple[Tensor, Tensor]]:
    """The network's logits `[n, V]` and the true tokens `[n]`, for each token and END once.

    Documents of similar length are read side by side. A document of more than PART tokens is read
    in parts, each after the WARM_UP tokens before it, whose answers are left out. Each process
    gives some parts.
    """
    was_training = net.training
    net.eval()
    try:
        parts = sorted(_parts(documents), key=lambda part: -len(part.tokens))
        parts = parts[ranks.rank :: ranks.size]
        for start in range(0, len(parts), ROWS_AT_ONCE):
            yield from _read(net, parts[start : start + ROWS_AT_ONCE])
    finally:
        net.train(was_training)


@dataclass(frozen=True)
class _Part:
    """A part of a document: the tokens [N + 1], each predicted from those before it."""

    tokens: np.ndarray
    skipped: int  # the number of answers at the start to leave out


def _parts(documents: Sequence[np.ndarray]) -> Iterator[_Part]:
    for document in documents:
        whole = np.concatenate([[END], document, [END]]).astype(np.int64)
        for start in range(0, len(whole) - 1, PART):
            before = max(0, start - WARM_UP)
            yield _Part(whole[before : start + PART + 1], start - before)


def _read(net: LanguageNet, parts: list[_Part]) -> Iterator[tuple[Tensor, Tensor]]:
    """The answers to parts, the longest first; rows that have ended leave the batch."""
    at_once = max(1, min(READ_AT_ONCE, BLOCK // net.config["n_tokens"]))
    carry: Carry = None
    for start in range(0, len(parts[0].tokens) - 1, at_once):
        rows = [p for p in parts if len(p.tokens) - 1 > start]
        tokens = np.zeros((len(rows), at_once + 1), dtype=np.int64)
        counted = np.zeros((len(rows), at_once), dtype=bool)
        for i, part in enumerate(rows):
            piece = part.tokens[start : start + at_once + 1]
            tokens[i, : len(piece)] = piece
            counted[i, max(0, part.skipped - start) : len(piece) - 1] = True
        carry = None if carry is None else _rows(carry, len(rows))
        features, carry = net(torch.from_numpy(tokens[:, :-1].copy()), carry)
        for f, y, keep in zip(features, tokens[:, 1:], counted, strict=True):
            if keep.any():
                yield net.logits(f[keep]), torch.from_numpy(y[keep])


def _rows(carry: Carry, n: int) -> Carry:
    """The state of the first n rows."""
    if isinstance(carry, tuple):
        return tuple(_rows(leaf, n) for leaf in carry)
    return carry[:, :n].contiguous()


def _detached(carry: Carry) -> Carry:
    if isinstance(carry, tuple):
        return tuple(leaf.detach() for leaf in carry)
    return carry.detach()


def _exp(loss: float) -> float:
    """exp(loss), no larger than the largest float, since reports are JSON."""
    return math.exp(min(loss, 700.0))
