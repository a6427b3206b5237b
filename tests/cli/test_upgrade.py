"""A model of an earlier format becomes one of this version, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from ostinato import runtime
from ostinato.engine import native
from ostinato.runtime.replay import Verified
from ostinato.runtime.tensors import pack, unpack
from ostinato.training import upgrade

if native.unavailable() is not None:
    pytest.skip(str(native.unavailable()), allow_module_level=True)

GOLDEN = Path(__file__).parents[1] / "runtime" / "golden" / "0.1.0"


def downgraded(name: str, path: Path, version: int = 3) -> Path:
    """A golden model as an earlier version of ostinato would have saved it."""
    shutil.copytree(GOLDEN / name, path)
    config = json.loads((path / "config.json").read_text()) | {"format": version}
    weights = unpack((path / "model.safetensors").read_bytes(), "weights")
    content = pack({n: t for n, t in weights.items() if not n.startswith("folded.")})
    (path / "model.safetensors").write_bytes(content)
    (path / "check.safetensors").unlink()
    for new in ("saved_by", "graph", "without_graph"):
        del config[new]
    config["sha256"] = {"model.safetensors": hashlib.sha256(content).hexdigest()}
    if version < 3:
        config |= config.pop("fitted")
        for new in ("vocabulary", "early", "preparation", "multilabel"):
            del config[new]
    if version == 1:
        del config["sha256"], config["feature_names"]
    (path / "config.json").write_text(json.dumps(config))
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


CASES = [(p.name, 3) for p in sorted(GOLDEN.iterdir()) if p.name != "own"]


@pytest.mark.parametrize(("name", "version"), [("gru", 1), ("lstm", 2), *CASES])
def test_it_is_then_the_model_that_this_version_saves(ostinato, tmp_path, name, version):
    path = downgraded(name, tmp_path / "m", version)
    with pytest.raises(ValueError, match=f"has format {version}, .* ostinato upgrade"):
        runtime.load(path)
    outcome = ostinato("upgrade", path)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"{path} was of format {version}, and is of 4 now\n4 answers are")
    assert runtime.verify(path).n_different == 0
    found = json.loads(ostinato("diff", GOLDEN / name, path, "--json").out)
    told = found.pop("fitted")  # what a default has taken the place of is no loss
    assert all(pair[0] in (None, False) for pair in told.values())
    assert set(found.pop("model")) <= {"saved_by"}
    assert not any(found.values()), found
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]  # nothing is left beside it


def test_a_model_in_a_run_is_upgraded(ostinato, trained, data):
    wanted = ostinato("predict", trained, data).out
    before = json.loads((trained / "model" / "config.json").read_text())
    for new in ("saved_by", "graph", "without_graph"):
        del before[new]
    before["format"] = 3
    del before["sha256"]["check.safetensors"]
    (trained / "model" / "check.safetensors").unlink()
    (trained / "model" / "config.json").write_text(json.dumps(before))
    (trained / "model" / "README.md").write_text("mine")
    (trained / "model" / "notes.txt").write_text("mine, too")
    assert ostinato("upgrade", trained).code == 0
    assert (trained / "model" / "README.md").read_text() == "mine"
    assert (trained / "model" / "notes.txt").read_text() == "mine, too"
    assert ostinato("predict", trained, data).out == wanted


def test_one_of_this_version_stays_as_it_is(ostinato, tmp_path):
    shutil.copytree(GOLDEN / "gru", tmp_path / "m")
    before = contents(tmp_path / "m")
    outcome = ostinato("upgrade", tmp_path / "m")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"{tmp_path / 'm'} is of format 4 already, the one of this version\n"
    assert contents(tmp_path / "m") == before


def test_a_later_format_names_the_version_that_it_needs(ostinato, tmp_path):
    shutil.copytree(GOLDEN / "gru", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    later = json.dumps(config | {"format": 5, "saved_by": "7.8.9"})
    (tmp_path / "m" / "config.json").write_text(later)
    outcome = ostinato("upgrade", tmp_path / "m")
    assert outcome.code == 2
    assert "has format 5" in outcome.err and "install ostinato 7.8.9" in outcome.err


def different(path: Path) -> Verified:
    return Verified(4, 1, 0.5, "avx2")


def no_space(*arguments: object) -> None:
    raise OSError(28, "No space left on device")


def another(old, new, path) -> None:
    raise ValueError("is not what the old one was")


@pytest.mark.parametrize(
    ("where", "name", "stand_in", "message"),
    [
        (upgrade, "replayed", different, "1 of 4 answers of the new model are not given again"),
        (upgrade, "_check_same", another, "is not what the old one was"),
        (upgrade.files, "write_directory", no_space, "No space left"),
    ],
)
def test_where_it_fails_the_old_model_stays(
    ostinato, tmp_path, monkeypatch, where, name, stand_in, message
):
    path = downgraded("gru", tmp_path / "m")
    before = contents(path)
    monkeypatch.setattr(where, name, stand_in)
    outcome = ostinato("upgrade", path)
    assert outcome.code in (1, 2) and message in outcome.err
    assert contents(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_a_damaged_or_foreign_one_is_refused(ostinato, tmp_path):
    path = downgraded("gru", tmp_path / "m")
    (path / "more").mkdir()
    outcome = ostinato("upgrade", path)
    assert outcome.code == 2 and "move it away first" in outcome.err
    (path / "more").rmdir()
    weights = bytearray((path / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (path / "model.safetensors").write_bytes(weights)
    before = contents(path)
    outcome = ostinato("upgrade", path)
    assert outcome.code == 2 and "is not the file that was saved" in outcome.err
    assert contents(path) == before


def test_a_loss_is_seen(tmp_path):
    """The comparison of old and new can fail: on a weight, and on what stands beside them."""
    from dataclasses import replace

    from ostinato.training import fitted

    shutil.copytree(GOLDEN / "gru", tmp_path / "m")
    saved = fitted.read(tmp_path / "m")
    upgrade._check_same(saved, saved, tmp_path)
    weights = {name: t + 0 for name, t in saved.weights.items()}
    weights["readout.bias"][0] += 1
    for other in (replace(saved, weights=weights), replace(saved, iterations=99)):
        with pytest.raises(ValueError, match="is not what the old one was"):
            upgrade._check_same(saved, other, tmp_path)
