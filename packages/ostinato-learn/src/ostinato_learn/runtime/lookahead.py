"""`LookaheadStream`: a model of two directions that answers k steps late.

Let x_0, x_1, … be the steps, and W_t = (x_t, …, x_{t+k}) the window of step t, cut at the end of
the sequence. The answer for step t is that of the network for the first step of W_t, run over W_t
as a sequence of its own; only the forward directions continue from the step before. In each layer,
from the bottom to the top, u_{t,j} is the layer's input for step t + j in W_t:

    forward    s_{t,j}, f_{t,j} = F(s_{t,j−1}, u_{t,j})      s_{t,−1} = s_{t−1,0}
    backward   r_{t,j}, b_{t,j} = G(r_{t,j+1}, u_{t,j})      r_{t,k+1} = 0

and f_{t,j} and b_{t,j} side by side are u_{t,j} of the layer above. A readout over time reads the
outputs of the top layer for step t in W_t, and goes on from those for the steps before.

So nothing later than k steps is read. If k ≥ T − 1, the answers after the end of a sequence of T
steps have the bits of `predict`; with a smaller k, backward directions read less than in the
training. A readout that takes the backward direction at the first step ("last") has no such window,
since it needs all steps; nor has a CRF.

The windows of several steps run together, as rows of one batch: a row's bits depend on no other
row, so that an answer does not depend on how the steps arrived.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.runtime.answers import Answers
from ostinato_learn.runtime.model_graph import Scan
from ostinato_learn.runtime.network import Network
from ostinato_learn.runtime.step_graph import StepGraph
from ostinato_learn.runtime.stream import opened, sealed
from ostinato_learn.runtime.stream_source import RowSource
from ostinato_learn.runtime.values import Array

if TYPE_CHECKING:
    from collections.abc import Sequence


MOST = 1 << 16  # steps of lookahead
_AT_ONCE = 1 << 22  # values of a layer's windows: 16 MB
_MAGIC = b"ostinato lookahead 1\n"
_HEAD = struct.Struct("<qq?")  # steps, lookahead, whether the sequence has ended


class LookaheadSource(RowSource):
    """A network that runs over windows; see above.

    Args:
        lookahead: k.
        more: see `RowSource`.
    """

    def __init__(self, network: Network, names: Sequence[Any], *, lookahead: int, **more: Any):
        super().__init__(network, names, **more)
        if type(lookahead) is not int or not 0 <= lookahead <= MOST:
            raise ValueError(f"lookahead={lookahead!r}; wanted a number of steps from 0 to {MOST}")
        why_not = network.graph.why_no_lookahead()
        if why_not is not None:
            raise ValueError(f"this model takes no lookahead: {why_not}")
        self.lookahead = lookahead
        graph = network.graph
        self.n_answers = graph.n_outputs
        self.n_row = graph.n_inputs
        self._forward = [_with_states(layer) for layer in graph.layers]
        self._readout: StepGraph | None = None
        steps = [step for step in self._forward if step is not None]
        if graph.readout.step is not None:
            self._readout = replace(graph.readout.step, outputs=graph.readout.step.new_states)
            steps.append(self._readout)
        self._widths = [n.width for step in steps for n in step.states]
        self.n_carry = sum(self._widths)
        # Whether a layer above reads more of a window than its first step.
        self._is_read_on = [
            any(d.reverse for above in graph.layers[i + 1 :] for d in above.directions)
            for i in range(len(graph.layers))
        ]
        widest = max(graph.n_inputs, *(layer.width for layer in graph.layers))
        self.most_windows = max(1, _AT_ONCE // ((lookahead + 1) * widest))

    def answers(self, rows: Array, n: int, carry: Array) -> tuple[Array, Array]:
        """The answers for the first n of some steps, `[n, K]`, and the states after them.

        Args:
            rows: `[M, F]` float32, as the network reads them; if M < n + k the sequence ends.
            carry: all states before the first of them, in one row.
        """
        found = []
        for start in range(0, n, self.most_windows):
            stop = min(n, start + self.most_windows)
            piece = rows[start : stop + self.lookahead]
            answers, carry = self._played(piece, stop - start, carry)
            found.append(answers)
        return np.concatenate(found), carry

    def _played(self, rows: Array, n: int, carry: Array) -> tuple[Array, Array]:
        states = _Carried(carry, self._widths)
        steps = np.arange(self.lookahead + 1)[:, None] + np.arange(n)  # [k + 1, n]
        lengths = np.minimum(self.lookahead + 1, len(rows) - np.arange(n)).tolist()
        values = rows[np.minimum(steps, len(rows) - 1)]  # u of the lowest layer, [k + 1, n, F]
        for layer, forward, is_read_on in zip(
            self.network.graph.layers, self._forward, self._is_read_on, strict=True
        ):
            wanted = values if is_read_on else values[:1]
            parts = []
            for direction in layer.directions:
                if direction.reverse:
                    program = self.network._program(direction.step, True, n)
                    outputs, _ = program.play([values], lengths)
                    parts.append(outputs[0][: len(wanted)])
                else:
                    assert forward is not None
                    parts.append(self._forwards(forward, wanted, lengths, states))
            values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        read = [values[0]]
        if self._readout is not None:
            read = self._chain(self._readout, values[0], states)
        return self.network._map(self.network.graph.answer, read), states.row()

    def _forwards(
        self, step: StepGraph, values: Array, lengths: list[int], states: _Carried
    ) -> Array:
        """f of all windows, as far as needed."""
        *begun, first = self._chain(step, values[0], states)
        if len(values) == 1:
            return first[None]
        program = self.network._program(step, False, values.shape[1])
        # A row of one step has no later window: the result of the one that runs for it is not read.
        outputs, _ = program.play([values[1:]], [max(1, n - 1) for n in lengths], begun)
        return np.concatenate([first[None], outputs[-1]])

    def _chain(self, step: StepGraph, values: Array, states: _Carried) -> list[Array]:
        """A step's outputs `[n, width]` at `values[0]`, `values[1]`, …, from the states on."""
        program = self.network._program(step, False, 1)
        outputs, finals = program.play([values[:, None]], None, states.take(len(step.states)))
        states.put(finals)
        return [np.ascontiguousarray(y[:, 0]) for y in outputs]


class _Carried:
    """States in one row: taken in their order, and put back in it."""

    def __init__(self, row: Array, widths: list[int]):
        self._old = np.split(row, np.cumsum(widths))[: len(widths)]
        self._new: list[Array] = []

    def take(self, n: int) -> list[Array]:
        at = len(self._new)
        return [np.ascontiguousarray(state)[None] for state in self._old[at : at + n]]

    def put(self, states: list[Array]) -> None:
        self._new += [state[0] for state in states]

    def row(self) -> Array:
        return np.concatenate([*self._new, np.zeros(0, np.float32)]).astype(np.float32, copy=False)


def _with_states(layer: Scan) -> StepGraph | None:
    """The forward step of a layer, with its new states among its outputs; None without one."""
    for direction in layer.directions:
        if not direction.reverse:
            step = direction.step
            return replace(step, outputs=(*step.new_states, *step.outputs))
    return None


class LookaheadStream:
    """One sequence that comes step by step, answered k steps late. `Model.stream(lookahead=k)`
    makes it, for a model that reads in both directions.

    With W_t the steps t to t + k, the answer for step t is that of the network for the first step
    of W_t, whose forward directions go on from step t − 1, and whose backward directions begin
    with zeros at step t + k. `finish` ends the sequence, and gives the answers for its last k
    steps, whose windows are shorter. For the equations see `runtime/lookahead.py`.

    A stream has one owner: a use by a second thread at the same moment raises RuntimeError. It
    counts its steps, and restarts only by `reset`.

    Attributes:
        n: steps so far.
        n_answered: the steps that were answered, n − k or 0; after `finish` n.
        finished: whether the sequence has ended.

    Example:
        >>> model = ostinato_learn.runtime.load("runs/both/model")
        >>> x = np.ones((9, 3), np.float32)
        >>> s = model.stream(lookahead=2)
        >>> s.push(x[0]), s.push(x[1]), s.push(x[2]).n
        (None, None, 1)
        >>> s.push(x[3:7]).n, s.n_answered
        (array([2, 3, 4, 5]), 5)
        >>> fork, again = s.fork(), model.stream(s.save(), lookahead=2)
        >>> bool((again.push(x[7]).proba == fork.push(x[7]).proba).all()), again.n_answered
        (True, 6)
        >>> s.finish().n
        array([6, 7])
        >>> s.reset()
        >>> s.restore(again.save())
        >>> s, s.lookahead, s.finished
        (LookaheadStream(n=8, lookahead=2), 2, False)
    """

    def __init__(self, source: LookaheadSource, finite: bool = True):
        self._source, self._finite = source, finite
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self.n, self.finished = 0, False
        self._carry = np.zeros(self._source.n_carry, np.float32)
        self._waiting = np.zeros((0, self._source.n_row), np.float32)  # rows without an answer

    @property
    def lookahead(self) -> int:
        """k, the steps that are read beyond a step before it is answered."""
        return self._source.lookahead

    @property
    def n_answered(self) -> int:
        return self.n - len(self._waiting)

    def __repr__(self) -> str:
        return f"LookaheadStream(n={self.n}, lookahead={self.lookahead})"

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("another thread is using this stream; a stream has one owner")
        try:
            yield
        finally:
            self._lock.release()

    def push(self, x: Any, *, each: bool | None = None) -> Any:
        """Read one step, or a chunk of several; see `Stream.push`.

        Args:
            x: `[F]`, or `[T, F]`; for a model of words a word or a list; for a model of texts a
                text.
            each: for a chunk, whether to answer every step that can be answered now; by default if
                the model answers at every step, as a tagger does.

        Returns:
            The `Answer` for step n − k − 1, counted from 0, whose `n` is n − k; None before the
            first one. For a chunk with `each`, `Answers`, which may be empty.

        Raises:
            ValueError: x has another shape, or NaN or an infinite value; or the sequence has ended.
                The stream is then unchanged.
            RuntimeError: another thread is using the stream.
        """
        source = self._source
        rows, is_one = source.rows(x)
        if self._finite:
            source.check_finite(rows)
        with self._claimed():
            if self.finished:
                raise ValueError("the sequence has ended; reset() begins another one")
            waiting = np.concatenate([self._waiting, source.prepared(rows)])
            answers = self._answered(waiting, max(0, len(waiting) - self.lookahead))
        if (source.each if each is None else each) and not is_one:
            return answers
        return answers[-1] if len(answers) else None

    def finish(self) -> Answers:
        """End the sequence: the answers for its last k steps, or for all if there are fewer.

        Raises:
            RuntimeError: another thread is using the stream.
        """
        with self._claimed():
            answers = self._answered(self._waiting, len(self._waiting))
            self.finished = True
            return answers

    def _answered(self, rows: Array, n: int) -> Answers:
        """Answer the first n of the rows that wait."""
        source, first = self._source, self.n_answered + 1
        proba = np.zeros((0, source.n_answers), np.float32)
        if n:
            proba, self._carry = source.answers(rows, n, self._carry)
        self.n += len(rows) - len(self._waiting)
        self._waiting = rows[n:].copy()  # a view would hold the whole chunk
        steps = np.arange(first, first + n)
        return Answers(steps, proba, proba.argmax(1), source.name, source.sure_from)

    # ---- states

    def fork(self) -> LookaheadStream:
        """A copy of the stream, which is independent from now on."""
        with self._claimed():
            other = LookaheadStream(self._source, self._finite)
            other.n, other.finished = self.n, self.finished
            other._carry, other._waiting = self._carry, self._waiting  # which are never changed
            return other

    def reset(self) -> None:
        """Restart, as a new stream."""
        with self._claimed():
            self._begin()

    def save(self) -> bytes:
        """The state as bytes, with the waiting steps, for this model and this lookahead."""
        with self._claimed():
            head = _HEAD.pack(self.n, self.lookahead, self.finished)
            numbers = np.concatenate([self._carry, self._waiting.ravel()]).astype("<f4")
            return sealed(_MAGIC, self._source.fingerprint, head + numbers.tobytes())

    def restore(self, state: bytes) -> None:
        """Continue from a result of `save`.

        Raises:
            ValueError: the bytes are damaged, or belong to another model or another lookahead.
        """
        source = self._source
        content = opened(state, _MAGIC, source.fingerprint)
        if len(content) < _HEAD.size:
            raise ValueError("the state of the stream is damaged: it is too short")
        n, lookahead, finished = _HEAD.unpack_from(content)
        if lookahead != self.lookahead:
            raise ValueError(
                f"this state has lookahead={lookahead}; wanted {self.lookahead}"
            )
        if n < 0:
            raise ValueError(f"the state of the stream is damaged: it has {n} steps")
        n_waiting = 0 if finished else min(n, lookahead)
        n_bytes = _HEAD.size + 4 * (source.n_carry + n_waiting * source.n_row)
        if len(content) != n_bytes:
            raise ValueError(f"this state has {len(content)} bytes; wanted {n_bytes}")
        numbers = np.frombuffer(content, "<f4", -1, _HEAD.size).astype(np.float32)
        with self._claimed():
            self.n, self.finished = n, finished
            self._carry = numbers[: source.n_carry]
            self._waiting = numbers[source.n_carry :].reshape(n_waiting, source.n_row)
