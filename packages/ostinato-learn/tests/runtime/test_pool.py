"""Pools: the bits of streams, whichever rows are pushed together; slots; refusals."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from graph_parts import Parts
from stream_cases import rows, source

from ostinato_learn.runtime import stream as stream_module
from ostinato_learn.runtime.model_graph import Direction, ModelGraph, ReadoutGraph, Scan
from ostinato_learn.runtime.pool import Pool
from ostinato_learn.runtime.stream import Stream
from zoo.suites import one_in

CELLS = [["rnn"], ["gru"], ["lstm"], ["own"], ["own", "own"], ["lstm", "gru"]]


@pytest.fixture
def made():
    parts = Parts()
    return source(parts, parts.model(["gru"]))


# More rows than are played at once, and H beside a vector of 16 lanes.
@pytest.mark.parametrize(
    ("cells", "readout", "H"),
    one_in(5, product(CELLS, ["last", "mean"], [1, 16, 17]), of_several=True),
    ids=lambda v: "-".join(v) if isinstance(v, list) else None,
)
def test_a_pool_has_the_bits_of_streams(cells, readout, H):
    parts = Parts()
    made = source(parts, parts.model(cells, readout, H=H))
    rng = np.random.default_rng(0)
    n = 70
    x = rng.normal(size=(n, 6, 5)).astype(np.float32)
    streams, pool = [Stream(made) for _ in range(n)], Pool(made, 100)
    slots = pool.slots(range(n))
    steps = np.zeros(n, int)
    for _ in range(8):
        some = rng.permutation(n)[: rng.integers(1, n + 1)]
        some = some[steps[some] < 6]
        answers = pool.push(slots[some], np.stack([x[i, steps[i]] for i in some]))
        for i, answer in zip(some, answers, strict=True):
            wanted = streams[i].push(x[i, steps[i]])
            np.testing.assert_array_equal(answer.proba, wanted.proba)
            assert (answer.n, answer.label) == (wanted.n, wanted.label)
        steps[some] += 1
    assert [pool.n(i) for i in range(n)] == steps.tolist()


def test_rows_by_key(made):
    x = rows(4, 5)
    pool, a, b = Pool(made, 3), Stream(made), Stream(made)
    first = pool.push({"a": x[0], "b": x[1]})
    assert list(first) == ["a", "b"]
    np.testing.assert_array_equal(first["b"].proba, b.push(x[1]).proba)
    a.push(x[0])
    # A row that is no dense float32 one is converted.
    second = pool.push({"b": x[2].astype(np.float64), "c": x[0].tolist(), "a": x[3]})
    assert {key: answer.n for key, answer in second.items()} == {"a": 2, "b": 2, "c": 1}
    np.testing.assert_array_equal(second["a"].proba, a.push(x[3]).proba)
    np.testing.assert_array_equal(second["b"].proba, b.push(x[2]).proba)
    assert "c" in pool
    assert len(pool) == 3


def test_slots_are_used_again(made):
    pool = Pool(made, 2)
    x = rows(2, 5)
    slots = pool.slots(["a", "b", "a"])
    assert slots.tolist() == [0, 1, 0]
    pool.push(slots[:2], x)
    with pytest.raises(ValueError, match="2 streams of at most 2, and 1 more"):
        pool.slots(["c"])
    pool.drop(["a"])
    with pytest.raises(ValueError, match="slot 0 has no stream"):
        pool.push([0], x[:1])
    assert pool.slots(["c"]).tolist() == [0]
    assert pool.n("c") == 0
    wanted = Stream(made).push(x[0])
    np.testing.assert_array_equal(pool.push([0], x[:1])[0].proba, wanted.proba)
    with pytest.raises(KeyError, match="no stream 'a'"):
        pool.n("a")


def test_states_go_between_pools_and_streams(made):
    x = rows(5, 5)
    pool, stream = Pool(made, 4), Stream(made)
    for row in x[:3]:
        pool.push({"a": row})
        stream.push(row)
    assert pool.save("a") == stream.save()
    other = Pool(made, 4)
    other.push({"b": x[4]})
    other.restore("b", stream.save())
    other.restore("c", stream.save())
    wanted = stream.push(x[3]).proba
    for key in "bc":
        answer = other.push({key: x[3]})[key]
        assert answer.n == 4
        np.testing.assert_array_equal(answer.proba, wanted)
    other.reset(["b"])
    assert other.n("b") == 0
    assert other.save("b") == Stream(made).save()


def test_a_push_that_is_refused_moves_no_stream(made):
    pool = Pool(made, 4)
    slots = pool.slots("abc")
    x = rows(3, 5)
    pool.push(slots, x)
    before = [pool.save(key) for key in "abc"]
    wrong = x.copy()
    wrong[1, 4] = np.nan
    refused = [
        (slots, wrong, "row 1 of x has NaN at feature 4"),
        (slots[[0, 1, 0]], x, "slot 0 is twice in one push"),
        ([0, 1, 3], x, "slot 3 has no stream"),
        ([0, 1, -1], x, "slot -1 has no stream"),
        (slots, x[:2], r"x has shape \[2, 5\]; wanted \[3, 5\]"),
        (slots, x[:, :4], r"wanted \[5\]"),
        (slots, None, "a row for each slot"),
        ({"a": x[0], "b": wrong[1]}, None, "row 1 of x has NaN"),
        ({"a": x[0], "b": x[:2]}, None, "has 2 steps; wanted one"),
        (dict.fromkeys("defgh", x[0]), None, "3 streams of at most 4, and 5 more"),
    ]
    for given, of_rows, message in refused:
        with pytest.raises(ValueError, match=message):
            pool.push(given, of_rows)
    assert [pool.save(key) for key in "abc"] == before
    assert pool.push(slots, x).n.tolist() == [2, 2, 2]


def test_a_second_use_is_refused(made):
    pool = Pool(made, 4)
    pool.slots("a")
    with pool._states:
        for use in (
            lambda: pool.push({"a": rows(1, 5)[0]}),
            lambda: pool.slots("b"),
            lambda: pool.save("a"),
            lambda: pool.drop("a"),
        ):
            with pytest.raises(RuntimeError, match="one owner"):
                use()
    assert pool.push({"a": rows(1, 5)[0]})["a"].n == 1


def test_answers_are_a_sequence(made):
    answers = Pool(made, 4).push(dict(zip("abc", rows(3, 5), strict=True)))
    answers = answers.answers
    assert len(answers) == 3
    assert [a.label for a in answers] == answers.labels
    assert [a.n for a in answers[1:]] == [1, 1]
    np.testing.assert_array_equal(answers[-1].proba, answers.proba[2])


def test_a_state_that_decays_becomes_zero_and_the_callers_flag_stays(monkeypatch):
    """Streams, chunks by steps and by the batch engine, pools; also after a row that is refused."""
    parts = Parts()
    zeros = torch.zeros(3, 4)
    step = parts.graph(lambda h, x: (h * 0.5 + x, h + 1e-30), [], zeros, zeros)
    decay = Scan("decay", (Direction(step, False),))
    made = source(parts, ModelGraph(None, (decay,), ReadoutGraph("last"), parts.head(4)))
    rows = np.zeros((160, 4), np.float32)
    rows[0] = 2.0**-10  # 2⁻¹²⁶ is reached at step 117, the smallest denormal at 140
    one, pool, carry = Stream(made), Pool(made, 2), np.empty(made.n_carry, np.float32)
    slots = pool.slots([0, 1])
    wrong = np.full(4, np.nan, np.float32)
    for t, row in enumerate(rows, 1):
        one.push(row)
        pool.push(slots, np.stack([row, row]))
        with pytest.raises(ValueError, match="wanted finite"):
            one.push(wrong)
        with pytest.raises(ValueError, match="wanted finite"):
            pool.push(slots, np.stack([row, wrong]))
        one._state.get(carry)
        value = 2.0 ** (-9 - t)
        assert carry[:4].tolist() == [value if value >= 2.0**-126 else 0.0] * 4
        assert np.float32(1e-30) * np.float32(1e-10) > 0, "the caller's flag was changed"
    for most in (stream_module.MOST_STEPWISE, 0):
        monkeypatch.setattr(stream_module, "MOST_STEPWISE", most)
        chunks = Stream(made)
        chunks.push(rows)
        assert chunks.save() == one.save() == pool.save(0)
