from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def recorded_always(monkeypatch):
    """Whatever other tests of this process recorded: each graph here is of a recording."""
    monkeypatch.setattr("ostinato.compiler.cache.SPARED_AFTER", 1 << 30)
