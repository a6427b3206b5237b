"""A test must not depend on how fast the machine is at the moment, nor on the tests before it."""

import pytest

from ostinato.loops import rewriting
from ostinato.loops.running import pace


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch):
    monkeypatch.setattr(pace, "MEASURES", False)


@pytest.fixture(autouse=True)
def no_loop_is_known():
    rewriting.known.clear()
