"""PyTorch's threads while a network is trained."""

from __future__ import annotations

import pytest
import torch
from training_examples import Experiment

from ostinato.engine import native
from ostinato_learn.training import Callback, loop

pytestmark = pytest.mark.skipif(
    native.unavailable() is not None, reason="without the engine, PyTorch keeps its threads"
)


class Seen(Callback):
    """The threads of PyTorch and of the engine during the training."""

    def on_iteration(self, run):
        self.torch, self.engine = torch.get_num_threads(), native.own_threads.get()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_the_engine_has_all_threads_of_a_small_network_and_pytorch_one():
    seen = Seen()
    Experiment().run(callbacks=[seen])
    assert (seen.torch, seen.engine) == (1, 2)
    assert torch.get_num_threads() == 2
    assert native.own_threads.get() is None


@pytest.mark.usefixtures("two_threads")
def test_a_large_network_keeps_the_threads_for_pytorch_too(monkeypatch):
    monkeypatch.setattr(loop, "SMALL", 10)
    seen = Seen()
    Experiment().run(callbacks=[seen])
    assert (seen.torch, seen.engine) == (2, None)


@pytest.mark.usefixtures("two_threads")
def test_an_error_gives_the_threads_back():
    class Fails(Callback):
        def on_iteration(self, run):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        Experiment().run(callbacks=[Fails()])
    assert torch.get_num_threads() == 2
    assert native.own_threads.get() is None
