"""Several labels a sequence, from every shape of table."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ostinato_learn.data import Roles, read_examples
from ostinato_learn.data.checks import check
from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.label_sets import joined, rarest
from ostinato_learn.data.sequences.preparation import Preparation

LONG = "trip,x,rain,wind\na,1,1,0\na,2,1,0\nb,3,1,1\nc,4,0,0\n"
WANTED = [[1, 0], [1, 1], [0, 0]]
COLUMNS = Roles(id="trip", labels=("rain", "wind"), task="classify")
ONE_COLUMN = Roles(id="trip", target="weather", task="classify")


def written(tmp_path, text, name="mine.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_columns_of_zeros_and_ones(tmp_path):
    examples = read_examples(written(tmp_path, LONG), COLUMNS)
    assert examples.y.tolist() == WANTED
    assert examples.features == ("x",)


@pytest.mark.parametrize("yes,no", [("true", "false"), ("1.0", "0.0"), ("1", "0")])
def test_spellings_of_zeros_and_ones(tmp_path, yes, no):
    text = f"trip,x,rain,wind\na,1,{yes},{no}\nb,3,{yes},{yes}\nc,4,{no},{no}\n"
    assert read_examples(written(tmp_path, text), COLUMNS).y.tolist() == WANTED


@pytest.mark.parametrize("between", ["|", ";", " | "])
def test_a_text_of_labels(tmp_path, caplog, between):
    text = f"trip,x,weather\na,1,rain\na,2,rain\nb,3,rain{between}wind\nc,4,\n"
    examples = read_examples(written(tmp_path, text), ONE_COLUMN)
    assert examples.roles.labels == ("rain", "wind")
    assert examples.y.tolist() == WANTED
    assert "several labels a sequence" in caplog.text


def test_lists_of_labels(tmp_path):
    rows = [
        {"x": [1, 2], "weather": ["rain"]},
        {"x": [3], "weather": ["wind", "rain"]},
        {"x": [4], "weather": []},
    ]
    path = written(tmp_path, "\n".join(map(json.dumps, rows)), "mine.jsonl")
    examples = read_examples(path, Roles(target="weather", task="classify"))
    assert examples.roles.labels == ("rain", "wind")
    assert examples.y.tolist() == WANTED


def test_texts_with_labels(tmp_path):
    text = "review,weather\nA wet day,rain\nA stormy one,rain;wind\nSun,\n"
    examples = read_examples(written(tmp_path, text), Roles(target="weather"))
    assert examples.y.tolist() == WANTED
    assert examples.features == ("review",)


@pytest.mark.parametrize("trained", [None, "|", ";"])
@pytest.mark.parametrize("between", [None, "|", ";"])
def test_a_model_reads_labels_however_they_are_written(tmp_path, trained, between):
    """One label has a blank, and one a comma."""
    rows = [["light rain"], ["light rain", "wind, cold"], []]
    known = replace(ONE_COLUMN, labels=("light rain", "wind, cold"), between=trained)
    lines = []
    for i, row in enumerate(rows):
        labels = row if between is None else between.join(row)
        lines.append(json.dumps({"trip": str(i), "x": [1.0, 2.0], "weather": labels}))
    examples = read_examples(written(tmp_path, "\n".join(lines), "mine.jsonl"), known)
    assert examples.y.tolist() == [[1, 0], [1, 1], [0, 0]]
    lines[1] = lines[1].replace("wind", "hail")
    with pytest.raises(ValueError, match=r"label '.*hail, cold' is not among the known ones"):
        read_examples(written(tmp_path, "\n".join(lines), "mine.jsonl"), known)


def test_names_with_a_sign_stay_names(tmp_path):
    """No label that occurs beside another occurs alone: these are two classes."""
    text = "trip,x,weather\na,1,rain|wind\nb,3,sun|calm\n"
    examples = read_examples(written(tmp_path, text), ONE_COLUMN)
    assert examples.y.tolist() == ["rain|wind", "sun|calm"]
    assert examples.roles.labels == ()


def test_a_value_that_is_neither_is_named(tmp_path):
    path = written(tmp_path, LONG.replace("b,3,1,1", "b,3,1,2"))
    with pytest.raises(ValueError, match=r"line 4, column 'wind': 2; wanted 0 or 1"):
        read_examples(path, COLUMNS)


def test_labels_differ_within_a_sequence(tmp_path):
    path = written(tmp_path, LONG.replace("a,2,1,0", "a,2,1,1"))
    with pytest.raises(ValueError, match="line 3, column 'wind': 1, and 0 earlier"):
        read_examples(path, COLUMNS)


def test_a_column_of_two_roles(tmp_path):
    roles = Roles(id="trip", features=("x", "rain"), labels=("rain", "wind"), task="classify")
    with pytest.raises(ValueError, match="'rain' is both"):
        read_examples(written(tmp_path, LONG), roles)


def test_a_model_keeps_its_labels(tmp_path):
    """Another file has the columns of the labels that were learnt, and no further label."""
    text = "trip,x,weather\na,1,rain\nb,3,rain|wind\nc,4,sun\n"
    learnt = read_examples(written(tmp_path, text), ONE_COLUMN)
    roles = Preparation.from_json(Preparation.fit(learnt).as_json()).roles
    other = written(tmp_path, "weather,trip,x\nwind|sun,a,1\n", "other.csv")
    assert read_examples(other, roles).y.tolist() == [[0, 1, 1]]
    assert read_examples(other, roles.inputs()).y is None
    strange = written(tmp_path, "weather,trip,x\nwind|snow,a,1\n", "strange.csv")
    with pytest.raises(ValueError, match=r"line 2, column 'weather': the label 'snow' is not"):
        read_examples(strange, roles)


def test_rarest_shares_every_label_out():
    from ostinato_learn.data.sequences.splits import split

    y = np.zeros((100, 3), np.int64)
    y[:, 0] = 1
    y[::5, 1] = 1
    y[::20, 2] = 1
    parts = split(100, 0.2, stratify=rarest(y))
    assert y[parts["test"]].sum(axis=0).tolist() == [20, 4, 1]


def test_joined_keeps_the_order_of_the_labels():
    assert joined(np.array([[1, 1], [0, 0]]), ["b", "a"]).tolist() == ["b;a", ""]


def several(y):
    X = np.random.default_rng(0).normal(size=(len(y), 6, 1)).astype(np.float32)
    roles = Roles(labels=("rain", "wind"), task="classify")
    return Examples(X, np.array(y), ("x",), roles=roles)


def test_check_asks_for_each_label():
    generator = np.random.default_rng(1)
    part = several(generator.integers(0, 2, (200, 2)))
    assert [finding.code for finding in check(part)] == []
    part.X[part.y[:, 1] == 1, 0, 0] += 50
    (finding,) = [each for each in check(part) if each.code == "shortcut-first-step"]
    assert "the label 'wind'" in finding.message
    assert finding.severity == "serious"


def test_check_finds_labels_that_all_have_or_none():
    y = np.random.default_rng(1).integers(0, 2, (100, 2))
    y[:, 0] = 0
    (finding,) = [each for each in check(several(y)) if each.code == "one-class"]
    assert (finding.severity, finding.places) == ("warning", ("label 'rain': none of them",))
    test = np.ones((20, 2), np.int64)
    found = {each.code: each for each in check(several(y), several(test))}
    assert found["one-class"].severity == "serious"
