"""The corpus of the fuzzer is read as it should be; a target that finds a fault raises."""

from __future__ import annotations

import random

import pytest
from fuzzing import targets


@pytest.mark.parametrize("name", targets.TARGETS)
def test_the_corpus_and_cut_and_changed_copies(name: str) -> None:
    rng = random.Random(0)
    for _, content in targets.seeds(name):
        targets.TARGETS[name](content)
        for _ in range(20):
            changed = bytearray(content[: rng.randrange(len(content) + 1)])
            for _ in range(min(len(changed), 3)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            targets.TARGETS[name](bytes(changed))


def test_another_error_than_a_refusal_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets.journal, "unpacked", lambda content, where: [][0])
    with pytest.raises(IndexError):
        targets.read_journal(b"\x00")
