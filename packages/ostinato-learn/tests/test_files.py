from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from ostinato_learn.files import current, write_bytes, write_directory, write_json, write_text

OLD = {"a": b"old a", "b": b"old b"}
NEW = {"a": b"new a", "b": b"new b"}


class Killed(BaseException):
    """Ends a write as a kill would: nothing after it has an effect, for every call raises it."""


OPERATIONS = [  # that change the disk
    (os, "fsync"),
    (os, "unlink"),
    (os, "rmdir"),
    (shutil, "rmtree"),
    (Path, "rename"),
    (Path, "replace"),
    (Path, "mkdir"),
]


def kill_at(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the n-th call (from 0) that changes the disk not happen, nor any after it."""
    fail(monkeypatch, lambda call: call >= n, Killed())


def fail(monkeypatch: pytest.MonkeyPatch, when, error: BaseException) -> None:
    """Let `error` happen instead of the calls that change the disk, numbered from 0, for `when`."""
    calls = iter(range(1_000_000))

    def failing(operation):
        def wrapped(*args, **kwargs):
            if when(next(calls)):
                raise error
            return operation(*args, **kwargs)

        return wrapped

    for owner, name in OPERATIONS:
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))


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
        write_directory(path, OLD)  # a later write copes with whatever the kill left
        assert content(path) == OLD
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    raise AssertionError("the write never got through")


def test_a_kill_at_any_operation_leaves_the_old_or_the_new_whole(tmp_path):
    path = tmp_path / "d"
    write_directory(path, OLD)
    seen = kills(lambda: write_directory(path, NEW), path)
    assert all(files in (OLD, NEW) for files in seen)
    assert seen[0] == OLD and seen[-1] == NEW
    assert len(seen) > 8  # mkdir, three flushes, two renames, one flush, the removal


def test_a_kill_while_an_interrupted_write_is_repaired(tmp_path):
    """The state after a kill between the two renames, and then a kill at every operation."""
    path = tmp_path / "d"

    def torn_write():
        write_directory(path, OLD)
        path.rename(tmp_path / ".d.old")
        (tmp_path / ".d.new").mkdir(exist_ok=True)
        assert content(path) == OLD

    for n in range(100):
        torn_write()
        with pytest.MonkeyPatch.context() as patch:
            kill_at(n, patch)
            try:
                write_directory(path, NEW)
                break
            except Killed:
                pass
        assert content(path) in (OLD, NEW)
    assert content(path) == NEW and n > 8


def test_a_first_write_makes_the_directories_above(tmp_path):
    write_directory(tmp_path / "x" / "y", NEW)
    assert content(tmp_path / "x" / "y") == NEW


def test_files_of_the_old_directory_do_not_stay(tmp_path):
    write_directory(tmp_path / "d", {**OLD, "c": b""})
    write_directory(tmp_path / "d", NEW)
    assert content(tmp_path / "d") == NEW


def test_a_link_to_a_directory_stays_a_link(tmp_path):
    write_directory(tmp_path / "d", OLD)
    (tmp_path / "link").symlink_to(tmp_path / "d")
    write_directory(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "link") == content(tmp_path / "d") == NEW


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
def test_an_error_or_ctrl_c_leaves_the_old_or_the_new_and_nothing_beside_it(error, tmp_path):
    file, directory = tmp_path / "f", tmp_path / "d"
    outcomes = set()
    for n in range(100):
        write_bytes(file, b"old")
        write_directory(directory, OLD)
        raised = 0
        for path, write in (
            (file, lambda: write_bytes(file, b"new")),
            (directory, lambda: write_directory(directory, NEW)),
        ):
            with pytest.MonkeyPatch.context() as patch:
                fail(patch, lambda call, n=n: call == n, error)
                try:
                    write()
                except OSError as caught:
                    assert caught.filename == str(path)
                    raised += 1
                except KeyboardInterrupt:
                    raised += 1
        assert file.read_bytes() in (b"old", b"new")
        assert content(directory) in (OLD, NEW)
        assert sorted(tmp_path.iterdir()) == [directory, file]
        outcomes.add((file.read_bytes(), content(directory)["a"]))
        if not raised:
            break
    assert n > 8 and outcomes >= {(b"old", b"old a"), (b"new", b"new a")}


def test_a_directory_never_takes_the_place_of_something_else(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("mine")
    for taken in (tmp_path / "pipe", tmp_path / "file"):
        with pytest.raises(NotADirectoryError, match=str(taken)):
            write_directory(taken, NEW)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert (tmp_path / "file").read_text() == "mine"


# ---- one file


def test_a_file_is_replaced_whole(tmp_path):
    file = tmp_path / "f"
    write_bytes(file, b"old")
    for n in range(10):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(n, patch)
            try:
                write_bytes(file, b"new")
                break
            except Killed:
                pass
        assert file.read_bytes() in (b"old", b"new")
    assert file.read_bytes() == b"new" and n >= 3


def test_of_two_writers_at_once_one_is_read_whole(tmp_path, monkeypatch):
    """The second writes and is done while the first is about to flush its own content."""
    file, flush, reads = tmp_path / "f", os.fsync, []

    def interleaved(handle):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", flush)
            write_bytes(file, b"second")
        reads.append(file.read_bytes())
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interleaved)
        write_bytes(file, b"the first")
    assert reads[0] == b"second"
    assert set(reads) | {file.read_bytes()} <= {b"the first", b"second"}
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_a_link_and_its_target_gets_the_content(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target", tmp_path / "link"
    link.symlink_to(target)
    for text in ("made", "replaced"):
        write_text(link, text)
        assert link.is_symlink() and target.read_text() == text
    assert list(target.parent.iterdir()) == [target]


def test_permissions_are_those_of_the_old_file_and_else_those_of_any_new_one(tmp_path):
    private, new, other = (tmp_path / name for name in ("private", "new", "other"))
    private.touch()
    private.chmod(0o600)
    other.touch()
    for path in (private, new):
        write_bytes(path, b"content")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert new.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_pipe_receives_the_content_and_stays_a_pipe(tmp_path, through_a_link):
    pipe = target = tmp_path / "pipe"
    os.mkfifo(pipe)
    if through_a_link:
        target = tmp_path / "link"
        target.symlink_to(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_text(target, "content")
    reader.join(timeout=10)
    assert received == [b"content"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
def test_a_full_device_is_an_error_that_names_it_and_stays_a_device():
    before = set(Path("/dev").iterdir())
    with pytest.raises(OSError, match="/dev/full") as caught:
        write_text(Path("/dev/full"), "content")
    assert caught.value.errno == errno.ENOSPC
    assert Path("/dev/full").is_char_device()
    assert set(Path("/dev").iterdir()) == before


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path):
    with pytest.raises(IsADirectoryError) as caught:
        write_bytes(tmp_path, b"")
    assert caught.value.filename == str(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        fail(patch, lambda _: True, OSError(errno.ENOSPC, "disk full"))
        with pytest.raises(OSError, match="disk full") as caught:
            write_bytes(tmp_path / "f", b"")
    assert caught.value.filename == str(tmp_path / "f")


def test_json_refuses_what_json_has_not(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
