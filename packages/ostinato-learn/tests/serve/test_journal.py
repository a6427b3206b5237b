"""What was answered is in the journal: after any end, everything goes on."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil

import numpy as np
import pytest
from serving import GOLDEN, arrays, golden, run, serving, step

from ostinato_learn import runtime
from ostinato_learn.serve import journal as journals
from ostinato_learn.serve.journal import Journal, Record

MODEL = runtime.load(GOLDEN / "gru")
INFER, SESSIONS = "/v2/models/gru/infer", "/v2/models/gru/sessions"
X = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)


async def ask(client, key, first, last, start=False, end=False, n=None):
    """Steps first … last − 1 of X, and whether the answer is that of predict for X[:last]."""
    number = {} if n is None else {"n": n}
    answer = await client.post(INFER, json=step(key, X[None, first:last], start, end, **number))
    assert answer.status_code == 200, answer.text
    found = arrays(answer.json())["probabilities"][0]
    assert (found == MODEL.predict_proba(X[None, :last])[0]).all()


@pytest.mark.parametrize("snapshot", [False, True])
def test_after_a_kill_every_sequence_goes_on(tmp_path, snapshot):
    async def test():
        async with serving(golden("gru"), state=tmp_path, clean=False) as client:
            await ask(client, "a", 0, 3, start=True)
            await ask(client, 7, 0, 1, start=True)
            await ask(client, "over", 0, 2, start=True)
            await ask(client, "over", 2, 3, end=True, n=3)
            if snapshot:
                await client.models.snapshot()
            await ask(client, "a", 3, 4, n=4)
            await client.post(SESSIONS, json={"id": "new"})
            await client.post(SESSIONS, json={"id": "gone"})
            await client.delete(f"{SESSIONS}/gone")
            state = (await client.get(f"{SESSIONS}/a/state")).content
            await client.put(f"{SESSIONS}/b/state", content=state)
        async with serving(golden("gru"), state=tmp_path, clean=False) as client:
            await ask(client, "a", 3, 4, n=4)  # the same request again
            await ask(client, "over", 2, 3, end=True, n=3)
            await ask(client, "a", 4, 5, n=5)
            await ask(client, "b", 4, 9)
            await ask(client, 7, 1, 2)
            assert (await client.get(f"{SESSIONS}/new")).json()["n"] == 0
            assert "DELETE" in (await client.get(f"{SESSIONS}/gone")).json()["error"]
            assert (await client.get(f"{SESSIONS}/over")).status_code == 410
        async with serving(golden("gru"), state=tmp_path) as client:
            await ask(client, "a", 5, 6, n=6)

    run(test())


def test_a_journal_that_ends_anywhere_in_its_last_record_is_that_without_it(tmp_path):
    async def written():
        async with serving(golden("gru"), state=tmp_path / "state", clean=False) as client:
            await ask(client, "a", 0, 1, start=True)
            before = _log(tmp_path / "state").stat().st_size
            await ask(client, "a", 1, 3)
            return before

    before = asyncio.run(written())
    whole = _log(tmp_path / "state").read_bytes()

    async def read(n):
        copy = tmp_path / f"copy{n}"
        shutil.copytree(tmp_path / "state", copy)
        _log(copy).write_bytes(whole[:n])
        async with serving(golden("gru"), state=copy, clean=False) as client:
            assert (await client.get(f"{SESSIONS}/a")).json()["n"] == (3 if n == len(whole) else 1)
            await ask(client, "a", *((3, 4) if n == len(whole) else (1, 3)))

    for n in (before, before + 1, before + 7, before + 8, before + 30, len(whole) - 1, len(whole)):
        run(read(n))
    for at in (0, 10, before - 1, before, before + 9, len(whole) - 1):  # any bit of a whole record
        damaged = bytearray(whole)
        damaged[at] ^= 1
        _log(tmp_path / "state").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            run(opened(tmp_path / "state"))


async def opened(state):
    async with serving(golden("gru"), state=state, clean=False):
        pass


def _log(state):
    (log,) = state.glob("gru/*/*.log")
    return log


def test_a_disk_that_is_full_refuses_and_forgets_nothing(tmp_path, monkeypatch):
    """Also if half of a record was written."""
    full = False
    write = os.write

    def limited(handle, content):
        if not full or handle != client_journal._handle:
            return write(handle, content)
        if len(content) > 20:
            return write(handle, content[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journals.os, "write", limited)

    async def test():
        nonlocal full
        global client_journal
        async with serving(golden("gru"), state=tmp_path, clean=False) as client:
            client_journal = client.models.newest("gru").journal
            await ask(client, "a", 0, 2, start=True)
            full = True
            for body in (step("a", X[None, 2:3]), step("b", X[None, :1], True)):
                refused = await client.post(INFER, json=body)
                assert refused.status_code == 503 and "No space" in refused.json()["error"]
                assert int(refused.headers["retry-after"]) >= 1
            for method, path in (("POST", SESSIONS), ("DELETE", f"{SESSIONS}/a")):
                assert (await client.request(method, path)).status_code == 503
            full = False
            await ask(client, "a", 2, 3, n=3)
        async with serving(golden("gru"), state=tmp_path) as client:
            await ask(client, "a", 3, 4, n=4)
            assert (await client.get(f"{SESSIONS}/b")).status_code == 404

    run(test())


def test_a_snapshot_that_fails_or_is_killed_leaves_what_was_there(tmp_path):
    journal = Journal(tmp_path, "f")
    assert list(journal.records()) == []
    journal.append([Record(["a", 1], b"x\n\0")])
    number = journal.next()
    journal.append([Record(["b", "ü"])])  # and here it is killed
    again = Journal(tmp_path, "f")
    assert list(again.records()) == [Record(["a", 1], b"x\n\0"), Record(["b", "ü"])]
    journal.keep(number, [Record(["kept"])])
    journal.close()
    again = Journal(tmp_path, "f")
    assert list(again.records()) == [Record(["kept"]), Record(["b", "ü"])]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001.kept", "000001.log"]
    with pytest.raises(ValueError, match="another model"):
        list(Journal(tmp_path, "g").records())


def test_a_journal_is_cut_back_to_what_was_played(tmp_path, monkeypatch):
    """Steps that the pool could not play, for want of memory, are not played after a start."""

    async def test():
        async with serving(golden("gru"), state=tmp_path, clean=False) as client:
            await ask(client, "a", 0, 2, start=True)
            sequences = client.models.newest("gru").sequences
            with monkeypatch.context() as patched:
                patched.setattr(sequences._pool, "push", _no_memory)
                failed = await client.post(INFER, json=step("a", X[None, 2:3]))
                assert failed.status_code == 500
            await ask(client, "a", 2, 3, n=3)
        async with serving(golden("gru"), state=tmp_path) as client:
            await ask(client, "a", 3, 4, n=4)

    run(test())


def test_frames_that_fail_together_change_nothing(monkeypatch):
    """Neither a sequence that begins again, nor one that reads the same row twice."""

    async def test():
        async with serving(golden("gru")) as client:
            for key in "ab":
                await client.post(INFER, json=step(key, X[None, [0, 0]], True))
            sequences = client.models.newest("gru").sequences
            before = [await sequences.state(key) for key in "ab"]
            failing = ("push", 1), ("save", 1), ("save", 2), ("save", 3)
            for method, at in failing:
                calls, real = [], getattr(sequences._pool, method)

                def fails(*arguments, calls=calls, real=real, at=at):
                    calls.append(1)
                    return _no_memory() if len(calls) == at else real(*arguments)

                with monkeypatch.context() as patched:
                    patched.setattr(sequences._pool, method, fails)
                    frames = step("a", X[None, 2:3], True), step("b", X[None, :1])
                    answers = [client.post(INFER, json=frame) for frame in frames]
                    codes = [answer.status_code for answer in await asyncio.gather(*answers)]
                assert codes == [500, 500], "they were not played together"
                assert [await sequences.state(key) for key in "ab"] == before

    run(test())


def _no_memory(*_):
    raise MemoryError


def test_two_servers_do_not_share_a_directory(tmp_path):
    async def test():
        async with serving(golden("gru"), state=tmp_path):
            with pytest.raises(ValueError, match="is running"):
                await opened(tmp_path)

    run(test())


@pytest.mark.parametrize("replaced", ["finish", "refuse"])
@pytest.mark.parametrize("kill", [False, True])
def test_open_sequences_of_a_model_that_is_replaced(tmp_path, replaced, kill):
    """They finish with the model that they began with, or are refused; also after a kill."""
    run_directory, state = tmp_path / "m", tmp_path / "state"
    shutil.copytree(GOLDEN / "gru", run_directory)
    bounds = {"state": state, "replaced": replaced, "clean": not kill}

    async def test():
        async with serving({"gru": run_directory}, **bounds) as client:
            await ask(client, "a", 0, 2, start=True)
            shutil.rmtree(run_directory)
            shutil.copytree(GOLDEN / "rnn", run_directory)
            loaded = await client.post("/v2/repository/models/gru/load")
            assert loaded.json() == {"name": "gru", "version": "2"}
            await goes_on(client, 2)
            again = await client.post("/v2/repository/models/gru/load")
            assert again.json()["version"] == "2"
        async with serving({"gru": run_directory}, **bounds) as client:
            await goes_on(client, 3)
            if replaced == "finish":
                await ask(client, "a", 4, 5, end=True)
                await client.models.tend()
            versions = (await client.get("/v2/models/gru")).json()["versions"]
            assert len(versions) == 1
        assert len(list((state / "gru").iterdir())) == 1

    async def goes_on(client, at):
        if replaced == "finish":
            await ask(client, "a", at, at + 1)
        else:
            answer = await client.post(INFER, json=step("a", X[None, at : at + 1]))
            assert answer.status_code == 410 and "replaced" in answer.json()["error"]
        new = await client.post(INFER, json=step(f"b{at}", X[None, :1], True))
        wanted = runtime.load(GOLDEN / "rnn").predict_proba(X[None, :1])[0]
        assert (arrays(new.json())["probabilities"][0] == wanted).all()
        await client.delete(f"{SESSIONS}/b{at}")

    run(test())
