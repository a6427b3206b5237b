"""A table too large for the memory is trained on from a file, with the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_examples import assert_same_run
from four_tasks import QUICK, TASKS

from ostinato.cli import findings, main, sources
from ostinato.cli.jobs import forecast, tag
from ostinato.data import stored_panel
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


def inputs(folder: Path) -> tuple[object, ...]:
    """Series with missing values, and inputs of every kind, some known for two further steps."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    generator, rows = np.random.default_rng(4), []
    for i in range(8):
        n = 40 + 3 * i
        values = [float(v) for v in generator.normal(i, 1, n)]
        values[5] = None
        rows.append({
            "value": [*values, None, None],
            "past": [None if t % 9 < 2 else float(t) for t in range(n + 2)],
            "word": ["new" if t < 2 * i else "old" for t in range(n + 2)],
            "price": [float(v) for v in generator.normal(50, 5, n + 2)],
            "t": [i * 1000 + t for t in range(n + 2)],
            "size": i / 3,
            "name": f"s{i}",
        })  # fmt: skip
    path = folder / "series.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    flags = ("--forecast", "value", "--horizon", 2, "--features", "past,word,price")
    return (path, *flags, "--known", "price", "--static", "size", "--id", "name", "--time", "t")


KINDS = {**TASKS, "inputs": inputs, "dates": dates, "words": words}


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


@pytest.mark.parametrize("kind", ["forecast", "inputs"])
def test_forecasts_of_series_in_a_file(tmp_path, monkeypatch, kind):
    """Windows come in another order; all else is as of series in the memory."""
    small = train(tmp_path, "memory", kind)
    monkeypatch.setattr(sources, "LARGE", 0)
    monkeypatch.setattr(stored_panel, "BLOCK", 600)
    monkeypatch.setattr(forecast, "SHOWN", 600)
    large = train(tmp_path, "file", kind)
    first = [
        json.loads((run / "metrics.jsonl").read_text().splitlines()[0]) for run in (small, large)
    ]
    assert first[1]["validation_loss"] == pytest.approx(first[0]["validation_loss"], rel=1e-6)
    told = [json.loads((run / "evaluation.json").read_text()) for run in (small, large)]
    assert told[0]["baselines"] == told[1]["baselines"]
    assert told[0]["test"]["n"] == told[1]["test"]["n"]
    lines = [[line.split(",")[:3] for line in (run / "predictions.csv").read_text().splitlines()]
             for run in (small, large)]  # fmt: skip
    assert lines[0] == lines[1]


@pytest.mark.parametrize("kind", ["tag", "words", "forecast"])
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
