"""`Stream`: a model that answers step by step.

A step takes microseconds, allocates nothing but the answer, and gives the bits of `predict` for the
whole sequence.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from ostinato.internal import native
from ostinato_learn.runtime.answers import Answer, Answers
from ostinato_learn.runtime.programs import MOST_STEPWISE
from ostinato_learn.runtime.stream_source import StreamSource
from ostinato_learn.runtime.values import Array

# A chunk of fewer steps runs step by step, like any chunk of a small model; a longer one by the
# batch engine, whose call costs as much as some 20 steps.
BATCH_FROM = 32

_FLOAT32 = np.dtype(np.float32)
_new = tuple.__new__  # makes an Answer in half the time that its own constructor takes

_MAGIC = b"ostinato stream 1\n"
_DIGEST = 8


@dataclass(frozen=True)
class StreamCost:
    """The cost of a step of a stream, and the size of its state.

    Attributes:
        multiplies: the multiplications of a step, with its answer.
        weight_bytes: the weights that a step reads; all streams of a model share them.
        carry_bytes: the states.
        state_bytes: the states and the stream's other memory.

    Example:
        >>> cost = ostinato_learn.runtime.load("runs/gru/model").stream().explain()
        >>> cost.multiplies, cost.weight_bytes, cost.carry_bytes
        (280, 1120, 32)
    """

    multiplies: int
    weight_bytes: int
    carry_bytes: int
    state_bytes: int

    def __str__(self) -> str:
        return (
            f"a step: {self.multiplies:,} multiplications, {self.weight_bytes:,} bytes of weights; "
            f"a stream: {self.state_bytes:,} bytes, of which {self.carry_bytes:,} are its states"
        )


class Stream:
    """One sequence that comes step by step. `Model.stream` makes it.

    A stream has one owner: a use by a second thread at the same moment raises RuntimeError. It
    counts its steps, and begins again only by `reset`.

    Args:
        source: the model, shared by its streams.
        finite: whether NaN and infinite values are refused.

    Example:
        >>> model = ostinato_learn.runtime.load("runs/gru/model")
        >>> x = np.ones((9, 3), np.float32)
        >>> s = model.stream()
        >>> s.push(x[0]).n, s.push(x[1:5]).n                    # a step, and a chunk
        (1, 5)
        >>> buffer = np.empty(2, np.float32)
        >>> s.push(x[5], out=buffer) is buffer
        True
        >>> fork, state = s.fork(), s.save()
        >>> again = model.stream(state)
        >>> bool((fork.push(x[6:]).proba == again.push(x[6:]).proba).all())
        True
        >>> s.restore(again.save())
        >>> bool((s.push(x[0]).proba == fork.push(x[0]).proba).all()), s.n
        (True, 10)
        >>> s.reset()
        >>> s, s.explain().carry_bytes
        (Stream(n=0), 32)
    """

    __slots__ = ("_finite", "_labels", "_n_answers", "_push", "_source", "_state", "_sure_from")

    def __init__(self, source: StreamSource, finite: bool = True, state: Any = None):
        self._source, self._finite = source, finite
        self._state = native.stream_state(source.native) if state is None else state
        self._push = self._state.push
        self._n_answers, self._sure_from = source.n_answers, source.sure_from
        self._labels = source.names if source.naming is None and not source.several else None

    @property
    def n(self) -> int:
        """Steps so far."""
        return self._state.steps

    def __repr__(self) -> str:
        return f"Stream(n={self.n})"

    def push(self, x: Any, out: Array | None = None, *, each: bool | None = None) -> Any:
        """Read one step, or a chunk of several.

        Args:
            x: `[F]`, a number or name for each feature; or `[T, F]`, a chunk. For a language model
                a text, or numbers of tokens; for a model of words a word or a list; for a model of
                texts a text, or a list of words. A dense float32 row is the fastest: it is read
                without a copy. In an array, a name is its place among those of the training part,
                −1 for an unknown one.
            out: `[K]` float32, to be filled with the probabilities after the last step; then
                nothing is allocated.
            each: for a chunk, whether to answer every step; by default if the model answers at
                every step, as a tagger does.

        Returns:
            An `Answer`; for a chunk with `each`, `Answers`, one for each step; with `out`, out
            itself.

        Raises:
            ValueError: x has another shape, or NaN or an infinite value. The stream is then
                unchanged.
            TypeError: x holds no numbers, or out is not such an array. The stream is unchanged,
                too.
            RuntimeError: another thread is using the stream.
        """
        proba = np.empty(self._n_answers, _FLOAT32) if out is None else out
        at = self._push(x, proba, self._finite)
        if at < 0:
            return self._push_rows(x, out, each)
        if out is not None:
            return out
        label = self._source.name(at, proba) if self._labels is None else self._labels[at]
        sure = None if self._sure_from is None else bool(proba[at] >= self._sure_from)
        return _new(Answer, (self._state.steps, label, proba, sure))

    def _push_rows(self, x: Any, out: Array | None, each: bool | None) -> Any:
        """`push` for anything but a valid dense float32 row."""
        source = self._source
        rows, is_one = source.rows(x)
        if self._finite:
            source.check_finite(rows)
        if out is not None:
            self._check_out(out)
        if each is None:
            each = source.each
        with_each = each and not is_one and out is None
        with self._state:
            proba = self._played(rows, with_each)
            n = self._state.steps
        if out is not None:
            out[...] = proba[-1]
            return out
        answers = self._answers(n, proba)
        return answers if with_each else answers[-1]

    def _answers(self, n: int, proba: Array) -> Answers:
        """The answers after the last of n steps, and after those before it."""
        steps, source = np.arange(n - len(proba) + 1, n + 1), self._source
        return Answers(steps, proba, proba.argmax(1), source.name, source.sure_from)

    def go_on(self, n: int, carry: Array, rows: Array, each: bool) -> Answers:
        """Read checked rows `[T, F]` after n steps with a carry, which is replaced by the new one.

        A pool reads a chunk of one of its streams in this way.
        """
        with self._state:
            self._state.set(n, carry)
            proba = self._played(rows, each)
            self._state.get(carry)
            return self._answers(self._state.steps, proba)

    def _check_out(self, out: Any) -> None:
        """Raise TypeError if no answer can be written there; called before a step is read."""
        K = self._n_answers
        is_array = isinstance(out, np.ndarray) and out.dtype == _FLOAT32 and out.shape == (K,)
        if not (is_array and out.flags.c_contiguous and out.flags.writeable):
            shown = (
                f"{list(out.shape)} {out.dtype}"
                if isinstance(out, np.ndarray)
                else type(out).__name__
            )
            raise TypeError(f"out is {shown}; wanted a dense array [{K}] of float32 to write to")

    def _played(self, rows: Array, each: bool) -> Array:
        """The answers to all rows, or to the last: `[T or 1, K]`."""
        source, state = self._source, self._state
        if len(rows) < BATCH_FROM or source.native.multiplies <= MOST_STEPWISE:
            proba = np.empty((len(rows) if each else 1, self._n_answers), np.float32)
            state.push_rows(len(rows), rows, proba, each)
            return proba
        carry = np.empty(source.n_carry, np.float32)
        state.get(carry)
        proba, new = source.chunks.answers(source.prepared(rows), carry[None], each)
        state.set(state.steps + len(rows), new[0])
        return proba[0]

    # ---- states

    def fork(self) -> Stream:
        """Another stream that has read what this one has, and goes its own way."""
        with self._state:
            return Stream(self._source, self._finite, self._state.fork())

    def reset(self) -> None:
        """Begin again, as a new stream."""
        with self._state:
            self._state.reset()

    def save(self) -> bytes:
        """The state as bytes, for `Model.stream` of the same model, by its fingerprint."""
        carry = np.empty(self._source.n_carry, np.float32)
        with self._state:
            self._state.get(carry)
            return packed(self._source.fingerprint, self._state.steps, carry)

    def restore(self, state: bytes) -> None:
        """Go on from what `save` gave.

        Raises:
            ValueError: the bytes are damaged, or belong to another model.
        """
        n, carry = unpacked(state, self._source.fingerprint, self._source.n_carry)
        with self._state:
            self._state.set(n, carry)

    def explain(self) -> StreamCost:
        """The cost of a step and the size of the state."""
        model = self._source.native
        carry = 4 * self._source.n_carry
        beside = native.stream_state.bytes_beside_the_carry
        return StreamCost(model.multiplies, model.weight_bytes, carry, carry + beside)


# ---- states as bytes: a line that names the format, the model's fingerprint, what is kept, and a
# digest of all that; of a stream the number of steps, and the states in little-endian float32


def packed(fingerprint: str, n: int, carry: Array) -> bytes:
    """A state as bytes."""
    return sealed(_MAGIC, fingerprint, struct.pack("<q", n) + carry.astype("<f4").tobytes())


def unpacked(state: bytes, fingerprint: str, n_carry: int) -> tuple[int, Array]:
    """Steps and carry.

    Raises:
        ValueError: the bytes are damaged, or belong to another model.
    """
    content = opened(state, _MAGIC, fingerprint)
    if len(content) != 8 + 4 * n_carry:
        raise ValueError(f"this state has {len(content)} bytes; wanted {8 + 4 * n_carry}")
    (n,) = struct.unpack_from("<q", content)
    return n, np.frombuffer(content, "<f4", n_carry, 8).astype(np.float32)


def sealed(magic: bytes, fingerprint: str, content: bytes) -> bytes:
    """The state of a stream with its format and model, and a digest."""
    content = magic + bytes.fromhex(fingerprint) + content
    return content + hashlib.blake2b(content, digest_size=_DIGEST).digest()


def opened(state: bytes, magic: bytes, fingerprint: str) -> bytes:
    """The reverse of `sealed`.

    Raises:
        ValueError: the bytes are damaged, or belong to another model or format.
    """
    if not isinstance(state, (bytes, bytearray, memoryview)):
        raise TypeError(f"a state is bytes, as save gives them; came {type(state).__name__}")
    content, digest = bytes(state)[:-_DIGEST], bytes(state)[-_DIGEST:]
    if not content.startswith(magic):
        raise ValueError(
            "these bytes are not the state of a stream like this one, or come from a later version"
        )
    if hashlib.blake2b(content, digest_size=_DIGEST).digest() != digest:
        raise ValueError("the state of the stream is damaged: its digest differs")
    own = bytes.fromhex(fingerprint)
    at = len(magic) + len(own)
    if content[len(magic) : at] != own:
        raise ValueError(
            "this state belongs to another model: its fingerprint begins with "
            f"{content[len(magic) : at].hex()[:12]}, this model's with {fingerprint[:12]}"
        )
    return content[at:]
