"""A time that is there twice in a sequence: refused with its number, or made one step."""

from __future__ import annotations

import numpy as np
import pytest

from ostinato_learn.data import Roles, read_examples, store_examples, stream_examples

HEAD = "patient,when,glucose,meal"
ROWS = """a,2024-01-01 08:00,5,no
a,2024-01-01 08:05,7,no
a,2024-01-01 08:05,9,yes
a,2024-01-01 08:15,6,no
b,2024-01-01 08:15,1,no
b,2024-01-01 08:20,2,yes""".splitlines()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "glucose.csv"
    path.write_text("\n".join([HEAD, *ROWS]) + "\n")
    return path


SERIES = {"id": "patient", "time": "when", "target": "glucose", "task": "forecast"}
TAGS = {"id": "patient", "time": "when", "target": "meal", "task": "tag", "features": ["glucose"]}


def test_the_refusal_says_how_often_and_its_advice_works(path):
    with pytest.raises(ValueError, match=r"as 1 rows of 6 do.*--repeated"):
        read_examples(path, **SERIES)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")  # the newest first, too
    with pytest.raises(ValueError, match=r"--sort --repeated last"):
        read_examples(path, **SERIES, sort=False)
    with pytest.raises(ValueError, match=r"as 1 rows of 6 do.*--repeated"):
        read_examples(path, **SERIES)
    found = read_examples(path, **SERIES, repeated="last")
    assert found.lengths.tolist() == [3, 2]


@pytest.mark.parametrize(("how", "second"), [("last", 9.0), ("mean", 8.0)])
def test_several_rows_become_one_step(path, how, second):
    found = read_examples(path, **SERIES, repeated=how)
    assert [each.tolist() for each in found.y] == [[5.0, second, 6.0], [1.0, 2.0]]
    assert found.times[0][1] == np.datetime64("2024-01-01T08:05")
    tags = read_examples(path, **TAGS, repeated=how)
    assert tags.values[:, 0].tolist() == [5.0, second, 6.0, 1.0, 2.0]
    assert [each.tolist() for each in tags.y] == [["no", "yes", "no"], ["no", "yes"]]
    assert tags.place(2, 0).endswith("line 5, column 'glucose'")


def test_equal_distances_need_no_more(path):
    found = read_examples(path, **SERIES, every="5min")
    assert np.nan_to_num(found.y[0], nan=-1).tolist() == [5.0, 8.0, -1.0, 6.0]


def test_labels_at_equal_distances_go_on(path):
    found = read_examples(path, **TAGS, every="5min")
    assert [each.tolist() for each in found.y] == [["no", "yes", "yes", "no"], ["no", "yes"]]
    assert np.isnan(found.values[2, 0])


@pytest.mark.parametrize("how", [{"repeated": "last"}, {"every": "5min"}])
def test_in_parts_as_at_once(path, how):
    roles = Roles(
        id="patient", time="when", target="meal", task="tag", features=("glucose",), **how
    )
    stored, whole = store_examples(stream_examples(path, roles)), read_examples(path, roles)
    assert [each.tolist() for each in stored.y] == [each.tolist() for each in whole.y]
    assert np.array_equal(stored.loaded().values, whole.values, equal_nan=True)


def test_a_single_sequence(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("when,x,tag\n1,1,a\n1,2,b\n2,3,a\n")
    roles = {"time": "when", "target": "tag", "task": "tag", "features": ["x"]}
    with pytest.raises(ValueError, match="--repeated"):
        read_examples(path, **roles)
    assert read_examples(path, **roles, repeated="last").lengths.tolist() == [2]
