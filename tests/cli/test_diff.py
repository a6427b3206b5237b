"""In what two models differ."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ostinato.runtime.differences import between_tensors, flat
from ostinato.runtime.tensors import pack, unpack

GOLDEN = Path(__file__).parents[1] / "runtime" / "golden" / "0.1.0"


@pytest.fixture
def gru(tmp_path) -> Path:
    return Path(shutil.copytree(GOLDEN / "gru", tmp_path / "gru"))


def with_weight(path: Path, name: str, change) -> None:
    weights = dict(unpack((path / "model.safetensors").read_bytes(), "weights"))
    weights[name] = change(weights[name].copy())
    content = pack(weights)
    (path / "model.safetensors").write_bytes(content)
    config = json.loads((path / "config.json").read_text())
    config["sha256"]["model.safetensors"] = hashlib.sha256(content).hexdigest()
    (path / "config.json").write_text(json.dumps(config))


def off(weight):
    weight[0, 1] += np.float32(0.25)
    weight[0, 2] = np.nextafter(weight[0, 2], np.float32(9))
    return weight


def test_the_same_model_does_not_differ(ostinato, gru, trained):
    for a, b in ((gru, GOLDEN / "gru"), (trained, trained), (trained, trained / "model")):
        outcome = ostinato("diff", a, b)
        assert (outcome.code, outcome.out, outcome.err) == (0, "nothing differs\n", "")


def test_times_are_no_difference(ostinato, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    results = json.loads((other / "evaluation.json").read_text())
    (other / "evaluation.json").write_text(
        json.dumps(results | {"elapsed_s": 99, "evaluation_s": 9})
    )
    assert ostinato("diff", trained, other).code == 0
    results["test"]["accuracy"] = 0.25
    (other / "evaluation.json").write_text(json.dumps(results))
    outcome = ostinato("diff", trained, other, "--json")
    found = json.loads(outcome.out)
    assert outcome.code == 1 and found.pop("measures")["test.accuracy"][1] == 0.25
    assert not any(found.values())


def test_a_weight_that_differs_is_named_with_the_largest_difference(ostinato, gru):
    with_weight(gru, "body.weight_hh_l1", off)
    outcome = ostinato("diff", GOLDEN / "gru", gru)
    assert outcome.code == 1
    assert "  body.weight_hh_l1   2 of 27 differ, by 0.25 at most, at [0, 1]\n" in outcome.out
    assert outcome.out.endswith(
        "the same: model, hyperparameters, graph, preparation, labels, fitted\n"
    )
    (weights,) = json.loads(ostinato("diff", GOLDEN / "gru", gru, "--json").out)["weights"]
    assert weights == {
        "name": "body.weight_hh_l1", "a": "float32 [9, 3]", "b": "float32 [9, 3]", "n": 27,
        "n_different": 2, "largest": 0.25, "at": [0, 1],
    }  # fmt: skip


def test_every_part_is_compared(ostinato, gru):
    config = json.loads((gru / "config.json").read_text())
    config["params"]["learning_rate"] = 9.0
    config["fitted"]["classes"]["values"].reverse()
    config["graph"]["stages"][1]["directions"][0]["reverse"] = True
    config["iterations"] += 1
    (gru / "config.json").write_text(json.dumps(config))
    found = json.loads(ostinato("diff", GOLDEN / "gru", gru, "--json").out)
    assert found["model"] == {"iterations": [3, 4]}
    assert found["hyperparameters"] == {"learning_rate": [0.001, 9.0]}
    assert list(found["labels"]) == ["values"] and list(found["graph"]) == ["1: gru layer 1"]
    assert not found["weights"]


def test_models_of_different_tasks(ostinato):
    outcome = ostinato("diff", GOLDEN / "gru", GOLDEN / "words")
    assert outcome.code == 1
    assert "  kind   sequence_classifier → sequence_tagger\n" in outcome.out
    assert "pool.query" in outcome.out and "float32 [3] → nothing" in outcome.out


def test_long_parts_are_cut_for_people(ostinato, trained):
    outcome = ostinato("diff", trained / "model", GOLDEN / "language")
    assert "more; --json shows all" in outcome.out
    part = outcome.out.split("hyperparameters\n")[1].split("graph\n")[0]
    assert len(part.splitlines()) == 21


def test_altered_and_missing_files_are_refused(ostinato, gru, tmp_path):
    content = bytearray((gru / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (gru / "model.safetensors").write_bytes(content)
    outcome = ostinato("diff", GOLDEN / "gru", gru)
    assert outcome.code == 2 and "is not the file that was saved" in outcome.err
    assert ostinato("diff", GOLDEN / "gru", tmp_path / "none").code == 2


def test_values_by_name():
    value = {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": 3}, [4]], "f": []}
    assert flat(value) == {"a.b": 1, "a.c": [1, 2], "d[0].e": 3, "d[1]": [4], "f": []}


def test_bits_are_compared():
    """−0 is another number than 0, and NaN is the same as itself."""
    a = {"x": np.array([0.0, np.nan], np.float32), "y": np.array([], np.float32)}
    assert between_tensors(a, {n: v.copy() for n, v in a.items()}) == []
    (found,) = between_tensors(a, a | {"x": np.array([-0.0, np.nan], np.float32)})
    assert (found.n_different, found.as_json()["largest"]) == (1, None)
