"""A table too large for the memory is trained on from a file, with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_examples import assert_same_run
from task_files import KINDS, QUICK

from ostinato_learn.cli import main
from ostinato_learn.data.sequences.mapped import Mapped
from ostinato_learn.data.series import of_examples, panel
from ostinato_learn.jobs import findings
from ostinato_learn.jobs import tag as tag
from ostinato_learn.jobs.inputs import sources
from zoo.suites import one_in


def train(folder: Path, run: str, kind: str = "classify", *flags: object) -> Path:
    arguments = ("train", *KINDS[kind](folder), *QUICK, "--output", folder / run, *flags)
    assert main([str(a) for a in arguments]) == 0
    return folder / run


ALL = ["classify", "tag", "dates", "words", "forecast", "inputs"]


@pytest.mark.parametrize("kind", one_in(4, ALL))
def test_the_run_is_that_of_data_in_the_memory(tmp_path, monkeypatch, kind):
    small = train(tmp_path, "memory", kind)
    monkeypatch.setattr(sources, "LARGE", 0)
    read, made = sources.read, []
    monkeypatch.setattr(sources, "read", lambda *a, **k: made.append(read(*a, **k)) or made[-1])
    monkeypatch.setattr(tag, "AT_ONCE", 9)
    monkeypatch.setattr(panel, "BLOCK", 600)
    monkeypatch.setattr(of_examples, "BLOCK", 600)
    large = train(tmp_path, "file", kind)
    assert isinstance(made[0].sequences, Mapped)
    assert_same_run(small, large)
    for name in ("evaluation.json", "report.html"):
        assert (large / name).is_file()


@pytest.mark.parametrize("kind", one_in(3, ["tag", "words", "forecast"]))
def test_a_run_goes_on_within_an_epoch(tmp_path, monkeypatch, kind):
    """Of 24 sequences, 8 at a time: after 5 of 12 updates the second epoch is not over."""
    monkeypatch.setattr(sources, "LARGE", 0)
    flags = ("--schedule", "constant", "--warmup", 0, "--eval-every", 5)
    whole = train(tmp_path, "whole", kind, *flags)
    begun = train(tmp_path, "begun", kind, *flags, "--iterations", 5)
    arguments = ("train", "--resume", "--iterations", 12, "--output", begun)
    assert main([str(a) for a in arguments]) == 0
    assert_same_run(whole, begun)


def test_of_many_sequences_some_are_looked_at(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources, "LARGE", 0)
    monkeypatch.setattr(findings, "LOOKED_AT", 50)
    train(tmp_path, "run")
    assert "of 32 sequences are checked" in capsys.readouterr().err


def test_the_report_of_a_large_test_part_shows_some_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LARGE", 0)
    monkeypatch.setattr(tag, "SHOWN", 30)
    run = train(tmp_path, "run", "tag")
    assert "2 test sequences of 7 steps" in (run / "report.html").read_text()
