"""Writing files so that a reader finds the old content or the new one, never a part.

**One file.** The content goes into a temporary file in the same directory, is flushed to the disk,
and is renamed over the file; the rename is atomic. A symbolic link stays, and its target is
replaced. A target that exists and is not a regular file (a device, a pipe) is opened and written
to, because a rename would destroy it.

**A directory of files that belong together.** A directory that is not empty cannot be replaced by
one rename, so that a directory D is replaced in steps, each of which leaves a whole one:

    1. write the files into .D.new, flush each to the disk, then the directory itself
    2. rename D to .D.old                 from here D is missing, .D.old is the valid one
    3. rename .D.new to D                 from here D is the new one
    4. flush the parent, delete .D.old

Readers go through `current`, which is D or, after a kill between 2 and 3, .D.old. A directory has
one writer at a time. The writer first repairs what a kill has left, and does the same when an
error or Ctrl-C stops it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    """Make `path` a file with this content; see `write_pieces`."""
    write_pieces(path, (content,))


def write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """Make `path` a file with this content, all or nothing; directories above it are made.

    An existing file keeps its permissions. A device or a pipe receives the content as it comes.

    Raises:
        OSError: the disk is full, the place is not writable, and the like; the error names `path`,
            and a regular file there is unchanged.
    """
    try:
        present = path.stat()
    except FileNotFoundError:  # also of a link that points to nothing
        present = None
    try:
        if present is not None and not stat.S_ISREG(present.st_mode):
            with path.open("wb") as file:
                file.writelines(pieces)
        else:
            _replace(Path(os.path.realpath(path)), pieces, present)
    except OSError as error:
        _name(error, path)
        raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of a value as JSON.

    Raises:
        ValueError: the value contains NaN or infinity, which JSON lacks; nothing is written.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_directory(path: Path, files: dict[str, bytes]) -> None:
    """Make `path` a directory of exactly these files, name → content, all or nothing.

    Raises:
        NotADirectoryError: `path` exists and is something else.
        OSError: the disk is full, the place is not writable, and the like; the error names `path`,
            which is unchanged.
    """
    given = path
    path, new, old = _names(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _repair(path, new, old)
        new.mkdir()
        for name, content in files.items():
            with (new / name).open("wb") as file:
                _write_through(file, content)
        _flush(new)
        if path.exists():
            path.rename(old)
        new.rename(path)
        _flush(path.parent)
        if old.exists():
            _remove(old)
    except BaseException as error:
        _repair(path, new, old)
        if isinstance(error, OSError):
            _name(error, given)
        raise


def current(path: Path) -> Path:
    """Where the files of a directory written by `write_directory` are now.

    The directory itself may be a link; its files may not, so that no file from elsewhere is read.

    Raises:
        ValueError: one of them is a link.
    """
    path, _, old = _names(path)
    place = old if old.exists() and not path.exists() else path
    for entry in os.scandir(place) if place.is_dir() else ():
        if entry.is_symlink():
            raise ValueError(
                f"{Path(place, entry.name)} is a link, which may lead to any file; wanted the file "
                f"itself: cp -rL {place} COPY makes a directory of files"
            )
    return place


def parse_json(content: str | bytes) -> Any:
    """A JSON value of a file.

    Raises:
        ValueError: it is not JSON, or its lists are nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None


def leftovers(path: Path) -> list[Path]:
    """The files that a kill during a write of `path` may have left beside it."""
    import glob  # readers of models do not need it

    unfinished = path.parent.glob(f".{glob.escape(path.name)}.*new")
    return [*unfinished, path.with_name(f".{path.name}.old")]


def _replace(path: Path, pieces: Iterable[bytes], present: os.stat_result | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two writers at the same time must not share a temporary file: its name is random.
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    try:
        with temporary.open("xb") as file:
            # Not every file system allows a chmod: only where the permissions differ.
            if present is not None and present.st_mode != os.fstat(file.fileno()).st_mode:
                temporary.chmod(stat.S_IMODE(present.st_mode))
            file.writelines(pieces)
            _write_through(file, b"")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def _name(error: OSError, path: Path) -> None:
    """Make an error name the file to be written, not a temporary file."""
    if error.errno is not None and error.filename2 is None:
        error.filename = str(path)


def _names(path: Path) -> tuple[Path, Path, Path]:
    path = Path(os.path.realpath(path))
    return path, path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")


def _repair(path: Path, new: Path, old: Path) -> None:
    """Give the valid directory its name back, and delete the rest."""
    if old.exists() and not path.exists():
        old.rename(path)
    for left_over in (new, old):
        if left_over.exists():
            _remove(left_over)


def _remove(directory: Path) -> None:
    import shutil  # and with it three libraries of compression: not for readers of models

    shutil.rmtree(directory)


def _write_through(file: Any, content: bytes) -> None:
    """Write, and return when the content is on the disk."""
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _flush(directory: Path) -> None:
    """Make the names in a directory durable. Windows lacks such a call and does it by itself."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
