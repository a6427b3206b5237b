"""`ostinato export`: what it writes, what it prints, and what it refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from task_files import QUICK, TASKS

from ostinato.engine import native
from ostinato_learn import runtime
from zoo.suites import one_in

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason="needs the engine")


def test_onnx(ostinato, trained, data, tmp_path):
    """The printed file gives the answers of `predict`, also to sequences of other lengths."""
    file = tmp_path / "m.onnx"
    done = ostinato("export", trained, "--to", "onnx", "--output", file)
    assert (done.code, done.err) == (0, "")
    assert str(file) in done.out
    assert "1 × RNN" in done.out
    assert len(re.findall(r"\d steps +\d\.\de[-+]\d\d, bound \d\.\de-\d\d", done.out)) == 2
    X = np.load(data)["X"]
    session = onnxruntime.InferenceSession(str(file))
    model = runtime.load(trained / "model")
    for part in (X[:7], X[:1, :2], np.tile(X[:3], (1, 4, 1))):
        lengths = np.full(len(part), part.shape[1])
        (answers,) = session.run(None, {"x": part, "lengths": lengths})
        np.testing.assert_allclose(answers, model.predict_proba(part), rtol=0, atol=1e-5)


def test_the_step_form(ostinato, trained, tmp_path):
    file = tmp_path / "m.onnx"
    done = ostinato("export", trained / "model", "--to", "onnx", "--form", "step", "-o", file)
    assert done.code == 0
    assert "steps one by one" in done.out
    graph = onnx.load(file).graph
    assert [i.name for i in graph.input] == ["x", "state_0"]
    assert [o.name for o in graph.output] == ["answer", "new_state_0"]
    assert "Scan" not in {n.op_type for n in graph.node}


def test_the_file_is_named_after_the_run(ostinato, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = trained.rename(tmp_path / "gru-2.best")
    for run in (named, named / "model"):
        assert ostinato("export", run, "--to", "onnx", "--overwrite").code == 0
    assert [p.name for p in tmp_path.glob("*.onnx")] == ["gru_2_best.onnx"]


def test_c(ostinato, trained, tmp_path):
    file = tmp_path / "model.c"
    done = ostinato("export", trained, "--to", "c", "-o", file, "--int8")
    assert done.code == 0
    assert "bytes of tables" in done.out
    assert {p.name for p in tmp_path.glob("model*.[ch]")} == {"model.c", "model.h", "model_test.c"}


REFUSED = [
    (("--to", "java"), "'java' is not one of 'onnx', 'c'"),
    (("--to", "onnx", "--form", "both"), "'both' is not one of"),
    (("--to", "onnx", "--int8"), "--int8 is for C code"),
    (("--to", "c", "--form", "sequence"), "--form sequence is for --to onnx"),
    (("--to", "onnx", "-o", "model.c"), "wanted a name that ends in .onnx"),
    (("--to", "onnx", "-o", "nowhere/model.onnx"), "there is no directory"),
]


@pytest.mark.parametrize(("flags", "reason"), REFUSED)
def test_refusals(ostinato, trained, tmp_path, monkeypatch, flags, reason):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = ostinato("export", trained, *flags)
    assert done.code == 2
    assert reason in done.err
    assert "Traceback" not in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_is_there_is_kept(ostinato, trained, tmp_path):
    file = tmp_path / "m.onnx"
    file.write_text("mine")
    done = ostinato("export", trained, "--to", "onnx", "-o", file)
    assert done.code == 2
    assert "exists already" in done.err
    assert file.read_text() == "mine"
    header = tmp_path / "m.h"
    header.write_text("mine")
    assert ostinato("export", trained, "--to", "c", "-o", tmp_path / "m.c").code == 2
    assert header.read_text() == "mine"
    assert ostinato("export", trained, "--to", "onnx", "-o", file, "--overwrite").code == 0


def changed(file, change):
    file.write_bytes(change(file.read_bytes()))


DAMAGES = {  # what becomes of a run, and a word of what is said
    "nothing there": (shutil.rmtree, "no such run or model"),
    "no run": (lambda run: (run / "config.toml").unlink(), "neither a run"),
    "settings": (lambda run: (run / "config.toml").write_text("x = ["), "config.toml is damaged"),
    "no model": (lambda run: shutil.rmtree(run / "model"), "has no trained model yet"),
    "no weights": (lambda run: (run / "model/model.safetensors").unlink(), "no model.safetensors"),
    "no description": (lambda run: (run / "model/config.json").unlink(), "no config.json"),
    "weights": (
        lambda run: changed(run / "model/model.safetensors", lambda c: c[:-1] + b"!"),
        "SHA-256 differs",
    ),
    "half of the weights": (
        lambda run: changed(run / "model/model.safetensors", lambda c: c[: len(c) // 2]),
        "is cut short",
    ),
    "empty": (lambda run: changed(run / "model/config.json", lambda c: b""), "is not JSON"),
    "half": (lambda run: changed(run / "model/config.json", lambda c: c[:99]), "is not JSON"),
    "an operation": (
        lambda run: changed(run / "model/config.json", lambda c: c.replace(b'"tanh"', b'"tanx"')),
        "config.json",
    ),
    "older": (
        lambda run: changed(
            run / "model/config.json", lambda c: c.replace(b'"format": 1', b'"format": 0')
        ),
        "config.json",
    ),
    "newer": (
        lambda run: changed(
            run / "model/config.json", lambda c: c.replace(b'"format": 1', b'"format": 99')
        ),
        "has format 99",
    ),
}


@pytest.mark.parametrize("to", ["onnx", "c"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_model(ostinato, trained, tmp_path, damage, to):
    place = tmp_path / "out"
    place.mkdir()
    damaged, said = DAMAGES[damage]
    damaged(trained)
    done = ostinato("export", trained, "--to", to, "-o", place / f"m.{to}")
    assert done.code == 2
    assert done.err.startswith("ostinato: ") and said in done.err
    assert "Traceback" not in done.err
    assert list(place.iterdir()) == []


def test_a_model_that_reads_both_ways(ostinato, data, tmp_path):
    from cli_examples import SMALL

    run = tmp_path / "both"
    flags = ("--iterations", 2, "--bidirectional", "--output", run)
    assert ostinato("train", data, *SMALL, *flags).code == 0
    assert ostinato("export", run, "--to", "onnx", "-o", tmp_path / "m.onnx").code == 0
    for to in (("onnx", "--form", "step"), ("c",)):
        done = ostinato("export", run, "--to", *to, "-o", tmp_path / f"x.{to[0]}")
        assert done.code == 2
        assert "rnn layer 0 also reads from the end" in done.err


@pytest.mark.parametrize("to", ["onnx", "c"])
def test_an_unwritable_place(ostinato, trained, tmp_path, to):
    folder = tmp_path / "file"
    folder.write_text("")
    done = ostinato("export", trained, "--to", to, "-o", folder / f"m.{to}")
    assert done.code == 2
    assert "Traceback" not in done.err


@pytest.mark.process
def test_it_imports_no_torch(trained, tmp_path):

    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from ostinato_learn.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "export", str(trained), "--to", "onnx"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "m.onnx")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("task", one_in(4, TASKS))
def test_each_task(ostinato, tmp_path, task):
    run, file = tmp_path / "run", tmp_path / "m.onnx"
    data = TASKS[task](tmp_path)
    assert ostinato("train", *data, *QUICK, "--output", run).code == 0
    done = ostinato("export", run, "--to", "onnx", "-o", file)
    assert (done.code, done.err) == (0, "")
    done_in_c = ostinato("export", run, "--to", "c", "-o", tmp_path / "m.c", "--int8")
    if task == "forecast":
        assert "a forecaster scales each window as a whole" in done_in_c.err
    elif "also reads from the end" not in done_in_c.err:  # a tagger does
        assert "bytes of tables" in done_in_c.out
    assert (tmp_path / "m.c").exists() == (done_in_c.code == 0)
    shape = {
        "classify": "[batch, 2]",
        "tag": "[batch, time, 2]",
        "regress": "[batch, 1]",
        "forecast": "[batch, 2, 9]",
        "language": "[batch, time, ",
    }
    assert f"answer {shape[task]}" in done.out


def test_without_onnx_the_extra_is_named(ostinato, trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # an import of it fails
    done = ostinato("export", trained, "--to", "onnx", "-o", tmp_path / "m.onnx")
    assert done.code == 2
    assert "pip install 'ostinato-learn[onnx]'" in done.err
    assert not (tmp_path / "m.onnx").exists()
