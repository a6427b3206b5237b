"""Files as people have them: what is understood of them, and what is said where it is not."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from ostinato_learn.data import Roles, read_examples
from ostinato_learn.data.formats.arrow import arrow_table


def written(tmp_path, text, name="mine.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


NESTED = [
    {"key": "a", "meta": {"site": 1, "by": {"name": "Ann"}}, "readings": [{"v": 1, "q": 0.5}]},
    {
        "key": "b",
        "meta": {"site": 2, "by": {"name": "Bob"}},
        "readings": [{"v": 2, "q": 1.5}, {"v": 3, "q": 2.5}],
    },
]
IN_OBJECTS = Roles(
    features=("readings.v", "readings.q"), target="meta.by.name", group="meta.site", task="classify"
)


@pytest.mark.parametrize("kind", [".jsonl", ".parquet", ".arrow"])
def test_values_within_objects(tmp_path, kind):
    path = tmp_path / f"mine{kind}"
    if kind == ".jsonl":
        path.write_text("\n".join(map(json.dumps, NESTED)))
    elif kind == ".parquet":
        parquet.write_table(pa.Table.from_pylist(NESTED), path)
    else:
        feather.write_feather(pa.Table.from_pylist(NESTED).slice(0, 2), path)
    examples = read_examples(path, IN_OBJECTS)
    assert [x.tolist() for x in examples.X] == [[[1, 0.5]], [[2, 1.5], [3, 2.5]]]
    assert examples.y.tolist() == ["Ann", "Bob"]
    assert examples.groups.tolist() == [1, 2]


def test_a_part_of_a_table_keeps_its_own_lists():
    """A slice, as a block of a large file is, shares the memory of the whole."""
    table = arrow_table(pa.Table.from_pylist([*NESTED, *NESTED]).slice(1, 2), "mine")
    assert table["readings.v"].offsets.tolist() == [0, 2, 3]
    assert table["readings.v"].inner.numbers().tolist() == [2, 3, 1]


def test_a_key_that_an_object_lacks_is_missing(tmp_path):
    rows = [{"x": [{"v": 1, "w": 2}, {"v": 3}], "y": "a"}, {"x": [{"v": 4, "w": 5}], "y": "b"}]
    path = written(tmp_path, "\n".join(map(json.dumps, rows)), "mine.jsonl")
    (first, _) = read_examples(path, Roles(target="y")).X
    assert np.array_equal(first, [[1, 2], [3, np.nan]], equal_nan=True)


def test_two_spellings_of_one_column(tmp_path):
    path = written(tmp_path, '{"a.b": 1, "a": {"b": 2}}', "mine.jsonl")
    with pytest.raises(ValueError, match=r"line 1: the key 'a\.b' comes twice"):
        read_examples(path, Roles(shape="wide"))


@pytest.mark.parametrize("name", ["timestamp_ms", "Time (s)", "ts", "time", "when", "DateTime"])
def test_columns_called_as_times(tmp_path, name):
    text = f"id,{name},x,y\na,1700000000000,1,u\na,1700000000020,2,u\nb,1700000000000,1,v\n"
    examples = read_examples(written(tmp_path, text), Roles(target="y", task="classify"))
    assert examples.roles.time == name
    assert examples.features == ("x",)


@pytest.mark.parametrize("name", ["t2", "timer", "stepper", "temperature", "dates"])
def test_columns_that_are_called_otherwise(tmp_path, name):
    text = f"id,{name},x,y\na,1,1,u\na,1,2,u\nb,1,1,v\n"
    examples = read_examples(written(tmp_path, text), Roles(target="y", task="classify"))
    assert examples.features == (name, "x")


def test_numbers_that_float32_cannot_tell_apart(tmp_path):
    rows = [f"a,{1700000000000 + 20 * i},{i},u" for i in range(5)]
    path = written(tmp_path, "\n".join(["id,clock,x,y", *rows]))
    with pytest.raises(ValueError, match=r"line 3, column 'clock'.*same number in float32.*--time"):
        read_examples(path, Roles(id="id", target="y", task="classify"))


def test_the_id_of_each_row(tmp_path):
    """Where a row is a sequence, a column of ids that are all different names them."""
    text = "Id,Review,Mood\n7,A fine film,good\n9,Dull,bad\n"
    examples = read_examples(written(tmp_path, text), Roles(target="Mood"))
    assert (examples.ids.tolist(), examples.features) == ([7, 9], ("Review",))
    rows = [{"tripId": "a", "x": [1, 2], "y": 0}, {"tripId": "b", "x": [1, 2], "y": 1}]
    path = written(tmp_path, "\n".join(map(json.dumps, rows)), "mine.jsonl")
    assert read_examples(path, Roles(target="y")).ids.tolist() == ["a", "b"]


def test_an_id_of_steps(tmp_path):
    text = "stroke_id,x,label\na,1,up\na,2,up\nb,3,down\n"
    examples = read_examples(written(tmp_path, text), Roles(target="label", task="tag"))
    assert (examples.ids.tolist(), examples.features) == (["a", "b"], ("x",))
    with pytest.raises(ValueError, match=r"as id \(--id stroke_id\)"):
        read_examples(tmp_path / "mine.csv", Roles(target="label", task="classify"))


def test_two_columns_that_may_be_the_id(tmp_path):
    text = "user_id,trip_id,x,mode\nu,a,1,car\nu,a,2,car\nu,b,3,bus\nv,c,3,bus\n"
    with pytest.raises(ValueError, match=r"as id \(--id\)"):
        read_examples(written(tmp_path, text), Roles(target="mode", task="classify"))


def test_dates_among_the_features(tmp_path):
    text = "id,seen,x,y\na,31/01/2024,1,u\na,31/01/2024,2,u\n"
    roles = Roles(id="id", target="y", task="classify")
    with pytest.raises(ValueError, match=r"the column 'seen' holds dates.*\(--time seen\)"):
        read_examples(written(tmp_path, text), roles)


def test_a_first_line_that_is_a_row(tmp_path):
    text = "0.5,1.25,-3.5,N\n0.5,1.5,-3.25,V\n"
    with pytest.raises(ValueError, match=r"line 1: the first line holds numbers \(0.5, …\)"):
        read_examples(written(tmp_path, text), Roles(target="N"))


def test_one_mistake_in_a_column_of_numbers(tmp_path):
    """The mistake is named, and not the column left out of the advice."""
    text = "id,x,y,mode\n" + "".join(f"a,{i},{i},car\n" for i in range(20)) + "a,n/a?,1,car\n"
    with pytest.raises(ValueError, match=r"line 22, column 'x': 'n/a\?' is not a number"):
        read_examples(written(tmp_path, text), Roles(id="id", target="mode", task="classify"))


def test_one_id_that_comes_twice(tmp_path):
    """A table of texts stays one where few of its ids come twice; the second is named."""
    rows = [f"{i},a fine film,good" for i in range(20)]
    path = written(tmp_path, "\n".join(["Id,Review,Mood", *rows, "5,dull,bad"]))
    with pytest.raises(ValueError, match="line 22, column 'Id': 5 is the id of line 7 too"):
        read_examples(path, Roles(target="Mood"))


def test_an_empty_list_among_lists_of_objects(tmp_path):
    rows = [*NESTED, {"key": "c", "meta": {"site": 1, "by": {"name": "Cid"}}, "readings": []}]
    path = written(tmp_path, "\n".join(map(json.dumps, rows)), "mine.jsonl")
    with pytest.raises(ValueError, match=r"line 3, column 'readings\.v': an empty list"):
        read_examples(path, IN_OBJECTS)
