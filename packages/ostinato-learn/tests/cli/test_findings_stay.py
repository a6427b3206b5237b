"""A serious finding is shown beside every number that it puts in doubt."""

from __future__ import annotations

import json

import pytest
from task_files import QUICK, classify

LEAK = "40 of 40 (100 %) test sequences are training sequences too"


@pytest.fixture
def leaky(ostinato, tmp_path):
    """The flags of a training whose test file is its training file, and the run."""
    file, *flags = classify(tmp_path)
    return (file, "--test", file, *flags, *QUICK), tmp_path / "run"


def test_a_leak_is_shown_beside_the_accuracy(ostinato, leaky):
    flags, run = leaky
    done = ostinato("train", *flags, "-q", "-o", run)
    assert done.code == 0, done.err
    assert LEAK in done.err  # -q leaves out notes; this is a warning
    assert LEAK in done.out
    (finding,) = [f for f in done_findings(run) if f["code"] == "same-sequence"]
    assert finding["severity"] == "serious" and finding["count"] == 40
    page = (run / "report.html").read_text("utf-8")
    assert page.index(LEAK) < page.index("<nav")  # in the head, with the accuracy
    assert LEAK in (run / "model" / "README.md").read_text("utf-8")
    assert LEAK in ostinato("evaluate", run).out
    assert LEAK in ostinato("compare", run, run).out
    again = json.loads(ostinato("evaluate", run, "--json", "-q").out)
    assert again["findings"] == done_findings(run)


def test_a_run_that_goes_on_says_it_again(ostinato, leaky):
    flags, run = leaky
    assert ostinato("train", *flags, "-q", "-o", run).code == 0
    done = ostinato("train", "--resume", "-o", run, "--iterations", 20, "-q", "--json")
    assert done.code == 0 and LEAK in done.err
    assert LEAK in json.loads(done.out)["findings"][0]["message"]
    assert LEAK in (run / "report.html").read_text("utf-8")


def test_cross_validation_says_it_too(ostinato, leaky, tmp_path):
    flags, _ = leaky
    file = flags[0]
    header, *lines = file.read_text().splitlines()
    twice = [line.replace(",", "x,", 1) for line in lines]  # every sequence under a second name
    file.write_text("\n".join([header, *lines, *twice]) + "\n")
    plain = [flag for i, flag in enumerate(flags) if i not in (1, 2)]
    done = ostinato("cv", *plain, "--folds", 2, "-q")
    assert done.code == 0 and "training sequences too" in done.out + done.err
    assert "training sequences too" in done.out


def test_a_search_says_it_beside_the_loss(ostinato, leaky, tmp_path):
    flags, _ = leaky
    leak = "32 of 40 (80 %) test sequences are training sequences too"  # the others validate
    line = ("tune", *flags, "--trials", 1, "-q", "-o", tmp_path / "study")
    done = ostinato(*line)
    assert done.code == 0 and leak in done.err and leak in done.out
    assert leak in (tmp_path / "study" / "best.toml").read_text().splitlines()[1]
    (finding,) = json.loads(ostinato(*line, "--json").out)["findings"]
    assert leak in finding["message"]


def test_honest_data_have_no_findings(ostinato, tmp_path):
    run = tmp_path / "run"
    done = ostinato("train", *classify(tmp_path, n=60), *QUICK, "-q", "-o", run)
    assert done.code == 0 and done_findings(run) == []
    assert "serious" not in done.err + done.out


def done_findings(run):
    return json.loads((run / "evaluation.json").read_text()).get("findings", [])
