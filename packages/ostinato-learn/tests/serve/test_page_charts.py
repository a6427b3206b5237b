"""The page's charts of forecasts: functions of page.js, in Node where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib import resources
from typing import Any

import pytest

PAGE = resources.files("ostinato_learn.serve").joinpath("static", "page.js").read_text("utf-8")


def called(name: str, *arguments: Any) -> Any:
    """The value of a function of the page that touches no document."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node")
    start = PAGE.index(f"function {name}(")
    function = PAGE[start : PAGE.index("\n}\n", start) + 2]
    given = ", ".join(map(json.dumps, arguments))
    program = f"{function}\nconsole.log(JSON.stringify({name}({given})))"
    done = subprocess.run([node, "-e", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_empty_rows_of_the_future_are_no_past():
    values = [str(i) for i in range(88)] + [""] * 28  # as --known wants them
    found = called("ending", values, [f"d{i}" for i in range(116)], 60)
    assert found["values"] == list(range(28, 88)) and found["times"][-1] == "d87"
    assert called("ending", ["1", "", "3", ""], [], 60) == {"values": [1, None, 3], "times": []}
    assert called("ending", ["", ""], [], 60)["values"] == []


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        (["2024-01-01T00:00:00", "2024-01-02T00:00:00"], ["2024-01-01", "2024-01-02"]),
        (["2024-01-01", "2024-01-02T00:00:00"], ["2024-01-01", "2024-01-02"]),
        (["2024-01-01T08:05:00", "2024-01-01T09:00:00"], ["2024-01-01 08:05", "2024-01-01 09:00"]),
        (["3", "4"], ["3", "4"]),
        (["", "4"], ["1", "2"]),
    ],
)
def test_steps_are_named_by_their_times(times, shown):
    assert called("stepNames", times, 2) == shown


def test_steps_without_times_are_numbered():
    assert called("stepNames", [], 3) == ["1", "2", "3"]
