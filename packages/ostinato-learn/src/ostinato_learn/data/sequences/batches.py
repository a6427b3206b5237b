"""`Batches`: walks a data set batch by batch, epoch after epoch, and can be resumed exactly."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.text.words import CodedWords

# The two independent streams of orders that come from one seed.
_EPOCHS, _PASSES = 0, 1
_BLOCK = 16  # batches that are sorted by length together
# The order of more examples is drawn in blocks of runs of examples: 32 MB in place of 8 bytes an
# example, and pages of a mapped array are reused while they are in memory.
WHOLE, RUN, RUNS = 1 << 24, 1 << 10, 1 << 12


class Batches:
    """The examples of `X` with their labels `y`, in batches, in a new order each epoch.

    `next_batch()` has no end: if an epoch ends within a batch, the batch is completed with the
    first examples of the next epoch, so that every batch is full. Iterating (`for X_b, y_b in
    batches`) instead yields each example once, with a short last batch, in a new order for every
    pass, and does not affect `next_batch`.

    The order of an epoch is a function of the seed and the epoch's number alone, so a position is a
    few integers: `state_dict()` is small and resuming is exact. Of more than 2²⁴ examples, without
    `lengths`, runs of 1,024 are shuffled, and then the examples of 4,096 runs together.

    Args:
        X: an array with the N examples along its first axis, a `Ragged`, or `CodedWords`.
        y: an array of N labels or targets, of any dtype and further axes.
        batch_size: B, 1 to N.
        shuffle: whether each epoch has a new random order. If not, all go in the order of `X`.
        seed: a non-negative integer.
        lengths: `[N]`, the steps of each example: batches then have examples of similar length. An
            epoch's order is sorted by length within blocks of 16 batches, and the batches of a
            block are shuffled.
        one_hot: give labels as rows `[B, C]` float32 with a one at the label's place. Labels must
            then be integers 0…C−1, and C is the largest label of `y` plus one.

    Raises:
        ValueError: X and y have different lengths; batch_size is below 1 or larger than the data;
            labels asked for as one-hot are not integers from 0.

    Example:
        >>> import numpy as np
        >>> from ostinato_learn.data import Batches
        >>> X, y = np.arange(5).reshape(5, 1), np.array([0, 1, 2, 0, 1])
        >>> batches = Batches(X, y, batch_size=3, shuffle=False)
        >>> batches.next_batch()[1], batches.next_batch()[1], batches.epochs_completed
        (array([0, 1, 2]), array([0, 1, 0]), 1)
        >>> [len(X_b) for X_b, _ in batches]
        [3, 2]
    """

    _position: int

    def __init__(
        self,
        X: Any,
        y: Any,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        one_hot: bool = False,
        lengths: np.ndarray | None = None,
    ) -> None:
        self.X = _check_examples(X)
        self.y = np.asarray(y)
        _check_equal_length(self.X, self.y)
        self.n_examples = len(self.X)
        self.batch_size = _check_batch_size(batch_size, self.n_examples)
        self.shuffle = bool(shuffle)
        self.seed = _check_seed(seed)
        self.one_hot = bool(one_hot)
        self.n_classes = _count_classes(self.y) if one_hot else None
        self._lengths = lengths
        self._passes = 0
        self._enter_epoch(0, 0)

    def next_indices(self) -> np.ndarray:
        """The examples of the next batch, as `[B]` int64 positions in `X`."""
        indices = self._order[self._position : self._position + self.batch_size]
        self._position += len(indices)
        if self._position == self.n_examples:
            self._enter_epoch(self.epochs_completed + 1, self.batch_size - len(indices))
            return np.concatenate([indices, self._order[: self._position]])
        return indices

    def next_batch(self) -> tuple[Any, np.ndarray]:
        """`(X_b, y_b)`: always B examples, as an array (a `Ragged` if X is one), and labels."""
        return self._gather(self.next_indices())

    def __iter__(self) -> Iterator[tuple[Any, np.ndarray]]:
        order = self._order_of(_PASSES, self._passes, 0)
        self._passes += 1
        starts = range(0, self.n_examples, self.batch_size)
        return (self._gather(order[start : start + self.batch_size]) for start in starts)

    def state_dict(self) -> dict[str, Any]:
        """The place of `next_batch`, as a small dict of JSON values; iterating does not change
        it."""
        state = {
            "n_examples": self.n_examples,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "epochs_completed": self.epochs_completed,
            "position": self._position,
        }
        return state if self._lengths is None else state | {"similar_lengths": True}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where the `Batches` that gave `state` stood; its seed is taken over.

        Raises:
            ValueError: the state is incomplete, or belongs to other data: its number of examples,
                batch size or shuffling differ from this object's.
        """
        missing = sorted(self.state_dict().keys() - state.keys() - {"similar_lengths"})
        if missing:
            raise ValueError(f"Batches: the state lacks {', '.join(missing)}; it is incomplete")
        for name in ("n_examples", "batch_size", "shuffle"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"Batches: the state has {name} = {state[name]}, this object has "
                    f"{getattr(self, name)}; a run is resumed only with unchanged data and batches"
                )
        similar = self._lengths is not None
        if state.get("similar_lengths", False) != similar:
            raise ValueError(
                f"Batches: the state has batches {'without' if similar else 'with'} lengths; a "
                "run goes on only with the batches it had"
            )
        if not 0 <= state["position"] < self.n_examples:
            raise ValueError(
                f"Batches: the state has position {state['position']}; "
                f"wanted 0 to {self.n_examples - 1}"
            )
        self.seed = state["seed"]
        self._enter_epoch(state["epochs_completed"], state["position"])

    def _enter_epoch(self, epoch: int, position: int) -> None:
        self.epochs_completed = epoch
        begun = epoch * self.n_examples % self.batch_size  # examples before it in its first batch
        self._order = self._order_of(_EPOCHS, epoch, begun)  # [N]
        self._position = position  # the place of the next example in _order, always below N

    def _order_of(self, stream: int, number: int, begun: int) -> np.ndarray | _LongOrder:
        """The order of an epoch or pass; `begun` examples of its first batch are of the one before.

        If their lengths are not similar, only the first batch is affected.
        """
        if self.shuffle and self._lengths is None and self.n_examples > WHOLE:
            return _LongOrder(self.n_examples, (self.seed, stream, number))
        order = np.arange(self.n_examples, dtype=np.int64)
        if not self.shuffle:
            return order
        seeds = np.random.SeedSequence(self.seed, spawn_key=(stream, number))
        generator = np.random.default_rng(seeds)
        order = generator.permutation(order)
        if self._lengths is None:
            return order
        first = -begun % self.batch_size
        blocks = [order[:first]]
        for start in range(first, len(order), _BLOCK * self.batch_size):
            block = order[start : start + _BLOCK * self.batch_size]
            block = block[np.argsort(self._lengths[block], kind="stable")]
            n_whole = len(block) // self.batch_size * self.batch_size
            whole = block[:n_whole].reshape(-1, self.batch_size)
            blocks += [generator.permutation(whole).ravel(), block[n_whole:]]
        return np.concatenate(blocks)

    def _gather(self, indices: np.ndarray) -> tuple[Any, np.ndarray]:
        y = self.y[indices]
        if self.n_classes is not None:
            labels, y = y, np.zeros((len(indices), self.n_classes), np.float32)
            y[np.arange(len(indices)), labels] = 1.0
        return self.X[indices], y


class _LongOrder:
    """An order of n examples: runs of them are shuffled, and the examples of some runs together.

    Args:
        n: the number of examples.
        seeds: the seed, and further numbers that distinguish this order from others with the same
            seed.
    """

    def __init__(self, n: int, seeds: tuple[int, int, int]):
        self._n, (self._seed, *self._key) = n, seeds
        self._runs = self._generator(0).permutation(-(-n // RUN))
        sizes = np.minimum(RUN, n - self._runs * RUN)
        self._ends = np.cumsum(np.add.reduceat(sizes, np.arange(0, len(sizes), RUNS)))
        self._block = lru_cache(maxsize=1)(self._draw)

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self._n)
        found = [np.zeros(0, np.int64)]
        while start < stop:
            block = int(np.searchsorted(self._ends, start, side="right"))
            end = min(stop, int(self._ends[block]))
            begin = int(self._ends[block - 1]) if block else 0
            found.append(self._block(block)[start - begin : end - begin])
            start = end
        return np.concatenate(found)

    def _draw(self, block: int) -> np.ndarray:
        """The examples of a block in their order."""
        runs = self._runs[block * RUNS : (block + 1) * RUNS, None]
        examples = (runs * RUN + np.arange(RUN)).ravel()
        return self._generator(1, block).permutation(examples[examples < self._n])

    def _generator(self, *key: int) -> np.random.Generator:
        seeds = np.random.SeedSequence(self._seed, spawn_key=(*self._key, *key))
        return np.random.default_rng(seeds)


def _check_examples(X: Any) -> np.ndarray | Ragged | CodedWords:
    if isinstance(X, (Ragged, CodedWords)):
        return X
    try:
        return np.asarray(X)
    except ValueError:
        raise ValueError(
            "Batches: X is a list whose parts differ in length; pass data.as_sequences(X)"
        ) from None


def _check_equal_length(X: np.ndarray | Ragged | CodedWords, y: np.ndarray) -> None:
    for name, array in (("X", X), ("y", y)):
        if isinstance(array, np.ndarray) and array.ndim == 0:
            raise ValueError(f"Batches: {name} is {array!r}; wanted an array of examples")
    if len(X) != len(y):
        raise ValueError(
            f"Batches: X has {len(X)} examples and y has {len(y)}; wanted a label for each example"
        )
    if len(X) == 0:
        raise ValueError("Batches: X and y have no examples; wanted at least one")


def _check_batch_size(batch_size: int, n_examples: int) -> int:
    size = operator.index(batch_size)
    if not 1 <= size <= n_examples:
        raise ValueError(
            f"Batches: batch_size is {size} and there are {n_examples} examples; "
            f"wanted a batch_size of 1 to {n_examples}"
        )
    return size


def _check_seed(seed: int) -> int:
    number = operator.index(seed)
    if number < 0:
        raise ValueError(f"Batches: seed is {number}; wanted an integer from 0")
    return number


def _count_classes(y: np.ndarray) -> int:
    if y.ndim != 1 or y.dtype.kind not in "iu":
        given = f"{y.dtype}{list(y.shape)}"
    elif y.min() < 0:
        given = f"integers with {y.min()} among them"
    else:
        return int(y.max()) + 1
    raise ValueError(
        f"Batches: one_hot needs integer labels 0 to C-1 of shape [N]; y is {given}. "
        "numpy.unique(y, return_inverse=True)[1] makes such labels of any others"
    )
