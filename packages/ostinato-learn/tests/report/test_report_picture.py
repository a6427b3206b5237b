"""The network on paper: its equations, its number of parameters, its drawing."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import pytest

from ostinato_learn.anatomy import Anatomy
from ostinato_learn.report import picture

KINDS = list(itertools.product(["rnn", "gru", "lstm"], [1, 3], [False, True]))


@pytest.mark.parametrize(("cell", "n_layers", "both"), KINDS)
def test_parameters_are_those_of_the_network(cell, n_layers, both):
    from ostinato_learn.models import ClassifierNet

    net = ClassifierNet(3, 4, cell, 5, n_layers, both)
    anatomy = Anatomy(cell, 7, 3, 5, 4, n_layers, both)
    assert anatomy.parameters == sum(p.numel() for p in net.parameters())


def test_parameters_of_a_network_that_reads_words():
    from ostinato_learn.models import ClassifierNet

    net = ClassifierNet(None, 4, "gru", 5, n_words=11, embedding_size=3)
    assert Anatomy("gru", 7, 3, 5, 4, n_words=11).parameters == sum(
        p.numel() for p in net.parameters()
    )


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("readout", ["last", "mean", "max", "attention"])
def test_the_readout_is_that_of_the_network(readout, both):
    from ostinato_learn.models import ClassifierNet

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
    assert ("y, of all" in picture.inline_svg(anatomy)) == (readout != "last")


@pytest.mark.parametrize(("cell", "n_layers", "both"), KINDS)
@pytest.mark.parametrize("n_steps", [None, 1, 4, 5])
def test_pictures_show_every_state_once_in_each_column(cell, n_layers, both, n_steps):
    anatomy = Anatomy(cell, n_steps, 3, 5, 4, n_layers, both)
    svg = ET.fromstring(picture.inline_svg(anatomy))
    words = ["".join(each.itertext()) for each in svg.iter("text")]
    for layer, mark in itertools.product(range(n_layers), "→←" if both else [""]):
        number = str(layer + 1) if n_layers > 1 else ""
        for name in picture.columns(anatomy):
            if name != "…":
                assert words.count(f"s{number}{mark}{name}") == 1
