"""`FittedTagger`: a trained network that labels every step, and its training. No scikit-learn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from inspect import signature
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ostinato.data import LabelEncoder, Ragged
from ostinato.data.sequences.as_sequences import as_sequences, shape_sequences
from ostinato.data.sequences.prepare import Preparation
from ostinato.data.sequences.steps import (
    Steps,
    as_labels,
    as_steps,
    encoded,
    lengths_of,
    values_of,
    width_of,
)
from ostinato.data.tables.feature_names import as_trained, check_columns, column_names
from ostinato.data.text.words import Integers, Words, WordVocabulary
from ostinato.hyperparameters import Architecture
from ostinato.metrics.spans import SpanScores, can_follow, span_scores
from ostinato.tasks.forecast.windows import Columns
from ostinato.tasks.tag.loss import (
    Allowed,
    Inputs,
    Scores,
    TagAnswers,
    TaggerSettings,
    Tagging,
    answered,
    scored,
)
from ostinato.tasks.tag.net import TaggerNet
from ostinato.training import loop, saved_model
from ostinato.training.build import built
from ostinato.training.callbacks import Callback
from ostinato.training.history import History
from ostinato.training.plan import Plan
from ostinato.training.remembered import Remembered
from ostinato.training.saved_model import SavedModel
from ostinato.training.start import check_classes, check_network, check_same_columns
from ostinato.training.tensor_file import fill

KIND = "sequence_tagger"
SPANS_AT_ONCE = 1 << 18  # steps whose spans are compared at a time: a tag as an object has 60 bytes
_KEPT = {"classes", "feature_names", "preparation", "scale", "scheme", "vocabulary"}


@dataclass(frozen=True)
class Tagged:
    """Sequences with a label for each step, checked.

    Attributes:
        X: the sequences, N of them.
        y: the labels of each as class numbers.
        encoder: the encoder of the labels.
        feature_names: the names of the columns, if X was a data frame.
        validation: further sequences and labels, (X, y).
    """

    X: Steps
    y: Integers
    encoder: LabelEncoder
    feature_names: np.ndarray | None = None
    validation: tuple[Steps, Integers] | None = None

    @staticmethod
    def of(
        X: Any, y: Any, scheme: str | None = None, encoder: LabelEncoder | None = None
    ) -> Tagged:
        """Check sequences, as `as_steps` takes them, and the labels of their steps.

        Args:
            X: N sequences, or one.
            y: N sequences of labels, or the labels of the one sequence.
            scheme: how the labels write spans; they become those of iob2.
            encoder: the encoder of the labels; by default that of the labels that occur.

        Raises:
            ValueError: X or y cannot be used, there is not a label for each step, there are fewer
                than two different labels, or a label that the encoder does not know.
            TypeError: X has words and other things.
        """
        sequences, is_one = as_steps(X)
        lengths = lengths_of(sequences)
        encoder, numbers = encoded([y] if is_one else y, lengths, scheme, encoder)
        if len(encoder) < 2:
            raise ValueError(
                f"y has one class only, {encoder.classes.tolist()[0]!r}; wanted two or more to "
                "tell apart"
            )
        return Tagged(sequences, numbers, encoder, column_names(X))

    def validated_by(self, X: Any, y: Any, scheme: str | None = None) -> Tagged:
        """The data with further sequences, of the same features and labels, for validation."""
        check_columns(X, self.feature_names, "SequenceTagger")
        sequences, is_one = as_steps(X)
        _check_features(sequences, width_of(self.X))
        lengths = lengths_of(sequences)
        _, numbers = encoded([y] if is_one else y, lengths, scheme, self.encoder)
        return replace(self, validation=(sequences, numbers))

    def prepared_by(self, preparation: Preparation) -> Tagged:
        """The data, prepared by a model's preparation of features in this order."""

        def of(X: Steps) -> Steps:
            if isinstance(X, Words):
                return X
            return as_sequences(preparation.apply_in_order(X))

        held_out = self.validation and (of(self.validation[0]), self.validation[1])
        return replace(self, X=of(self.X), validation=held_out)

    def split(self, fraction: float, seed: int) -> Tagged:
        """Keep a share of the sequences, drawn at random, for validation; both in their order.

        Raises:
            ValueError: nothing would be left on one side.
        """
        n = len(self.y)
        kept = round(fraction * n)
        if not 0 < kept < n:
            raise ValueError(
                f"validation_fraction={fraction} of {n} sequences leaves {kept} for validation and "
                f"{n - kept} to learn from; wanted one or more of each: give more sequences, or "
                "cut a long one into parts"
            )
        order = np.random.default_rng(seed).permutation(n)
        held_out, rest = np.sort(order[:kept]), np.sort(order[kept:])
        return replace(
            self,
            X=self.X[rest],
            y=self.y.take(rest),
            validation=(self.X[held_out], self.y.take(held_out)),
        )


@dataclass(frozen=True)
class FittedTagger:
    """A trained network with all that turns its outputs into a user's labels.

    Sequences `X` are whatever `as_steps` takes.

    Attributes:
        net: the network.
        classes: `[C]`, the labels by class number.
        scale: the scale of the features; None if they are not scaled, or words.
        vocabulary: the vocabulary; None if the steps are vectors.
        scheme: how the labels of the training wrote spans; `classes` and predictions are then tags
            of iob2.
        feature_names: `[F]`, the columns of the data frame it was trained on; None if it was none.
        preparation: the preparation of examples before the network reads them; None: nothing.
    """

    net: TaggerNet
    classes: np.ndarray
    scale: Columns | None = None
    vocabulary: WordVocabulary | None = None
    scheme: str | None = None
    feature_names: np.ndarray | None = None
    preparation: Preparation | None = None

    @staticmethod
    @torch.inference_mode(False)  # the caller's mode would make tensors without gradients
    def fit(
        given: Tagged,
        model: Architecture,
        settings: TaggerSettings,
        plan: Plan,
        *,
        warm_up: float | None = None,
        start: FittedTagger | None = None,
        callbacks: Sequence[Callback] = (),
        resume: str | Path | None = None,
    ) -> tuple[FittedTagger, History]:
        """Train a network.

        Args:
            given: the sequences. Batches are no larger than they are many.
            model, settings, plan: the network, and how to train it.
            warm_up: the share of the updates over which the learning rate rises, instead of
                `plan.warmup` of them.
            start: a tagger of the same sizes and labels, whose weights, words and scales are the
                start.
            callbacks, resume: see `training.train`.

        Raises:
            ValueError: something does not fit together.
            Diverged: the loss became NaN or infinite.
        """
        if model.init != "default":
            raise ValueError(f"init={model.init!r} is for classifiers; wanted 'default'")
        plan = replace(plan, batch_size=min(plan.batch_size, len(given.y)))
        if warm_up is not None:
            plan = replace(plan, warmup=int(warm_up * plan.total_iterations(len(given.y))))
        X, vocabulary, scale = given.X, None, None
        if start is not None:
            _check_features(X, start.net.config["n_features"])
            vocabulary, scale = start.vocabulary, start.scale
        elif isinstance(X, Words):
            vocabulary = WordVocabulary.fit(X, settings.vocabulary_size)
        elif settings.standardize:
            scale = Columns.of(values_of(X).astype(np.float64))
        net = built(_net, len(given.encoder), X, vocabulary, model, settings, seed=plan.seed)
        if start is not None:
            check_classes(start.classes, given.encoder.classes)
            check_same_columns(start.feature_names, given.feature_names)
            check_network(
                {**start.net.config, "spans": start.scheme is not None},
                {**net.config, "spans": settings.scheme is not None},
            )
            net.load_state_dict(start.net.state_dict())
        trained = FittedTagger(
            net,
            given.encoder.classes,
            scale,
            vocabulary,
            settings.scheme,
            given.feature_names,
        )
        validation = given.validation
        task = Tagging(
            trained.inputs(X),
            given.y,
            plan.batch_size,
            plan.seed,
            similar_lengths=plan.similar_lengths,
            once=_once(X, vocabulary),
            allowed=trained.allowed,
            validation=validation and (trained.inputs(validation[0]), validation[1]),
        )
        history = loop.learn(net, task, plan, callbacks=callbacks, resume=resume)
        return trained, history

    @functools.cached_property
    def allowed(self) -> Allowed | None:
        """Which label may follow which, and which may be the first; None if all may."""
        if self.scheme is None:
            return None
        tags = self.classes.tolist()
        follow = [[can_follow(tag, before) for tag in tags] for before in tags]
        return torch.tensor(follow), torch.tensor([can_follow(tag, None) for tag in tags])

    @property
    def n_features(self) -> int | None:
        """The number of features of a step, before preparation; None if steps are words."""
        if self.preparation is None or self.vocabulary is not None:
            n: int | None = self.net.config["n_features"]
            return n
        return len(self.preparation.features)

    def prepared(self, X: Any) -> tuple[Steps, bool]:
        """A user's sequences, or `Examples`, made ready for `inputs`; and whether X is a single
        one.

        Raises:
            ValueError: X has other features than the training data, or cannot be used.
        """
        if self.preparation is not None and self.preparation.knows(X):
            return as_steps(self.preparation.apply(X))
        X = self.in_order(X)
        shaped = as_sequences if self.preparation is None else shape_sequences
        sequences, is_one = as_steps(X, shaped)
        _check_features(sequences, self.n_features)
        if self.preparation is not None and not isinstance(sequences, Words):  # by their order
            sequences = as_sequences(self.preparation.apply_in_order(sequences))
        return sequences, is_one

    def in_order(self, X: Any) -> Any:
        """X with the columns of its data frames in the order of the training; see `as_trained`."""
        preparation = None if self.vocabulary is not None else self.preparation
        return as_trained(X, self.feature_names, preparation, "SequenceTagger")

    def inputs(self, X: Steps) -> Inputs:
        """Sequences as the network reads them: standardised, or words as numbers."""
        if isinstance(X, Words):
            assert self.vocabulary is not None
            return self.vocabulary.code(X)
        if self.scale is None:
            return X
        standard = self.scale.standard(values_of(X)).astype(np.float32)
        return Ragged(standard, X.offsets) if isinstance(X, Ragged) else standard.reshape(X.shape)

    def predict(self, X: Any) -> list[np.ndarray] | np.ndarray:
        """The likeliest labels of each sequence: N arrays `[T_i]`, or `[T]` for one sequence.

        Raises:
            ValueError: X cannot be used, or has other features than the training data; or an
                answer is NaN or infinite.
        """
        return self._of_each(X, self._best_of)

    def predict_proba(self, X: Any) -> list[np.ndarray] | np.ndarray:
        """The probability of each label at each step: N arrays `[T_i, C]`, or `[T, C]` for one.

        With a CRF the whole sequence is taken into account.
        """
        return self._of_each(X, self._proba_of)

    def predict_with_proba(self, X: Any) -> Any:
        """Both for each sequence, as a pair; the network runs once."""

        def both(batch: Scores) -> Iterator[tuple[int, Any]]:
            pairs = zip(self._best_of(batch), self._proba_of(batch), strict=True)
            return ((i, (best, proba)) for (i, best), (_, proba) in pairs)

        return self._of_each(X, both)

    def evaluate(self, X: Any, y: Any) -> dict[str, Any]:
        """Measure the tagger on labelled sequences.

        Returns:
            accuracy (share of the steps whose label is right), loss (−log P of the labels, in nats
            per step) and n (steps). With a scheme also precision, recall and f1 of the spans; with
            words also unknown, the share of words that were not in the training.

        Raises:
            ValueError: as `predict`; or y has not a known label for each step.
        """
        sequences, is_one = self.prepared(X)
        labels = [y] if is_one else y
        return self.measured(sequences, labels, self.answers(sequences, labels, sure=False))

    def answers(self, X: Steps, y: Any, sure: bool = True) -> TagAnswers:
        """The answers to labelled sequences, for `measured`.

        Args:
            X: N sequences, as `prepared` makes them.
            y: the labels of each.
            sure: whether to give the probabilities, too.
        """
        encoder, lengths = LabelEncoder(self.classes), lengths_of(X)
        _, numbers = encoded(y, lengths, self.scheme, encoder)
        return answered(self.net, self._scored(X), numbers, self.allowed, sure)

    def measured(self, X: Steps, y: Any, answers: TagAnswers) -> dict[str, Any]:
        """The measures of `evaluate` from the answers to X and y."""
        n = len(answers.best)
        measures: dict[str, Any] = {
            "loss": answers.loss / n,
            "accuracy": answers.n_right / n,
            "n": n,
        }
        if self.scheme is not None:
            scores = self._span_scores(y, answers)
            measures |= {name: getattr(scores, name) for name in ("precision", "recall", "f1")}
        if isinstance(X, Words):
            assert self.vocabulary is not None
            measures["unknown"] = self.vocabulary.code(X).n_unknown / n
        return measures

    def save(
        self,
        path: Path,
        params: dict[str, Any],
        iterations: int,
        *,
        examples: Any = None,
        measures: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Write the directory of a saved model: all or nothing.

        Args:
            path: the directory.
            params: the arguments of the constructor of `SequenceTagger`.
            iterations: updates made.
            examples, measures: see `saved_model.write`.

        Raises:
            ValueError, OSError: see `saved_model.write`.
        """
        remembered = Remembered(self.classes, self.feature_names, self.preparation, self.vocabulary)
        model = SavedModel.of(
            self.net,
            kind=KIND,
            params=params,
            fitted={
                **remembered.as_json(),
                "scale": self.scale and self.scale.as_json(),
                "scheme": self.scheme,
            },
            iterations=iterations,
        )
        saved_model.write(path, model, examples, measures)

    @staticmethod
    def of(saved: SavedModel, path: Path) -> FittedTagger:
        """The tagger of a saved model; `path` is its origin, for errors.

        Raises:
            ValueError: the configuration, the labels and the weights do not belong together.
        """
        net = built(TaggerNet, **saved.net)
        remembered, scale = Remembered.from_json(saved.fitted, net.config, path), None
        if saved.fitted["scale"] is not None:
            where = f"{path / saved_model.CONFIG}: 'scale'"
            scale = Columns.from_json(saved.fitted["scale"], net.config["n_features"], where)
        fill(net, saved.weights, str(path))
        scheme = TaggerSettings(scheme=saved.fitted["scheme"]).scheme
        return FittedTagger(net.eval(), scale=scale, scheme=scheme, **vars(remembered))

    def _span_scores(self, y: Any, answers: TagAnswers) -> SpanScores:
        """The scores of the predicted spans, computed for some sequences at a time."""
        scores, labels, encoder = SpanScores(0, 0, 0), iter(y), LabelEncoder(self.classes)
        lengths, ends = answers.lengths, np.cumsum(answers.lengths)
        for rows in np.split(
            np.arange(len(ends)), np.flatnonzero(np.diff(ends // SPANS_AT_ONCE)) + 1
        ):
            true = as_labels(list(islice(labels, len(rows))), lengths[rows], self.scheme)
            steps = slice(ends[rows[0]] - lengths[rows[0]], ends[rows[-1]])
            found = np.split(encoder.decode(answers.best[steps]), np.cumsum(lengths[rows])[:-1])
            scores += span_scores([a.tolist() for a in true], [a.tolist() for a in found])
        return scores

    def _of_each(self, X: Any, rows_of: Callable[[Scores], Iterable[tuple[int, Any]]]) -> Any:
        """The results for the rows of each batch, in the order of the sequences of X."""
        sequences, is_one = self.prepared(X)
        answers: list[Any] = [np.empty(0)] * len(sequences)
        for batch in self._scored(sequences):
            for i, answer in rows_of(batch):
                answers[i] = answer
        return answers[0] if is_one else answers

    def _best_of(self, batch: Scores) -> Iterator[tuple[int, np.ndarray]]:
        encoder = LabelEncoder(self.classes)
        best = self.net.best(batch.scores, batch.lengths, self.allowed)
        return ((i, encoder.decode(row)) for i, row in batch.rows(best))

    def _proba_of(self, batch: Scores) -> Iterator[tuple[int, np.ndarray]]:
        proba = self.net.probabilities(batch.scores, batch.lengths)
        return ((i, row.copy()) for i, row in batch.rows(proba))

    def _scored(self, sequences: Steps) -> Any:
        for batch in scored(self.net, self.inputs(sequences)):
            _check_answers(batch)
            yield batch


def load(path: str | Path) -> FittedTagger:
    """The tagger in the directory of a saved model.

    Raises:
        ValueError: a file is missing, damaged, altered or foreign.
    """
    return FittedTagger.of(read(Path(path)), Path(path))


def read(path: Path) -> SavedModel:
    """The saved tagger in a directory, as values."""
    return saved_model.read(path, KIND, set(signature(TaggerNet).parameters), _KEPT)


def _check_features(X: Steps, wanted: int | None) -> None:
    came = width_of(X)
    if (came is None) != (wanted is None):
        has, wants = ("words", "numbers") if came is None else ("numbers", "words")
        raise ValueError(f"X has {has}, but the tagger was trained with {wants}")
    if came != wanted:
        raise ValueError(
            f"X has {came} features, but SequenceTagger is expecting {wanted} features as input, "
            "those it was trained with"
        )


def _check_answers(batch: Scores) -> None:
    for i, row in batch.rows(batch.scores):
        if not np.isfinite(row).all():
            step = int(np.argmin(np.isfinite(row).all(1)))
            raise ValueError(
                f"the network answers example {i}, step {step} with "
                f"{row[step][~np.isfinite(row[step])][0]}; wanted finite numbers: its weights or "
                "the values of X are too large for float32; scale X as for the training, or train "
                "again with a lower learning_rate"
            )


def _net(
    n_classes: int,
    X: Steps,
    vocabulary: WordVocabulary | None,
    model: Architecture,
    settings: TaggerSettings,
) -> TaggerNet:
    arguments = {name: value for name, value in asdict(model).items() if name != "init"}
    arguments |= {"crf": settings.crf}
    if vocabulary is None:
        return TaggerNet(n_classes, width_of(X), **arguments)
    return TaggerNet(
        n_classes,
        n_words=vocabulary.n_words,
        n_characters=vocabulary.n_characters,
        embedding_size=settings.embedding_size,
        character_size=settings.character_size,
        **arguments,
    )


def _once(X: Steps, vocabulary: WordVocabulary | None) -> np.ndarray | None:
    """`[V]`, which words of the vocabulary occur once; only for words."""
    if not isinstance(X, Words) or vocabulary is None:
        return None
    once = np.zeros(vocabulary.n_words, dtype=bool)
    once[vocabulary.code(X).words[X.counts == 1]] = True
    once[0] = False
    return once
