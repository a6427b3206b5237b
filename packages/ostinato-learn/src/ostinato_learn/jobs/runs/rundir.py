"""The directory of a run: its files, and who may write them.

model/             the model, as `.save(dir)` writes it
config.toml        the resolved configuration
metrics.jsonl      one report a line
losses.csv         the loss of every tenth iteration
evaluation.json    the results; written last, so its presence says that the run is finished
predictions.csv    the test part: index, label, prediction, probability
environment.json   versions, machine, git state
report.html        the report
checkpoint/        the state from which an interrupted run is resumed
start/             with --from, a copy of the model that it started from
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostinato_learn import files

HEADER = "# ostinato: the resolved configuration of this run\n"  # marks a directory as a run


RESULTS = {"test", "elapsed_s", "iterations", "outcome"}  # required in evaluation.json


class RunDirError(ValueError):
    """The directory cannot be used; the message says why and what to do."""


class _FileOfRun:
    """A path in the directory of a run."""

    def __init__(self, name: str):
        self._name = name

    def __get__(self, run: RunDir, _: type[RunDir]) -> Path:
        return run.path / self._name


@dataclass(frozen=True)
class RunDir:
    """The directory of one run, and the paths of the files in it."""

    path: Path

    model = _FileOfRun("model")
    config = _FileOfRun("config.toml")
    metrics = _FileOfRun("metrics.jsonl")
    losses = _FileOfRun("losses.csv")
    evaluation = _FileOfRun("evaluation.json")
    predictions = _FileOfRun("predictions.csv")
    environment = _FileOfRun("environment.json")
    report = _FileOfRun("report.html")
    checkpoint = _FileOfRun("checkpoint")
    start = _FileOfRun("start")

    def is_run(self) -> bool:
        """Whether the directory has a configuration written by this program."""
        if not self.config.is_file():
            return False
        with self.config.open("rb") as file:
            return file.read(len(HEADER)) == HEADER.encode()

    def results(self) -> dict[str, Any] | None:
        """The content of evaluation.json; None while the run is not finished.

        A damaged file counts as missing: the results are then written again from the checkpoint.
        """
        try:
            results = files.parse_json(self.evaluation.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        whole = isinstance(results, dict) and results.keys() >= RESULTS
        return results if whole and isinstance(results["test"], dict) else None

    def surroundings(self) -> dict[str, Any]:
        """The content of environment.json; empty if the run was stopped before it was written.

        Raises:
            RunDirError: it is damaged.
        """
        try:
            known = files.parse_json(self.environment.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            known = None
        if not isinstance(known, dict):
            raise RunDirError(f"{self.environment} is damaged: it is not JSON; copy it again")
        return known

    def begin(
        self, config_toml: str, environment: dict[str, Any], start: dict[str, bytes] | None = None
    ) -> None:
        """Write the files that describe the run; `start` are those of the model to start from."""
        if start is not None:
            files.write_directory(self.start, start)
        files.write_text(self.config, HEADER + config_toml)
        files.write_json(self.environment, environment)

    def go_on(self, config_toml: str) -> None:
        """Mark the run as unfinished, and write its new configuration, before more is trained."""
        # In this order: a run killed in between is unfinished, not finished with the wrong length.
        self.evaluation.unlink(missing_ok=True)
        files.write_text(self.config, HEADER + config_toml)

    def clear(self) -> None:
        """Remove the files of the run, and no others."""
        # evaluation.json goes first, so that a run half removed does not look finished;
        # config.toml goes last, so that it still looks like a run.
        results = (self.evaluation, self.report, self.predictions, self.metrics, self.losses)
        directories = (self.checkpoint, self.start, self.model)
        for path in (*results, self.environment, *directories, self.config):
            for each in (path, *files.leftovers(path)):
                _remove(each)


def check(output: Path, overwrite: bool = False) -> None:
    """Raise RunDirError if `create` could not make a run at `output`; nothing is changed.

    Raises:
        RunDirError: something exists there already (with `overwrite`: something that is not a run).
    """
    if output.name.endswith("-N") or not os.path.lexists(output):
        return
    if not overwrite:
        raise RunDirError(
            f"{output} exists already; take another --output, or --resume to go on with it, "
            "or --overwrite to begin again"
        )
    if not RunDir(output).is_run() and not _is_empty_directory(output):
        raise RunDirError(
            f"{output} is not the directory of an ostinato run, so it is not overwritten; "
            "take another --output"
        )


def create(output: Path, overwrite: bool = False) -> RunDir:
    """The directory of a new run at `output`; a name that ends in -N takes the next free number.

    Raises:
        RunDirError: as `check`.
    """
    check(output, overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.name.endswith("-N"):
        return _create_numbered(output)
    output.mkdir(exist_ok=overwrite)
    run = RunDir(output)
    run.clear()
    return run


def reopen(output: Path) -> RunDir:
    """The run to resume at `output`.

    Raises:
        RunDirError: nothing exists there, or something that is not a run, or `output` does not name
            a single run.
    """
    if output.name.endswith("-N"):
        newest = max(_numbers(output), default=None)
        hint = f"; the newest is {_numbered(output, newest)}" if newest else ""
        raise RunDirError(f"--resume needs the name of one run, not {output}{hint}")
    run = RunDir(output)
    if run.is_run():
        return run
    if not os.path.lexists(output):
        raise RunDirError(f"{output}: there is no run to resume{_near(output)}")
    if _is_empty_directory(output):
        raise RunDirError(
            f"{output} is empty, so there is no run to resume{_near(output)}; "
            "--overwrite instead of --resume begins one"
        )
    raise RunDirError(
        f"{output} is not the directory of an ostinato run; nothing to resume{_near(output)}"
    )


def _near(output: Path, most: int = 3) -> str:
    """The runs that the user may have meant, for an error: those with similar names, or the
    newest."""
    place = output.parent if output.parent.is_dir() else output.parent.parent
    names = {str(run.path.relative_to(place)): run.path for run in _runs_under(place)}
    like = difflib.get_close_matches(str(output.relative_to(place)), names, n=most)
    if like:
        return f"; did you mean {' or '.join(str(names[name]) for name in like)}?"
    newest = sorted(names.values(), key=lambda path: path.stat().st_mtime, reverse=True)
    found = ", ".join(map(str, newest[:most]))
    return f"; the newest near it: {found}" if found else ""


def _runs_under(place: Path) -> Iterator[RunDir]:
    """The runs in a directory, and in the directories in it."""
    for pattern in ("*/config.toml", "*/*/config.toml"):
        for config in place.glob(pattern):
            if RunDir(config.parent).is_run():
                yield RunDir(config.parent)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _create_numbered(output: Path) -> RunDir:
    number = max(_numbers(output), default=0)
    while True:
        number += 1
        path = _numbered(output, number)
        try:
            path.mkdir()  # fails if another process has made it
        except FileExistsError:
            continue
        return RunDir(path)


def _numbered(output: Path, number: int) -> Path:
    return output.with_name(f"{output.name[:-1]}{number}")


def _numbers(output: Path) -> list[int]:
    """The numbers taken by the siblings `name-1`, `name-2`, … of `name-N`."""
    pattern = re.compile(re.escape(output.name[:-1]) + r"([1-9]\d*)")
    if not output.parent.is_dir():
        return []
    matches = (pattern.fullmatch(sibling.name) for sibling in output.parent.iterdir())
    return [int(match[1]) for match in matches if match]
