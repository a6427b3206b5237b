"""For all tests.

A property test draws the same examples at every run, so that a suite that passes once passes again.
`make explore` draws others.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import register_random, settings

from zoo import suites

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, derandomize=False, print_blob=True)
settings.load_profile("explore" if os.environ.get("OSTINATO_EXPLORE") == "1" else "repeatable")

# Workers of pytest-xdist share the cores: a thread that spins while it waits for another takes the
# core from it. A test of two threads took ten times as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module asks `suites.draws` how many it draws."""
    suites.QUICK = "not slow" in config.option.markexpr


def pytest_collection_finish() -> None:
    """Collections of garbage pass over what was imported: each took a tenth of a second."""
    gc.collect()
    gc.freeze()


class TorchRandom:
    """PyTorch's random state as hypothesis takes it: an example alone draws what it drew among all.

    A test that does not use PyTorch does not import it.
    """

    def seed(self, number: int) -> None:
        if torch := sys.modules.get("torch"):
            torch.manual_seed(number)

    def getstate(self) -> Any:
        torch = sys.modules.get("torch")
        return torch and torch.get_rng_state()

    def setstate(self, state: Any) -> None:
        if state is not None:
            sys.modules["torch"].set_rng_state(state)


_TORCH = TorchRandom()  # hypothesis keeps a weak reference
register_random(_TORCH)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test alone draws what it draws among others, in whatever order they run."""
    random.seed(0)
    _TORCH.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Files are not waited for: no test cuts the power, and each wait takes some milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
