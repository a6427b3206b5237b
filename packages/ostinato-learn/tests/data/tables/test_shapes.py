"""Tables as sequences, compared with rows gathered in a plain loop."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("pyarrow")
from ostinato_learn.data import Ragged, Roles, read_examples

ROWS = [
    # who, t, x, kind, mode, act, person, part, age
    ("b", 1, 0.5, "red", "up", "go", "P", "Train", 3),
    ("b", 2, 1.5, "blue", "up", "stop", "P", "Train", 3),
    ("b", 4, 2.5, "red", "up", "go", "P", "Train", 3),
    ("a", 1, 3.5, "red", "down", "go", "Q", "dev", 4),
    ("c", 2, 4.5, "green", "up", "go", "P", "TEST", ""),
    ("c", 3, 5.5, "red", "up", "stop", "P", "TEST", ""),
]
NAMES = ("who", "t", "x", "kind", "mode", "act", "person", "part", "age")
ROLES = Roles(
    id="who",
    time="t",
    features=("x", "kind"),
    target="mode",
    task="classify",
    group="person",
    split="part",
    static=("age",),
)


@pytest.fixture
def write(tmp_path):
    def write(rows, names=NAMES, ending=".csv"):
        path = tmp_path / f"file{ending}"
        if ending == ".csv":
            lines = [",".join(map(str, row)) for row in [names, *rows]]
        else:
            lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
        path.write_text("\n".join(lines))
        return path

    return write


def test_long(write):
    examples = read_examples(write(ROWS), ROLES)
    assert isinstance(examples.sequences, Ragged) and examples.lengths.tolist() == [3, 1, 2]
    assert examples.categories == {"kind": ("blue", "green", "red")}
    kinds = ["blue", "green", "red"]
    wanted = np.array([[row[2], kinds.index(row[3])] for row in ROWS], np.float32)
    assert examples.values.tobytes() == wanted.tobytes()
    assert examples.ids.tolist() == ["b", "a", "c"]
    assert examples.y.tolist() == ["up", "down", "up"]
    assert examples.groups.tolist() == ["P", "Q", "P"]
    assert examples.parts.tolist() == ["train", "validation", "test"]
    assert [t.tolist() for t in examples.times] == [[1, 2, 4], [1], [2, 3]]
    assert np.array_equal(examples.statics["age"], [3, 4, np.nan], equal_nan=True)
    assert examples.source.endswith("file.csv")


def test_tags_and_series(write):
    path = write(ROWS)
    tags = read_examples(path, Roles(id="who", features=("x",), target="act", task="tag"))
    assert [t.tolist() for t in tags.y] == [["go", "stop", "go"], ["go"], ["go", "stop"]]
    series = read_examples(path, Roles(id="who", time="t", target="x", task="forecast"))
    assert [s.tolist() for s in series.y] == [[0.5, 1.5, 2.5], [3.5], [4.5, 5.5]]
    assert all(s.dtype == np.float64 for s in series.y)
    assert series.values.shape == (6, 0) and series.features == ()
    alone = read_examples(write(ROWS[:3]), Roles(time="t", target="x", task="forecast"))
    assert len(alone) == 1 and alone.y[0].tolist() == [0.5, 1.5, 2.5]


def test_rows_in_any_order_with_sort(write):
    wanted = read_examples(write(sorted(ROWS)), ROLES)
    shuffled = [ROWS[i] for i in (5, 0, 3, 2, 4, 1)]
    with pytest.raises(ValueError, match="sort=True"):
        read_examples(write(shuffled), ROLES)
    for rows in (shuffled, ROWS[::-1]):
        examples = read_examples(write(rows), Roles(**{**vars(ROLES), "sort": True}))
        assert examples.ids.tolist() == ["a", "b", "c"]
        assert examples.values.tobytes() == wanted.values.tobytes()
        assert examples.y.tolist() == wanted.y.tolist()
        assert [t.tolist() for t in examples.times] == [t.tolist() for t in wanted.times]
    path = write([*ROWS, ("a", 1, 9, "red", "down", "go", "Q", "dev", 4)])
    with pytest.raises(ValueError, match="line 8, column 't': the time 1 comes twice"):
        read_examples(path, Roles(**{**vars(ROLES), "sort": True}))


def test_equal_lengths_are_an_array(write):
    examples = read_examples(write([ROWS[0], ROWS[1], ROWS[4], ROWS[5]]), ROLES)
    assert examples.sequences.shape == (2, 2, 2) and examples.sequences.dtype == np.float32


def test_nested_tags_with_times(write):
    rows = [("p", [1, 2], [0.5, 1.5], ["u", "v"]), ("q", [3], [2.5], ["u"])]
    path = write(rows, ("id", "time", "x", "act"), ".jsonl")
    examples = read_examples(path, Roles(features=("x",), target="act", task="tag"))
    assert examples.roles.time == "time" and [t.tolist() for t in examples.times] == [[1, 2], [3]]
    assert [tags.tolist() for tags in examples.y] == [["u", "v"], ["u"]]
    rows[0] = ("p", [2, 1], [0.5, 1.5], ["u", "v"])
    with pytest.raises(ValueError, match="line 1, column 'time', value 2: the time 1 follows 2"):
        read_examples(
            write(rows, ("id", "time", "x", "act"), ".jsonl"),
            Roles(features=("x",), target="act", task="tag"),
        )


def test_nested_words_and_series(write):
    rows = [(["a", "b"], [1.0, None]), (["b"], [2.0])]
    path = write(rows, ("word", "price"), ".jsonl")
    examples = read_examples(path, Roles(features=("word",), target="price", task="forecast"))
    assert examples.values.ravel().tolist() == [0, 1, 1]
    assert examples.categories == {"word": ("a", "b")}
    assert np.array_equal(examples.y[0], [1, np.nan], equal_nan=True)


def test_steps_that_are_lists(write):
    rows = [([[1, 2], [3, None]], "u"), ([[5, 6]], "v")]
    path = write(rows, ("x", "z"), ".jsonl")
    examples = read_examples(path, Roles(target="z"))
    assert examples.features == ("x[0]", "x[1]") and examples.lengths.tolist() == [2, 1]
    wanted = np.array([[1, 2], [3, np.nan], [5, 6]], np.float32)
    assert np.array_equal(examples.values, wanted, equal_nan=True)
    assert examples.place(1, 1) == f"{path}, line 1, column 'x[1]', value 2"
    again = read_examples(path, examples.roles.inputs())
    assert again.values.tobytes() == examples.values.tobytes()
    path = write([([[1, 2], [3]], "u")], ("x", "z"), ".jsonl")
    with pytest.raises(ValueError, match="line 1, column 'x', value 2: 1 numbers in a step, and 2"):
        read_examples(path, Roles(target="z"))
    path = write([([[1, "a"], [3, 4]], "u")], ("x", "z"), ".jsonl")
    with pytest.raises(ValueError, match="line 1, column 'x', value 1, value 2: 'a' is a text"):
        read_examples(path, Roles(target="z"))


def test_wide(write):
    rows = [(7, "P", 1, 2, 3, "u"), (5, "Q", 4, 5, 6, "v")]
    path = write(rows, ("id", "person", "s1", "s3", "s2", "z"))
    roles = Roles("wide", "id", None, ("s1", "s2", "s3"), "z", group="person")
    examples = read_examples(path, roles)
    assert examples.X[:, :, 0].tolist() == [[1, 3, 2], [4, 6, 5]]
    assert examples.ids.tolist() == [7, 5] and examples.groups.tolist() == ["P", "Q"]


def test_series_in_rows(write):
    rows = [("a", 1, "", 1e300), ("b", 4, 5, "")]
    path = write(rows, ("id", "m1", "m2", "m3"))
    examples = read_examples(path, Roles("wide", task="forecast"))
    assert examples.ids.tolist() == ["a", "b"] and examples.lengths.tolist() == [3, 2]
    assert np.array_equal(examples.y[0], [1, np.nan, 1e300], equal_nan=True)
    assert examples.y[1].tolist() == [4, 5] and examples.values.shape == (5, 0)
    with pytest.raises(ValueError, match="or no target: the steps are the series"):
        read_examples(path, Roles("wide", task="forecast", target="m3"))
    path = write([*rows, ("c", "", "", "")], ("id", "m1", "m2", "m3"))
    with pytest.raises(ValueError, match="line 4: a series without a value"):
        read_examples(path, Roles("wide", task="forecast"))


def test_places_name_the_value_in_every_shape(write):
    path = write(ROWS)
    examples = read_examples(path, ROLES)
    assert examples.place(4, 1) == f"{path}, line 6, column 'kind'"
    assert examples.select([2, 0]).place(0, 0) == f"{path}, line 6, column 'x'"
    assert examples.select([2, 0]).place(4, 0) == f"{path}, line 4, column 'x'"
    path = write([([1, 2],), ([3, 4, 5],)], ("x",), ".jsonl")
    examples = read_examples(path, Roles())
    assert examples.place(2, 0) == f"{path}, line 2, column 'x', value 1"
    assert examples.place(3, 0) == f"{path}, line 2, column 'x', value 2"
    assert examples.select([1]).place(2, 0) == f"{path}, line 2, column 'x', value 3"
    path = write([(1, 2), (3, 4)], ("s0", "s1"))
    examples = read_examples(path, Roles())
    assert examples.place(3, 0) == f"{path}, line 3, column 's1'"


def test_select_takes_all_that_belongs_to_a_sequence(write):
    examples = read_examples(write(ROWS), ROLES)
    some = examples.select(np.array([True, False, True]))
    again = examples.select([0, 2])
    for chosen in (some, again):
        assert chosen.ids.tolist() == ["b", "c"] and chosen.parts.tolist() == ["train", "test"]
        assert chosen.y.tolist() == ["up", "up"] and chosen.groups.tolist() == ["P", "P"]
        assert [t.tolist() for t in chosen.times] == [[1, 2, 4], [2, 3]]
        assert chosen.values[:, 0].tolist() == [0.5, 1.5, 2.5, 4.5, 5.5]
        assert np.array_equal(chosen.statics["age"], [3, np.nan], equal_nan=True)


@pytest.mark.parametrize(
    ("change", "roles", "wanted"),
    [
        ((2, 6, "Q"), {}, "line 4, column 'person': 'Q', and 'P' earlier in the same sequence"),
        ((5, 8, 7), {}, "line 7, column 'age': 7, and nothing earlier in the same sequence"),
        ((3, 7, "reserve"), {}, "line 5, column 'part': 'reserve' is not a part: wanted train"),
        ((3, 6, ""), {}, "line 5, column 'person': the value is missing"),
        (
            (0, 0, "b"),
            {"shape": "wide", "time": None, "features": ("x",)},
            "line 3, column 'who': 'b' is the id of line 2 too",
        ),
        ((0, 0, "b"), {"shape": "wide", "task": "tag"}, "a wide table.*an answer for each step"),
        (
            (0, 0, "b"),
            {"shape": "nested", "time": None},
            "line 2, column 'x': a single value; wanted a list",
        ),
    ],
)
def test_what_does_not_fit_is_refused(write, change, roles, wanted):
    rows = [list(row) for row in ROWS]
    rows[change[0]][change[1]] = change[2]
    with pytest.raises(ValueError, match=wanted):
        read_examples(write(rows), Roles(**{**vars(ROLES), **roles}))


def test_the_future_of_a_series(write):
    rows = [("a", 1, 1, 10), ("a", 2, "", 20), ("a", 3, 3, 30), ("a", 4, "", 40), ("b", 1, "", 50)]
    path = write(rows, ("id", "t", "y", "price"))
    roles = Roles(
        id="id", time="t", target="y", task="forecast", features=("price",), known=("price",)
    )
    examples = read_examples(path, roles)
    assert examples.ahead.tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_codes_that_are_names(write, ending):
    rows = [("a", 10, 7, 2), ("a", 9, 7, 2), ("b", 10, 8, 11)]
    path = write(rows, ("id", "code", "home", "x"), ending)
    roles = Roles(id="id", features=("code", "x"), static=("home",), categories=("code", "home"))
    examples = read_examples(path, roles)
    assert examples.categories == {"code": ("10", "9")}
    assert examples.values.tolist() == [[0, 2], [1, 2], [0, 11]]
    assert examples.statics["home"].tolist() == ["7", "8"]
    assert examples.roles.categories == ("code", "home")


def test_words_stay_words_in_another_file(write):
    """A file whose words happen to be numbers alone is read as the training file was."""
    rows = [("a", "u"), ("a", "7"), ("a", "v")]
    train = read_examples(write(rows, ("id", "x")), Roles(id="id", features=("x",)))
    assert train.roles.categories == ("x",)
    other = read_examples(write([("a", "7"), ("a", "7")], ("id", "x")), train.roles)
    assert other.categories == {"x": ("7",)}
