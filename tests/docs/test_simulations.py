"""The examples of docs/simulations.md: they find what they look for, by native loops."""

from __future__ import annotations

import runpy
import warnings

import matplotlib
import pytest
import torch

from sources import REPOSITORY

FOLDER = REPOSITORY / "examples" / "simulations"
PAGE = (REPOSITORY / "docs" / "simulations.md").read_text(encoding="utf-8")


def neuron(of, found):
    assert (found["g"] / of["TRUE"] - 1).abs().max() < 0.2 < (of["GUESS"] / of["TRUE"]).max() - 1


def kalman(of, found):
    guess, fitted = found["likelihoods"]
    assert fitted > guess + 100
    assert found["variances"][0] == pytest.approx(4.0, rel=0.2)
    inside = (found["means"] - found["level"]).abs() < 2 * found["spread"].sqrt()
    assert 0.9 < inside.double().mean() < 0.99


def orbits(of, found):
    guess, fitted = found["misses"]
    assert fitted < 1e-3 < guess


def river(of, found):
    guess, fitted = found["efficiencies"]
    assert guess < 0.6 and fitted > 0.9


LOOPS = {"neuron": "voltages", "kalman": "filtered", "orbits": "paths", "river": "flows"}


@pytest.mark.parametrize(
    ("check", "iterations"), [(neuron, 60), (kalman, 30), (orbits, 40), (river, 60)]
)
def test_an_example_finds_what_it_looks_for_and_draws_it(check, iterations, tmp_path):
    matplotlib.use("agg")
    name = check.__name__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of = runpy.run_path(str(FOLDER / f"{name}.py"))
        found = of["fit"](iterations)
    check(of, found)
    assert all(site.native for site in of[LOOPS[name]].__ostinato_loops__)
    of["picture"](found, tmp_path / "found.png")
    assert (tmp_path / "found.png").stat().st_size > 10_000
    assert f"images/{name}.png" in PAGE and f"examples/simulations/{name}.py" in PAGE


def test_the_gradient_through_the_orbits_is_that_of_pytorch():
    """Sums of 2,000 steps of float64, of a motion that is not chaotic: relative 1e-9."""
    of = runpy.run_path(str(FOLDER / "orbits.py"))
    function, gradients = of["paths"], []
    for how in (function, function.__wrapped__):
        speed = torch.tensor([0.0, 0.1], dtype=torch.float64, requires_grad=True)
        end = how(speed, *of["at_start"]())[-1]
        gradients.append(torch.autograd.grad((end[3] - end[2]).square().sum(), speed)[0])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=0)
