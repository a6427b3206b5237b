"""examples/serve: what can be tried without Docker and Kubernetes; MLflow where it is installed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from serving import GOLDEN

from ostinato import runtime
from ostinato.cli import app

PLACE = Path(__file__).parents[2] / "examples" / "serve"


def test_the_container_is_ten_lines_whose_flags_are_known(monkeypatch, capsys):
    """The server of the Dockerfile with KServe's arguments, but for the place of the model."""
    lines = [x for x in (PLACE / "Dockerfile").read_text().splitlines() if not x.startswith("#")]
    assert len(lines) == 10
    command = re.findall(r'"([^"]*)"', lines[-1])
    kserve = (PLACE / "kserve.yaml").read_text()
    more = re.findall(r'"([^"]*)"', re.search(r"args: (\[.*\])", kserve)[1])
    probes = re.findall(r"path: (/\S+),", kserve)
    assert probes == ["/v2/health/ready", "/v2/health/live"]
    began = []

    def begin(directories, settings, *rest):
        began.append((directories, settings))

    monkeypatch.setattr("ostinato.serve.server.serve", begin)
    arguments = [x.replace("/mnt/models", str(GOLDEN / "gru")) for x in [*command[1:], *more]]
    assert app.main(arguments) == 2  # an address that others reach, without a token
    assert "OSTINATO_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("OSTINATO_TOKEN", "secret-1")
    assert app.main(arguments) == 0
    ((directories, settings),) = began
    assert directories == {"trips": GOLDEN / "gru"} and settings.port == 8080
    assert settings.host == "0.0.0.0" and settings.state == Path("/state")


@pytest.mark.slow
def test_mlflow_gives_the_answers_of_the_runtime(tmp_path, monkeypatch):
    pytest.importorskip("mlflow.pyfunc")
    import mlflow.pyfunc

    monkeypatch.syspath_prepend(str(PLACE))
    import mlflow_model

    mlflow_model.save(str(GOLDEN / "gru"), str(tmp_path / "model"))
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    model = runtime.load(GOLDEN / "gru")
    X = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    assert loaded.predict(X).tolist() == model.predict(X).tolist()
    assert (loaded.predict(X, params={"proba": True}) == model.predict_proba(X)).all()
