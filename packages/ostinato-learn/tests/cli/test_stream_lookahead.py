"""`ostinato stream --lookahead`: answers that come a few rows late."""

from __future__ import annotations

import csv
import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from task_files import QUICK, classify, tag

from ostinato_learn import runtime
from ostinato_learn.cli import main

K = 2


@pytest.fixture(scope="module")
def tagger(tmp_path_factory) -> Path:
    """A run of two directions, as the command line trains them."""
    folder, threads = tmp_path_factory.mktemp("tagger"), torch.get_num_threads()
    file, *flags = tag(folder)
    arguments = ("train", file, *flags, *QUICK, "--bidirectional", "--output", folder / "run", "-q")
    assert main([str(a) for a in arguments]) == 0
    torch.set_num_threads(threads)
    return folder / "run"


@pytest.fixture
def rows(tmp_path) -> Path:
    generator = np.random.default_rng(5)
    lines = ["device,a"]
    lines += [f"{'pq'[generator.integers(2)]},{generator.normal():.3f}" for _ in range(30)]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "rows.csv"


def answers(text: str) -> dict[tuple[str, int], tuple[str, str]]:
    found = csv.DictReader(io.StringIO(text))
    return {(r["device"], int(r["step"])): (r["prediction"], r["probability"]) for r in found}


def wanted(run: Path, rows: Path) -> dict[tuple[str, int], tuple[str, str]]:
    """What the streams of the runtime say."""
    model, found = runtime.load(run / "model"), {}
    lines = list(csv.DictReader(rows.open()))
    for device in "pq":
        x = np.array([[float(r["a"])] for r in lines if r["device"] == device], np.float32)
        stream = model.stream(lookahead=K)
        for answer in [*stream.push(x), *stream.finish()]:
            found[device, answer.n] = (answer.label, f"{answer.proba.max():.6f}")
    return found


def test_every_row_is_answered_at_last(ostinato, tagger, rows):
    done = ostinato("stream", tagger, rows, "--key", "device", "--lookahead", K)
    assert (done.code, done.err) == (0, "")
    assert answers(done.out) == wanted(tagger, rows) and len(answers(done.out)) == 30
    # A row is answered when K further ones of its key have come: after the last row K wait for
    # each key.
    steps = [int(r["step"]) for r in csv.DictReader(io.StringIO(done.out))]
    assert steps[-K:] == [max(steps[-K:]) - 1, max(steps[-K:])]


def test_with_a_state_the_last_rows_wait(ostinato, tagger, rows, tmp_path):
    """The answers of two runs, of which the second goes on, are those of one."""
    lines = rows.read_text().splitlines(keepends=True)
    part, state = tmp_path / "part.csv", tmp_path / "state"
    flags = ("--key", "device", "--lookahead", K, "--state", state)
    part.write_text("".join(lines[:15]))
    first = ostinato("stream", tagger, part, *flags)
    assert first.code == 0 and "the answers of the last 4 rows wait" in first.err
    part.write_text("".join(lines))
    second = ostinato("stream", tagger, part, *flags)
    found = answers(first.out) | answers("device,step,prediction,probability\n" + second.out)
    whole = wanted(tagger, rows)
    last = {key for key in whole if (key[0], key[1] + K) not in whole}
    assert found == {key: value for key, value in whole.items() if key not in last}
    outcome = ostinato("stream", tagger, part, *flags[:3], 3, *flags[4:])
    assert outcome.code == 2 and "was made with lookahead 2, not 3" in outcome.err


def test_the_rules_apply_to_the_last_answers_too(ostinato, tagger, rows):
    flags = ("--key", "device", "--lookahead", 50, "--json", "--until-confidence", 0.5)
    done = ostinato("stream", tagger, rows, *flags)
    assert [json.loads(line)["step"] for line in done.out.splitlines()] == [1, 1]
    done = ostinato("stream", tagger, rows, *flags[:-2], "--on-change")
    labels: dict[str, list[str]] = {}
    for line in done.out.splitlines():
        labels.setdefault(json.loads(line)["device"], []).append(json.loads(line)["prediction"])
    assert all(a != b for each in labels.values() for a, b in pairwise(each))


def test_what_it_is_not_for(ostinato, tagger, rows, tmp_path):
    outcome = ostinato("stream", tagger, rows, "--key", "device")
    assert outcome.code == 2 and "stream(lookahead=k), or --lookahead K, answers" in outcome.err
    file, *flags = classify(tmp_path)
    for directions, why in (
        ("--bidirectional", "the readout is 'last'"),
        ("--no-bidirectional", "it reads in one direction"),
    ):
        run = tmp_path / directions
        ostinato("train", file, *flags, *QUICK, directions, "--output", run, "-q")
        outcome = ostinato("stream", run, file, "--lookahead", 2)
        assert outcome.code == 2 and why in outcome.err
    assert ostinato("stream", tagger, rows, "--lookahead", -1).code == 2


def test_an_empty_input_has_no_answers(ostinato, tagger, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    done = ostinato("stream", tagger, tmp_path / "empty.csv", "--lookahead", 3)
    assert (done.code, done.out, done.err) == (0, "", "")
