"""`TaggerNet`: a recurrent network that gives a label to every step of a sequence."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ostinato_learn.hyperparameters import Architecture, arguments, declare, documented
from ostinato_learn.models.body import recurrent, width
from ostinato_learn.models.initialize import initialize
from ostinato_learn.models.inputs import WordBatch, WordReader
from ostinato_learn.models.stack import Stack
from ostinato_learn.tasks.tag.crf import CRF
from ostinato_learn.training.task import Carry

NO_LABEL = -100  # in place of a label, at steps beyond a row's length


@dataclass(frozen=True, kw_only=True)
class _TaggerArguments(Architecture):
    """The arguments of `TaggerNet`, checked."""

    n_classes: int = declare(MISSING, "C.", low=1)
    n_features: int | None = declare(None, "F.", low=1)
    n_words: int | None = declare(None, "V.", low=1)
    n_characters: int = declare(1, "Characters.", low=1)
    embedding_size: int = declare(100, "Size of a word's embedding.", low=1)
    character_size: int = declare(
        25, "Size of a character's embedding and of the states over characters; 0: none.", low=0
    )
    crf: bool = declare(False, "Whether labels depend on the label before (a CRF).")


@documented
class TaggerNet(torch.nn.Module):
    """A recurrent body and a linear readout of its state at every step.

        s_t = cell(x_t, s_{t−1}),   e_t = V s_t + c

    The scores e_t of the labels are logits of a softmax at each step, or the emissions of a CRF
    (`models.crf`). x_t is given, or computed from a word: its embedding, and the last states of a
    GRU that reads its characters forwards and of one that reads them backwards (Lample et al.
    2016).

    Args:
        n_classes: C, number of labels.
        n_features: F, if the steps are vectors.
        n_words: V, if the steps are words, 0…V−1.
        n_characters: how many characters there are.
        embedding_size: size of a word's embedding.
        character_size: size of a character's embedding, and of the states of the GRUs that read
            them; 0: characters are not read.
        {hyperparameters}
        bidirectional: also read from the end to the beginning; the readout sees both states of a
            step, `[B, T, 2·H]`.
        dropout: between layers and before the readout, and of the words' vectors; in training only.
        crf: whether labels depend on the label before them.

    Attributes:
        config: the arguments as a dict; `TaggerNet(**net.config)` builds the same network.

    Raises:
        ValueError: an argument of another type or out of its range, or both or neither of
            n_features and n_words.

    Example:
        >>> net = TaggerNet(n_classes=4, n_features=3, hidden_size=8)
        >>> net(torch.zeros(5, 7, 3)).shape
        torch.Size([5, 7, 4])
    """

    task = "tag"  # of the folder that knows it as a graph

    def __init__(
        self,
        n_classes: int,
        n_features: int | None = None,
        n_words: int | None = None,
        n_characters: int = _TaggerArguments.n_characters,
        embedding_size: int = _TaggerArguments.embedding_size,
        character_size: int = _TaggerArguments.character_size,
        cell: str = "lstm",
        hidden_size: int = Architecture.hidden_size,
        num_layers: int = Architecture.num_layers,
        bidirectional: bool = True,
        dropout: float = Architecture.dropout,
        crf: bool = _TaggerArguments.crf,
    ):
        given = arguments(locals())
        super().__init__()
        checked = _TaggerArguments(**given)
        if (checked.n_features is None) == (checked.n_words is None):
            raise ValueError(
                f"n_features={n_features} and n_words={n_words}; wanted one of them: the steps are "
                "vectors or words"
            )
        self.config: dict[str, Any] = {n: v for n, v in asdict(checked).items() if n in given}
        self.words: WordReader | None = None
        if checked.n_words is not None:
            self.words = WordReader(
                checked.n_words,
                checked.embedding_size,
                checked.n_characters,
                checked.character_size,
            )
        inputs = checked.n_features if self.words is None else self.words.size
        assert inputs is not None
        self.body = recurrent(checked, inputs)
        self.dropout = torch.nn.Dropout(checked.dropout)
        self.readout = torch.nn.Linear(width(checked), checked.n_classes)
        initialize(self.body, self.readout, "default")
        self.crf = CRF(checked.n_classes) if checked.crf else None

    def forward(self, x: Tensor | WordBatch, lengths: Tensor | None = None) -> Tensor:
        """The scores of the labels at every step.

        Args:
            x: `[B, T, F]`, or a `WordBatch`.
            lengths: `[B]` integers, the valid steps of each row; by default all.

        Returns:
            `[B, T, C]`; finite but meaningless beyond the lengths.
        """
        if self.words is not None:
            assert isinstance(x, WordBatch)
            x = self.dropout(self.words(x))
        states, _ = self.body(x, lengths=lengths)
        return self.readout(self.dropout(states))

    def read_on(
        self, x: Tensor, carry: Carry, resets: Tensor | None = None
    ) -> tuple[Tensor, Carry]:
        """The scores for a window of each row, and the state to go on from.

        The backward direction begins at the end of a window.

        Args:
            x: `[B, T, F]`.
            carry: the state after the window before, as this method returns it; None at first.
            resets: `[B, T]` bool, the first steps of sequences.
        """
        if isinstance(self.body, Stack):
            states, carry = self.body.read_on(x, carry, resets)
            return self.readout(self.dropout(states)), carry
        given = {} if resets is None else {"resets": resets}
        states, carry = self.body(x, carry, **given)
        if self.config["bidirectional"]:
            leaves = carry if isinstance(carry, tuple) else (carry,)
            for leaf in leaves:
                leaf.data[1::2] = 0
        return self.readout(self.dropout(states)), carry

    def losses(self, scores: Tensor, y: Tensor, lengths: Tensor | None = None) -> Tensor:
        """−log P(y | x) of each row, summed over its steps, in nats.

        Args:
            scores: `[B, T, C]`, from `forward`.
            y: `[B, T]` int64, NO_LABEL beyond the lengths.
            lengths: `[B]`.

        Returns:
            `[B]`.
        """
        if self.crf is not None:
            return self.crf(scores, y.clamp(min=0), lengths)
        steps = F.cross_entropy(scores.mT, y, ignore_index=NO_LABEL, reduction="none")
        return steps.sum(1)

    def best(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        allowed: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Tensor:
        """The likeliest labels, `[B, T]`; meaningless beyond the lengths.

        With a CRF, or if only some labels may follow each other, the likeliest sequence of labels
        for the whole row; else the likeliest label of each step.

        Args:
            scores, lengths: as for `losses`.
            allowed: see `Labelling`.
        """
        if self.crf is None and allowed is None:
            return scores.argmax(2)
        # A new CRF has no preferences of its own.
        return (self.crf or CRF(scores.shape[2])).best(scores, lengths, allowed)
