"""What a model is, for people."""

from __future__ import annotations

import json

import numpy as np

from ostinato_learn.saved.card import n_parameters


def table(text: str, heading: str) -> dict[str, list[str]]:
    """The rows of the first table below a heading, by their first cell."""
    rows = []
    for line in text[text.index(heading) :].splitlines()[1:]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return {name: cells for name, *cells in rows}


def test_a_training_writes_a_card_with_data_and_evaluation(trained, data):
    text = (trained / "model" / "README.md").read_text()
    assert "runtime.load" in text and "Format 1, operations of opset" in text
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


def test_the_lines_of_a_card_run(trained, data):
    text = (trained / "model" / "README.md").read_text()
    program = text.split("```python\n")[1].split("```")[0]
    program = program.replace("path/of/this/model", str(trained / "model"))
    program = program.replace("path/of/this/directory", str(trained))
    with np.load(data) as arrays:
        exec(program, {"X": arrays["X"]})


def test_only_what_was_learnt_is_counted():
    arrays = {
        "body.W": np.zeros((3, 4)),
        "b": np.zeros(4),
        "folded.0": np.zeros(99),
        "copies": np.zeros(1000),
    }
    assert n_parameters(arrays) == 16
