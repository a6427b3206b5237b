"""`LabelEncoder`: a user's labels as the class numbers 0…C−1 that a network knows, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

_SAVED_KINDS = "biufUO"  # the kinds of NumPy dtypes that JSON restores


class LabelEncoder:
    """The C classes of a data set, sorted; the number of a class is its place among them.

    Attributes:
        classes: `[C]` labels, each once, of any dtype.

    Example:
        >>> import numpy as np
        >>> encoder, y = LabelEncoder.fit(np.array(["up", "down", "up"]))
        >>> y, encoder.decode(y)
        (array([1, 0, 1]), array(['up', 'down', 'up'], dtype='<U4'))
        >>> encoder.encode(["left"])
        Traceback (most recent call last):
        ...
        ValueError: y has the label 'left', which was not trained; wanted one of 'down', 'up'
    """

    def __init__(self, classes: np.ndarray):
        self.classes = classes
        self._numbers = {label: i for i, label in enumerate(classes.tolist())}

    def __len__(self) -> int:
        return len(self.classes)

    @staticmethod
    def fit(y: np.ndarray) -> tuple[LabelEncoder, np.ndarray]:
        """The encoder for the labels `[N]`, its classes sorted, and the labels encoded `[N]`."""
        classes, numbers = np.unique(y, return_inverse=True)
        return LabelEncoder(classes), numbers

    def encode(self, labels: Iterable[Any], name: str = "y") -> np.ndarray:
        """Class numbers `[N]` int64; `name` is what errors call the labels.

        Raises:
            ValueError: a label is not among the classes.
        """
        labels = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
        unknown = [label for label in labels if label not in self._numbers]
        if unknown:
            raise ValueError(
                f"{name} has the label {unknown[0]!r}, which was not trained; wanted one of "
                f"{self._some()}"
            )
        return np.array([self._numbers[label] for label in labels], dtype=np.int64)

    def decode(self, numbers: np.ndarray) -> np.ndarray:
        """The labels of class numbers, in the dtype of the classes."""
        return self.classes[numbers]

    def as_json(self) -> dict[str, Any]:
        """The classes as plain values.

        Raises:
            ValueError: they have a type that JSON cannot hold.
        """
        values = self.classes.tolist()
        if self.classes.dtype.kind not in _SAVED_KINDS or not _is_plain(values):
            raise ValueError(
                f"labels of type {self.classes.dtype} ({values[0]!r}, …) cannot be saved; "
                "train with integers or strings"
            )
        return {"dtype": self.classes.dtype.str, "values": values}

    @staticmethod
    def from_json(value: dict[str, Any], where: str) -> LabelEncoder:
        """What `as_json` gave; `where` names its origin in errors.

        Raises:
            ValueError: the type is not one that `as_json` gives.
        """
        try:
            dtype = np.dtype(value["dtype"])
        except TypeError:
            dtype = np.dtype("V")
        if dtype.kind not in _SAVED_KINDS or not _is_plain(value["values"]):
            raise ValueError(f"{where} are of type {value['dtype']!r}, which is not known")
        return LabelEncoder(np.array(value["values"], dtype=dtype))

    def _some(self) -> str:
        shown = ", ".join(map(repr, self.classes[:10].tolist()))
        return shown if len(self) <= 10 else f"{shown}, … ({len(self)})"


def _is_plain(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, bool | int | float | str) for v in values)
