"""evaluate and predict."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from cli_examples import make_file


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_evaluate_measures_what_the_run_measured(ostinato, trained):
    result = json.loads(ostinato("evaluate", trained, "--json").out)
    assert result == json.loads((trained / "evaluation.json").read_text())["test"]
    shown = ostinato("evaluate", trained).out
    assert (
        f"accuracy {100 * result['accuracy']:.2f} %   always the most frequent class 50.00 %"
        in shown
    )


def test_evaluate_on_a_file_also_of_a_bare_model(ostinato, trained, tmp_path):
    other = make_file(tmp_path / "other.npz", n=30)
    for where in (trained, trained / "model"):
        assert json.loads(ostinato("evaluate", where, other, "--json").out)["n"] == 30
    outcome = ostinato("evaluate", trained / "model")
    assert outcome.code == 2
    assert "name the FILE" in outcome.err


def test_evaluate_needs_labels_that_the_model_knows(ostinato, trained, tmp_path):
    plain = make_file(tmp_path / "plain.npz", labelled=False)
    assert "no labels" in ostinato("evaluate", trained, plain).err
    with np.load(plain) as arrays:
        np.savez(plain, X=arrays["X"], y=np.full(60, "sideways"))
    outcome = ostinato("evaluate", trained, plain)
    assert outcome.code == 2
    assert "sideways" in outcome.err


def test_predict_needs_no_labels(ostinato, trained, tmp_path):
    plain = make_file(tmp_path / "plain.npz", n=8, labelled=False)
    predicted = rows(ostinato("predict", trained, plain).out)
    assert list(predicted[0]) == ["index", "prediction", "probability"]
    assert [row["prediction"] for row in predicted] == ["up", "down"] * 4
    assert all(0.5 <= float(row["probability"]) <= 1 for row in predicted)


def test_predict_with_all_probabilities_into_a_file(ostinato, trained, data, tmp_path):
    output = tmp_path / "p.csv"
    assert ostinato("predict", trained, data, "--proba", "--output", output).out == ""
    predicted = rows(output.read_text())
    assert list(predicted[0])[-2:] == ["probability_down", "probability_up"]
    for row in predicted:
        total = float(row["probability_down"]) + float(row["probability_up"])
        assert total == pytest.approx(1, abs=2e-6)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
def test_predict_into_a_device_writes_to_it_and_never_replaces_it(ostinato, trained, data):
    outcome = ostinato("predict", trained, data, "--output", "/dev/full")
    assert outcome.code == 1
    assert outcome.err == "ostinato: /dev/full: No space left on device\n"
    assert Path("/dev/full").is_char_device()


def test_another_number_of_features_is_refused(ostinato, trained, tmp_path):
    path = tmp_path / "wide.npz"
    np.savez(path, X=np.zeros((3, 5, 7), np.float32))
    outcome = ostinato("predict", trained, path)
    assert outcome.code == 2
    assert "7 features" in outcome.err


def test_what_is_no_run(ostinato, tmp_path, trained):
    assert "neither a run" in ostinato("evaluate", tmp_path).err
    import shutil

    shutil.rmtree(trained / "model")
    assert f"--resume --output {trained}" in ostinato("evaluate", trained).err


def test_predict_reads_an_array_alone(ostinato, trained, data, tmp_path):
    with np.load(data) as arrays:
        np.save(tmp_path / "alone.npy", arrays["X"])
    wanted = ostinato("predict", trained, data).out.splitlines()
    found = ostinato("predict", trained, tmp_path / "alone.npy").out.splitlines()
    assert found == [",".join(np.delete(line.split(","), 1)) for line in wanted]  # no label
    refused = ostinato("evaluate", trained, tmp_path / "alone.npy")
    assert (refused.code, "has no labels" in refused.err) == (2, True)
