"""Rows at any times become steps at equal distances."""

from __future__ import annotations

import io

import numpy as np
import pytest

from ostinato_learn.data import Roles, read_examples, store_examples, stream_examples
from ostinato_learn.data.tables import blocks

pytest.importorskip("pyarrow")

TEXT = """id,when,dose,kind,value
a,2024-01-01 10:00:03,1,up,5
a,2024-01-01 10:05:01,,down,7
a,2024-01-01 10:06:40,3,,9
a,2024-01-01 10:21:00,4,up,
b,2024-03-31 00:00,5,up,1
b,2024-03-31 00:03,6,down,2
"""
ROLES = Roles(
    id="id", time="when", features=("dose", "kind"), target="value", task="forecast", every="5min"
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(TEXT)
    return path


def test_steps_have_the_mean_or_the_last_of_their_rows(path):
    found = read_examples(path, ROLES)
    nan = np.nan
    assert found.lengths.tolist() == [5, 2]
    np.testing.assert_array_equal(
        found.values,
        # 10:05:01 and 10:06:40 are one step; none is at 10:10 and 10:15
        [[1, 1], [3, 0], [nan, nan], [nan, nan], [4, 1], [5, 1], [6, 0]],
    )
    assert found.categories == {"kind": ("down", "up")}
    np.testing.assert_array_equal(np.concatenate(found.y), [5, 8, nan, nan, nan, 1, 2])
    times = [str(t)[:19] for t in found.times[0]]
    assert times[0] == "2024-01-01T10:00:03" and times[4] == "2024-01-01T10:20:03"
    assert (np.diff(found.times[0]) == np.timedelta64(5, "m")).all()
    assert [found.place(row, 0).partition(", ")[2] for row in (1, 3, 5)] == [
        "line 3, column 'dose'",
        "line 3, column 'dose'",
        "line 6, column 'dose'",
    ]


def test_blocks_and_files_have_the_same_steps(path, monkeypatch):
    wanted = read_examples(path, ROLES)
    monkeypatch.setattr(blocks, "BLOCK", 80)
    found = store_examples(stream_examples(path, ROLES))
    np.testing.assert_array_equal(found.values, wanted.values)
    np.testing.assert_array_equal(np.concatenate(list(found.y)), np.concatenate(wanted.y))
    assert [t.tolist() for t in found.times] == [t.tolist() for t in wanted.times]


def test_labels_of_sequences_stay(path):
    path.write_text(TEXT.replace(",up,", ",x,").replace(",down,", ",x,").replace(",,9", ",x,9"))
    roles = Roles(
        id="id", time="when", features=("dose",), target="kind", task="classify", every="5 min"
    )
    assert read_examples(path, roles).lengths.tolist() == [5, 2]
    assert read_examples(path, roles).y.tolist() == ["x", "x"]


def test_steps_that_lie_so_stay_as_they_are():
    lines = [f"s,2024-01-{1 + i:02},{i / 7}" for i in range(9)]
    text = "\n".join(["id,day,x", *lines]).encode()
    plain = Roles(id="id", time="day", target="x", task="forecast")
    one, other = (
        next(stream_examples(io.BytesIO(text), roles))
        for roles in (plain, Roles(id="id", time="day", target="x", task="forecast", every="1d"))
    )
    assert one.y[0].tobytes() == other.y[0].tobytes()
    assert one.times[0].tolist() == other.times[0].tolist()


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        (TEXT, {"every": "5 months"}, "every is '5 months'; wanted a number and a unit of ms, s"),
        (TEXT, {"every": "0min"}, "every is '0min'; wanted a number"),
        (TEXT, {"every": "1ms"}, r"every='1ms' \(--every\) makes .* steps of 6 rows"),
        ("id,t,value\na,1,2\na,2,3\n", {"time": "t", "features": ()}, "needs the dates of the st"),
        ("id,value\na,2\na,3\n", {"time": None, "features": ()}, "needs the dates of the steps"),
    ],
)
def test_what_cannot_be_resampled_is_refused(tmp_path, text, changes, message):
    (tmp_path / "a.csv").write_text(text.replace("a,2024-01-01 10:21", "a,2024-09-01 10:21"))
    with pytest.raises(ValueError, match=message):
        read_examples(tmp_path / "a.csv", ROLES, **changes)
