"""The answers that are saved with a model are given again, or it is said that they are not."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from saved_models import (
    Leaky,
    classifier,
    forecaster,
    language_model,
    sequences,
    tagger,
    without_torch,
)

import ostinato_learn
from ostinato_learn import runtime
from ostinato_learn.cli import main
from ostinato_learn.models import saved_model
from ostinato_learn.saved.tensors import pack, unpack


@pytest.mark.parametrize(
    "make",
    [
        lambda path: classifier(path, cell="gru", readout="attention"),
        lambda path: classifier(path, cell=Leaky, bidirectional=True),
        lambda path: tagger(path, crf=True),
        lambda path: language_model(path, cell="lstm"),
        lambda path: forecaster(path, bidirectional=True),
    ],
)
def test_answers_are_those_that_were_saved(tmp_path, make, capsys):
    make(tmp_path / "m")
    found = runtime.verify(tmp_path / "m")
    assert (found.n, found.n_different, found.largest) == (4, 0, 0.0)
    assert main(["verify", str(tmp_path / "m")]) == 0
    assert "4 answers equal the saved ones, bit for bit" in capsys.readouterr().out


def rewritten(path, name, content):
    """A file of the model replaced, with its hash."""
    (path / name).write_bytes(content)
    config = json.loads((path / "config.json").read_text())
    config["sha256"][name] = hashlib.sha256(content).hexdigest()
    (path / "config.json").write_text(json.dumps(config))


def test_an_earlier_language_model_with_hashes_of_its_texts_answers(tmp_path):
    model, path = language_model(tmp_path / "m"), tmp_path / "m"
    config = json.loads((path / "config.json").read_text())
    config["fitted"]["one_in"] = 1
    (path / "config.json").write_text(json.dumps(config))
    weights = unpack((path / "model.safetensors").read_bytes(), "weights")
    rewritten(path, "model.safetensors", pack({**weights, "copies": np.arange(3)}))
    for again in (runtime.load(path), ostinato_learn.load(path)):
        assert again.generate("to", 9, seed=1) == model.generate("to", 9, seed=1)


def with_check(path, change):
    saved = unpack((path / "check.safetensors").read_bytes(), "check")
    rewritten(path, "check.safetensors", pack(change(dict(saved))))


def off_by_a_bit(saved):
    answers = saved["answers"].copy()
    answers.view(np.uint32)[1, 0] ^= 1
    return saved | {"answers": answers}


def test_an_answer_that_is_off_by_a_bit_is_seen(tmp_path, capsys):
    classifier(tmp_path / "m")
    with_check(tmp_path / "m", off_by_a_bit)
    found = runtime.verify(tmp_path / "m")
    assert found.n_different == 1 and 0 < found.largest < 1e-6
    assert main(["verify", str(tmp_path / "m")]) == 1
    assert "1 of 4 answers differ from those that were saved" in capsys.readouterr().err
    assert main(["verify", "--json", str(tmp_path / "m")]) == 1
    assert json.loads(capsys.readouterr().out)["n_different"] == 1


def test_a_weight_that_is_off_is_seen(tmp_path):
    classifier(tmp_path / "m")
    path = tmp_path / "m"
    weights = dict(unpack((path / "model.safetensors").read_bytes(), "weights"))
    weights["body.weight_hh_l0"] = weights["body.weight_hh_l0"] * np.float32(1 + 2**-20)
    rewritten(path, "model.safetensors", pack(weights))
    assert runtime.verify(path).n_different > 0


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: {k: v for k, v in saved.items() if k != "lengths"},
        lambda saved: saved | {"x": saved["x"][:, :, :1]},
        lambda saved: saved | {"x": saved["x"] * np.float32("nan")},
        lambda saved: saved | {"lengths": saved["lengths"] + 99},
        lambda saved: saved | {"lengths": saved["lengths"] * 0},
        lambda saved: saved | {"answers": saved["answers"][:, :1]},
    ],
)
def test_answers_that_do_not_fit_are_refused(tmp_path, change, capsys):
    classifier(tmp_path / "m")
    with_check(tmp_path / "m", change)
    with pytest.raises(ValueError, match=r"check\.safetensors"):
        runtime.verify(tmp_path / "m")
    assert main(["verify", str(tmp_path / "m")]) == 2
    assert "check.safetensors" in capsys.readouterr().err


def test_a_missing_or_altered_file_is_named(tmp_path):
    path = tmp_path / "m"
    classifier(path)
    file = path / "check.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is not the file that was saved"):
        runtime.verify(path)
    file.unlink()
    with pytest.raises(ValueError, match=r"has no check\.safetensors"):
        runtime.verify(path)


def test_examples_of_a_user_are_kept_if_given(tmp_path):
    classifier(tmp_path / "m")
    model = saved_model.load(tmp_path / "m")
    X = sequences(5)
    measures = {"accuracy": 0.9876543}
    saved_model.save(model, tmp_path / "n", {}, 3, examples=X, measures=measures)
    saved = unpack((tmp_path / "n" / "check.safetensors").read_bytes(), "check")
    np.testing.assert_array_equal(saved["x"], X[:8])
    assert runtime.verify(tmp_path / "n").n == 8
    assert "| accuracy | 0.9877 |" in (tmp_path / "n" / "README.md").read_text()


@pytest.mark.process
def test_the_command_needs_no_torch(tmp_path):
    classifier(tmp_path / "m")
    script = f"""
        from ostinato_learn.cli import main
        assert main(["verify", {str(tmp_path / "m")!r}]) == 0
    """
    assert "bit for bit" in without_torch(script)


def test_the_card_says_what_it_is(tmp_path):
    classifier(tmp_path / "m", cell=Leaky)
    card = (tmp_path / "m" / "README.md").read_text()
    for line in ("# A sequence classifier", "| cell | Leaky |", "| labels | down, still, up |"):
        assert line in card
    assert "runtime.load" in card and "ostinato_learn.load(" not in card  # its source is not there
