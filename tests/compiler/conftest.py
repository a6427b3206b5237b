from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from ostinato.engine import native

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # steps.py and playing.py


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
