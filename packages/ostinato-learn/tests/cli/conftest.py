from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import typer.main
from cli_examples import SMALL, make_file

from ostinato_learn import baselines, environment
from ostinato_learn.cli import main
from ostinato_learn.report.svg import inline_svg
from shared.reports import draw_by, label_alone


@pytest.fixture(scope="module", autouse=True)
def short_runs():
    """What takes longer than the training of a small network is left out, or done once a file.

    Reports have no figures, and one simple method is compared on two folds; Typer would read the
    flags of all commands at every call, and a run the versions of packages and the state of git.
    """
    (method, *_) = baselines._methods()
    with pytest.MonkeyPatch.context() as patch:
        draw_by(patch, label_alone)
        patch.setattr(baselines, "_methods", lambda: [method])
        patch.setattr(baselines, "FOLDS", 2)
        for module, name in (
            (typer.main, "get_command"),
            (environment, "packages"),
            (environment, "git_state"),
        ):
            patch.setattr(module, name, functools.cache(getattr(module, name)))
        yield


@pytest.fixture
def drawn(monkeypatch):
    """Figures of reports are drawn in this test; those of `trained` are not."""
    draw_by(monkeypatch, inline_svg)


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
