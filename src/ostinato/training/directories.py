"""A directory of files that belong together, replaced as one.

A file can be replaced by one atomic rename; a directory that is not empty cannot. So a directory D
is replaced in steps, each of which leaves a whole old or a whole new one to be found:

    1. write the files into .D.new, flush each to the disk, then the directory itself
    2. rename D to .D.old                 from here D is missing, .D.old is the valid one
    3. rename .D.new to D                 from here D is the new one
    4. flush the parent, delete .D.old

Readers go through `current`, which is D or, after a kill between 2 and 3, .D.old. Writers begin
with `_tidy`, which takes .D.old back if it is the valid one and removes what a kill left over.
Nothing is cleaned up on the way out of an error, so that an error is no different from a kill.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def replace_directory(path: Path, files: dict[str, bytes]) -> None:
    """Make `path` a directory of exactly these files: name → content. All or nothing.

    Raises:
        OSError: the disk is full, the place is not writable, and the like; `path` is as it was.
    """
    path, new, old = _names(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path, new, old)
    new.mkdir()
    for name, content in files.items():
        _write(new / name, content)
    _flush(new)
    if path.exists():
        path.rename(old)
    new.rename(path)
    _flush(path.parent)
    if old.exists():
        shutil.rmtree(old)


def current(path: Path) -> Path:
    """Where the files of a directory written by `replace_directory` are now."""
    path, _, old = _names(path)
    return old if old.exists() and not path.exists() else path


def replace_file(path: Path, content: bytes) -> None:
    """Make `path` a file with this content. All or nothing."""
    path = path.resolve()
    new = path.with_name(f".{path.name}.new")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(new, content)
    new.replace(path)
    _flush(path.parent)


def _names(path: Path) -> tuple[Path, Path, Path]:
    path = path.resolve()
    return path, path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")


def _tidy(path: Path, new: Path, old: Path) -> None:
    if old.exists() and not path.exists():
        old.rename(path)
    for left_over in (new, old):
        if left_over.exists():
            shutil.rmtree(left_over)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(directory: Path) -> None:
    """Make the names in a directory durable. Windows has no such call and does it by itself."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
