"""`Model`: a trained model that answers in a user's terms, without torch.

Sequences are prepared as in the training and cut into batches, a network gives outputs, and these
become answers. The network is a saved graph that the engine plays, or a PyTorch module (see
`runtime/network.py`); the code here is the same for both. From a graph, a sequence gets the same
bits alone, in any batch, padded or not, on every instruction set. The kinds of models are in
`tasks/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

from ostinato_learn import tasks
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.data.tables.frames import to_answer
from ostinato_learn.runtime.model_graph import ModelGraph
from ostinato_learn.runtime.network import Inputs, Network
from ostinato_learn.runtime.values import Array, fail

if TYPE_CHECKING:
    from typing_extensions import Self

    from ostinato_learn.runtime.pool import Pool
    from ostinato_learn.runtime.stream import Stream
    from ostinato_learn.runtime.stream_source import StreamSource
    from ostinato_learn.saved.read import Saved

MAX_ROWS = 1024
MAX_VALUES = 1 << 24  # of one layer's outputs over a batch: 64 MB


class AnyNetwork(Protocol):
    """The methods of a `Network` that models use."""

    @property
    def graph(self) -> ModelGraph: ...
    @property
    def tensors(self) -> Mapping[str, Array]: ...
    @property
    def n_inputs(self) -> int: ...
    @property
    def reads_words(self) -> bool: ...
    @property
    def widest(self) -> int: ...
    def rows(self, sequences: Inputs, chosen: Array | slice) -> Array: ...
    def forecasts(self, x: Array, known: Array) -> Array: ...
    def read(self, tokens: Array, carry: Any, each: bool) -> tuple[Array, Any]: ...


class BatchAnswers(NamedTuple):
    """Answers to some sequences.

    Attributes:
        indices: `[B]`, the numbers of the sequences.
        answers: `[B, K]`, or `[B, T, K]`.
        lengths: `[B]`, the steps of each.
    """

    indices: Array
    answers: Array
    lengths: Array


@dataclass(eq=False, repr=False, kw_only=True)
class Model:
    """A model, ready to predict. `ostinato_learn.runtime.load` makes it, and the training.

    Attributes:
        network: gives the outputs.
        fingerprint: the SHA-256 of a saved model's config.json; "" for a model that was not loaded.
        kind: the kind of the estimator, such as "sequence_classifier".
        labels: `[C]`, in the order of the answer's columns; for a language model its tokens.
        preparation: the preparation of a user's table; None: nothing.
        feature_names: the columns of the data frame that it was trained on; None if it was none.
        sure_from: the probability from which on an answer is sure before a sequence ends; None: the
            training did not look for one.

    Example:
        >>> model = ostinato_learn.runtime.load("runs/gru/model")
        >>> model.columns is None  # it was trained on arrays, without names
        True
        >>> model.kind, model.n_features, model.labels.tolist(), model.sure_from
        ('sequence_classifier', 3, ['down', 'up'], None)
        >>> model.preparation is None                           # it was trained with arrays
        True
        >>> model.stream(), model.pool(capacity=100)
        (Stream(n=0), Pool(0 of 100 streams))
        >>> model.read("trips.csv")
        Traceback (most recent call last):
        ...
        ValueError: trips.csv: the model was trained without names of columns, which a file needs; \
wanted arrays, or a model fitted with label=
    """

    task: ClassVar[str]  # its name in the registry
    looks_ahead: ClassVar[bool] = False  # whether its graph answers for steps to come

    network: Any  # an `AnyNetwork`
    fingerprint: str = ""
    preparation: Preparation | None = None
    feature_names: Array | None = None

    @classmethod
    def of(cls, saved: Saved, where: str, network: AnyNetwork | None = None) -> Self:
        """The model from a saved one; `where` is its origin, for errors.

        Args:
            network: the network that gives the outputs; by default the saved graph.

        Raises:
            ValueError: its parts do not belong together.
        """
        if saved.graph is not None and (saved.graph.ahead is not None) != cls.looks_ahead:
            fail(f"{where}: the graph is not that of a {saved.kind[:60]}")
        if network is None:
            assert saved.graph is not None
            network = Network(saved.graph, saved.tensors)
        return cls(network=network, fingerprint=saved.fingerprint, **cls.values(saved, where))

    @classmethod
    def values(cls, saved: Saved, where: str) -> dict[str, Any]:
        """The fields of a kind, from the entries "fitted" and "net" of a saved model, checked.

        Raises:
            ValueError: they do not belong together.
        """
        raise NotImplementedError

    def fitted(self) -> dict[str, Any]:
        """The entry "fitted" of a saved model, which `values` reads."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """The fields; what is made of them is made again."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __repr__(self) -> str:
        layers = ", ".join(layer.name for layer in self.graph.layers)
        return f"{type(self).__name__}({self.kind}: {layers}; {len(self.labels)} labels)"

    @property
    def kind(self) -> str:
        """The kind of its estimator, as a saved model names it."""
        return tasks.named(self.task).kind

    @property
    def graph(self) -> ModelGraph:
        """The network as a value; see `runtime/model_graph.py`."""
        graph: ModelGraph = self.network.graph
        return graph

    @property
    def tensors(self) -> Mapping[str, Array]:
        """The network's float32 arrays by name."""
        tensors: Mapping[str, Array] = self.network.tensors
        return tensors

    @property
    def net(self) -> Any:
        """The PyTorch module, if the model has one."""
        return self.network.module

    @property
    def labels(self) -> Array:
        """`[C]`, in the order of the answer's columns."""
        raise NotImplementedError

    @property
    def sure_from(self) -> float | None:
        """The probability from which on an answer is sure, or None."""
        return None

    @property
    def reads_tokens(self) -> bool:
        """Whether a step is the number of a token."""
        return False

    @property
    def gives_numbers(self) -> bool:
        """Whether answers are numbers, and not labels with their probabilities."""
        return False

    @property
    def scaling(self) -> tuple[Array, Array] | None:
        """Mean and deviation of each feature, if a model without a preparation scales them."""
        return None

    @property
    def needs_whole(self) -> str | None:
        """Why an answer needs the whole sequence, apart from the network; None: it does not."""
        return None

    def answer_names(self) -> list[str]:
        """A description of each number of an answer, for exports."""
        return [f"the probability of {label!r}" for label in self.labels.tolist()]

    def described_answer(self) -> dict[str, Any]:
        """The description of the outputs in an exported file: the entry "answer", and further
        ones."""
        return {"answer": "probabilities"}

    def stream_parts(self) -> dict[str, Any]:
        """The arguments of a stream of this model besides the network; see `StreamSource`.

        Raises:
            ValueError: models of this kind have no streams, or this model has none.
        """
        kind = self.kind.replace("_", " ")
        raise ValueError(f"a {kind} reads whole series, and has no streams")

    def _scaling(self) -> dict[str, Any]:
        """How a stream reads rows of numbers."""
        from ostinato_learn.runtime.stream_source import RowScaling, scaling_of

        if self.preparation is not None:
            return {"scaling": scaling_of(self.preparation)}
        if self.scaling is None:
            return {}
        mean, deviation = self.scaling
        return {"scaling": RowScaling(mean, deviation, np.full(len(mean), np.nan))}

    @property
    def columns(self) -> list[str] | None:
        """The names of a step's features; None if the model was trained without names."""
        if self.preparation is not None and self.preparation.roles is not None:
            return [feature.name for feature in self.preparation.features]
        names = self.feature_names
        if names is None or len(names) != self.n_features:  # or they are steps
            return None
        return list(names)

    @property
    def n_features(self) -> int:
        """The number of features of a step, before preparation; a token counts as one."""
        if self.network.reads_words:
            return 1
        if self.preparation is None:
            return int(self.network.n_inputs)
        return len(self.preparation.features)

    def read(self, X: Any, answers: bool = False) -> Any:
        """The `data.Examples` of a table whose columns the model knows; anything else unchanged.

        Args:
            X: a data frame, the path of a file, or what the model answers otherwise.
            answers: whether the answers are read, too, as `y`.

        Raises:
            ValueError: the table cannot be read, or the model was trained without names.
        """
        return to_answer(X, None if self.preparation is None else self.preparation.roles, answers)

    @cached_property
    def _source(self) -> StreamSource:
        from ostinato_learn.runtime.stream_source import StreamSource

        return StreamSource(
            self.network,
            self.labels.tolist(),
            fingerprint=self.fingerprint,
            sure_from=self.sure_from,
            columns=self.columns,
            **self.stream_parts(),
        )

    def stream(self, state: bytes | None = None, *, finite: bool = True) -> Stream:
        """A sequence that comes step by step.

        Args:
            state: a result of a stream's `save`, to continue from there.
            finite: whether NaN and infinite values are refused.

        Raises:
            ValueError: the model cannot answer step by step (the message says why); or the state
                belongs to another model.
        """
        from ostinato_learn.runtime.stream import Stream

        stream = Stream(self._source, finite)
        if state is not None:
            stream.restore(state)
        return stream

    def pool(self, capacity: int, *, finite: bool = True) -> Pool:
        """Many streams, any of which are pushed together; arguments and errors as for `stream`."""
        from ostinato_learn.runtime.pool import Pool

        return Pool(self._source, capacity, finite)

    def answered(self, sequences: Inputs) -> Iterator[BatchAnswers]:
        """The network's outputs for sequences as it reads them, some at a time.

        Ragged sequences are read in order of their length, so that a batch has little padding.

        Raises:
            ValueError: an output is NaN or infinite.
        """
        widest = self.network.widest
        if isinstance(sequences, np.ndarray):
            n_steps = sequences.shape[1]
            most = max(1, min(MAX_ROWS, MAX_VALUES // (n_steps * widest)))
            for start in range(0, len(sequences), most):
                stop = min(start + most, len(sequences))
                indices = np.arange(start, stop)
                lengths = np.full(stop - start, n_steps)
                answers = self.network.rows(sequences, slice(start, stop))
                yield _checked(BatchAnswers(indices, answers, lengths))
            return
        lengths = sequences.lengths
        order = np.argsort(lengths, kind="stable")
        start = 0
        while start < len(order):
            here = order[start : start + MAX_ROWS]
            fit = np.arange(1, len(here) + 1) * lengths[here] * widest <= MAX_VALUES
            indices = here[: max(1, int(fit.sum()))]
            start += len(indices)
            answers = self.network.rows(sequences, indices)
            yield _checked(BatchAnswers(indices, answers, lengths[indices]))


def model_of(saved: Saved, where: str) -> Model:
    """The model from a saved one; `where` is its origin, for errors.

    Raises:
        ValueError: its parts do not belong together.
    """
    made: Model = tasks.by_kind(saved.kind, where).module("model").MODEL.of(saved, where)
    return made


def _checked(batch: BatchAnswers) -> BatchAnswers:
    """The batch, if its answers are finite."""
    finite = np.isfinite(batch.answers)
    if finite.all():
        return batch
    wrong = ~finite
    if wrong.ndim == 3:
        beyond = np.arange(wrong.shape[1]) >= batch.lengths[:, None]
        wrong[beyond] = False
    n_wrong = np.count_nonzero(wrong.reshape(len(wrong), -1), axis=1)
    if n_wrong.any():
        raise ValueError(
            f"the network's answer to example {batch.indices[np.argmax(n_wrong > 0)]} is not "
            "finite: its weights or the values of X are too large for float32; scale X as for the "
            "training, or train again with a lower learning_rate"
        )
    return batch
