"""What the tests of the runtime share."""

from __future__ import annotations

import pytest
import torch

from ostinato.engine import native


@pytest.fixture(autouse=True)
def native_engine():
    why = native.unavailable()
    if why is not None:
        pytest.skip(why)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
