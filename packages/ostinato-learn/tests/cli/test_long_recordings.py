"""Few long recordings with a label a row: the parts are stretches of time.

A model that is worse than a simple method is a serious finding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

SMALL = ("--hidden-size", 16, "--threads", 1)


def recordings(path: Path, n: int, steps: int = 1200) -> Path:
    generator, lines = np.random.default_rng(0), ["machine,second,vibration,mode"]
    for i in range(n):
        spans = generator.integers(20, 80, steps)
        states = np.repeat(generator.choice(3, steps, p=[0.5, 0.3, 0.2]), spans)[:steps]
        values = states + generator.normal(0, 1, steps)
        lines += [
            f"m{i},{t},{value:.3f},{('idle', 'cut', 'rinse')[state]}"
            for t, (value, state) in enumerate(zip(values, states, strict=True))
        ]
    path.write_text("\n".join(lines) + "\n")
    return path


def train(ostinato, path: Path, run: Path, *more: object) -> dict:
    made = ostinato("train", path, "--tag", "mode", "--id", "machine", "--time", "second",
                    *SMALL, *more, "--output", run, "--quiet")  # fmt: skip
    assert made.code == 0, made.err
    return json.loads((run / "evaluation.json").read_text("utf-8"))


def test_two_recordings_beat_the_commonest_tag(ostinato, tmp_path):
    path = recordings(tmp_path / "a.csv", 2)
    found = train(ostinato, path, tmp_path / "run")
    (simple,) = found["baselines"].values()
    assert found["test"]["accuracy"] > 0.8 > simple["accuracy"]
    assert found["test"]["n"] == 480 and "findings" not in found  # the last fifth of each
    lines = (tmp_path / "run" / "predictions.csv").read_text("utf-8").splitlines()
    assert lines[1].startswith("m0,960,") and lines[241].startswith("m1,960,")
    evaluated = ostinato("evaluate", tmp_path / "run", "--json")
    assert json.loads(evaluated.out)["accuracy"] == found["test"]["accuracy"]


def test_one_recording_is_enough(ostinato, tmp_path):
    path = recordings(tmp_path / "a.csv", 1)
    path.write_text(path.read_text().replace("m0,", "").replace("machine,", ""))
    made = ostinato("train", path, "--tag", "mode", "--time", "second", *SMALL, "--json")
    assert made.code == 0 and json.loads(made.out)["test"]["n"] == 240


def test_the_flag_decides(ostinato, tmp_path):
    few, many = recordings(tmp_path / "a.csv", 3, 200), recordings(tmp_path / "b.csv", 12, 60)
    length = ("--iterations", 3, "--window", 16)
    whole = train(ostinato, few, tmp_path / "1", *length, "--no-test-time")
    assert whole["test"]["n"] == 200
    ends = train(ostinato, many, tmp_path / "2", *length, "--test-time")
    assert ends["test"]["n"] == 12 * 12
    refused = ostinato(
        "train", many, "--tag", "mode", "--id", "machine", "--group", "machine", "--test-time"
    )
    assert refused.code == 2 and "--test-time" in refused.err
    other = ostinato("train", many, "--classify", "machine", "--test-time")
    assert other.code == 2 and "tag" in other.err


def test_same_parts_in_python(ostinato, tmp_path):
    from ostinato_learn import SequenceTagger

    path = recordings(tmp_path / "a.csv", 2, 300)
    lines = path.read_text().splitlines()
    begins = tmp_path / "begins.csv"
    begins.write_text("\n".join([lines[0], *lines[1:241], *lines[301:541]]) + "\n")
    train(ostinato, path, tmp_path / "run", "--iterations", 4, "--validation-fraction", 0.25)
    from ostinato_learn import load

    model = SequenceTagger(hidden_size=16, iterations=4, validation_fraction=0.25).fit(
        begins, label="mode", id="machine", time="second"
    )
    ours, theirs = model.predict_proba(path), load(tmp_path / "run").predict_proba(path)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("n", "steps"), [(2, 600), (80, 60)])
def test_a_network_below_its_baseline_is_a_serious_finding(ostinato, tmp_path, caplog, n, steps):
    path = recordings(tmp_path / "a.csv", n, steps)
    found = train(
        ostinato, path, tmp_path / "run", "--iterations", 1, "--learning-rate", 1e-6, "--seed", 5
    )
    (simple,) = found["baselines"].values()
    assert found["test"]["accuracy"] < simple["accuracy"] and "worse than" in caplog.text
    assert [each["code"] for each in found["findings"]] == ["below-baseline"]
    assert "worse than" in (tmp_path / "run" / "report.html").read_text("utf-8")
    summary = ostinato("train", "--resume", "--output", tmp_path / "run").out
    assert "serious" in summary and "worse than" in summary
