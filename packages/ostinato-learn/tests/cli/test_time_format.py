"""--time-format: dates that can be read in two ways, from the file to the forecasts."""

from __future__ import annotations

import csv
import datetime

import numpy as np
import pytest
from task_files import QUICK

from ostinato_learn.jobs.output import time_type, times_as_text

COLUMNS = ("--id", "shop", "--time", "day", "--horizon", 3)


def sales(path, spelled, days=10):
    """Two shops on the first days of a month, all of which can be read as months."""
    lines = ["shop,day,sold"]
    for shop in "ab":
        for month in range(1, 1 + days):
            day = datetime.date(2024, 1, month)
            lines.append(f"{shop},{day.strftime(spelled)},{month % 4}")
    path.write_text("\n".join(lines))
    return path


def test_refused_with_the_flag_that_decides(tmp_path, ostinato):
    file = sales(tmp_path / "sales.csv", "%d/%m/%Y")
    outcome = ostinato("train", file, "--forecast", "sold", *COLUMNS, "-o", tmp_path / "run")
    assert (outcome.code, outcome.out) == (2, "")
    assert "sales.csv, line 2, column 'day': the date '01/01/2024' can be read" in outcome.err
    assert "--time-format" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("order, spelled", [("day-first", "%d/%m/%Y"), ("month-first", "%m/%d/%Y")])
def test_forecasts_follow_in_the_order_that_was_given(tmp_path, ostinato, order, spelled):
    file = sales(tmp_path / "sales.csv", spelled)
    flags = ("--time-format", order, *QUICK, "-o", tmp_path / "run", "--quiet")
    assert ostinato("train", file, "--forecast", "sold", *COLUMNS, *flags).code == 0
    outcome = ostinato("predict", tmp_path / "run", file)
    rows = list(csv.DictReader(outcome.out.splitlines()))
    assert [row["time"] for row in rows[:3]] == ["2024-01-11", "2024-01-12", "2024-01-13"]


def test_not_for_files_of_arrays(data, ostinato):
    outcome = ostinato("train", data, "--time-format", "seconds")
    assert outcome.code == 2
    assert "--time-format" in outcome.err


@pytest.mark.parametrize(
    ("times", "dtype", "texts"),
    [
        ([["2024-05-01"], ["2024-05-02", "2024-05-03"]], "M8[D]", ["2024-05-01"]),
        ([["2024-05-01"], ["2024-05-02T10:30"]], "M8[m]", ["2024-05-01T00:00"]),
        (
            [["2024-05-01"], ["2024-05-02T10:30:00.000000001"]],
            "M8[ns]",
            ["2024-05-01T00:00:00.000000000"],
        ),
        ([[1.0], [2.0, 3.0]], "i8", [1]),
        ([[1.0], [2.5]], "f8", [1.0]),
        ([[1e300], [2.0]], "f8", [1e300]),
        ([], "i8", None),
    ],
)
def test_times_are_written_alike_in_the_shortest_exact_form(times, dtype, texts):
    kind = "M8[ns]" if times and isinstance(times[0][0], str) else "f8"
    arrays = [np.array(each, kind) for each in times]
    assert time_type(iter(arrays)) == dtype
    assert times_as_text(arrays)[:1] == ([texts] if times else [])
    assert times_as_text(arrays[:1], dtype) == times_as_text(arrays)[:1]
