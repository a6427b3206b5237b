"""The script behind benchmarks/results/third_party.md, on small models of our own."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    threads = torch.get_num_threads()
    yield importlib.import_module("third_party")
    torch.set_num_threads(threads)


class Doubled(torch.nn.GRU):
    """A layer that is left alone, since it overrides what its layer computes with."""

    def permute_hidden(self, hx, permutation):
        return super().permute_hidden(hx, permutation)


def subject(script, spoil: float = 0.0, module: str = "torch"):
    """A subject that learns; what the second model made gives is spoilt by so much."""
    from third_party_models import Made, Subject, Work, iterate

    spoilt = iter([0.0, spoil])

    def make():
        model = torch.nn.Sequential(torch.nn.LSTM(3, 4), Doubled(4, 4))
        error, x = next(spoilt), torch.linspace(-1, 1, 30).reshape(5, 2, 3)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def output():
            noise = 0.1 * torch.randn(5, 2, 1)  # the same for both models
            return model[1](model[0](x + noise)[0])[0] + error

        return Made(
            model,
            [
                Work("infer", lambda: [output()]),
                Work("train", lambda: iterate(model, lambda: output().square().sum(), optimizer)),
            ],
        )

    return Subject("small", "torch", (module,), "torch another", make)


def test_a_row_for_every_work(script):
    rows = script.study(subject(script), rounds=2)
    assert [row["work"] for row in rows] == ["infer", "train"]
    for row in rows:
        assert row["swapped"] == {"LSTM": 1}
        (reason,) = row["left_alone"]
        assert reason.startswith("Doubled: it is a subclass")
        assert 0 <= row["absolute"] <= 1e-5 and row["relative"] <= 1e-4
        assert [len(seconds) for seconds in row["seconds"]] == [2, 2]


def test_a_wrong_result_shows(script):
    infer, train = script.study(subject(script, spoil=0.01), rounds=0)
    assert infer["absolute"] == pytest.approx(0.01, rel=1e-3) and train["absolute"] > 1e-3
    assert infer["relative"] > infer["absolute"]  # the outputs are below 1


def test_the_table_replaces_what_is_between_the_markers(script, monkeypatch, tmp_path):
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    before, after = f"above\n{script.BEGIN}\n", f"\n{script.END}\nbelow\n"
    page.write_text(f"{before}old{after}", encoding="utf-8")
    run(script, monkeypatch, "--rounds=0", f"--write={page}", f"--json={figures}")
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"{before}| model |") and text.endswith(f"not timed.{after}")
    assert text.count("| small (torch ") == 2 and "old" not in text
    assert len(json.loads(figures.read_text(encoding="utf-8"))["rows"]) == 2
    assert sorted(tmp_path.iterdir()) == [figures, page]


def test_the_page_has_its_markers(script):
    text = (ROOT / "benchmarks" / "results" / "third_party.md").read_text(encoding="utf-8")
    assert "\nnew\n" in script.replaced(text, "new")
    with pytest.raises(ValueError, match="lacks its markers"):
        script.replaced(text.replace(script.END, ""), "new")


def test_a_missing_package_is_named(script, monkeypatch, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"{script.BEGIN}{script.END}", encoding="utf-8")
    with pytest.raises(SystemExit, match="install what is missing"):
        run(script, monkeypatch, f"--write={page}", module="not_there")
    error = capsys.readouterr().err
    assert "small is left out, for want of not_there: pip install torch another" in error
    assert page.read_text(encoding="utf-8") == f"{script.BEGIN}{script.END}"


def run(script, monkeypatch, *arguments: str, module: str = "torch") -> None:
    monkeypatch.setattr(script, "SUBJECTS", [subject(script, module=module)])
    monkeypatch.setattr("sys.argv", ["third_party.py", "--threads=1", *arguments])
    script.main()
