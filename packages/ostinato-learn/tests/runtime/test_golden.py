"""Models of every release are read, and answer with the bits that they had then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from make_golden import GOLDEN
from saved_models import without_torch

import ostinato_learn
from ostinato.engine import native
from ostinato_learn import runtime
from ostinato_learn.saved.tensors import unpack

MODELS = sorted(path.parent for path in GOLDEN.rglob("config.json"))


def name_of(path: Path) -> str:
    return str(path.relative_to(GOLDEN))


def test_there_are_some():
    assert {name_of(path) for path in MODELS} >= {"0.1.0/gru", "0.1.0/own", "0.1.0/language"}


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_a_model_of_a_release_gives_its_answers(path):
    found = runtime.verify(path)
    assert found.n == 4 and found.n_different == 0, found


@pytest.mark.process
@pytest.mark.parametrize("isa", [isa for isa in native.available_isas() if isa != "base"])
def test_without_torch_on_every_instruction_set(isa):
    script = f"""
        import ostinato_learn
        found = [ostinato_learn.runtime.verify(path) for path in {[str(path) for path in MODELS]}]
        print(len(found), sum(each.n_different for each in found), {{each.isa for each in found}})
    """
    assert without_torch(script, OSTINATO_ISA=isa) == f"{len(MODELS)} 0 {{{isa!r}}}\n"


@pytest.mark.parametrize("path", [p for p in MODELS if p.name != "own"], ids=name_of)
def test_torch_reads_it_too(path):
    config = json.loads((path / "config.json").read_text())
    model = ostinato_learn.load(path)
    if config["kind"] == "sequence_classifier":
        check = unpack((path / "check.safetensors").read_bytes(), "check")
        rows = zip(check["x"], check["lengths"], check["answers"], strict=True)
        for x, n, answer in rows:
            # of a network with 3 units over 12 steps: √12 · (√6 + 2.5) ε < 3e-6
            np.testing.assert_allclose(model.predict_proba(x[None, :n])[0], answer, atol=3e-6)
