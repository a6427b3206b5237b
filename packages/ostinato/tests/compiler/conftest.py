from __future__ import annotations

import pytest
import torch

from ostinato.engine import native


@pytest.fixture(autouse=True)
def native_engine():
    """Where the engine is not, the loop would be compared with itself."""
    why = native.unavailable()
    if why is not None:
        pytest.skip(why)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def recorded_always(monkeypatch):
    """Tests play a few steps of one code in many ways: each is recorded, whatever it takes."""
    monkeypatch.setattr("ostinato.compiler.cache.SPARED_AFTER", 1 << 30)
