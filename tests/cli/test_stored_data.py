"""A table too large for the memory is trained on from a file, with the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_examples import assert_same_run
from four_tasks import QUICK, TASKS

from ostinato.cli import findings, main, sources
from ostinato.cli.jobs import tag
from ostinato.data.stored import Stored


def words(folder: Path) -> tuple[object, ...]:
    """Lists of words with spans of names, in letters of bilou."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    generator, rows = np.random.default_rng(0), []
    for _ in range(30):
        row = {"word": [], "tag": []}
        for _ in range(generator.integers(1, 6)):
            n = generator.integers(0, 3)
            row["word"] += [f"n{generator.integers(9)}" for _ in range(n)] + ["says"]
            row["tag"] += [["U-P"], ["B-P", "L-P"]][n - 1] if n else []
            row["tag"] += ["O"]
        rows.append(row)
    path = folder / "words.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    return (path, "--tag", "tag")


def dates(folder: Path) -> tuple[object, ...]:
    """The signs of numbers, with days as times but for the last step of the last sequences."""
    path, *flags = TASKS["tag"](folder)
    head, *lines = [line.split(",") for line in path.read_text().splitlines()]
    for i, line in enumerate(lines):
        line[1] = f"2024-01-0{1 + int(line[1])}" + " 12:30" * (i > 180 and i % 7 == 6)
    path.write_text("\n".join(",".join(line) for line in [head, *lines]))
    return (path, *flags, "--features", "a")


KINDS = {**TASKS, "dates": dates, "words": words}


def train(folder: Path, run: str, kind: str = "classify", *flags: object) -> Path:
    arguments = ("train", *KINDS[kind](folder), *QUICK, "--output", folder / run, *flags)
    assert main([str(a) for a in arguments]) == 0
    return folder / run


@pytest.mark.parametrize("kind", ["classify", "tag", "dates", "words"])
def test_the_run_is_that_of_data_in_the_memory(tmp_path, monkeypatch, kind):
    small = train(tmp_path, "memory", kind)
    monkeypatch.setattr(sources, "LARGE", 0)
    read, made = sources.read, []
    monkeypatch.setattr(sources, "read", lambda *a, **k: made.append(read(*a, **k)) or made[-1])
    monkeypatch.setattr(tag, "AT_ONCE", 9)
    large = train(tmp_path, "file", kind)
    assert isinstance(made[0].X, Stored)
    assert_same_run(small, large)
    for name in ("evaluation.json", "report.html"):
        assert (large / name).is_file()


@pytest.mark.parametrize("kind", ["tag", "words"])
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
    assert "of 32 sequences are looked at" in capsys.readouterr().err


def test_the_report_of_a_large_test_part_shows_some_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LARGE", 0)
    monkeypatch.setattr(tag, "SHOWN", 60)
    run = train(tmp_path, "run", "tag")
    assert "2 test sequences of 7 steps" in (run / "report.html").read_text()
