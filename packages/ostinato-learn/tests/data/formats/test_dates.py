"""Dates as people write them: the same instant from every spelling and every format of file."""

import json
from datetime import datetime, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from ostinato_learn.data import Roles, read_examples
from ostinato_learn.data.checks import check
from ostinato_learn.data.formats import dates
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.data.tables.text_column import Text
from zoo.suites import draws

ROLES = Roles(id="id", time="time", features=("x",))


def column(*texts):
    return Text("t", "row {}".format, pa.chunked_array([pa.array(texts, pa.large_string())]), True)


SPELLINGS = {
    "2024-01-31": "2024-01-31",
    "2024/1/31": "2024-01-31",
    "2024.01.31 7:05": "2024-01-31T07:05",
    "31.01.2024": "2024-01-31",
    "31.1.2024 07:05:09": "2024-01-31T07:05:09",
    "31/01/2024, 7:05 GMT": "2024-01-31T07:05",
    "01/31/2024 07:05:09.25": "2024-01-31T07:05:09.25",
    "01-31-2024": "2024-01-31",
    "2024-01-31 07:05:09,125": "2024-01-31T07:05:09.125",
    "31.01.2024 07:05 +02:00": "2024-01-31T05:05",
    "2024-01-31T07:05:09+0530": "2024-01-31T01:35:09",
    "2024-01-31T07:05Z": "2024-01-31T07:05",
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_spellings(text):
    (time,) = column(text).times()
    assert time == np.datetime64(SPELLINGS[text])
    assert time.dtype == "datetime64[ns]"


@draws(200)
@given(
    st.datetimes(datetime(1800, 1, 1), datetime(2200, 1, 1)),
    st.sampled_from(["%d.%m.%Y %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"]),
)
def test_any_date_is_what_python_wrote(moment, spelled):
    moment = moment.replace(microsecond=0)
    assert column(moment.strftime(spelled)).times() == np.datetime64(moment)


@pytest.mark.parametrize("first, order", [("%d/%m/%Y", "day-first"), ("%m/%d/%Y", "month-first")])
def test_one_date_tells_the_order_of_all(first, order):
    moments = [datetime(2024, 1, day) for day in range(1, 20)]
    texts = column(*(moment.strftime(first) for moment in moments))
    assert texts.time_format() == order
    assert texts.times().tolist() == np.array(moments, "M8[ns]").tolist()


def test_dates_that_can_be_read_in_two_ways():
    texts = column("2024-12-31", "01/02/2024", "03/02/2024")
    with pytest.raises(ValueError, match=r"row 1: the date '01/02/2024' can be read in two ways.*"):
        texts.times()
    assert texts.times("day-first")[1] == np.datetime64("2024-02-01")
    assert texts.times("month-first")[1] == np.datetime64("2024-01-02")


@pytest.mark.parametrize(
    "texts, written, said",
    [
        (
            ("31/01/2024", "01/31/2024"),
            None,
            "row 1: the date '01/31/2024' has day and month in an",
        ),
        (("31/01/2024", "31/02/2024"), None, "'31/02/2024' is not a time with the day first"),
        (("01/31/2024",), "day-first", "row 0: '01/31/2024' is not a time with the day first"),
        (("31.01.24",), None, "'31.01.24' is not a time"),
        (("31 Jan 2024",), None, "'31 Jan 2024' is not a time"),
        (("31.01.2024 1:00 PM",), None, "1:00 PM' is not a time"),
        (("31.01.2024", ""), None, "row 1: the time is missing"),
        (("31.01.2024", "1.2.2024 9:00Z"), None, "'1.2.2024 9:00Z' has a distance to UTC, and '31"),
        (("31.01.2024 9:00Z", "1.2.2024"), None, "row 1: '1.2.2024' has no distance to UTC, and"),
        (("30/01/2024", "20/13/2024"), None, "'20/13/2024' is not a time with the day first"),
        (("31.01.2024",), "seconds", "'31.01.2024'; wanted numbers, seconds since 1970"),
        (("1706659200123",), "seconds", "wanted another unit"),
    ],
)
def test_refused(texts, written, said):
    with pytest.raises(ValueError, match=said.replace(".", r"\.").replace(r"\.*", ".*")):
        column(*texts).times(written)


@pytest.mark.parametrize("unit", dates.PER_SECOND)
def test_numbers_since_1970(unit):
    moment = datetime(2024, 1, 31, 10, 5, 30, 250000, timezone.utc)
    number = int(moment.timestamp() * 1_000_000) * dates.PER_SECOND[unit] / 1_000_000
    texts = column(repr(number), "0")
    assert texts.times().tolist() == [number, 0.0]  # numbers are taken as they are
    found = texts.times(unit)
    assert (found[0], found[1]) == (np.datetime64("2024-01-31T10:05:30.250"), np.datetime64(0, "s"))


def test_every_format_gives_the_same_bits(tmp_path):
    """Spelled in a table of text, and as the dates and numbers that other formats have."""
    moments = [datetime(2024, 1, 31, 23, 50), datetime(2024, 2, 1, 0, 10)]
    epoch = [int(moment.replace(tzinfo=timezone.utc).timestamp()) for moment in moments]
    spelled = ("%d/%m/%Y %H:%M", "%Y-%m-%dT%H:%MZ")
    found = []
    for i, way in enumerate(spelled):
        texts = [moment.strftime(way) for moment in moments]
        (tmp_path / f"{i}.csv").write_text(f"id,time,x\na,{texts[0]},1\na,{texts[1]},2\n")
        lines = [json.dumps({"id": "a", "time": text, "x": 1}) for text in texts]
        (tmp_path / f"{i}.jsonl").write_text("\n".join(lines))
        (tmp_path / f"{i}n.jsonl").write_text(json.dumps({"time": texts, "x": [1, 2]}))
        table = pa.table({"id": ["a", "a"], "time": texts, "x": [1, 2]})
        parquet.write_table(table, tmp_path / f"{i}.parquet")
        found += [
            read_examples(tmp_path / f"{i}{e}", ROLES) for e in (".csv", ".jsonl", ".parquet")
        ]
        nested = Roles(time="time", features=("x",))
        found.append(read_examples(tmp_path / f"{i}n.jsonl", nested))
    table = pa.table({"id": ["a", "a"], "time": pa.array(moments, pa.timestamp("us")), "x": [1, 2]})
    parquet.write_table(table, tmp_path / "typed.parquet")
    found.append(read_examples(tmp_path / "typed.parquet", ROLES))
    parquet.write_table(table.set_column(1, "time", [epoch]), tmp_path / "epoch.parquet")
    (tmp_path / "epoch.csv").write_text(f"id,time,x\na,{epoch[0]},1\na,{epoch[1]},2\n")
    seconds = Roles(id="id", time="time", features=("x",), time_format="seconds")
    found += [read_examples(tmp_path / f"epoch{e}", seconds) for e in (".csv", ".parquet")]
    wanted = np.array(moments, "M8[ns]")
    for examples in found:
        assert examples.times[0].tobytes() == wanted.tobytes()


def test_a_model_reads_other_dates_as_those_it_learnt_from(tmp_path, caplog):
    (tmp_path / "learnt.csv").write_text("id,time,x\na,30/01/2024,1\na,31/01/2024,2\n")
    examples = read_examples(tmp_path / "learnt.csv", ROLES)
    assert "times day-first" in caplog.text
    roles = Preparation.from_json(Preparation.fit(examples).as_json()).roles
    (tmp_path / "new.csv").write_text("id,time,x\na,01/02/2024,1\na,02/02/2024,2\n")
    assert read_examples(tmp_path / "new.csv", roles).times[0][1] == np.datetime64("2024-02-02")
    with pytest.raises(ValueError, match=r"new.csv, line 2, column 'time': the date '01/02/2024'"):
        read_examples(tmp_path / "new.csv", ROLES)


def test_gaps_are_found_in_dates_of_every_spelling(tmp_path):
    days = [day for day in range(1, 29) if day != 14]
    for i, spelled in enumerate(("{:02}.01.2024", "01/{:02}/2024", "2024-01-{:02}")):
        lines = ["id,time,x", *(f"a,{spelled.format(day)},{day % 7}" for day in days)]
        (tmp_path / f"{i}.csv").write_text("\n".join(lines))
        codes = [f.code for f in check(read_examples(tmp_path / f"{i}.csv", ROLES))]
        assert "gaps" in codes


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        (["2023-11-01", "2023-12-01", "2024-01-01"], ["2024-02-01", "2024-03-01", "2024-04-01"]),
        (["2023-12-31", "2024-01-31"], ["2024-02-29", "2024-03-31", "2024-04-30"]),
        (["2023-06-30", "2023-09-30", "2023-12-31"], ["2024-03-31", "2024-06-30", "2024-09-30"]),
        (["2022-07-01", "2023-07-01"], ["2024-07-01", "2025-07-01", "2026-07-01"]),
        # A month is missing in between, and the day is the 15th at noon.
        (
            ["2023-09-15T12", "2023-10-15T12", "2023-12-15T12", "2024-01-15T12"],
            ["2024-02-15T12", "2024-03-15T12", "2024-04-15T12"],
        ),
        (["2024-02-27", "2024-02-28", "2024-02-29"], ["2024-03-01", "2024-03-02", "2024-03-03"]),
        (["2024-01-31", "2024-02-01"], ["2024-02-02", "2024-02-03", "2024-02-04"]),
        (
            ["2024-01-01T00:00", "2024-01-01T00:05", "2024-01-01T00:15", "2024-01-01T00:20"],
            ["2024-01-01T00:25", "2024-01-01T00:30", "2024-01-01T00:35"],
        ),
        ([0.5, 1.0, 1.5, 3.0], [3.5, 4.0, 4.5]),
    ],
)
def test_times_go_on(times, wanted):
    kind = "M8[ns]" if isinstance(times[0], str) else float
    found = dates.following(np.array(times, kind), 3)
    assert found.dtype == np.array(times, kind).dtype
    np.testing.assert_array_equal(found, np.array(wanted, kind))
