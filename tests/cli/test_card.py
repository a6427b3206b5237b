"""What a model is, for people."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ostinato.runtime.card import Facts, card, n_parameters


def table(text: str, heading: str) -> dict[str, list[str]]:
    """The rows of the first table below a heading, by their first cell."""
    rows = []
    for line in text[text.index(heading) :].splitlines()[1:]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return {name: cells for name, *cells in rows}


def test_a_run_has_a_card_with_data_and_evaluation(ostinato, trained, data):
    """The training writes it, and the command shows it again."""
    text = ostinato("card", trained).out
    assert text == (trained / "model" / "README.md").read_text()
    assert str(data.parent) not in text  # a card leaves the machine
    results = json.loads((trained / "evaluation.json").read_text())
    surroundings = json.loads((trained / "environment.json").read_text())["data"]
    network = table(text, "# A sequence classifier")
    assert network["labels"] == ["down, up"]
    assert network["cell"] == ["rnn"] and network["hidden_size"] == ["4"]
    # A vanilla cell of 4 units with both biases that reads 2 features, and a readout of 2 classes.
    assert network["parameters"] == [str(4 * (2 + 4 + 2) + 2 * (4 + 1))]
    about = table(text, "## Data")
    assert about["source"] == ["data.npz"]
    assert about["SHA-256 of data.npz"] == list(surroundings["sha256"].values())
    assert about["learnt from"] == [f"{surroundings['n_train']}"]
    measured = table(text, "## Evaluation")
    assert measured["accuracy"][0] == f"{100 * results['test']['accuracy']:.2f} %"
    assert len(measured["accuracy"]) == 1 + len(results["baselines"])


def test_write_replaces_the_card_and_nothing_else(ostinato, trained):
    readme = trained / "model" / "README.md"
    wanted = readme.read_text()
    readme.write_text("mine")
    assert ostinato("card", trained).out == wanted
    assert readme.read_text() == "mine"
    before = {p.name: p.read_bytes() for p in (trained / "model").iterdir() if p != readme}
    assert ostinato("card", trained, "--write").out == f"{readme} is written\n"
    assert readme.read_text() == wanted
    after = {p.name: p.read_bytes() for p in (trained / "model").iterdir() if p != readme}
    assert after == before


def test_a_model_alone_has_no_data(ostinato, trained):
    text = ostinato("card", trained / "model").out
    assert "## Data" not in text and "## Evaluation" not in text
    assert "runtime.load" in text and "Format 4, operations of opset" in text


def test_what_is_no_model_is_refused(ostinato, tmp_path, trained):
    assert ostinato("card", tmp_path).code == 2
    (trained / "model" / "config.json").write_text("{")
    outcome = ostinato("card", trained)
    assert outcome.code == 2 and "missing or damaged" in outcome.err


@pytest.mark.parametrize("version", [1, 3])
def test_earlier_formats_have_a_card(version):
    """They lack the version that saved them; labels stood beside the network in the first two."""
    classes = {"classes": {"dtype": "<U4", "values": [f"a|{i}" for i in range(25)]}}
    config = {
        "format": version, "kind": "sequence_classifier", "iterations": 7,
        "net": {"cell": "rnn", "hidden_size": 3},
        **(classes if version == 1 else {"fitted": classes}),
    }  # fmt: skip
    text = card(config, Facts())
    assert r"| labels | a\|0, a\|1, " in text and "… (25) |" in text
    assert f"Format {version}, saved by ostinato 0.1.0 or an earlier one" in text
    assert "runtime.load" not in text


def test_only_what_was_learnt_is_counted():
    arrays = {"body.W": np.zeros((3, 4)), "b": np.zeros(4), "folded.0": np.zeros(99),
              "copies": np.zeros(1000)}  # fmt: skip
    assert n_parameters({name: a.shape for name, a in arrays.items()}) == 16
