"""`Job.answers`: every process of a run answers its share of the test part."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_files import KINDS, QUICK

from ostinato_learn.cli import main
from ostinato_learn.data.series import panel
from ostinato_learn.jobs import registry
from ostinato_learn.jobs.inputs import sources
from ostinato_learn.jobs.runs import runs
from ostinato_learn.models import saved_model
from ostinato_learn.training.distributed import ALONE, Ranks
from zoo.suites import one_in

# A readout is a sum of H = 4 products and a bias, of two directions 8. Two orders of summation
# differ by 2 (8 + 1) · 2⁻²⁴ times the sum of the terms' sizes, which is below 3 here. Probabilities
# and mean losses change by no more than the answers that they are made of.
CLOSE = 64 * 2**-24


@dataclass(frozen=True)
class InTurn(Ranks):
    """A process among some that are played one after the other, the first one last."""

    sent: dict[int, list] = field(default_factory=dict)

    def at_first(self, own):
        calls = self.sent.setdefault(self.rank, [])
        calls.append(own)
        if not self.first:
            return None
        return [self.sent[rank][len(calls) - 1] for rank in range(self.size)]


def shared(job: Any, model: Any, size: int) -> tuple[Any, dict[int, list]]:
    """The answers of several processes, and what each of them sent."""
    sent: dict[int, list] = {}
    for rank in reversed(range(size)):
        answers = job.answers(model, InTurn(rank, size, sent), report=True)
        assert (answers is None) == (rank > 0)
    assert len({len(calls) for calls in sent.values()}) == 1  # else one would wait for ever
    return answers, sent


def assert_close(one: Any, other: Any) -> None:
    """Whole numbers and texts are equal, all others within the bound."""
    assert type(one) is type(other)
    if dataclasses.is_dataclass(one):
        one, other = vars(one), vars(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_close(one[name], other[name])
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            assert_close(a, b)
    elif isinstance(one, torch.Tensor | np.ndarray | float):
        a, b = np.asarray(one), np.asarray(other)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        close = CLOSE if a.dtype.kind == "f" else 0
        np.testing.assert_allclose(a, b, rtol=close, atol=close)
    else:
        assert one == other


def train(folder: Path, kind: str, *flags: str) -> tuple[Any, Any, dict[str, Any]]:
    """The job and the model of a training, and what the command `evaluate` tells of it."""
    arguments = (*KINDS[kind](folder), *QUICK, *flags, "--quiet", "--output", folder / "run")
    assert main([str(a) for a in ("train", *arguments)]) == 0
    found = runs.find(folder / "run")
    assert found.config is not None
    _, job = registry.of_model(found)
    return registry.again(found.config), saved_model.load(found.model), job.evaluated(found, None)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


CASES = [(kind,) for kind in KINDS] + [("ragged", "--no-bidirectional"), ("words", "--crf")]
SIZES = (2, 3, 50)  # fifty processes are more than there are test sequences


@pytest.mark.parametrize("case", one_in(5, CASES), ids=" ".join)
def test_shares_are_together_the_answers_of_one_process(tmp_path, case):
    found = train(tmp_path, *case)
    for size in SIZES:
        sent = assert_shared(*found, size)
        counts = [len(calls[0]) for calls in sent.values()]
        if case[0] in ("classify", "ragged", "labels", "forecast"):  # others are of other lengths
            assert sum(counts) and max(counts) - min(counts) <= 1


@pytest.mark.parametrize("kind", one_in(5, [kind for kind in KINDS if kind != "language"]))
def test_shares_of_data_in_a_file(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(sources, "LARGE", 0)
    monkeypatch.setattr(panel, "BLOCK", 200)
    found = train(tmp_path, kind)
    for size in SIZES:
        assert_shared(*found, size)


def assert_shared(job: Any, model: Any, measures: dict[str, Any], size: int) -> dict[int, list]:
    """Several processes find what one does; what they sent each other."""
    one, (several, sent) = job.answers(model, ALONE, report=True), shared(job, model, size)
    assert_close(several, one)
    evaluation = job.evaluate(model, several)
    assert_close(evaluation, job.evaluate(model, one))
    assert_close({name: evaluation["test"][name] for name in measures}, measures)
    return sent
