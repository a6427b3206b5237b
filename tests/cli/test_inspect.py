from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from cli_examples import process

from ostinato import picture
from ostinato.anatomy import Anatomy, table

KINDS = list(itertools.product(["rnn", "gru", "lstm"], [1, 3], [False, True]))


def test_the_notebook_s_table(ostinato):
    out = ostinato("inspect", "mnist").out
    for line in (
        "x_t ∈ R^28", "s_t ∈ R^128", "U ∈ R^28×128", "W ∈ R^128×128", "V ∈ R^128×10",
    ):  # fmt: skip
        assert line in out
    assert "21,514" in out  # 28·128 + 128·128 + 2·128 + 128·10 + 10
    assert "143.5 MFLOPs" in out  # 128 (28 · 2 (28·128 + 128·128) + 2 · 1280)
    assert "430.4 MFLOPs" in out


@pytest.mark.parametrize(("cell", "n_layers", "both"), KINDS)
def test_parameters_are_those_of_the_network(cell, n_layers, both):
    from ostinato.models import ClassifierNet

    net = ClassifierNet(3, 4, cell, 5, n_layers, both)
    anatomy = Anatomy(cell, 7, 3, 5, 4, n_layers, both)
    assert anatomy.parameters == sum(p.numel() for p in net.parameters())
    weights = [p.numel() for n, p in net.body.named_parameters() if n.startswith("weight")]
    assert anatomy.flops_per_step == 2 * sum(weights)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("readout", ["last", "mean", "max", "attention"])
def test_the_readout_is_that_of_the_network(readout, both):
    from ostinato.models import ClassifierNet

    net = ClassifierNet(3, 4, "gru", 5, 1, both, readout=readout)
    anatomy = Anatomy("gru", 7, 3, 5, 4, 1, both, readout=readout)
    assert anatomy.parameters == sum(p.numel() for p in net.parameters())
    state = "[s_t forwards, s_t backwards]" if both else "s_t"
    wanted = {
        "last": [],
        "mean": [f"r = mean_t {state}"],
        "max": [f"r = max_t {state}"],
        "attention": [f"a_t = softmax_t({state} v)", f"r = Σ_t a_t {state}"],
    }
    assert anatomy.equations[3:-1] == wanted[readout]  # after those of a GRU
    assert ("s_T" in anatomy.equations[-1]) == (readout == "last")
    last = Anatomy("gru", 7, 3, 5, 4, 1, both)
    scores = 2 * 5 * (1 + both) if readout == "attention" else 0
    assert anatomy.flops_per_step == last.flops_per_step + scores
    for drawn in (picture.text(anatomy), picture.svg(anatomy)):
        assert ("y, of all" in drawn) == (readout != "last")


@pytest.mark.parametrize(("cell", "n_layers", "both"), KINDS)
@pytest.mark.parametrize("n_steps", [None, 1, 4, 5])
def test_pictures_show_every_state_once_in_each_column(cell, n_layers, both, n_steps):
    anatomy = Anatomy(cell, n_steps, 3, 5, 4, n_layers, both)
    drawn = [n for n in picture.columns(anatomy) if n != "…"]
    text = picture.text(anatomy)
    svg = "".join(ET.fromstring(picture.svg(anatomy)).itertext())
    for layer, mark in itertools.product(range(n_layers), "→←" if both else [""]):
        number = str(layer + 1) if n_layers > 1 else ""
        for name in drawn:
            assert text.count(f" s{number}{mark}_{name} ") == 1
            assert f"s{number}{mark}{name}" in svg
    widths = {len(line.rstrip()) for line in text.splitlines()}
    assert max(widths) <= 80


def test_the_picture_as_a_whole():
    assert picture.text(Anatomy("gru", 2, 3, 5, 4, 1, True)) == "\n".join(
        [
            "                         y",
            "                         ▲ V",
            "┌────────────────────────┤",
            "│      ┌───────┐  W→ ┌───────┐",
            "│ 0───▶│  s→_1 │ ───▶│  s→_2 │",
            "│      ├───────┤  W← ├───────┤",
            "└──────│  s←_1 │◀─── │  s←_2 │◀───0",
            "       └───────┘     └───────┘",
            "           ▲ U           ▲ U",
            "           x_1           x_2",
        ]
    )


@pytest.mark.parametrize(("cell", "n_layers", "both"), KINDS)
def test_ascii_has_a_character_for_everything(cell, n_layers, both):
    anatomy = Anatomy(cell, None, 3, 5, 4, n_layers, both)
    for text in (table(anatomy), picture.text(anatomy)):
        plain = picture.plain(text)
        assert plain.isascii()
        assert "?" not in plain


def test_flags_and_json_and_svg(ostinato, tmp_path):
    svg = tmp_path / "net.svg"
    outcome = ostinato(
        "inspect", "mnist", "--as-sequence", "pixels", "--cell", "lstm", "--json", "--svg", svg
    )
    shown = json.loads(outcome.out)
    assert (shown["n_steps"], shown["n_features"], shown["letters"]["U"]) == (784, 1, [1, 512])
    ET.fromstring(svg.read_text("utf-8"))


def test_a_run_and_a_bare_model(ostinato, trained):
    shown = json.loads(ostinato("inspect", trained, "--json").out)
    assert (shown["n_steps"], shown["hidden_size"], shown["batch_size"]) == (5, 4, 8)
    bare = json.loads(ostinato("inspect", trained / "model", "--json").out)
    assert bare["n_steps"] is None
    assert bare["flops"]["forward_per_iteration"] is None
    assert "the sequences decide" in ostinato("inspect", trained / "model").out


def test_an_own_cell_is_shown_by_its_saved_graph(ostinato, tmp_path):
    from ostinato import SequenceClassifier

    class Leaky(torch.nn.Module):
        def __init__(self, n_features, hidden_size):
            super().__init__()
            self.into = torch.nn.Linear(n_features, hidden_size)
            self.back = torch.nn.Linear(hidden_size, hidden_size, bias=False)

        def forward(self, h, x):
            return 0.9 * h + torch.tanh(self.into(x) + self.back(h))

    X, y = np.zeros((8, 5, 3), np.float32), ["up", "down"] * 4
    for readout in ("last", "mean"):
        sizes = {"hidden_size": 4, "num_layers": 2, "bidirectional": True, "readout": readout}
        model = SequenceClassifier(cell=Leaky, iterations=1, **sizes).fit(X, y)
        run, svg = tmp_path / readout, tmp_path / f"{readout}.svg"
        model.save(run)
        shown = json.loads(ostinato("inspect", run, "--json", "--svg", svg).out)
        assert shown["parameters"] == sum(p.numel() for p in model.net_.parameters())
        assert shown["letters"]["readout.weight"] == [2, 8]
        # Of a step: x and both states to the state, in both directions of two layers.
        per_step = 2 * 2 * (3 * 4 + 4 * 4 + 8 * 4 + 4 * 4)
        assert shown["flops"]["per_step_and_row"] == per_step
        assert shown["cell"] == "Leaky" and "tensors" not in shown
        out = ostinato("inspect", run).out
        for wanted in ("Leaky layer 0, backwards:", "s_t = 0.9 * s_{t-1} + tanh(", " s2←_1 "):
            assert wanted in out
        drawing = "".join(ET.fromstring(svg.read_text("utf-8")).itertext())
        assert "Leaky: T steps of 3, 4 hidden, 2 layers" in drawing
        assert not set("UVW") & set(out.partition("an iteration")[2] + drawing.split("}")[-1])


def test_flags_do_not_change_a_run(ostinato, trained):
    outcome = ostinato("inspect", trained, "--cell", "gru")
    assert outcome.code == 2
    assert "--cell" in outcome.err


@pytest.mark.process
def test_a_terminal_without_unicode(c_locale):
    result = process("inspect", "mnist", env=c_locale)
    assert result.returncode == 0
    assert "U in R^28x128" in result.stdout
