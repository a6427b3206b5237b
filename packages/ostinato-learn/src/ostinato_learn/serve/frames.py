"""What a request brings to an open sequence, what the sequence keeps of it, and who listens."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from ostinato_learn.runtime.answers import Answers
from ostinato_learn.serve.tensors import Array

Key = str | int
WINDOW = 256  # answers that wait for a slow reader of events


@dataclass(eq=False)
class StepRequest:
    """A frame: steps of one sequence, from one request.

    Attributes:
        key: the name of the sequence.
        rows: `[T, F]`, checked.
        n: the number of the first step, from 1; None: the next step of the sequence.
        start: whether the sequence begins, or restarts, with the first row.
        end: whether the sequence ends with the last row.
        each: whether every step is answered.
        restarted: whether `start` replaced an open sequence; set before the frame is played.
        answers: the answers to the steps; None until the frame is played.
        future: resolves when the frame is answered, or to the error that refuses it. Its result is
            None: the frame itself would be a cycle, which only the garbage collector could free.
    """

    key: Key
    rows: Array
    n: int | None = None
    start: bool = False
    end: bool = False
    each: bool = False
    restarted: bool = False
    answers: Answers | None = None
    future: asyncio.Future[None] = field(init=False)


@dataclass(eq=False)
class Remembered:
    """What is kept of a sequence, open or ended, beside its present state, which is in the pool.

    Attributes:
        before: the state before the last frame.
        first: the number of the first step of the last frame.
        digest: the digest of the rows of the last frame; b"" before the first frame.
        used: the time of the last use.
        why: why it ended; empty while open.
    """

    before: bytes
    first: int = 0
    digest: bytes = b""
    used: float = 0.0
    why: str = ""

    def repeats(self, frame: StepRequest) -> bool:
        """Whether a frame repeats the last one."""
        return frame.n == self.first and self.digest == digest_of(frame.rows)


def digest_of(rows: Array) -> bytes:
    """A digest of rows `[T, F]`."""
    return blake2b(rows.tobytes(), digest_size=16).digest()


class Listeners:
    """The readers of the answers of open sequences, each with a queue; None ends a queue."""

    def __init__(self) -> None:
        self._queues: dict[Key, list[asyncio.Queue[Any]]] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._queues

    def add(self, key: Key) -> asyncio.Queue[Any]:
        """The queue of a new reader, who gets None instead of answers if `WINDOW` of them wait."""
        queue: asyncio.Queue[Any] = asyncio.Queue(WINDOW + 1)
        self._queues.setdefault(key, []).append(queue)
        return queue

    def remove(self, key: Key, queue: asyncio.Queue[Any]) -> None:
        """Forget a reader who has closed the connection."""
        left = [each for each in self._queues.pop(key, []) if each is not queue]
        if left:
            self._queues[key] = left

    def tell(self, key: Key, answers: Answers) -> None:
        """Give answers to the readers of a sequence."""
        for queue in list(self._queues.get(key, ())):
            for answer in answers:
                if queue.qsize() == WINDOW:
                    queue.put_nowait(None)
                    self.remove(key, queue)
                    break
                queue.put_nowait(answer)

    def end(self, key: Key) -> None:
        """End the queues of a sequence."""
        for queue in self._queues.pop(key, []):
            queue.put_nowait(None)

    def end_all(self) -> None:
        for key in list(self._queues):
            self.end(key)
