"""What the tests of the runtime share."""

from __future__ import annotations

import pytest

from ostinato.engine import native


@pytest.fixture(autouse=True)
def native_engine():
    why = native.unavailable()
    if why is not None:
        pytest.skip(why)
