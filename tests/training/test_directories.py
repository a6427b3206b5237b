from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ostinato.training.directories import current, replace_directory, replace_file

OLD = {"a": b"old a", "b": b"old b"}
NEW = {"a": b"new a", "b": b"new b"}


class Killed(BaseException):
    """Ends a write as a kill would: nothing of the code after it runs but what `finally` holds."""


def kill_at(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the n-th call (from 0) that changes the disk not happen, nor any after it."""
    calls = iter(range(1_000_000))

    def deadly(operation):
        def wrapped(*args, **kwargs):
            if next(calls) >= n:
                raise Killed
            return operation(*args, **kwargs)

        return wrapped

    for owner, name in [
        (os, "fsync"),
        (os, "unlink"),
        (os, "rmdir"),
        (shutil, "rmtree"),
        (Path, "rename"),
        (Path, "replace"),
        (Path, "mkdir"),
    ]:
        monkeypatch.setattr(owner, name, deadly(getattr(owner, name)))


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in current(path).iterdir()}


def kills(write, path: Path) -> list[dict[str, bytes]]:
    """What can be read after a kill at each operation of `write`, until one gets through."""
    seen = []
    for n in range(100):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(n, patch)
            try:
                write()
                killed = False
            except Killed:
                killed = True
        seen.append(content(path))
        if not killed:
            return seen
        replace_directory(path, OLD)  # a later write copes with whatever the kill left
        assert content(path) == OLD
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    raise AssertionError("the write never got through")


def test_a_kill_at_any_operation_leaves_the_old_or_the_new_whole(tmp_path):
    path = tmp_path / "d"
    replace_directory(path, OLD)
    seen = kills(lambda: replace_directory(path, NEW), path)
    assert all(files in (OLD, NEW) for files in seen)
    assert seen[0] == OLD and seen[-1] == NEW
    assert len(seen) > 8  # mkdir, three flushes, two renames, one flush, the removal


def test_a_kill_while_an_interrupted_write_is_repaired(tmp_path):
    """The state after a kill between the two renames, and then a kill at every operation."""
    path = tmp_path / "d"

    def torn_write():
        replace_directory(path, OLD)
        path.rename(tmp_path / ".d.old")
        (tmp_path / ".d.new").mkdir(exist_ok=True)
        assert content(path) == OLD

    for n in range(100):
        torn_write()
        with pytest.MonkeyPatch.context() as patch:
            kill_at(n, patch)
            try:
                replace_directory(path, NEW)
                break
            except Killed:
                pass
        assert content(path) in (OLD, NEW)
    assert content(path) == NEW and n > 8


def test_a_first_write_makes_the_directories_above(tmp_path):
    replace_directory(tmp_path / "x" / "y", NEW)
    assert content(tmp_path / "x" / "y") == NEW


def test_files_of_the_old_directory_do_not_stay(tmp_path):
    replace_directory(tmp_path / "d", {**OLD, "c": b""})
    replace_directory(tmp_path / "d", NEW)
    assert content(tmp_path / "d") == NEW


def test_a_link_to_a_directory_stays_a_link(tmp_path):
    replace_directory(tmp_path / "d", OLD)
    (tmp_path / "link").symlink_to(tmp_path / "d")
    replace_directory(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "link") == content(tmp_path / "d") == NEW


def test_a_file_is_replaced_whole(tmp_path):
    file = tmp_path / "f"
    replace_file(file, b"old")
    for n in range(10):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(n, patch)
            try:
                replace_file(file, b"new")
                break
            except Killed:
                pass
        assert file.read_bytes() in (b"old", b"new")
    assert file.read_bytes() == b"new" and n >= 3
