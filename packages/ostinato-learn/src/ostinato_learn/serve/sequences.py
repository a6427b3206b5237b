"""`OpenSequences`: the open sequences of one model, each with a state of its own.

    request → rows, checked → queue → taken, one frame a sequence → journal → pool → answer

A *frame* is a `StepRequest`: the steps of one sequence that one request brings. When the player is
free, it plays all queued frames together, one of each sequence; it does not wait for more. Between
two frames the state of a sequence changes only by a request that names the sequence, or when it was
idle for too long; both are in the journal before they are in the pool.

Each sequence keeps the state before its last frame and a digest of the frame's rows. If a client
sends the last frame again, with the same step number, the answer is computed from that state and
has the same bits.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ostinato_learn.runtime.answers import Answers
from ostinato_learn.serve.frames import Key, Listeners, Remembered, StepRequest, digest_of
from ostinato_learn.serve.journal import MAX_LOG, Journal, Record
from ostinato_learn.serve.model import Served
from ostinato_learn.serve.refused import Refusal
from ostinato_learn.serve.settings import Settings
from ostinato_learn.serve.tensors import Array, bad

INLINE = 2_000_000  # multiplications, about a millisecond; more run in another thread
ENDED = 10_000  # ended sequences that are remembered: an error then gives the reason of the end
LAST = "it ended with its last step"


class OpenSequences:
    """The open sequences of one model. All methods are called in the thread of the event loop.

    Args:
        served: the model, which can answer step by step.
        settings: the bounds.
        journal: the file of all changes; None: the sequences end with the process.
        counted: is called with the numbers of frames and of steps that were played together.

    Raises:
        ValueError: the journal cannot be read.
    """

    def __init__(
        self,
        served: Served,
        settings: Settings,
        journal: Journal | None = None,
        counted: Callable[[int, int], None] = lambda frames, steps: None,
    ):
        self.served, self._settings, self._journal = served, settings, journal
        self._counted = counted
        self._pool = served.model.pool(settings.sequences)
        self._scratch = served.model.pool(1)
        self._cost = served.model.stream().explain().multiplies
        self._open: OrderedDict[Key, Remembered] = OrderedDict()  # the least recently used first
        self._ended: OrderedDict[Key, Remembered] = OrderedDict()
        self.listeners = Listeners()
        self._queue: deque[StepRequest] = deque()
        self._wake, self._lock = asyncio.Event(), asyncio.Lock()
        self._taken = 0  # frames that are being played
        # For `_undo`, of each frame that is being played: the key, and as they were before it the
        # open sequence, its state, and the ended sequence of the same key.
        self._changed: list[tuple[Key, Remembered | None, bytes, Remembered | None]] = []
        self._beginning = 0  # frames among them that begin a sequence
        if journal is not None:
            for record in journal.records():
                self._replay(record)

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, key: Key) -> bool:
        return key in self._open or key in self._ended

    def is_open(self, key: Key) -> bool:
        """Whether a sequence has begun and not ended."""
        return key in self._open

    @property
    def keys(self) -> list[Key]:
        """The keys of the open sequences."""
        return list(self._open)

    def gone(self, key: Key, why: str) -> None:
        """Remember why a sequence of another version of the model is not open in this one."""
        self._log([Record(["gone", key, why])])
        self._remember(key, Remembered(b"", why=why))

    @property
    def waiting(self) -> int:
        """Frames that are not answered yet."""
        return len(self._queue) + self._taken

    # ---- requests

    def rows(self, x: Any) -> Array:
        """The rows of a frame from steps in the form that the model reads.

        Raises:
            Refusal: the steps cannot be read, or there are too many.
        """
        try:
            rows = self._pool.rows(x)
        except (ValueError, TypeError) as problem:
            hint = "Nothing was read; finite=False lets such values pass"
            raise bad(str(problem).replace(hint, "Nothing was read")) from None
        if len(rows) > self._settings.steps:
            raise Refusal(
                413, f"{len(rows):,} steps came; wanted {self._settings.steps:,} at most (--steps)"
            )
        return rows

    async def play(self, frame: StepRequest) -> StepRequest:
        """Queue a frame, and return it with its answers.

        Raises:
            Refusal: there is no such sequence (404), it ended (410), n is not its next step (409),
                no further sequence can begin (429), or too many frames wait (503).
        """
        if self.waiting >= self._settings.queue:
            raise Refusal(503, f"{self.waiting:,} requests wait to be played; try again", 1)
        frame.future = asyncio.get_running_loop().create_future()
        self._queue.append(frame)
        self._wake.set()
        await frame.future
        return frame

    async def begin(self, key: Key, state: bytes | None = None, *, replace: bool = False) -> int:
        """Begin a sequence, new or from a state, and return the number of steps that it has read.

        Args:
            replace: whether the state may replace that of an open sequence.

        Raises:
            Refusal: the state is damaged or another model's (400); the sequence is open (409); no
                further sequence can begin (429); the journal cannot be written (503).
        """
        async with self._lock:
            if key in self._open and not replace:
                raise Refusal(409, f"the sequence {key!r} is open already; take another name")
            if key not in self._open:
                self._check_room()
            try:
                if state is not None:
                    self._scratch.restore("", state)
            except ValueError as problem:
                raise bad(str(problem)) from None
            self._log([Record(["begin", key], state or b"")])
            self._begin(key, state)
            return self._pool.n(key)

    async def end(self, key: Key, why: str) -> int:
        """End a sequence, and return the number of steps that it has read.

        Raises:
            Refusal: there is no such sequence, or the journal cannot be written.
        """
        async with self._lock:
            self._known(key)
            n = self._pool.n(key)
            self._log([Record(["gone", key, why])])
            self._end(key, why)
            return n

    async def state(self, key: Key) -> tuple[int, bytes]:
        """The number of steps so far, and the state as bytes, for `begin`."""
        async with self._lock:
            self._known(key)
            return self._pool.n(key), self._pool.save(key)

    def listen(self, key: Key) -> asyncio.Queue[Any]:
        """A queue of the answers of a sequence from here on; see `Listeners`."""
        self._known(key)
        return self.listeners.add(key)

    # ---- the player

    async def run(self) -> None:
        """Play the queued frames, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                async with self._lock:
                    await self._play_together(self._take())

    def _take(self) -> list[StepRequest]:
        """Take the first frame of each sequence from the queue; the others wait."""
        taken: dict[Key, StepRequest] = {}
        later: deque[StepRequest] = deque()
        for frame in self._queue:
            if frame.future.done():  # the client has gone
                continue
            if taken.setdefault(frame.key, frame) is not frame:
                later.append(frame)
        self._queue = later
        return list(taken.values())

    async def _play_together(self, frames: list[StepRequest]) -> None:
        self._taken, self._beginning = len(frames), 0
        try:
            ready = [frame for frame in frames if self._ready(frame)]
            if not ready:
                return
            steps = sum(len(frame.rows) for frame in ready)
            self._changed = []
            mark = self._log(self._record(frame) for frame in ready)
            try:
                if steps * self._cost <= INLINE:
                    self._play(ready)
                else:
                    await asyncio.to_thread(self._play, ready)
            except BaseException:
                self._undo(mark)
                raise
            self._counted(len(ready), steps)
            for frame in ready:
                self._answered(frame)
        except Exception as problem:
            for frame in frames:
                if not frame.future.done():
                    frame.future.set_exception(problem)
        finally:
            self._taken = 0

    def _ready(self, frame: StepRequest) -> bool:
        """Whether a frame is to be played; otherwise it is answered or refused here."""
        try:
            if frame.start:
                if frame.n not in (None, 1):
                    raise Refusal(409, f"a sequence that starts begins with n = 1, not {frame.n}")
                frame.restarted = frame.key in self._open
                if not frame.restarted:
                    self._check_room(self._beginning)
                    self._beginning += 1
                return True
            ended = self._ended.get(frame.key)
            if frame.key not in self._open and ended is not None and ended.repeats(frame):
                self._repeat(frame, ended)
                return False
            known = self._known(frame.key)
            following = self._pool.n(frame.key) + 1
            if frame.n is None or frame.n == following:
                return True
            if known.repeats(frame):
                self._repeat(frame, known)
                return False
            other = " with other values" if frame.n == known.first else ""
            raise Refusal(
                409,
                f"n = {frame.n} came{other}; the sequence {frame.key!r} has read "
                f"{following - 1} steps, so that the next one is n = {following}",
            )
        except Refusal as problem:
            frame.future.set_exception(problem)
            return False

    def _repeat(self, frame: StepRequest, known: Remembered) -> None:
        """Answer the last frame of a sequence again."""
        self._scratch.restore("", known.before)
        frame.answers = self._scratch.read("", frame.rows, each=frame.each)
        frame.future.set_result(None)

    def _play(self, frames: list[StepRequest]) -> None:
        """Play frames of different sequences."""
        for frame in frames:
            key, known = frame.key, self._open.get(frame.key)
            state = b"" if known is None else self._pool.save(key)
            self._changed.append((key, known and replace(known), state, self._ended.get(key)))
            if frame.start:
                self._begin(key, None)
            else:
                self._open[key].before = state
            known = self._open[key]
            known.first, known.digest = self._pool.n(frame.key) + 1, digest_of(frame.rows)
        single = [frame for frame in frames if len(frame.rows) == 1]
        if single:
            slots = self._pool.slots([frame.key for frame in single])
            answers = self._pool.push(slots, np.concatenate([frame.rows for frame in single]))
            assert isinstance(answers, Answers)
            for i, frame in enumerate(single):
                frame.answers = answers[i : i + 1]
        for frame in frames:
            if len(frame.rows) > 1:
                each = frame.each or frame.key in self.listeners
                frame.answers = self._pool.read(frame.key, frame.rows, each=each)

    def _undo(self, mark: int) -> None:
        """Restore the sequences that `_play` changed before it failed, as for lack of memory."""
        if self._journal is not None:
            self._journal.cut(mark)
        for key, known, state, ended in self._changed:
            if known is not None:
                self._pool.restore(key, state)
                self._open[key] = known
            else:
                self._open.pop(key, None)
                if key in self._pool:
                    self._pool.drop([key])
            if ended is not None:
                self._ended[key] = ended

    def _answered(self, frame: StepRequest) -> None:
        self._open[frame.key].used = time.monotonic()
        self._open.move_to_end(frame.key)
        if frame.answers is not None and frame.key in self.listeners:
            self.listeners.tell(frame.key, frame.answers)
        if frame.end:
            self._end(frame.key, LAST)
        if not frame.future.done():
            frame.future.set_result(None)

    # ---- beginnings and ends

    def _known(self, key: Key) -> Remembered:
        known = self._open.get(key)
        if known is not None:
            return known
        ended = self._ended.get(key)
        if ended is not None:
            raise Refusal(410, f"the sequence {key!r} is gone: {ended.why}; begin it anew")
        raise Refusal(404, f"there is no sequence {key!r}; begin it first")

    def _check_room(self, more: int = 0) -> None:
        if len(self._open) + more < self._settings.sequences:
            return
        oldest = next(iter(self._open.values())).used if self._open else time.monotonic()
        raise Refusal(
            429,
            f"{len(self._open):,} sequences are open, as many as there may be (--sequences); end "
            "some",
            oldest + self._settings.idle - time.monotonic(),
        )

    def _begin(self, key: Key, state: bytes | None) -> None:
        if key not in self._open:
            self._pool.slots([key])
        if state is None:
            self._pool.reset([key])
        else:
            self._pool.restore(key, state)
        self._ended.pop(key, None)
        self._open[key] = Remembered(self._pool.save(key), used=time.monotonic())
        self._open.move_to_end(key)

    def _end(self, key: Key, why: str) -> None:
        ended = self._open.pop(key)
        ended.why = why
        if why != LAST:  # the last frame cannot be repeated after such an end
            ended.before = ended.digest = b""
        self._pool.drop([key])
        self._remember(key, ended)
        self.listeners.end(key)

    def _remember(self, key: Key, ended: Remembered) -> None:
        self._ended[key] = ended
        self._ended.move_to_end(key)
        while len(self._ended) > ENDED:
            self._ended.popitem(last=False)

    async def expire(self) -> int:
        """End the sequences that were idle for too long, and return how many."""
        async with self._lock:
            latest = time.monotonic() - self._settings.idle
            idle = []
            for key, known in self._open.items():
                if known.used > latest:
                    break
                idle.append(key)
            waiting = {frame.key for frame in self._queue}
            idle = [key for key in idle if key not in waiting]
            why = f"no step came for {self._settings.idle:g} seconds (--idle)"
            if idle:
                self._log(Record(["gone", key, why]) for key in idle)
            for key in idle:
                self._end(key, why)
            return len(idle)

    # ---- the journal

    def _log(self, records: Iterable[Record]) -> int:
        """Append to the journal, and return its size before."""
        if self._journal is None:
            return 0
        try:
            return self._journal.append(records)
        except OSError as problem:
            raise Refusal(
                503,
                f"the state cannot be kept ({problem.strerror}), so that nothing was read; try "
                "again when the disk of --state has room",
                5,
            ) from None

    def _record(self, frame: StepRequest) -> Record:
        head = ["step", frame.key, len(frame.rows), frame.start, frame.end]
        return Record(head, frame.rows.astype("<f4").tobytes())

    def _replay(self, record: Record) -> None:
        """Repeat the change that a record describes."""
        kind, key, *rest = record.head
        if kind == "begin":
            self._begin(key, record.content or None)
        elif kind == "step":
            T, start, end = rest
            rows = np.frombuffer(record.content, "<f4").astype(np.float32).reshape(T, -1)
            self._play([StepRequest(key, rows, start=start, end=end)])
            if end:
                self._end(key, LAST)
        elif kind == "open":
            self._reopen(key, record)
        elif key in self._open:
            self._end(key, rest[0])
        else:
            self._remember(key, Remembered(b"", why=rest[0]))

    def _kept(self) -> Iterator[Record]:
        """All sequences, open and ended, as records."""
        for key, known in (*self._ended.items(), *self._open.items()):
            now = self._pool.save(key) if key in self._open else b""
            head = ["open", key, known.first, known.digest.hex(), len(known.before), known.why]
            yield Record(head, known.before + now)

    def _reopen(self, key: Key, record: Record) -> None:
        """Restore a sequence, open or ended, from a record of a snapshot."""
        first, digest, size, why = record.head[2:]
        before, now = record.content[:size], record.content[size:]
        known = Remembered(before, first, bytes.fromhex(digest), time.monotonic(), why)
        if why:
            self._remember(key, known)
        else:
            self._pool.restore(key, now)
            self._open[key] = known

    @property
    def snapshot_due(self) -> bool:
        """Whether the journal is so long that its replay at a start would take seconds."""
        return self._journal is not None and self._journal.size > MAX_LOG

    async def snapshot(self) -> None:
        """Write the sequences as they are now, in another thread.

        Raises:
            OSError: the snapshot cannot be written; the older files are unchanged.
        """
        if self._journal is None:
            return
        async with self._lock:
            number = self._journal.next()
            kept = list(self._kept())
        await asyncio.to_thread(self._journal.keep, number, kept)

    async def flush(self) -> None:
        """Force the journal to the disk."""
        if self._journal is not None:
            await asyncio.to_thread(self._journal.flush)

    async def close(self) -> None:
        """Wait for the queued frames, write a snapshot, and close the journal."""
        while self.waiting:
            await asyncio.sleep(0.005)
        if self._journal is not None:
            try:
                await self.snapshot()
            finally:
                self._journal.close()
