"""Which model answers: the graph, without torch, wherever there is one; else the network."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from task_files import QUICK, TASKS

from ostinato.engine import native
from ostinato_learn import LanguageModel, SequenceClassifier, runtime
from ostinato_learn.cli import main
from ostinato_learn.models import saved_model

if native.unavailable() is not None:
    pytest.skip(str(native.unavailable()), allow_module_level=True)

FILES = {
    "classify": "classify.csv",
    "tag": "tag.csv",
    "forecast": "forecast.csv",
    "regress": "regress.csv",
}


class Leaky(torch.nn.Module):
    """A cell of a user's own."""

    def __init__(self, n_features: int, hidden_size: int):
        super().__init__()
        self.into = torch.nn.Linear(n_features, hidden_size)

    def forward(self, h, x):
        return 0.9 * h + torch.tanh(self.into(x))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A small run of each task."""
    folder, threads = tmp_path_factory.mktemp("runs"), torch.get_num_threads()
    for name, make in TASKS.items():
        file, *flags = make(folder)
        arguments = ("train", file, *flags, *QUICK, "--output", folder / name, "--quiet")
        assert main([str(a) for a in arguments]) == 0
    torch.set_num_threads(threads)
    return folder


def file_of(runs: Path, task: str) -> Path:
    return runs / FILES.get(task, "text.txt")


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def without_torch(*arguments: object) -> str:
    """What a command prints where torch is not installed."""
    script = f"""
        import sys, importlib.util
        class Nowhere:
            def find_spec(self, name, path=None, target=None):
                if name == "torch":
                    raise ModuleNotFoundError("No module named 'torch'", name="torch")
        sys.meta_path.insert(0, Nowhere())
        importlib.util.find_spec = lambda name: None
        from ostinato_learn.cli import main
        sys.exit(main({[str(a) for a in arguments]}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_predict_and_evaluate_need_no_torch(ostinato, runs, task):
    file = file_of(runs, task)
    wanted = ostinato("predict", runs / task, file).out
    assert len(wanted.splitlines()) > 1
    assert without_torch("predict", runs / task, file) == wanted
    found = json.loads(without_torch("evaluate", runs / task, "--json"))
    found.pop("findings", None)  # that a network of few updates is below its baseline
    kept = json.loads((runs / task / "evaluation.json").read_text())["test"]
    assert found == {name: value for name, value in kept.items() if name != "windows"}


@pytest.mark.process
def test_complete_needs_no_torch(ostinato, runs):
    wanted = ostinato("complete", runs / "language", "the c").out
    assert len(wanted.splitlines()) == 3
    assert without_torch("complete", runs / "language", "the c") == wanted


@pytest.mark.process
def test_generate_needs_no_torch_and_writes_what_the_network_does(ostinato, runs):
    arguments = ("generate", runs / "language", "--prompt", "the ", "--tokens", 120, "--seed", 4)
    shares = ("--temperature", 0.8, "--top-k", 9, "--top-p", 0.95, "--json")
    wanted = saved_model.load(runs / "language" / "model").generate(
        "the ", 120, temperature=0.8, top_k=9, top_p=0.95, seed=4
    )
    found = json.loads(without_torch(*arguments, *shares))
    assert wanted.n_tokens > 30
    assert found == {"text": "the " + wanted.text, "n_tokens": wanted.n_tokens}
    assert json.loads(ostinato(*arguments, *shares).out) == found
    assert json.loads(ostinato(*arguments, "--json").out) != found


def test_predictions_are_those_of_the_network(ostinato, runs, monkeypatch):
    """Labels are equal, and probabilities but for the rounding of their last digit."""
    for task in ("classify", "tag"):
        found = rows(ostinato("predict", runs / task, file_of(runs, task)).out)
        with monkeypatch.context() as m:
            m.setattr(native, "unavailable", lambda: "there is no vector unit")
            wanted = rows(ostinato("predict", runs / task, file_of(runs, task)).out)
        assert [row["prediction"] for row in found] == [row["prediction"] for row in wanted]
        shares = [[float(row["probability"]) for row in each] for each in (found, wanted)]
        np.testing.assert_allclose(*shares, rtol=0, atol=1.001e-6)


def test_a_model_without_a_graph_is_answered_by_torch(ostinato, runs, tmp_path):
    wanted = rows(ostinato("predict", runs / "classify", runs / "classify.csv").out)
    model = runs / "classify" / "model"
    config = json.loads((model / "config.json").read_text())
    config |= {"graph": None, "without_graph": "nobody wrote it"}
    del config["sha256"]["check.safetensors"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = (model / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    found = rows(ostinato("predict", tmp_path, runs / "classify.csv").out)
    assert [row["prediction"] for row in found] == [row["prediction"] for row in wanted]


def test_an_own_cell_is_answered_without_its_source(ostinato, tmp_path, data):
    with np.load(data) as arrays:
        X, y = arrays["X"], arrays["y"]
    sizes = {"hidden_size": 5, "iterations": 20, "random_state": 0}
    model = SequenceClassifier(cell=Leaky, **sizes).fit(X, y)
    model.save(tmp_path / "own")
    predicted = rows(ostinato("predict", tmp_path / "own", data).out)
    assert [row["prediction"] for row in predicted] == model.predict(X).tolist()
    result = json.loads(ostinato("evaluate", tmp_path / "own", data, "--json").out)
    assert {**result, **model.evaluate(X, y)} == result
    assert result["most_frequent_class"] == 0.5


def test_the_runtime_suggests_what_the_network_does(tmp_path):
    texts = ["to be or not to be, that is the question"] * 4
    sizes = {"hidden_size": 8, "iterations": 5, "embedding_size": 4, "random_state": 0}
    for level in ("character", "word"):
        model = LanguageModel(level=level, **sizes).fit(texts)
        model.save(tmp_path / "m")
        played = runtime.load(tmp_path / "m")
        for typed in ("", "to b", "to be or", "to be or not", "to be or", "to", "question q"):
            found, wanted = played.suggest(typed), model.suggest(typed)
            assert found == wanted
