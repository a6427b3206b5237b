"""Open sequences: none is mixed with another, restarted or lost, whatever comes with it."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from time import monotonic
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import GOLDEN, arrays, golden, run, serving, step

from ostinato_learn import runtime
from ostinato_learn.serve import sequences, server
from ostinato_learn.serve.frames import StepRequest

MODEL = runtime.load(GOLDEN / "gru")
INFER, SESSIONS = "/v2/models/gru/infer", "/v2/models/gru/sessions"
X = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
N_KEYS = 6


def belief(rows):
    """What predict says of all rows so far."""
    return MODEL.predict_proba(np.asarray(rows)[None])[0]


ACTIONS = st.lists(
    st.tuples(
        st.integers(0, N_KEYS - 1),
        st.sampled_from(["step", "step", "chunk", "start", "end", "repeat", "wrong", "state"]),
        st.integers(0, 37),
    ),
    max_size=30,
)


@settings(max_examples=25)
@given(ACTIONS)
def test_any_order_of_requests_has_the_answers_of_each_sequence_alone(actions):
    """Steps, chunks, restarts, ends, repeats, refusals and states against lists of rows."""

    async def test():
        read: dict[int, list] = {}  # what each open sequence has read
        last: dict[int, tuple] = {}
        async with serving(golden("gru"), sequences=N_KEYS) as client:
            for key, kind, at in actions:
                rows = X[at : at + (3 if kind == "chunk" else 1)]
                start = key not in read or kind == "start"
                if kind == "repeat" and key in last:
                    body, answer = last[key]
                    again = await client.post(INFER, json=body)
                    assert again.json()["outputs"] == answer["outputs"]
                    continue
                if kind == "wrong" and key in read:
                    answer = await client.post(INFER, json=step(str(key), rows[None], n=99))
                    assert answer.status_code == 409
                    continue
                if kind == "state" and key in read:
                    state = await client.get(f"{SESSIONS}/{key}/state")
                    assert runtime.load(GOLDEN / "gru").stream(state.content).n == len(read[key])
                    await client.put(f"{SESSIONS}/{key}/state", content=state.content)
                    last.pop(key, None)
                    continue
                before = [] if start else read[key]
                read[key] = [*before, *rows]
                body = step(str(key), rows[None], start, kind == "end", n=len(before) + 1)
                answer = await client.post(INFER, json=body)
                assert answer.status_code == 200, answer.text
                assert (arrays(answer.json())["probabilities"][0] == belief(read[key])).all()
                assert answer.json()["parameters"]["n"] == len(read[key])
                last[key] = (body, answer.json())
                if kind == "end":
                    del read[key]
                    if start:  # the request again would begin the sequence
                        del last[key]

    run(test())


def test_what_comes_together_is_played_together():
    async def test():
        async with serving(golden("gru")) as client:
            sequences = client.models.newest("gru").sequences
            played = []
            sequences._counted = lambda frames, steps: played.append((frames, steps))

            async def one(key):
                for t in range(5):
                    rows = X[key + t : key + t + 1]
                    answer = await client.post(INFER, json=step(key + 1, rows[None], t == 0))
                    found = arrays(answer.json())["probabilities"][0]
                    assert (found == belief(X[key : key + t + 1])).all()

            await asyncio.gather(*(one(key) for key in range(30)))
            assert sum(steps for _, steps in played) == 150
            assert max(frames for frames, _ in played) > 5

    run(test())


def test_steps_of_one_sequence_at_once_are_played_in_order():
    async def test():
        async with serving(golden("gru")) as client:
            await client.post(SESSIONS, json={"id": "a"})
            sent = [client.post(f"{SESSIONS}/a/steps", json={"x": x.tolist()}) for x in X[:9]]
            answers = [answer.json() for answer in await asyncio.gather(*sent)]
            assert [answer["n"] for answer in answers] == list(range(1, 10))
            for n, answer in enumerate(answers, 1):
                assert np.float32(answer["probabilities"]).tolist() == belief(X[:n]).tolist()

    run(test())


def test_a_session_reports_how_it_ended(monkeypatch):
    late = 0
    monkeypatch.setattr(sequences, "time", SimpleNamespace(monotonic=lambda: monotonic() + late))

    async def test():
        nonlocal late
        async with serving(golden("gru"), sequences=2, idle=600) as client:
            x = X[0].tolist()
            steps = f"{SESSIONS}/a/steps"
            assert (await client.post(steps, json={"x": x})).status_code == 404
            assert (await client.post(SESSIONS, json={"id": "a"})).status_code == 201
            assert (await client.post(SESSIONS, json={"id": "a"})).status_code == 409
            first = await client.post(steps, json={"n": 1, "x": x})
            again = await client.post(steps, json={"n": 1, "x": x})
            assert first.json() == again.json() and first.json()["n"] == 1
            for wrong in ({"n": 1, "x": X[1].tolist()}, {"n": 3, "x": x}):
                answer = await client.post(steps, json=wrong)
                assert answer.status_code == 409 and "n = 2" in answer.json()["error"]
            assert (await client.post(SESSIONS)).status_code == 201
            full = await client.post(SESSIONS)
            assert full.status_code == 429 and int(full.headers["retry-after"]) >= 1
            full = await client.post(INFER, json=step(9, X[None, :1], True))
            assert full.status_code == 429
            late = 601
            await client.models.tend()
            gone = await client.post(steps, json={"n": 2, "x": x})
            assert gone.status_code == 410 and "600 seconds" in gone.json()["error"]
            assert (await client.post(SESSIONS, json={"id": "a"})).json()["n"] == 0
            assert (await client.delete(f"{SESSIONS}/a")).json() == {"id": "a", "n": 0}
            assert (await client.get(f"{SESSIONS}/a")).status_code == 410
            assert 'ostinato_expired_total{model="gru"} 2.0' in (await client.get("/metrics")).text

    run(test())


def test_what_was_answered_is_free_at_once():
    """Without the garbage collector, whose work would delay other answers."""

    async def test():
        async with serving(golden("gru")) as client:
            sequences = client.models.newest("gru").sequences
            gone = []
            for start in (True, False):
                frame = await sequences.play(StepRequest("a", X[:1], start=start))
                gone.append(weakref.ref(frame))
                del frame
            await asyncio.sleep(0)
            assert [each() for each in gone] == [None, None]

    gc.disable()
    try:
        run(test())
    finally:
        gc.enable()


def test_the_collector_does_not_look_at_what_was_there_before():
    before = gc.get_threshold()
    with server._short_pauses():
        assert len(gc.get_objects()) < 5000 < gc.get_freeze_count()
        assert gc.get_threshold()[0] > before[0]
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def test_numbers_and_texts_name_different_sequences():
    async def test():
        async with serving(golden("gru")) as client:
            await client.post(INFER, json=step(7, X[None, :2], True))
            assert (await client.post(INFER, json=step("7", X[None, :1]))).status_code == 404
            await client.post(INFER, json=step("7", X[None, :1], True))
            answer = await client.post(INFER, json=step(7, X[None, 2:3]))
            assert answer.json()["parameters"]["n"] == 3

    run(test())


def test_a_state_of_another_model_or_a_damaged_one_is_refused():
    async def test():
        async with serving(golden("gru", "rnn")) as client:
            await client.post(INFER, json=step("a", X[None, :2], True))
            state = (await client.get(f"{SESSIONS}/a/state")).content
            for path, content in (
                ("/v2/models/rnn/sessions/a/state", state),
                (f"{SESSIONS}/a/state", state[:-1] + b"x"),
                (f"{SESSIONS}/a/state", b""),
            ):
                assert (await client.put(path, content=content)).status_code == 400
            assert (await client.get(f"{SESSIONS}/a")).json()["n"] == 2
            moved = await client.put(f"{SESSIONS}/b/state", content=state)
            assert moved.json() == {"id": "b", "n": 2, "replaced": False}
            answer = await client.post(f"{SESSIONS}/b/steps", json={"x": X[2:4].tolist()})
            assert np.float32(answer.json()["probabilities"]).tolist() == belief(X[:4]).tolist()

    run(test())


def test_a_queue_that_is_full_is_a_503():
    async def test():
        async with serving(golden("gru"), queue=4) as client:
            await client.post(SESSIONS, json={"id": "a"})
            x = X[0].tolist()
            sent = [client.post(f"{SESSIONS}/a/steps", json={"x": x}) for _ in range(20)]
            answers = await asyncio.gather(*sent)
            refused = [answer for answer in answers if answer.status_code == 503]
            assert refused and all(answer.headers["retry-after"] == "1" for answer in refused)
            numbers = [answer.json()["n"] for answer in answers if answer.status_code == 200]
            assert sorted(numbers) == list(range(1, len(numbers) + 1))
            assert len(numbers) + len(refused) == 20

    run(test())


def test_events_have_each_answer_as_it_comes():
    async def test():
        async with serving(golden("gru")) as client:
            await client.post(SESSIONS, json={"id": "a"})
            sequences = client.models.newest("gru").sequences
            queue = sequences.listen("a")
            await client.post(f"{SESSIONS}/a/steps", json={"x": X[:4].tolist()})
            await client.post(f"{SESSIONS}/a/steps", json={"x": X[4].tolist(), "end": True})
            answers = [queue.get_nowait() for _ in range(6)]
            assert [answer and answer.n for answer in answers] == [1, 2, 3, 4, 5, None]
            assert (answers[3].proba == belief(X[:4])).all()

    run(test())


def test_words_and_texts_are_read_step_by_step():
    language = runtime.load(GOLDEN / "language")

    async def test():
        async with serving(golden("language")) as client:
            path = "/v2/models/language/sessions"
            await client.post(path, json={"id": "t"})
            for piece in ("to", " ", "be"):
                answer = await client.post(f"{path}/t/steps", json={"x": piece})
            wanted = language.predict_proba(["to be"])[0][-1]
            assert np.float32(answer.json()["probabilities"]).tolist() == wanted.tolist()
            for bad in ("", ["to"], 3, None, "\ud800"):
                content = json.dumps({"x": bad})
                assert (await client.post(f"{path}/t/steps", content=content)).status_code == 400

    run(test())
