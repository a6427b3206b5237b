"""A table too large for the memory is trained on from a file, with the same bits."""

from __future__ import annotations

from pathlib import Path

from cli_examples import assert_same_run
from four_tasks import QUICK, TASKS

from ostinato.cli import findings, main, sources
from ostinato.data.stored import Stored


def train(folder: Path, run: str) -> Path:
    arguments = ("train", *TASKS["classify"](folder), *QUICK, "--output", folder / run)
    assert main([str(a) for a in arguments]) == 0
    return folder / run


def test_the_run_is_that_of_data_in_the_memory(tmp_path, monkeypatch):
    small = train(tmp_path, "memory")
    monkeypatch.setattr(sources, "LARGE", 0)
    read, made = sources.read, []
    monkeypatch.setattr(sources, "read", lambda *a, **k: made.append(read(*a, **k)) or made[-1])
    large = train(tmp_path, "file")
    assert isinstance(made[0].X, Stored)
    assert_same_run(small, large)


def test_of_many_sequences_some_are_looked_at(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources, "LARGE", 0)
    monkeypatch.setattr(findings, "LOOKED_AT", 50)
    train(tmp_path, "run")
    assert "of 32 sequences are looked at" in capsys.readouterr().err
