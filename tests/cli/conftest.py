from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from cli_examples import SMALL, make_file

from ostinato.cli import main


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


@pytest.fixture
def trained(ostinato, data, tmp_path) -> Path:
    run = tmp_path / "run"
    outcome = ostinato("train", data, *SMALL, "--iterations", 200, "--output", run)
    assert outcome.code == 0, outcome.err
    return run


@pytest.fixture
def c_locale() -> dict[str, str]:
    return {**os.environ, "PYTHONIOENCODING": "ascii"}
