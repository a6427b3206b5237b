"""A test must not depend on how fast the machine is at the moment."""

import pytest

from ostinato.loops.running import run


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch):
    monkeypatch.setattr(run, "MEASURES", False)
