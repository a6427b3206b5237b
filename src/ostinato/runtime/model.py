"""`Model`: a saved model that predicts in a user's labels, without torch.

What comes in is prepared as in the training, cut into batches, played by the engine, and answered
in labels. A sequence has the same bits alone, in any batch, padded or not, on every instruction
set.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from ostinato import tasks
from ostinato.data.sequences.prepare import Preparation
from ostinato.data.sequences.ragged import Ragged
from ostinato.data.text.words import CodedWords
from ostinato.runtime.network import Network
from ostinato.runtime.saved import Saved
from ostinato.runtime.tensors import Array
from ostinato.runtime.values import fail

if TYPE_CHECKING:
    from ostinato.runtime.lookahead import LookaheadStream
    from ostinato.runtime.pool import Pool
    from ostinato.runtime.stream import Stream
    from ostinato.runtime.stream_source import StreamSource

Inputs = np.ndarray | Ragged | CodedWords  # sequences as a network reads them
MAX_ROWS = 1024
MAX_VALUES = 1 << 24  # of one layer's outputs over a batch: 64 MB


class BatchAnswers(NamedTuple):
    """Answers to some sequences.

    Attributes:
        indices: `[B]`, which sequences they are.
        answers: `[B, K]`, or `[B, T, K]`.
        lengths: `[B]`, the steps of each.
    """

    indices: Array
    answers: Array
    lengths: Array


class Model:
    """A saved model, ready to predict. `ostinato.runtime.load` makes it.

    Attributes:
        kind: of the estimator, as "sequence_classifier".
        graph: the network as a value, see `runtime/model_graph.py`.
        tensors: its float32 arrays by name.
        fingerprint: which saved model it is: the SHA-256 of its config.json.
        labels: `[C]`, in the order of the answer's columns; of a language model its tokens.
        preparation: what is done to a user's table; None: nothing.
        sure_from: the probability from which on an answer is sure before a sequence ends; None:
            the training was not asked for it.

    Example:
        >>> model = ostinato.runtime.load("runs/gru/model")
        >>> model.columns is None  # it was trained on arrays, without names
        True
        >>> model.kind, model.n_features, model.labels.tolist(), model.sure_from
        ('sequence_classifier', 3, ['down', 'up'], None)
        >>> model.preparation is None                           # it was trained with arrays
        True
        >>> model.stream(), model.pool(capacity=100)
        (Stream(n=0), Pool(0 of 100 streams))
    """

    labels: Array
    preparation: Preparation | None = None
    _columns: Array | None = None  # of the data frames that it was fitted on
    sure_from: float | None = None

    def __init__(self, saved: Saved, where: str):
        self.kind, self.graph, self.tensors = saved.kind, saved.graph, saved.tensors
        self.fingerprint = saved.fingerprint
        self.network = Network(saved.graph, saved.tensors)
        if (saved.graph.ahead is not None) != (saved.kind == "sequence_forecaster"):
            fail(f"{where}: the graph is not that of a {saved.kind[:60]}")
        self._net = saved.net
        self._take(saved.fitted, where)

    def _take(self, fitted: dict[str, Any], where: str) -> None:
        """Take what the kind needs beside the network."""
        raise NotImplementedError

    def __repr__(self) -> str:
        layers = ", ".join(layer.name for layer in self.graph.layers)
        return f"{type(self).__name__}({self.kind}: {layers}; {len(self.labels)} labels)"

    @property
    def reads_tokens(self) -> bool:
        """Whether a step is the number of a token."""
        return False

    def stream_parts(self) -> dict[str, Any]:
        """What a stream of this model needs beside the network; see `RowSource`.

        Raises:
            ValueError: there are no streams of such models, or not of this one.
        """
        raise ValueError(f"a {self.kind} has no streams in this version")

    def _scaling(self) -> dict[str, Any]:
        """How a stream reads rows of numbers."""
        from ostinato.runtime.stream_source import scaling_of

        if self.preparation is None:
            return {}
        return {"scaling": scaling_of(self.preparation)}

    @property
    def classes(self) -> Array:
        """`labels`, by the name that they have in torch."""
        return self.labels

    @property
    def columns(self) -> list[str] | None:
        """The names of a step's features; None if the model was trained without names."""
        if self.preparation is not None and self.preparation.roles is not None:
            return [feature.name for feature in self.preparation.features]
        if self._columns is None or len(self._columns) != self.n_features:  # or they are steps
            return None
        return list(self._columns)

    @property
    def n_features(self) -> int:
        """Features of a step, before they are prepared; a token is one."""
        if self.graph.embed is not None:
            return 1
        if self.preparation is None:
            return self.graph.n_inputs
        return len(self.preparation.features)

    @cached_property
    def _source(self) -> StreamSource:
        from ostinato.runtime.stream_source import StreamSource, source_of

        return source_of(self, StreamSource)

    @overload
    def stream(self, state: bytes | None = None, *, finite: bool = True) -> Stream: ...
    @overload
    def stream(
        self, state: bytes | None = None, *, finite: bool = True, lookahead: int
    ) -> LookaheadStream: ...
    def stream(
        self, state: bytes | None = None, *, finite: bool = True, lookahead: int | None = None
    ) -> Stream | LookaheadStream:
        """A sequence that comes step by step.

        Args:
            state: what a stream's `save` gave, to go on from there.
            finite: whether NaN and infinite values are refused.
            lookahead: k; of a model that also reads from the end to the beginning: the answer for
                a step comes k steps later, and its backward directions read these k steps alone.
                See `LookaheadStream` for the equation.

        Raises:
            ValueError: the model cannot answer step by step, or not so, the message says why; or
                the state is another model's, or of another lookahead.
        """
        if lookahead is not None:
            from ostinato.runtime.lookahead import LookaheadStream, lookahead_source

            late = LookaheadStream(lookahead_source(self, lookahead), finite)
            if state is not None:
                late.restore(state)
            return late
        from ostinato.runtime.stream import Stream

        stream = Stream(self._source, finite)
        if state is not None:
            stream.restore(state)
        return stream

    def pool(self, capacity: int, *, finite: bool = True) -> Pool:
        """Many streams, of which any are pushed together; arguments and errors as of `stream`."""
        from ostinato.runtime.pool import Pool

        return Pool(self._source, capacity, finite)

    def answered(self, sequences: Inputs) -> Iterator[BatchAnswers]:
        """The head's answers to sequences as the network reads them, some at a time.

        Ragged sequences go in order of their length, so that a batch has little padding.

        Raises:
            ValueError: an answer is NaN or infinite.
        """
        widest = max(self.graph.n_inputs, *(layer.width for layer in self.graph.layers))
        if isinstance(sequences, np.ndarray):
            n_steps = sequences.shape[1]
            most = max(1, min(MAX_ROWS, MAX_VALUES // (n_steps * widest)))
            for start in range(0, len(sequences), most):
                some = sequences[start : start + most]  # a view
                indices = np.arange(start, start + len(some))
                lengths = np.full(len(some), n_steps)
                yield _checked(BatchAnswers(indices, self.network.answers(some), lengths))
            return
        lengths = sequences.lengths
        order = np.argsort(lengths, kind="stable")
        start = 0
        while start < len(order):
            here = order[start : start + MAX_ROWS]
            fit = np.arange(1, len(here) + 1) * lengths[here] * widest <= MAX_VALUES
            indices = here[: max(1, int(fit.sum()))]
            start += len(indices)
            answers = self.network.answers(*self.batch(sequences, indices))
            yield _checked(BatchAnswers(indices, answers, lengths[indices]))

    def batch(self, sequences: Inputs, indices: Array) -> tuple[Array, Array | None]:
        """Some sequences `[B, T, F]`, zero beyond their lengths `[B]`; None: all have T steps."""
        if isinstance(sequences, CodedWords):
            words = sequences.arrays(indices)
            vectors = self.network.vectors(words.words, words.characters, words.n_characters)
            return vectors[words.places], words.lengths
        some = sequences[indices]
        return some.padded() if isinstance(some, Ragged) else (some, None)


def model_of(saved: Saved, where: str) -> Model:
    """The model that a saved one describes; `where` is its origin, for errors.

    Raises:
        ValueError: its parts do not belong together.
    """
    made: Model = tasks.by_kind(saved.kind, where).module("model").MODEL(saved, where)
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
            "training"
        )
    return batch
