"""What the trainings of several tasks do alike: examples to learn from, their loss, and plans.

`fit` of `tasks/<kind>/fit.py` trains a network:

    model, history = fit(given, …, plan, start=None, callbacks=(), resume=None)

    start              a model of the same task and sizes, with whose weights, scales and words the
                       new one begins
    callbacks, resume  see `training.train`

A batch has at most all examples. It raises ValueError if something does not fit together, and
Diverged if the loss became NaN or infinite.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ostinato_learn.data import Batches, LabelEncoder
from ostinato_learn.data.sequences.as_sequences import as_sequences
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.data.sequences.step_labels import Steps, width_of
from ostinato_learn.data.text.words import Integers, Words, WordVocabulary
from ostinato_learn.hyperparameters import Architecture, WordSettings
from ostinato_learn.models.inputs import tensors
from ostinato_learn.tasks.reading import SequenceReader
from ostinato_learn.training.distributed import Share
from ostinato_learn.training.examples import as_inputs, example_weights, fingerprint
from ostinato_learn.training.plan import Plan
from ostinato_learn.training.task import OfBatches, probed

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class ToLearn:
    """Examples to learn from, checked.

    Attributes:
        X: the N sequences.
        y: their answers, as a loss takes them.
        feature_names: the names of the columns, if X was a data frame.
        sample_weight: the weight of each example, `[N]` float64.
        validation: (X, y), further ones for validation.
    """

    X: Steps
    y: Any
    feature_names: np.ndarray | None = field(default=None, kw_only=True)
    sample_weight: np.ndarray | None = field(default=None, kw_only=True)
    validation: tuple[Steps, Any] | None = field(default=None, kw_only=True)

    def prepared_by(self, preparation: Preparation) -> Self:
        """With all sequences of numbers as a preparation makes them of features in this order."""

        def of(X: Steps) -> Steps:
            return X if isinstance(X, Words) else as_sequences(preparation.apply_in_order(X))

        held_out = self.validation and (of(self.validation[0]), self.validation[1])
        return replace(self, X=of(self.X), validation=held_out)

    def split(self, fraction: float, seed: int, noun: str = "examples", remedy: str = "") -> Self:
        """Keep a share of the examples, drawn at random, for validation; both in their order.

        Args:
            noun, remedy: for the error.

        Raises:
            ValueError: nothing would be left on one side.
        """
        n = len(self.y)
        kept = round(fraction * n)
        if not 0 < kept < n:
            raise ValueError(
                f"validation_fraction={fraction} of {n} {noun} leaves {kept} for validation and "
                f"{n - kept} to learn from; wanted one or more of each{remedy}"
            )
        order = np.random.default_rng(seed).permutation(n)
        return self.apart(order[kept:], order[:kept])

    def apart(self, rest: np.ndarray, held_out: np.ndarray) -> Self:
        """The examples at some positions, with those at others for validation."""
        rest, held_out = np.sort(rest), np.sort(held_out)
        weights = self.sample_weight
        return replace(
            self,
            X=self.X[rest],
            y=_taken(self.y, rest),
            sample_weight=None if weights is None else weights[rest],
            validation=(self.X[held_out], _taken(self.y, held_out)),
        )


def _taken(y: Any, rows: np.ndarray) -> Any:
    return y.take(rows) if isinstance(y, Integers) else y[rows]


class OfExamples(OfBatches):
    """The mean of a loss over the examples of a batch, by their weights.

    Args:
        batches: X as `data.as_sequences` takes it or `CodedWords`, and y, numbers.
        sample_weight: `[N]`, the weights of the examples in a batch's mean loss.
        validation: (X, y), not weighted.
    """

    def __init__(
        self,
        batches: Batches,
        sample_weight: Any = None,
        validation: tuple[Any, Any] | None = None,
    ):
        super().__init__(batches, validation)
        self.X, self.y = as_inputs(batches.X), batches.y.astype(np.float32)
        self.weights = example_weights(self.y, None, sample_weight)

    @abstractmethod
    def losses(self, found: Tensor, y: Tensor) -> Tensor:
        """The loss `[B]` of each of a network's answers `[B, …]` to examples with y `[B, …]`."""

    def measured(self, found: Tensor, y: Tensor) -> dict[str, float]:
        """Further measures of a batch."""
        return {}

    def loss(self, net: torch.nn.Module) -> Share:
        indices = self.next_rows()
        x, lengths = tensors(self.X, indices)
        y = torch.tensor(self.y[indices])
        found = net(x, lengths)
        losses, measured = self.losses(found, y), self.measured(found, y)
        if self.weights is None:
            return Share(losses.mean(), len(y), measured, len(y))
        weights = torch.tensor(self.weights[indices])
        total = weights.sum()
        loss = (weights * losses).sum() / total.clamp(min=torch.finfo(weights.dtype).tiny)
        return Share(loss, total.item(), measured, len(y))

    def fingerprint(self, *more: Any) -> str:
        chosen = probed(len(self.y))
        weights = None if self.weights is None else self.weights[chosen]
        return fingerprint(self.X, chosen, self.y[chosen], weights, *more)


def planned(plan: Plan, n: int) -> Plan:
    """A plan whose batches have at most all n examples."""
    return replace(plan, batch_size=min(plan.batch_size, n))


def check_start(model: Architecture) -> None:
    """Raise ValueError if initial weights are asked for that only classifiers have."""
    if model.init != "default":
        raise ValueError(f"init={model.init!r} is for classifiers; wanted 'default'")


def check_several_classes(encoder: LabelEncoder) -> None:
    """Raise ValueError if there is only one label to learn."""
    if len(encoder) < 2:
        raise ValueError(
            f"y has one class only, {encoder.classes.tolist()[0]!r}; wanted two or more to tell "
            "apart"
        )


def reading(
    X: Steps, model: Architecture, words: WordSettings, start: SequenceReader | None
) -> tuple[WordVocabulary | None, dict[str, Any]]:
    """The vocabulary of words, if X has any, and the arguments of a network that reads X.

    Args:
        X: the sequences to learn from.
        model, words: the settings of the network.
        start: the model that it begins with, whose vocabulary is kept.
    """
    arguments: dict[str, Any] = {"n_features": width_of(X), **asdict(model)}
    if not isinstance(X, Words):
        return None, arguments
    known = None if start is None else start.vocabulary
    vocabulary = known or WordVocabulary.fit(X, words.vocabulary_size)
    sizes = {"n_words": vocabulary.n_words, "embedding_size": words.embedding_size}
    return vocabulary, arguments | sizes
