"""`Answer` and `Answers`: the results of a stream or a pool after a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

from ostinato_learn.runtime.values import Array


class Answer(NamedTuple):
    """The answer of a model after a step.

    Attributes:
        n: steps so far, this one included.
        label: the likeliest label; of a classifier with several labels a tuple of those that are
            likelier than not; of a language model the likeliest next token; of a regressor its
            number, or a tuple of several.
        proba: `[K]` float32, the probability of each of the model's `labels`.
        sure: whether the label's probability has reached the model's threshold for answers before
            the end (`early_error` of `SequenceClassifier`); None: the model has no threshold.

    Example:
        >>> model = ostinato_learn.runtime.load("runs/gru/model")
        >>> answer = model.stream().push(np.ones(3, np.float32))
        >>> answer.n, answer.label in ("down", "up"), answer.proba.shape, answer.sure
        (1, True, (2,), None)
    """

    n: int
    label: Any
    proba: Array
    sure: bool | None = None


class Answers(Sequence[Answer]):
    """Answers after several steps, or of several streams, in order.

    Attributes:
        n: `[N]`, steps so far.
        proba: `[N, K]` float32.

    Example:
        >>> model = ostinato_learn.runtime.load("runs/tags/model")
        >>> answers = model.stream().push(np.ones((4, 3), np.float32))
        >>> answers.n, answers.proba.shape, len(answers.labels)
        (array([1, 2, 3, 4]), (4, 2), 4)
        >>> answers[-1].n, len(answers[1:])
        (4, 3)
    """

    def __init__(
        self,
        n: Array,
        proba: Array,
        at: Array,
        name: Callable[[int, Array], Any],
        sure_from: float | None = None,
    ):
        """at: `[N]`, the place of each row's largest value. name: gives the label of a place and
        row."""
        self.n, self.proba, self._at, self._name = n, proba, at, name
        self._sure_from = sure_from

    @property
    def labels(self) -> list[Any]:
        return [self._name(int(i), row) for i, row in zip(self._at, self.proba, strict=True)]

    def __len__(self) -> int:
        return len(self.n)

    @overload
    def __getitem__(self, i: int) -> Answer: ...
    @overload
    def __getitem__(self, i: slice) -> Answers: ...
    def __getitem__(self, i: int | slice) -> Answer | Answers:
        if isinstance(i, slice):
            return Answers(self.n[i], self.proba[i], self._at[i], self._name, self._sure_from)
        row, at = self.proba[i], int(self._at[i])
        sure = None if self._sure_from is None else bool(row[at] >= self._sure_from)
        return Answer(int(self.n[i]), self._name(at, row), row, sure)

    def __repr__(self) -> str:
        return f"Answers({len(self)}: n={self.n}, labels={self.labels})"


class KeyedAnswers(Mapping[Any, Answer]):
    """Answers of several streams by their keys; made one by one, as they are looked up.

    Attributes:
        answers: the same in their order.

    Example:
        >>> pool = ostinato_learn.runtime.load("runs/gru/model").pool(capacity=100)
        >>> found = pool.push({"a": np.ones(3, np.float32), "b": np.zeros(3, np.float32)})
        >>> list(found), found["b"].n, found.answers.proba.shape
        (['a', 'b'], 1, (2, 2))
    """

    def __init__(self, keys: list[Any], answers: Answers):
        self.answers = answers
        self._keys = keys
        self._row: dict[Any, int] | None = None

    def __getitem__(self, key: Any) -> Answer:
        if self._row is None:
            self._row = {key: i for i, key in enumerate(self._keys)}
        return self.answers[self._row[key]]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyedAnswers({len(self)})"
