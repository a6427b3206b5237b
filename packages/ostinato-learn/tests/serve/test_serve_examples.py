"""examples/serve: what can be tried without Docker and Kubernetes; MLflow where it is installed."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from serving import GOLDEN, Process, step

from ostinato_learn import runtime
from ostinato_learn.cli import app

PLACE = Path(__file__).parents[4] / "examples" / "serve"


def container(model):
    """The flags of the Dockerfile's server with KServe's arguments, and the paths of the probes."""
    lines = [x for x in (PLACE / "Dockerfile").read_text().splitlines() if not x.startswith("#")]
    assert len(lines) == 10
    command = re.findall(r'"([^"]*)"', lines[-1])
    assert command[:2] == ["ostinato", "serve"]
    kserve = (PLACE / "kserve.yaml").read_text()
    more = re.findall(r'"([^"]*)"', re.search(r"args: (\[.*\])", kserve)[1])
    probes = re.findall(r"path: (/\S+),", kserve)
    return [x.replace("/mnt/models", str(model)) for x in [*command[1:], *more]], probes


def test_the_container_is_ten_lines_whose_flags_are_known(monkeypatch, capsys):
    began = []

    def begin(directories, settings, *rest):
        began.append((directories, settings))

    monkeypatch.setattr("ostinato_learn.serve.server.serve", begin)
    arguments, _ = container(GOLDEN / "gru")
    assert app.main(arguments) == 2  # an address that others reach, without a token
    assert "OSTINATO_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("OSTINATO_TOKEN", "secret-1")
    assert app.main(arguments) == 0
    ((directories, settings),) = began
    assert directories == {"trips": GOLDEN / "gru"} and settings.port == 8080
    assert settings.host == "0.0.0.0" and settings.state == Path("/state")


@pytest.mark.slow
@pytest.mark.process
def test_the_container_answers_probes_and_who_has_the_token(tmp_path):
    """A model that may only be read, as KServe and `docker run -v …:ro` give it."""
    model = shutil.copytree(GOLDEN / "gru", tmp_path / "models")
    for path in (*model.iterdir(), model):
        path.chmod(path.stat().st_mode & ~0o222)
    arguments, probes = container(model)
    at = arguments.index("/state")
    arguments[at] = str(tmp_path / "state")
    environment = {**os.environ, "OSTINATO_TOKEN": "secret-1"}
    with Process(*arguments[1:], env=environment) as server:
        for path in probes:
            assert server.client.get(server.url + path).status_code == 200
        body = step("a", np.zeros((1, 2, 3)), True)
        path = "/v2/models/trips/infer"
        assert server.post(path, body).status_code == 401
        token = {"authorization": "Bearer secret-1"}
        assert server.post(path, body, headers=token).json()["parameters"]["n"] == 2
        assert server.terminate() == 0
    assert list((tmp_path / "state" / "trips").iterdir())


@pytest.mark.slow
def test_mlflow_gives_the_answers_of_the_runtime(tmp_path, monkeypatch):
    pytest.importorskip("mlflow.pyfunc")
    import mlflow.pyfunc

    monkeypatch.syspath_prepend(str(PLACE))
    import mlflow_model

    mlflow_model.save(str(GOLDEN / "gru"), str(tmp_path / "model"))
    needed = (tmp_path / "model" / "requirements.txt").read_text().split()
    assert "ostinato-learn" in needed and "ostinato" not in needed
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    model = runtime.load(GOLDEN / "gru")
    X = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    assert loaded.predict(X).tolist() == model.predict(X).tolist()
    assert (loaded.predict(X, params={"proba": True}) == model.predict_proba(X)).all()
