"""`as_steps` and `as_labels`: sequences of which every step has a label, as a user gives them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.as_array import as_array, check_in_time
from ostinato_learn.data.sequences.as_sequences import as_sequences
from ostinato_learn.data.sequences.labels import LabelEncoder
from ostinato_learn.data.sequences.mapped import Series
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.text.words import Integers, Words, words_of
from ostinato_learn.metrics.spans import in_iob2, to_iob2

Steps = np.ndarray | Ragged | Words


class CodedLabels(Series):
    """The labels of N sequences as their numbers, on disk or in memory.

    Args:
        stored: `[n]`, the number of each step's label.
        lengths, starts: as for `Series`.
        stand_for: `[C]`, all labels.
    """

    @property
    def classes(self) -> np.ndarray:
        """`[C]`, all labels that there may be."""
        assert self.stand_for is not None
        return self.stand_for

    @cached_property
    def counts(self) -> np.ndarray:
        """`[C]`, how often each label occurs."""
        return self.numbered(None).counts(len(self.classes))

    def numbered(self, numbers: np.ndarray | None) -> Integers:
        """A number for each label, `[C]`; None: its place."""
        return Integers(self.stored, self.lengths, self.starts, numbers)

    def encoded(
        self, scheme: str | None, encoder: LabelEncoder | None
    ) -> tuple[LabelEncoder, Integers]:
        """See `encoded`.

        Raises:
            ValueError: the encoder or the scheme does not have a label.
        """
        occur = self.counts > 0
        names = self.classes[occur]
        if scheme is not None:
            for i, labels in enumerate(self):
                _in_scheme(i, labels, scheme)
            names = np.array([in_iob2(str(label), scheme) for label in names])
        if encoder is None:
            encoder, numbers = LabelEncoder.fit(names)
        else:
            numbers = encoder.encode(names)
        table = np.full(len(self.classes), -1, np.int64)
        table[occur] = numbers
        return encoder, self.numbered(table)


def as_steps(X: Any, shaped: Callable[[Any], Any] = as_sequences) -> tuple[Steps, bool]:
    """Sequences of vectors, numbers or words, as they are labelled; and whether X is only one.

    Args:
        X: N sequences: an array `[N, T, F]`; a list of arrays `[T_i, F]`, or `[T_i]` for one
            feature; a `Ragged`; a list of lists of strings. Or one sequence: an array or data frame
            `[T, F]`, or a list of strings.
        shaped: the function that makes sequences of numbers, and checks them.

    Raises:
        ValueError: X cannot be used; see `data.as_sequences`.
        TypeError: X has words and other things.
    """
    if isinstance(X, (Ragged, Words)):
        return X, False
    if hasattr(X, "to_list"):  # a column of a data frame
        X = X.to_list()
    if isinstance(X, np.ndarray) and (X.dtype.kind in "UT" or _holds_lists_or_texts(X)):
        X = X.tolist()
    if isinstance(X, (list, tuple)) and _are_columns_of_texts(X):
        X = [sequence.to_list() if hasattr(sequence, "to_list") else sequence for sequence in X]
    if isinstance(X, (list, tuple)):
        if len(X) and isinstance(X[0], str):
            return Words.of([X]), True
        if isinstance(_first_step(X), str):
            return _words(X), False
        return shaped(X), False
    if getattr(X, "ndim", None) == 2:  # also a data frame, a tensor
        if hasattr(X, "toarray"):
            return shaped(X), False  # refuses sparse arrays
        check_in_time(X, "X")
        values = as_array(X)
        if values.shape[1] and len(values):
            return shaped(values[None]), True
    return shaped(X), False


def as_texts_or_sequences(X: Any) -> Steps:
    """Sequences that are classified as a whole.

    Args:
        X: as `data.as_sequences` takes it; or N texts, or N lists of words.

    Raises:
        ValueError: X cannot be used.
        TypeError: X has words and other things.
    """
    if isinstance(X, Words):
        return X
    values = X.to_list() if hasattr(X, "to_list") else X  # a column of a data frame
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "UOT":
        values = values.tolist()
    if not isinstance(values, (list, tuple)) or not len(values):
        return as_sequences(X)
    if isinstance(values[0], str):
        wrong = [i for i, text in enumerate(values) if not isinstance(text, str)]
        if wrong:
            raise TypeError(
                f"X has {values[wrong[0]]!r} at example {wrong[0]}; wanted a text, since the first "
                "example is one"
            )
        return Words.of([words_of(text) for text in values])
    return _words(values) if isinstance(_first_step(values), str) else as_sequences(X)


def _words(X: Any) -> Words:
    """Words of N lists, unless they are numbers written as texts; whole ones may name things.

    Raises:
        ValueError: they are.
    """
    found = Words.of(X)
    try:
        numbers = [float(word) for word in found.different]
    except ValueError:
        return found
    for word, number in zip(found.different, numbers, strict=True):
        if not number.is_integer():
            raise ValueError(
                f"the steps of X are texts, all of which are numbers, as {word!r}; wanted numbers: "
                "convert them with float"
            )
    return found


def as_labels(y: Any, lengths: np.ndarray, scheme: str | None = None) -> list[np.ndarray]:
    """The labels of N sequences as arrays `[T_i]`; with a scheme, as tags of iob2.

    Args:
        y: N sequences of labels: integers, strings or truth values.
        lengths: `[N]`, the lengths of the labelled sequences.
        scheme: the scheme of the labels.

    Raises:
        ValueError: there is not a label for each step; a label has another type, or is not in the
            scheme.
    """
    if y is None or (isinstance(y, (list, tuple)) and len(y) == 1 and y[0] is None):
        raise ValueError(
            "a tagger requires y to be passed, but the target y is None; wanted a label for each "
            "step"
        )
    is_list = hasattr(y, "__len__") and not isinstance(y, (str, bytes))
    if not is_list or len(y) != len(lengths):
        came = f"has {len(y)} sequences" if is_list else f"is {y!r}"
        raise ValueError(
            f"X has {len(lengths)} sequences and y {came}; wanted the labels of each sequence"
        )
    # A column of a data frame has y[i] by the name of a row, not by its place.
    labelled = enumerate(zip(y, lengths.tolist(), strict=True))
    labels = [_labels_of(i, given, n, scheme) for i, (given, n) in labelled]
    texts = [each.dtype.kind in "UO" and isinstance(each[0], str) for each in labels]
    if any(texts) and not all(texts):
        one, other = texts.index(True), texts.index(False)
        raise ValueError(
            f"the labels of sequence {one} are strings and those of sequence {other} are not; "
            "wanted labels of one kind"
        )
    return labels


def encoded(
    y: Any, lengths: np.ndarray, scheme: str | None = None, encoder: LabelEncoder | None = None
) -> tuple[LabelEncoder, Integers]:
    """The labels of N sequences as class numbers; those in a file stay there.

    Args:
        y, lengths, scheme: as for `as_labels`; y may be `CodedLabels`.
        encoder: the encoder of the labels; by default that of the labels that occur.

    Raises:
        ValueError: as `as_labels`; or the encoder does not have a label.
    """
    if isinstance(y, CodedLabels):
        return y.encoded(scheme, encoder)
    labels = np.concatenate(as_labels(y, lengths, scheme))
    if encoder is None:
        encoder, numbers = LabelEncoder.fit(labels)
    else:
        numbers = encoder.encode(labels)
    return encoder, Integers(numbers, lengths)


def label_counts(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """The different labels of N sequences of labels, sorted, and how often each occurs."""
    if isinstance(y, CodedLabels):
        occur = y.counts > 0
        return y.classes[occur], y.counts[occur]
    return np.unique(np.concatenate(y), return_counts=True)


def lengths_of(X: Any) -> np.ndarray:
    """The steps of each sequence, `[N]`; X is `Steps`, or has `lengths`."""
    return np.full(len(X), X.shape[1]) if isinstance(X, np.ndarray) else X.lengths


def values_of(X: np.ndarray | Ragged) -> np.ndarray:
    """The steps of all sequences, `[ΣT, F]`."""
    return X.values if isinstance(X, Ragged) else X.reshape(-1, X.shape[2])


def n_features(X: Any) -> int:
    """F, the numbers of one time step, of an array `[N, T, F]` or of ragged sequences."""
    return int(X.n_features if hasattr(X, "n_features") else X.shape[2])


def width_of(X: Steps) -> int | None:
    """As `n_features`; None for words, which have no numbers yet."""
    return None if isinstance(X, Words) else n_features(X)


def _are_columns_of_texts(X: Any) -> bool:
    """Whether the sequences are columns of data frames that hold texts."""
    columns = (sequence.to_list() for sequence in X if hasattr(sequence, "to_list"))
    return isinstance(_first_step(columns), str)


def _holds_lists_or_texts(X: np.ndarray) -> bool:
    """Whether an array of objects is of sequences, or of words: not of Python's numbers."""
    if X.dtype != object or not X.size:
        return False
    return X.ndim == 1 or (X.ndim == 2 and isinstance(X.flat[0], str))


def _first_step(X: Any) -> Any:
    """The first step of the first sequence that has one; None if none has."""
    for sequence in X:
        if isinstance(sequence, (list, tuple)) and sequence:
            return sequence[0]
        if isinstance(sequence, np.ndarray) and sequence.size:
            return sequence.flat[0]
    return None


def _labels_of(i: int, given: Any, length: int, scheme: str | None) -> np.ndarray:
    try:
        labels = np.asarray(given)
    except ValueError:
        raise ValueError(
            f"sequence {i} of y is nested, with parts that differ in length; wanted [{length}], a "
            "label for each step"
        ) from None
    if labels.ndim == 2 and labels.shape[1] == 1:  # a column of a table
        labels = labels[:, 0]
    if labels.shape != (length,):
        raise ValueError(
            f"sequence {i} has {length} steps in X and labels of shape {list(labels.shape)} in y; "
            f"wanted [{length}], a label for each step"
        )
    if labels.dtype.kind == "f":
        whole = np.isfinite(labels).all() and (labels == np.round(labels)).all()
    elif labels.dtype == object:
        whole = all(isinstance(label, (str, int, np.integer, np.bool_)) for label in labels)
        whole = whole and len({isinstance(label, str) for label in labels}) == 1
    else:
        whole = labels.dtype.kind in "biuU"
    if not whole:
        raise ValueError(
            f"Unknown label type: sequence {i} of y has labels of {labels.dtype}, as "
            f"{labels.tolist()[0]!r}; wanted integers, strings or truth values, all of one kind"
        )
    return labels if scheme is None else _in_scheme(i, labels, scheme)


def _in_scheme(i: int, labels: np.ndarray, scheme: str) -> np.ndarray:
    """The labels of sequence i as tags of iob2."""
    try:
        return np.array(to_iob2([str(label) for label in labels], scheme))
    except ValueError as error:
        raise ValueError(f"sequence {i} of y: {error}") from None
