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

from ostinato.data.sequences.as_sequences import as_sequences, shape_sequences
from ostinato.data.sequences.examples import Examples
from ostinato.data.sequences.prepare import Preparation
from ostinato.data.sequences.ragged import Ragged
from ostinato.data.sequences.steps import as_steps, as_texts_or_sequences
from ostinato.data.tables.feature_names import as_trained
from ostinato.data.text.words import CodedWords, Words
from ostinato.runtime import checks
from ostinato.runtime.labelling import Labelling
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


class Classifier(Model):
    """A model that names the class of a whole sequence.

    Attributes:
        several: whether a sequence may have several labels; each then has its own probability.

    Example:
        >>> model = ostinato.runtime.load("runs/gru/model")
        >>> X = np.ones((2, 9, 3), np.float32)
        >>> model.predict(X).dtype, model.predict_proba(X).dtype
        (dtype('<U4'), dtype('float32'))
        >>> measures = model.evaluate(X, ["up", "down"])
        >>> measures["n"], measures["accuracy"]
        (2, 0.5)
    """

    def _take(self, fitted: dict[str, Any], where: str) -> None:
        wanted = {"classes", "feature_names", "preparation", "multilabel", "vocabulary", "early"}
        checks.names(fitted, wanted, where)
        self.encoder = checks.labels(fitted["classes"], self.graph.n_outputs, where)
        self.labels = self.encoder.classes
        self._columns = checks.columns(fitted["feature_names"], where)
        self.preparation = checks.preparation(fitted["preparation"], self.graph, where)
        self.vocabulary = checks.words(fitted["vocabulary"], self.graph, where)
        self.sure_from = checks.threshold(fitted["early"], where)
        if type(fitted["multilabel"]) is not bool:
            fail(f"{where}: 'multilabel' is neither true nor false")
        self.several = fitted["multilabel"]

    @property
    def multilabel(self) -> bool:
        """`several`, by the name that it has in torch."""
        return self.several

    def prepared(self, X: Any) -> Inputs:
        """The sequences that the network reads, made of a user's.

        Raises:
            ValueError: X has other features than the training data, or a value is missing or
                infinite where that is an error.
        """
        if self.vocabulary is not None:
            return self.vocabulary.code(self._words(X))
        if self.preparation is None:
            X = as_trained(X, self._columns, None, "SequenceClassifier")
            sequences = as_texts_or_sequences(X)
            if isinstance(sequences, Words):
                raise ValueError("X has words, but the model was trained with numbers")
            return self._with_features(sequences)
        if self.preparation.knows(X):
            return as_sequences(self.preparation.apply(X))
        X = as_trained(X, self._columns, self.preparation, "SequenceClassifier")
        sequences = self._with_features(shape_sequences(X))
        return as_sequences(self.preparation.apply_in_order(sequences))

    def _words(self, X: Any) -> Words:
        if isinstance(X, Examples) and self.preparation is not None:
            X = self.preparation.apply(X)
        X = as_texts_or_sequences(X.X if isinstance(X, Examples) else X)
        if not isinstance(X, Words):
            raise ValueError("X has numbers, but the model was trained with words")
        return X

    def _with_features(self, sequences: Any) -> Any:
        checks.n_features(sequences, self.n_features)
        return sequences

    def predict_proba(self, X: Any) -> Array:
        """The probability of each label, `[N, C]` float32 in the order of `labels`.

        Args:
            X: `[N, T, F]`, `[N, T]` for one feature, or a list of arrays `[T_i, F]`; of a model
                that reads words, texts or lists of words.

        Raises:
            ValueError: X cannot be used: the message says why.
        """
        sequences = self.prepared(X)
        found = np.empty((len(sequences), len(self.labels)), np.float32)
        for batch in self.answered(sequences):
            found[batch.indices] = batch.answers
        return found

    def predict(self, X: Any) -> Array:
        """The likeliest label of each sequence, `[N]`; with several, `[N, C]` zeros and ones."""
        probabilities = self.predict_proba(X)
        if self.several:
            return (probabilities > 0.5).astype(np.int64)
        return self.encoder.decode(probabilities.argmax(1))

    def evaluate(self, X: Any, y: Any) -> dict[str, Any]:
        """Accuracy, loss (mean cross-entropy in nats) and n over sequences with labels y `[N]`.

        With several labels, y `[N, C]`, the accuracy counts sequences of which all are right.

        Raises:
            ValueError: X cannot be used, or y has not a known label for each sequence.
        """
        from ostinato.runtime import measures

        return measures.of_classifier(self, X, y)


class Tagger(Model):
    """A model that gives a label to every step.

    Attributes:
        scheme: in which spans are written as tags, as "iob2"; None: labels are no tags.

    Example:
        >>> model = ostinato.runtime.load("runs/tags/model")
        >>> x = np.ones((9, 3), np.float32)                     # one sequence, or a list of them
        >>> model.predict(x).shape, model.predict_proba([x, x[:4]])[1].shape
        ((9,), (4, 2))
        >>> labels, shares = model.predict_with_proba(x)
        >>> labels.shape, shares.shape
        ((9,), (9, 2))
        >>> model.evaluate([x], [model.predict(x)])["accuracy"]
        1.0
    """

    def _take(self, fitted: dict[str, Any], where: str) -> None:
        wanted = {"classes", "feature_names", "preparation", "scale", "scheme", "vocabulary"}
        checks.names(fitted, wanted, where)
        self.encoder = checks.labels(fitted["classes"], self.graph.n_outputs, where)
        self.labels = self.encoder.classes
        self._columns = checks.columns(fitted["feature_names"], where)
        self._scale = checks.scale(fitted["scale"], self.graph.n_inputs, where)
        self.preparation = checks.preparation(fitted["preparation"], self.graph, where)
        self.vocabulary = checks.words(fitted["vocabulary"], self.graph, where)
        self._labelling = Labelling.of(self.tensors, self.labels, fitted["scheme"], where)
        self.scheme: str | None = fitted["scheme"]

    def prepared(self, X: Any) -> tuple[Inputs, bool]:
        """The sequences that the network reads; and whether X is only one."""
        prepare = None if self.vocabulary is not None else self.preparation
        if self.preparation is not None and self.preparation.knows(X):
            X, prepare = self.preparation.apply(X), None
        X = as_trained(X, self._columns, prepare, "SequenceTagger")
        sequences, is_one = as_steps(X, shape_sequences if prepare else as_sequences)
        if isinstance(sequences, Words) != (self.vocabulary is not None):
            has, wants = ("words", "numbers") if self.vocabulary is None else ("numbers", "words")
            raise ValueError(f"X has {has}, but the model was trained with {wants}")
        if isinstance(sequences, Words):
            assert self.vocabulary is not None
            return self.vocabulary.code(sequences), is_one
        if prepare is not None:  # features by their order
            checks.n_features(sequences, self.n_features)
            sequences = as_sequences(prepare.apply_in_order(sequences))
        checks.n_features(sequences, self.graph.n_inputs)
        if self._scale is None:
            return sequences, is_one
        mean, deviation = self._scale
        values = sequences.values if isinstance(sequences, Ragged) else sequences
        with np.errstate(over="ignore"):
            values = ((values - mean) / deviation).astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError(
                "X has a value too far from those of the training to be scaled in float32; wanted "
                "values of a similar size"
            )
        if isinstance(sequences, Ragged):
            return Ragged(values, sequences.offsets), is_one
        return values, is_one

    def predict(self, X: Any) -> list[Array] | Array:
        """The likeliest labels of each sequence: N arrays `[T_i]`, or `[T]` for one sequence."""
        return self._of_each(X, lambda scores: self.encoder.decode(self._labelling.best(scores)))

    def predict_proba(self, X: Any) -> list[Array] | Array:
        """The probability of each label at each step: N arrays `[T_i, C]`, or `[T, C]` for one.

        With a CRF they are given the whole sequence.
        """
        return self._of_each(X, self._labelling.probabilities)

    def predict_with_proba(self, X: Any) -> Any:
        """Both for each sequence, as a pair, for the time of one: the network is played once."""
        of, decode = self._labelling, self.encoder.decode
        return self._of_each(X, lambda scores: (decode(of.best(scores)), of.probabilities(scores)))

    def evaluate(self, X: Any, y: Any) -> dict[str, Any]:
        """Accuracy and loss (−log P of the labels, in nats) of a step, and n, the steps.

        With a scheme also precision, recall and f1 of the spans; with words also unknown, the share
        of them that the training did not have.

        Raises:
            ValueError: X cannot be used, or y has not a known label for each step.
        """
        from ostinato.runtime import measures

        return measures.of_tagger(self, X, y)

    def _of_each(self, X: Any, f: Any) -> Any:
        sequences, is_one = self.prepared(X)
        found: list[Any] = [np.empty(0)] * len(sequences)
        for batch in self.answered(sequences):
            for i, answers, n in zip(*batch, strict=True):
                found[i] = f(answers[:n])
        return found[0] if is_one else found


def model_of(saved: Saved, where: str) -> Model:
    """The model that a saved one describes; `where` is its origin, for errors.

    Raises:
        ValueError: its parts do not belong together.
    """
    from ostinato.runtime.forecaster import Forecaster  # which is made of this module
    from ostinato.runtime.language import LanguageModel

    kinds: dict[str, type[Model]] = {
        "sequence_classifier": Classifier,
        "sequence_tagger": Tagger,
        "sequence_forecaster": Forecaster,
        "language_model": LanguageModel,
    }
    if saved.kind not in kinds:
        raise ValueError(
            f"{where} has the kind {saved.kind[:60]!r}; wanted one of {', '.join(kinds)}"
        )
    return kinds[saved.kind](saved, where)


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
