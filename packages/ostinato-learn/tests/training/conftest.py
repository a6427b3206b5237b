from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def launched(monkeypatch):
    """Sets what torchrun tells a process by its environment."""

    def launch(ranks, here):
        variables = {
            "RANK": ranks.rank,
            "WORLD_SIZE": ranks.size,
            "LOCAL_WORLD_SIZE": here,
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": 1,
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return launch
