"""Columns by name: what is found out, what is said of it, what is refused."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

pytest.importorskip("pyarrow")
from ostinato_learn.data.formats.delimited import parse_delimited
from ostinato_learn.data.formats.json_lines import parse_json_lines
from ostinato_learn.data.tables.roles import Roles, resolve

LONG = "ID,Time,x,y,mode\na,1,1,1,up\na,2,1,1,up\nb,1,1,1,down\n"
WIDE = "label,t0,t1,t2\nup,1,2,3\ndown,1,2,3\n"


def table(text):
    if text.startswith("{"):
        return parse_json_lines(text.encode(), "f.jsonl")
    return parse_delimited(text.encode(), "f.csv")


def test_all_names_given_are_taken_as_they_are_and_nothing_is_said(caplog):
    roles = Roles("long", " ID ", "\ufeffTime", ("y", "x"), "mode", "classify")
    found = resolve(roles, table(LONG))
    assert found == Roles("long", "ID", "Time", ("y", "x"), "mode", "classify")
    assert resolve(found, table(LONG)) == found
    assert caplog.text == ""


def test_what_is_found_out_is_said_in_one_line(caplog):
    found = resolve(Roles(target="mode", task="classify"), table(LONG))
    assert found == Roles("long", "ID", "Time", ("x", "y"), "mode", "classify")
    assert [record.getMessage() for record in caplog.records] == [
        "f.csv: taken as shape long; id 'ID'; time 'Time'; 2 features: 'x', 'y'"
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_that_all_rows_are_one_sequence_is_said(caplog):
    """Two shops would be one series, one behind the other."""
    text = "shop,sales\na,1\na,2\nb,3\nb,4\n"
    series = Roles(target="sales", task="forecast")
    found = resolve(series, table(text))
    assert caplog.messages == ["f.csv: taken as a single sequence (no --id); left out 'shop'"]
    caplog.clear()
    assert resolve(found, table(text)) == found  # as a model reads it
    resolve(replace(series, id="shop"), table(text))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("text", "given", "wanted"),
    [
        (WIDE, Roles(target="label"), ("wide", None, ("t0", "t1", "t2"), "classify")),
        (WIDE.replace("t", ""), Roles(target="label"), ("wide", None, ("0", "1", "2"), "classify")),
        (
            "t1,t10,t11,t2,t3,t4,t5,t6,t7,t8,t9,y\n1,2,3,4,5,6,7,8,9,1,2,a\n",
            Roles(target="y"),
            ("wide", None, tuple(f"t{i}" for i in range(1, 12)), "classify"),
        ),
        (
            "id," + WIDE.replace("\nup", "\n1,up").replace("\ndown", "\n2,down"),
            Roles(target="label"),
            ("wide", "id", ("t0", "t1", "t2"), "classify"),
        ),
        (LONG, Roles(target="mode", task="tag"), ("long", "ID", ("x", "y"), "tag")),
        (LONG, Roles(target="x", task="forecast"), ("long", "ID", (), "forecast")),
        (
            LONG,
            Roles(target="x", task="forecast", known=("y",)),
            ("long", "ID", ("y",), "forecast"),
        ),
        (
            '{"id": 1, "x": [1], "y": [2], "z": "u"}',
            Roles(target="z"),
            ("nested", "id", ("x", "y"), "classify"),
        ),
        ('{"x": [1], "z": ["u"]}', Roles(target="z", task="tag"), ("nested", None, ("x",), "tag")),
    ],
)
def test_what_is_unambiguous_is_found_out(text, given, wanted):
    found = resolve(given, table(text))
    assert (found.shape, found.id, found.features, found.task) == wanted


def _monthly(*rows):
    return "shop,month,opened,sales\n" + "".join(f"{row}\n" for row in rows)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        (_monthly(*(f"a,2024-{m:02d}-01,2001-05-07,{m}" for m in range(1, 9))), "month"),
        (_monthly(*(f"{s},{m}/15/2024,5/17/2001,{m}" for s in "ab" for m in range(1, 9))), "month"),
        # in no order, which is refused when the rows are read
        (_monthly(*(f"a,2024-{1 + 5 * m % 12:02d}-01,,{m}" for m in range(12))), "month"),
        (_monthly(*(f"a,{m},{2000 + m}-01-01,{m}" for m in range(1, 9))), "opened"),
        # one as likely as the other
        (_monthly(*(f"a,2024-{m:02d}-01,{2000 + m}-01-01,{m}" for m in range(1, 9))), None),
    ],
)
def test_the_only_dates_that_go_on_are_the_time_of_a_series(text, time):
    found = resolve(Roles(id="shop", target="sales", task="forecast"), table(text))
    assert found.time == time


@pytest.mark.parametrize(
    ("text", "given", "wanted"),
    [
        (
            "a,b,c\n1,2,u\n3,4,v\n",
            Roles(target="c"),
            "is a row a step or a whole sequence.*'a', 'b'",
        ),
        (
            "a,b,c\n1,2,u\n1,4,v\n",
            Roles("long", target="c", task="classify"),
            "column distinguishes",
        ),
        (LONG, Roles(id="ID", target="mode"), "what is the target 'mode' for"),
        (
            LONG.replace("x", "mood").replace("1,1,up", "q,1,up"),
            Roles(target="mode", task="classify"),
            "'mood' does not hold numbers; name the features",
        ),
        (LONG, Roles(id="ID", target="ID"), "'ID' is both id and target"),
        (LONG, Roles(id="ID", features=("x", "x")), "'x' is twice among the features"),
        (LONG, Roles(id="ID", features=("x",), known=("y",)), "'y' is among known and not among"),
        (LONG, Roles(id="ID", features=("x",), categories=("y",)), "'y' is among categories and"),
        ("id,z\na,u\na,u\n", Roles(id="id", target="z", task="tag"), "no column is left"),
        (LONG, Roles(features=("x", "yy")), r"no column 'yy' \(given as features\).*mean 'y'"),
        (
            "id," + ",".join(f"c{i}" for i in range(50)) + "\n1" + ",2" * 50 + "\n",
            Roles(target="d"),
            r"'c18', … \(51 columns\)",
        ),
    ],
)
def test_what_is_ambiguous_or_wrong_is_refused(text, given, wanted):
    with pytest.raises(ValueError, match=wanted) as error:
        resolve(given, table(text))
    assert str(error.value).startswith("f.")


@pytest.mark.parametrize(
    ("text", "shape", "features"),
    [("t0,t1\n1,2\n3,4\n", "wide", ("t0", "t1")), ('{"x": [1]}', "nested", ("x",))],
)
def test_rows_that_a_model_answers_may_lack_their_id(text, shape, features):
    roles = Roles(shape, "key", features=features, of_model=True)
    assert resolve(roles, table(text)).id is None
    with_id = text.replace("t0", "key,t0").replace("1,", "a,1,").replace("3,", "b,3,")
    with_id = with_id.replace('"x"', '"key": "a", "x"')
    assert resolve(roles, table(with_id)).id == "key"
    with pytest.raises(ValueError, match="no column 'key'"):
        resolve(replace(roles, of_model=False), table(text))


def test_a_model_reads_rows_that_are_steps_as_well_as_lists():
    roles = Roles("nested", "ID", "Time", ("x", "y"), "mode", "tag")
    lists = '{"ID": "a", "Time": [1, 2], "x": [1, 1], "y": [1, 1], "mode": ["up", "up"]}'
    for of_model, text, shape in [
        (True, LONG, "long"),
        (True, lists, "nested"),
        (False, LONG, "nested"),
    ]:
        found = resolve(replace(roles, of_model=of_model), table(text))
        assert found == replace(roles, of_model=of_model, shape=shape)
    of_steps = replace(roles, shape="long", of_model=True)
    assert resolve(of_steps, table(lists)) == replace(of_steps, shape="nested")
    without_id = resolve(of_steps, table(lists.replace('"ID": "a", ', "")))
    assert (without_id.id, without_id.shape) == (None, "nested")


def test_steps_that_a_model_answers_have_their_id():
    """Without it all rows would be one sequence."""
    with pytest.raises(ValueError, match="no column 'key'"):
        resolve(Roles("long", "key", "t", ("x",), of_model=True), table("t,x\n1,2\n1,3\n"))


def test_columns_left_out_are_said(caplog):
    resolve(Roles(id="ID", time="Time", features=("x",), target="mode", task="tag"), table(LONG))
    assert caplog.messages == ["f.csv: left out 'y'"]


def test_several_features_in_a_wide_table_are_refused():
    """They would become one feature, of twice as many steps."""
    rows = "x0,x1,x2,y0,y1,label\n1,2,3,4,5,a\n5,6,7,8,9,b\n"
    with pytest.raises(ValueError, match=r"numbered under 2 names .'x0', 'y0', ….*one feature"):
        resolve(Roles("wide", target="label"), table(rows))
    with pytest.raises(ValueError, match=r"a row a step or a whole sequence.*--id"):
        resolve(Roles(target="label"), table(rows))
    with pytest.raises(ValueError, match="a row a step or a whole sequence"):  # t1 and t01
        resolve(Roles(target="label"), table("t1,t01,label\n1,2,a\n3,4,b\n"))
