from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from cli_examples import SMALL, make_file
from matplotlib.figure import Figure

from ostinato.cli import main

_savefig = Figure.savefig


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Figures of reports are made, not drawn, which takes most of a short training's time."""

    def savefig(self, file, **_):
        file.write(b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield


@pytest.fixture
def drawn(monkeypatch):
    """Figures of reports are drawn in this test, as those of `trained` are."""
    monkeypatch.setattr(Figure, "savefig", _savefig)


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def ostinato(capsys):
    """Runs a command in this process."""
    threads = torch.get_num_threads()

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def data(tmp_path) -> Path:
    return make_file(tmp_path / "data.npz")


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    data, threads = make_file(folder / "data.npz"), torch.get_num_threads()
    arguments = ("train", data, *SMALL, "--iterations", 200, "--output", folder / "run")
    with pytest.MonkeyPatch.context() as patch:  # whichever test of whichever file comes first
        patch.setattr(Figure, "savefig", _savefig)
        code = main([str(a) for a in arguments])
    torch.set_num_threads(threads)
    assert code == 0
    return folder


@pytest.fixture
def trained(trained_once, data, tmp_path) -> Path:
    """A finished run on `data`; each test has a copy of its own."""
    run = tmp_path / "run"
    shutil.copytree(trained_once / "run", run)
    for name in ("config.toml", "environment.json"):
        text = (run / name).read_text("utf-8")
        moved = text.replace(str(trained_once / "data.npz"), str(data))
        assert moved != text
        (run / name).write_text(moved, "utf-8")
    return run


@pytest.fixture
def c_locale() -> dict[str, str]:
    return {**os.environ, "PYTHONIOENCODING": "ascii"}
