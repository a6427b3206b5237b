"""A saved model whose config.json is damaged is refused with a sentence, by every command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from zoo.suites import one_in

GOLDEN = Path(__file__).parents[1] / "runtime" / "golden" / "0.1.0"
WRONG = (None, 3, [1, {"a": 2}], {"other": 4})
PLACES = (
    ("format",),
    ("kind",),
    ("iterations",),
    ("net",),
    ("net", "cell"),
    ("params",),
    ("graph",),
    ("graph", "stages"),
    ("fitted",),
    ("fitted", "classes"),
    ("fitted", "classes", "values"),
    ("fitted", "preparation"),
    ("sha256",),
)


@pytest.mark.parametrize("place", one_in(4, PLACES), ids=".".join)
def test_no_damage_ends_in_a_traceback(ostinato, tmp_path, place):
    """A command that does not read the damaged place answers."""
    whole, path, refused = GOLDEN / "gru", tmp_path / "m", 0
    for value in ("gone", *WRONG):
        shutil.copytree(whole, path)
        config = json.loads((path / "config.json").read_text())
        inner = config
        for name in place[:-1]:
            inner = inner[name]
        if value == "gone":
            del inner[place[-1]]
        else:
            inner[place[-1]] = value
        (path / "config.json").write_text(json.dumps(config))
        exported = ("export", "--overwrite", "--to", "onnx", "-o", tmp_path / "m.onnx")
        begun = ("train", "mnist", "--dry-run", "--from")
        for command in (("verify",), exported, begun):
            outcome = ostinato(*command, path)
            assert outcome.code in (0, 1, 2) and "Traceback" not in outcome.err, (value, command)
            assert (outcome.code == 2) == outcome.err.startswith("ostinato: "), (value, command)
            refused += outcome.code == 2
        shutil.rmtree(path)
    assert refused >= 2  # what lacks a part
