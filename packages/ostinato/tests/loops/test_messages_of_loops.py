"""Loops that run in Python say why and what to write; tensors of the index are native."""

from __future__ import annotations

import importlib
import random
import sys
import warnings

import pytest
import torch

import forms
import ostinato

# ------------------------------------------------------------------------ numbers as tensors


@pytest.mark.parametrize(
    "text",
    [
        "torch.full_like(h, t) + h.new_full((3, 1), t * 0.1)",
        "torch.empty_like(h).fill_(t)",
        "WORDS(torch.full((h.shape[0],), t, dtype=torch.long))",
        "WORDS(torch.tensor([t]))",
        "torch.tensor([t, 0.5, t / 2, 2, 3, 4.0]) * 0.1",
    ],
)
def test_tensors_of_the_index_are_native(text, tmp_path, monkeypatch):
    (tmp_path / "filled.py").write_text(
        "import torch\nWORDS = torch.nn.Embedding(40, 6)\n"
        "def run(x):\n    h = torch.zeros_like(x[:, 0])\n"
        f"    for t in range(x.shape[1]):\n        h = torch.tanh(h + x[:, t] + {text})\n"
        "    return h\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "filled", raising=False)
    run = importlib.import_module("filled").run
    looped, x = ostinato.loop(run), torch.randn(3, 14, 6)
    for _ in range(2):
        torch.testing.assert_close(looped(x), run(x))
    (site,) = forms.sites(looped)
    assert site.native, site.reason


# ------------------------------------------------------------------------ warnings


def broken(h):
    for t in range(20):
        h = torch.tanh(h)
        if t == 12:
            break
    return h


def tried(h):
    for _ in range(20):
        try:
            h = torch.tanh(h)
        except ValueError:
            h = h * 2
    return h


def printed(h):
    for t in range(20):
        h = torch.tanh(h) * len(str(t))
    return h


def scheduled(h):
    for _ in range(20):
        h = torch.tanh(h) if random.random() < 0.5 else 0.5 * h
    return h


def of_two_sizes(h):
    h, m = torch.zeros(700, 60), torch.zeros(7)
    for _ in range(20):
        h, m = torch.tanh(h + 1), 0.5 * m + h.view(7, -1).mean(1)
    return h, m


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (broken, "torch.where"),
        (tried, "around the loop"),
        (printed, "index a tensor"),
        (scheduled, r"torch.rand\(T\) < ratio"),
        (of_two_sizes, r"m is \[7\]"),
    ],
)
def test_a_loop_that_runs_in_python_says_so_and_what_to_write(function, word):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=word):
            ostinato.loop(function)(torch.randn(3, 6))


@pytest.mark.parametrize("seed", range(8))
def test_every_draw_of_a_choice_between_elements_says_what_to_write(seed):
    def function(x):
        h, last = x[:, 0] * 0, x[:, 0]
        for t in range(x.shape[1]):
            taken = last if random.random() < 0.5 else x[:, t]
            h = last = torch.tanh(taken + h)
        return h

    random.seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=r"torch.rand\(T\) < ratio"):
            ostinato.loop(function)(torch.randn(3, 20, 6))


def counted(names):
    found = {}
    for name in names:
        if name == "z":
            break
        found[name] = len(name)
    for i in range(20):
        found[i] = str(i)
    return found


def test_a_loop_without_tensors_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ostinato.loop(counted)("abcdefghijklmnopq")
