"""What the tests of the runtime share."""

from __future__ import annotations

import pytest

from ostinato.engine import native


@pytest.fixture(autouse=True)
def native_engine():
    why = native.unavailable()
    if why is not None:
        pytest.skip(why)


@pytest.fixture(autouse=True)
def recorded_always(monkeypatch):
    """Whatever other tests of this process recorded: each graph here is of a recording."""
    monkeypatch.setattr("ostinato.compiler.cache.SPARED_AFTER", 1 << 30)
