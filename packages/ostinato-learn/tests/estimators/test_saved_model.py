"""`save` and `load`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from estimator_examples import saved, small, up_or_down
from safetensors.torch import save_file

from ostinato_learn import load


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_loaded_model_is_the_saved_one(tmp_path, cell):
    X, _ = up_or_down()
    model, path = saved(
        tmp_path,
        cell=cell,
        num_layers=np.int64(2),
        bidirectional=True,
        dropout=0.1,
        learning_rate=np.float64(0.1) + 0.2,
        class_weight={"up": 1.5},
    )
    names = ["README.md", "check.safetensors", "config.json", "model.safetensors"]
    assert sorted(file.name for file in path.iterdir()) == names
    again = load(path)
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.get_params() == model.get_params()
    assert (again.n_features_in_, again.n_iter_) == (1, 2)
    again.save(tmp_path / "again")
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (path / name).read_bytes()


def test_a_class_weight_by_number_comes_back_by_number(tmp_path):
    X, y = up_or_down()
    weights = {0: 2.0, 1: 0.5}
    small(iterations=2, class_weight=weights).fit(X, y == "up").save(tmp_path / "m")
    assert load(tmp_path / "m").class_weight == weights


def test_a_random_generator_is_not_saved(tmp_path):
    _, path = saved(tmp_path, random_state=np.random.RandomState(0))
    assert load(path).random_state is None


def test_labels_that_json_has_not_are_refused(tmp_path):
    X, _ = up_or_down()
    y = np.array(["2024-01-01", "2024-01-02"], "datetime64[D]")[np.arange(90) % 2]
    with pytest.raises(ValueError, match="train with integers or strings"):
        small(iterations=2).fit(X, y).save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_saved_model_is_replaced_and_nothing_else_is(tmp_path):
    model, path = saved(tmp_path)
    model.save(path)
    (tmp_path / "empty").mkdir()
    model.save(tmp_path / "empty")
    load(tmp_path / "empty")

    (path / "notes.txt").write_text("mine")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "bert"}')
    (foreign / "model.safetensors").write_bytes(b"")
    file = tmp_path / "file"
    file.write_text("mine")
    for taken, name in ((path, "notes.txt"), (foreign, "config.json"), (file, "file")):
        with pytest.raises(ValueError, match=f"{name} would be lost"):
            model.save(taken)
    assert (path / "notes.txt").read_text() == file.read_text() == "mine"


def changed(path: Path, **entries) -> None:
    config = json.loads((path / "config.json").read_text())
    for name, value in entries.items():
        place = config["fitted"] if name == "classes" else config
        place[name] = place[name] | value if isinstance(value, dict) else value
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"kind": "tagger"}, "has the kind 'tagger'; wanted one of sequence_classifier"),
        ({"format": 5}, "has format 5, and this version of ostinato reads 1: install ostinato 0"),
        ({"colour": 1}, r"config.json lacks \[\] and has \['colour'\]"),
        ({"params": {"colour": 1}}, r"'params' has \['colour'\], which this version"),
        ({"net": {"colour": 1}}, r"'net' lacks \[\] and has \['colour'\]"),
        (
            {"net": {"hidden_size": 9}},
            r"float32\[8, 1\] for 'body.weight_ih_l0'; wanted float32\[9",
        ),
        ({"net": {"num_layers": 2}}, "nothing for 'body.weight_ih_l1'; wanted float32"),
        ({"net": {"hidden_size": "a"}}, "hidden_size='a': wanted a whole number"),
        ({"net": None}, "'net' is not a JSON object"),
        ({"classes": {"values": ["a", "b", "c"]}}, "has 3 labels for a network of 2"),
        ({"classes": {"dtype": "V8"}}, "'classes' have the unknown type 'V8'"),
        ({"classes": {"dtype": "?!"}}, r"'classes' have the unknown type '\?!'"),
    ],
)
def test_a_configuration_that_does_not_fit_says_why(tmp_path, entries, message):
    _, path = saved(tmp_path)
    changed(path, **entries)
    with pytest.raises(ValueError, match=message):
        load(path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "foreign"])
def test_a_damaged_model_is_refused_and_named(tmp_path, name, damage):
    _, path = saved(tmp_path)
    file = path / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "truncated": content[:-9], "foreign": b"[1]"}[damage])
    with pytest.raises(ValueError, match=str(path)):
        load(path)


def test_altered_weights_are_refused(tmp_path):
    _, path = saved(tmp_path)
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # a bit of a weight, which stays a number
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not the file that was saved: its SHA-256 differs"):
        load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_neither_saved_nor_loaded(tmp_path, value):
    model, path = saved(tmp_path)
    with torch.no_grad():
        model.net_.body.weight_hh_l0[1, 2] = value
    with pytest.raises(ValueError, match=r"in 'body.weight_hh_l0' at \[1, 2\]; wanted finite"):
        model.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()

    weights = {name: w.contiguous() for name, w in model.net_.state_dict().items()}
    save_file(weights, path / "model.safetensors")
    digest = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    changed(path, sha256={"model.safetensors": digest})
    with pytest.raises(ValueError, match=r"'body.weight_hh_l0' has a value that is NaN or inf"):
        load(path)


def test_answers_that_are_no_numbers_are_an_error():
    X, y = up_or_down()
    model = small(iterations=2).fit(X, y)
    with torch.no_grad():
        model.net_.readout.weight.fill_(3e38)
    for ask in (model.predict, model.predict_proba, model.predict_log_proba):
        with pytest.raises(ValueError, match=r"the network's answer to example \d+ is not finite"):
            ask(X)


def test_a_place_without_a_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere has no config\.json"):
        load(tmp_path / "nowhere")
    load_a_file = tmp_path / "file"
    load_a_file.write_text("")
    with pytest.raises(ValueError, match="wanted the directory"):
        load(load_a_file)
