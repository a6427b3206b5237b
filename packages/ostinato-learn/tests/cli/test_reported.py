"""The report that a run of each task leaves."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from zoo.suites import one_in

SMALL = ["--hidden-size", 4, "--quiet"]
SECTIONS = {
    "tag": ("confusion", "where", "calibration", "hardest"),
    "regress": ("against", "worst"),
    "forecast": ("forecasts", "steps", "calibration", "series"),
    "language": ("completions", "passage", "samples", "position"),
}


def table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def arguments(tmp_path):
    """Of each task: a small file, and the flags for it."""
    rng = np.random.default_rng(0)
    steps = [(name, t, rng.normal()) for name in "abcdefgh" for t in range(12)]
    tags = [(*step, "up" if step[2] > 0 else "down") for step in steps]
    table(tmp_path / "tags.csv", ["id", "t", "x", "label"], tags)
    table(tmp_path / "series.csv", ["id", "t", "x"], steps)
    numbers = [(*step, "abcdefgh".index(step[0])) for step in steps]
    table(tmp_path / "numbers.csv", ["id", "t", "x", "y"], numbers)
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 60)
    of_table = ["--id", "id", "--time", "t", "--epochs", 1]
    return {
        "tag": [tmp_path / "tags.csv", "--tag", "label", *of_table],
        "forecast": [tmp_path / "series.csv", "--forecast", "x", "--horizon", 2, *of_table],
        "regress": [tmp_path / "numbers.csv", "--regress", "y", *of_table],
        "language": [tmp_path / "text.txt", "--iterations", 2],
    }


@pytest.mark.parametrize("task", one_in(3, SECTIONS))
@pytest.mark.usefixtures("drawn")
def test_every_task_leaves_a_report_that_fits_it(ostinato, arguments, tmp_path, task):
    run = tmp_path / "run"
    outcome = ostinato("train", *arguments[task], *SMALL, "--output", run)
    assert outcome.code == 0, outcome.err
    page = (run / "report.html").read_text("utf-8")
    for section in ("measures", "training", "configuration", "environment", *SECTIONS[task]):
        assert f'<section id="{section}"' in page
    assert f"<h1>{arguments[task][0].name}, " in page and '<pre class="command">' in page
    assert str(run / "report.html") in outcome.out
    assert "<path" in page
    # What the task has no use for, and what is not set, is no part of the configuration shown.
    configuration = page[page.index('<section id="configuration"') :]
    assert ">horizon<" in configuration if task == "forecast" else ">horizon<" not in configuration
    assert ">none<" not in configuration[: configuration.index("</section>")]
