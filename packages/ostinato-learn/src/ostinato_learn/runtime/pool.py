"""`Pool`: many streams of one model, any of which are pushed together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ostinato.internal import native
from ostinato_learn.runtime.answers import Answers, KeyedAnswers
from ostinato_learn.runtime.stream import Stream, packed, unpacked
from ostinato_learn.runtime.stream_source import StreamSource
from ostinato_learn.runtime.values import Array

_ALL_READ, _NEW_KEY = 0, 1  # results of read_items, see native/python/streams.h


class Pool:
    """Streams by key, each in a numbered slot. `Model.pool` makes it.

    A pool has one owner: a use by a second thread at the same moment raises RuntimeError.

    Args:
        source: the model, shared by its streams.
        capacity: the largest number of streams. Their memory is reserved at once.
        finite: whether NaN and infinite values are refused.

    Example:
        >>> model = ostinato_learn.runtime.load("runs/gru/model")
        >>> x = np.ones((9, 3), np.float32)
        >>> pool = model.pool(capacity=100)
        >>> slots = pool.slots(["a", "b"])
        >>> pool.push(slots, x[:2]).n, pool.push({"b": x[2], "c": x[0]})["b"].n
        (array([1, 1]), 2)
        >>> pool.keys, pool.n("b"), "d" in pool
        (['a', 'b', 'c'], 2, False)
        >>> pool.read("a", pool.rows(x[1:4]), each=True).n          # a chunk
        array([2, 3, 4])
        >>> pool.restore("d", pool.save("b"))
        >>> model.stream(pool.save("d")).n
        2
        >>> pool.reset(["a"])
        >>> pool.drop(["b", "c"])
        >>> pool, pool.n("a")
        (Pool(2 of 100 streams), 0)
    """

    def __init__(self, source: StreamSource, capacity: int, finite: bool = True):
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; wanted at least 1")
        self.capacity = capacity
        self._source, self._finite = source, finite
        self._states = native.slot_states(source.native, capacity)
        self._slot: dict[Any, int] = {}
        self._free: list[int] = []  # slots that were dropped
        self._unused = 0  # the first slot that was never taken

    def __len__(self) -> int:
        return len(self._slot)

    def __contains__(self, key: Any) -> bool:
        return key in self._slot

    def __repr__(self) -> str:
        return f"Pool({len(self)} of {self.capacity} streams)"

    @property
    def keys(self) -> list[Any]:
        return list(self._slot)

    # ---- slots

    def slots(self, keys: Iterable[Any]) -> Array:
        """The slots of streams `[N]` int64; a key that is new begins a stream.

        Raises:
            ValueError: the pool is full; then no stream was added.
        """
        with self._states:
            return self._slots(list(keys))

    def _slots(self, keys: list[Any]) -> Array:
        new = list(dict.fromkeys(key for key in keys if key not in self._slot))
        if len(self._slot) + len(new) > self.capacity:
            raise ValueError(
                f"the pool has {len(self._slot)} streams of at most {self.capacity}, and "
                f"{len(new)} more are wanted: make it with a larger capacity, or drop some"
            )
        for key in new:
            if self._free:
                slot = self._free.pop()
            else:
                slot, self._unused = self._unused, self._unused + 1
            self._states.reset(slot)
            self._slot[key] = slot
        return np.array([self._slot[key] for key in keys], np.int64)

    def drop(self, keys: Iterable[Any]) -> None:
        """End streams; their slots are free for others.

        Raises:
            KeyError: there is no such stream; then none was ended.
        """
        with self._states:
            keys = list(dict.fromkeys(keys))
            for key in keys:
                self._known(key)
            for key in keys:
                self._free.append(self._slot.pop(key))

    def n(self, key: Any) -> int:
        """Steps of a stream so far."""
        return self._states.steps_of(self._known(key))

    def reset(self, keys: Iterable[Any]) -> None:
        """Restart streams."""
        with self._states:
            for slot in [self._known(key) for key in keys]:
                self._states.reset(slot)

    def save(self, key: Any) -> bytes:
        """A stream's state as bytes, for `restore` here or elsewhere, or for `Model.stream`."""
        carry = np.empty(self._source.n_carry, np.float32)
        with self._states:
            slot = self._known(key)
            self._states.get(slot, carry)
            return packed(self._source.fingerprint, self._states.steps_of(slot), carry)

    def restore(self, key: Any, state: bytes) -> None:
        """Let a stream, new or not, continue from a result of `save`.

        Raises:
            ValueError: the bytes are damaged, or belong to another model; or the pool is full.
        """
        n, carry = unpacked(state, self._source.fingerprint, self._source.n_carry)
        with self._states:
            (slot,) = self._slots([key])
            self._states.set(int(slot), n, carry)

    def _known(self, key: Any) -> int:
        if key not in self._slot:
            raise KeyError(f"the pool has no stream {key!r}")
        return self._slot[key]

    # ---- steps

    def push(self, slots: Any, x: Any = None) -> Answers | KeyedAnswers:
        """One step of several streams.

        Args:
            slots: `[N]`, of different streams, as `slots` gives them; or {key: row}, where a key
                that is new begins a stream.
            x: `[N, F]`, a row for each slot; for a language model `[N]` tokens.

        Returns:
            `Answers` in the order of the slots; or `KeyedAnswers`.

        Raises:
            ValueError: a row has another shape, or NaN or an infinite value; a slot has no stream
                or occurs twice; or the pool is full. Then all streams are unchanged.
            RuntimeError: another thread is using the pool.
        """
        with self._states:
            if isinstance(slots, Mapping):
                keys = list(slots)
                return KeyedAnswers(keys, self._pushed(*self._of_items(dict(slots))))
            of_rows = np.ascontiguousarray(slots, np.int64)
            self._check_slots(of_rows)
            return self._pushed(of_rows, self._rows(x, len(of_rows)))

    def rows(self, x: Any) -> Array:
        """Steps of one stream as `push` and `read` take them, `[T, F]` float32.

        Args:
            x: as `Stream.push` takes it.

        Raises:
            ValueError, TypeError: `Stream.push` would refuse x.
        """
        rows, _ = self._source.rows(x)
        if self._finite:
            self._source.check_finite(rows)
        return rows

    def read(self, key: Any, rows: Array, *, each: bool) -> Answers:
        """Several steps of one stream, a long chunk at the speed of a batch.

        Args:
            key: the key of an existing stream.
            rows: `[T, F]`, as `rows` gives them.
            each: whether to answer every step, or only the last one.

        Returns:
            `Answers`, T or one.

        Raises:
            ValueError: the rows have another shape, or there are no rows. The stream is unchanged.
            KeyError: there is no such stream.
        """
        if rows.ndim != 2 or rows.shape[1] != self._source.n_inputs or not len(rows):
            raise ValueError(
                f"rows has shape {list(rows.shape)}; wanted [T, {self._source.n_inputs}]"
            )
        with self._states:
            slot = self._known(key)
            carry = np.empty(self._source.n_carry, np.float32)
            self._states.get(slot, carry)
            stream = Stream(self._source, self._finite)
            answers = stream.go_on(self._states.steps_of(slot), carry, rows, each)
            self._states.set(slot, stream.n, carry)
            return answers

    def _check_slots(self, slots: Array) -> None:
        if slots.ndim != 1:
            raise ValueError(f"slots has shape {list(slots.shape)}; wanted [N]")
        unused = (slots < 0) | (slots >= self._unused)
        if self._free:
            unused |= np.isin(slots, self._free)
        if unused.any():
            raise ValueError(
                f"slot {slots[unused.argmax()]} has no stream; slots(keys) begins streams"
            )

    def _rows(self, x: Any, n: int) -> Array:
        if x is None:
            raise ValueError("x is missing; wanted a row for each slot: push(slots, x)")
        if isinstance(x, np.ndarray) and x.dtype == np.float32 and x.flags.c_contiguous:
            rows = x
        else:
            rows = self._source.rows(x)[0]
        if rows.shape != (n, self._source.n_inputs):
            raise ValueError(
                f"x has shape {list(np.shape(x))}; wanted [{n}, {self._source.n_inputs}], a row "
                "for each slot"
            )
        return rows

    def _of_items(self, items: dict[Any, Any]) -> tuple[Array, Array]:
        """Slots and rows."""
        source, n = self._source, len(items)
        slots = np.empty(n, np.int64)
        rows = np.empty((n, source.n_inputs), np.float32)
        while True:
            met = native.read_items(items, self._slot, slots, rows, source.n_inputs)
            if met == _ALL_READ:
                return slots, rows
            if met == _NEW_KEY:
                self._slots(list(items))
            else:  # not a dense float32 row
                items = {key: source.row(x) for key, x in items.items()}

    def _pushed(self, slots: Array, rows: Array) -> Answers:
        n = len(slots)
        proba = np.empty((n, self._source.n_answers), np.float32)
        at, steps = np.empty(n, np.int64), np.empty(n, np.int64)
        played = self._states.push(n, slots, rows, proba, at, steps, self._finite)
        if played < n:
            self._source.refuse_row(rows, played, "row")
        return Answers(steps, proba, at, self._source.name, self._source.sure_from)
