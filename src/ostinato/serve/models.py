"""`Models`: the models of a server by name, and the versions of a model that is loaded anew.

With `--state DIR`, DIR/NAME/FINGERPRINT/ has the journal of a version and a copy of its model:
sequences that began with the version can end with it, even if the process is killed between.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ostinato import files, runtime
from ostinato.runtime.model import Model
from ostinato.saved.read import CONFIG, TENSORS, model_in
from ostinato.serve.frames import Key
from ostinato.serve.journal import Journal
from ostinato.serve.metrics import Metrics
from ostinato.serve.model import Served
from ostinato.serve.refused import Refusal
from ostinato.serve.sequences import OpenSequences
from ostinato.serve.settings import Settings

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

    # ---- the life of a server

    def start(self) -> None:
        """Start to play queued steps, in the running event loop."""
        for versions in self._versions.values():
            for version in versions:
                self._start(version)

    def _start(self, version: Version) -> None:
        if version.sequences is not None and version.task is None:
            version.task = asyncio.create_task(version.sequences.run())

    async def tend(self) -> None:
        """End idle sequences, and old versions without open sequences. Called from time to time."""
        for name in self.names:
            for version in list(self._versions[name]):
                if version.sequences is None:
                    continue
                n = await version.sequences.expire()
                self.metrics.expired.labels(name).inc(n)
                await version.sequences.flush()
                if version is not self._versions[name][0] and not len(version.sequences):
                    self._versions[name].remove(version)
                    await self._stop(version)
                    self._remove(version)

    async def snapshot(self, *, due_only: bool = False) -> None:
        """Write snapshots of all sequences; a failed write is logged and tried again later."""
        for versions in self._versions.values():
            for version in versions:
                sequences = version.sequences
                if sequences is None or (due_only and not sequences.snapshot_due):
                    continue
                try:
                    await sequences.snapshot()
                except OSError as problem:
                    _log.warning("the snapshot was not written: %s", problem.strerror)

    async def close(self) -> None:
        """Play the queued steps, write the last snapshots and end."""
        for versions in self._versions.values():
            for version in versions:
                try:
                    if version.sequences is not None:
                        await version.sequences.close()
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
        self._versions[name].remove(old)
        await self._stop(old)
        self._remove(old)

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
                self._remove(old)
            else:
                self._versions[name].append(old)

    def _remove(self, version: Version) -> None:
        if version.journal is not None:
            version.journal.close()
            shutil.rmtree(version.journal.directory)

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


def copy_of(model: Path, place: Path) -> None:
    """Copy the files of a model that the runtime reads, unless the copy exists."""
    if (files.current(place) / TENSORS).is_file():
        return
    source = files.current(model)
    files.write_directory(place, {n: (source / n).read_bytes() for n in (CONFIG, TENSORS)})
