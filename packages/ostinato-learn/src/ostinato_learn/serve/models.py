"""`Models`: the models of a server by name, and the versions of a model that is loaded anew.

With `--state DIR`, DIR/NAME/FINGERPRINT/ has the journal of a version and a copy of its model:
sequences that began with the version can end with it, even if the process is killed between.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ostinato_learn import files, runtime
from ostinato_learn.runtime.model import Model
from ostinato_learn.saved.read import CONFIG, TENSORS, model_in
from ostinato_learn.serve.frames import Key, StepRequest
from ostinato_learn.serve.journal import Journal
from ostinato_learn.serve.metrics import Metrics
from ostinato_learn.serve.model import Head, Served
from ostinato_learn.serve.refused import Refusal
from ostinato_learn.serve.sequences import OpenSequences
from ostinato_learn.serve.settings import Settings
from ostinato_learn.serve.tensors import MOST, bad, whole

_log = logging.getLogger(__name__)
REPLACED = "its model was replaced by another version"


@dataclass(eq=False)
class Version:
    """A model as it was loaded at one time.

    Attributes:
        sequences: its open sequences; None if the model cannot answer step by step.
        journal: the journal of the sequences; None without `--state`.
        task: the task that plays the queued steps, once the server has started.
    """

    served: Served
    sequences: OpenSequences | None
    journal: Journal | None
    task: asyncio.Task[None] | None = None

    @property
    def stepwise(self) -> OpenSequences:
        """Its open sequences; raises Refusal if the model cannot answer step by step."""
        if self.sequences is None:
            raise Refusal(400, f"{self.served.name!r}: {self.served.why_not}")
        return self.sequences


class Models:
    """All models of a server.

    Args:
        directories: the directories of runs or of saved models, by name.
        settings, metrics: those of the server.

    Raises:
        ValueError: a model cannot be loaded, a journal cannot be read, or another server uses the
            directory of --state.
        OSError: the directory of --state is not writable.
    """

    def __init__(self, directories: dict[str, Path], settings: Settings, metrics: Metrics):
        self.directories, self.settings, self.metrics = directories, settings, metrics
        self._lock_handle = -1
        self._last: dict[str, int] = {}  # the newest number of a version, by the name of the model
        if settings.state is not None:
            self._lock_state(settings.state)
        self._versions: dict[str, list[Version]] = {}
        try:
            for name, path in directories.items():
                self._versions[name] = [self._made(name, runtime.load(path), path)]
                self._earlier(name)
        except BaseException:
            self._unlock()
            raise

    @property
    def names(self) -> list[str]:
        return list(self.directories)

    def versions(self, name: str) -> list[Version]:
        """The versions of a model, the newest first."""
        return self._versions[name]

    def newest(self, name: str, version: str | None = None) -> Version:
        """The version of a model that answers a request.

        Raises:
            Refusal: there is no such model, or no such version.
        """
        if name not in self._versions:
            raise Refusal(404, f"there is no model {name!r}; there are {', '.join(self.names)}")
        found = self._versions[name]
        if version is None:
            return found[0]
        for each in found:
            if each.served.version == version:
                return each
        known = ", ".join(each.served.version for each in found)
        raise Refusal(404, f"{name!r} has no version {version!r}; wanted {known}")

    def with_sequence(self, name: str, key: Key, version: str | None = None) -> Version:
        """The version that has a sequence, or else the newest.

        Raises:
            Refusal: there is no such model, or it does not answer step by step.
        """
        newest = self.newest(name, version)
        if version is None and not newest.stepwise.is_open(key):
            for each in self._versions[name][1:]:
                if each.sequences is not None and each.sequences.is_open(key):
                    return each
        return newest

    async def play(
        self,
        name: str,
        key: Key,
        read: Callable[[Head], Any],
        *,
        version: str | None = None,
        n: Any = None,
        start: bool = False,
        end: bool = False,
        each: bool | None = None,
    ) -> tuple[Version, StepRequest]:
        """Play steps of a sequence in the version that has it, and return both.

        Args:
            name, version, key: of the model, its version and the sequence.
            read: gives the steps as the model's head reads them.
            n, start, end, each: see `StepRequest`; `each` is by default that of the head.

        Raises:
            Refusal: see `newest`, `with_sequence` and `OpenSequences.play`; or the steps or n
                cannot be read.
        """
        found = self.newest(name, version) if start else self.with_sequence(name, key, version)
        sequences, head = found.stepwise, found.served.head
        if n is not None:
            whole(n, "n, the number of the first step,", 1, MOST)
        try:
            rows = sequences.rows(read(head))
        except (ValueError, TypeError) as problem:
            raise bad(str(problem)) from None
        each = head.each if each is None else each
        frame = await sequences.play(StepRequest(key, rows, n, start, end, each))
        if frame.restarted:
            self.metrics.restarted.labels(name).inc()
        return found, frame

    # ---- the life of a server

    @property
    def sequences(self) -> list[tuple[str, Version, OpenSequences]]:
        """The versions that answer step by step, each after the name of its model."""
        return [
            (name, version, version.sequences)
            for name, versions in self._versions.items()
            for version in versions
            if version.sequences is not None
        ]

    def start(self) -> None:
        """Start to play queued steps, in the running event loop."""
        for _, version, _ in self.sequences:
            self._start(version)

    def _start(self, version: Version) -> None:
        if version.sequences is not None and version.task is None:
            version.task = asyncio.create_task(version.sequences.run())

    async def tend(self) -> None:
        """End idle sequences, and old versions without open sequences. Called from time to time."""
        for name, version, sequences in self.sequences:
            n = await sequences.expire()
            self.metrics.expired.labels(name).inc(n)
            await sequences.flush()
            if version is not self._versions[name][0] and not len(sequences):
                await self._remove(name, version)

    async def snapshot(self, *, due_only: bool = False) -> None:
        """Write snapshots of all sequences; a failed write is logged and tried again later."""
        for _, _, sequences in self.sequences:
            if due_only and not sequences.snapshot_due:
                continue
            try:
                await sequences.snapshot()
            except OSError as problem:
                _log.warning("the snapshot was not written: %s", problem.strerror)

    async def close(self) -> None:
        """Play the queued steps, write the last snapshots and end."""
        for _, version, sequences in self.sequences:
            try:
                await sequences.close()
            except OSError as problem:
                _log.warning(
                    "the last snapshot was not written (%s); the journal is whole",
                    problem.strerror,
                )
            await self._stop(version)
        self._unlock()

    async def _stop(self, version: Version) -> None:
        if version.task is not None:
            version.task.cancel()
            await asyncio.gather(version.task, return_exceptions=True)

    async def reload(self, name: str) -> Version:
        """Load a model anew from its directory; unchanged files have no effect.

        Its open sequences go on or end, according to `Settings.replaced`.

        Raises:
            Refusal: there is no such model, or the files cannot be loaded; the old version
                remains in use.
        """
        old, path = self.newest(name), self.directories[name]
        try:
            model = await asyncio.to_thread(runtime.load, path)
            versions = self._versions[name]
            for each in versions:
                if each.served.fingerprint == model.fingerprint:
                    versions.remove(each)
                    versions.insert(0, each)
                    return each
            new = self._made(name, model, path)
        except (ValueError, OSError) as problem:
            raise Refusal(400, f"{name!r} was not loaded anew: {problem}") from None
        self._versions[name].insert(0, new)
        self._start(new)
        if self.settings.replaced == "refuse":
            await self._retire(name, old)
        return new

    async def _retire(self, name: str, old: Version) -> None:
        """End the open sequences of a version, and remove the version."""
        new = self._versions[name][0]
        if old.sequences is not None:
            for key in old.sequences.keys:
                await old.sequences.end(key, REPLACED)
                if new.sequences is not None:
                    new.sequences.gone(key, REPLACED)
        await self._remove(name, old)

    async def _remove(self, name: str, version: Version) -> None:
        self._versions[name].remove(version)
        await self._stop(version)
        _delete(version)

    # ---- loading

    def _made(self, name: str, model: Model, path: Path) -> Version:
        """The next version of a model, with the sequences that its journal has."""
        last = self._last[name] = self._last.get(name, 0) + 1
        served = Served(name, last, model)
        if served.why_not is not None:
            return Version(served, None, None)
        journal = None
        if self.settings.state is not None:
            place = self.settings.state / name / model.fingerprint[:16]
            copy_of(model_in(path), place / "model")
            journal = Journal(place, model.fingerprint)
        counted = partial(self.metrics.played, name)
        return Version(served, OpenSequences(served, self.settings, journal, counted), journal)

    def _earlier(self, name: str) -> None:
        """Add the versions of a model that an earlier server left with open sequences."""
        if self.settings.state is None or not (self.settings.state / name).is_dir():
            return
        newest = self._versions[name][0]
        for place in sorted((self.settings.state / name).iterdir()):
            if place.name == newest.served.fingerprint[:16] or not (place / "model").is_dir():
                continue
            old = self._made(name, runtime.load(place / "model"), place / "model")
            assert old.sequences is not None
            if self.settings.replaced == "refuse" and newest.sequences is not None:
                for key in old.sequences.keys:
                    newest.sequences.gone(key, REPLACED)
            if self.settings.replaced == "refuse" or not len(old.sequences):
                _delete(old)
            else:
                self._versions[name].append(old)

    def _lock_state(self, directory: Path) -> None:
        import fcntl  # does not exist on Windows

        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise ValueError(
                f"{directory} is the --state of a server that is running; give another directory"
            ) from None
        self._lock_handle = handle

    def _unlock(self) -> None:
        if self._lock_handle >= 0:
            os.close(self._lock_handle)


def _delete(version: Version) -> None:
    """Delete the journal of a version, and the copy of its model."""
    if version.journal is not None:
        version.journal.close()
        shutil.rmtree(version.journal.directory)


def copy_of(model: Path, place: Path) -> None:
    """Copy the files of a model that the runtime reads, unless the copy exists."""
    if (files.current(place) / TENSORS).is_file():
        return
    source = files.current(model)
    files.write_directory(place, {n: (source / n).read_bytes() for n in (CONFIG, TENSORS)})
