"""The problems of `benchmarks simulations`."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from benchmarks import simulations, simulations_torch


def test_every_case_has_a_loop_and_a_scan():
    source = Path(simulations_torch.__file__).with_name("simulations_jax.py").read_text()
    scans = {n.name for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)}
    assert simulations.CASES.keys() - {"neurons"} <= scans  # which is `neuron`
    assert all(callable(getattr(simulations_torch, name)) for name in simulations.CASES)


def test_a_row_compares_processes_and_a_wrong_answer_is_not_timed(monkeypatch):
    monkeypatch.setattr(simulations, "BLOCK_S", 0.0)
    row = simulations._row("volatility", 1)
    ours, loop = row.timings[:2]
    assert loop.ratio == pytest.approx(loop.median_s / ours.median_s)
    wrong = {"value": 1.0, "gradient": [0.0, 1.0, 1.0]}
    right = {"value": 1.0, "gradient": [0.0, 1.0, 1.001]}

    class Found:
        first = right

    assert simulations._problem(wrong, {simulations.OURS: Found}) == "another gradient"
    assert not simulations._problem(right, {simulations.OURS: Found})


@pytest.mark.slow
@pytest.mark.parametrize("case", simulations.CASES)
def test_loops_are_native_with_the_value_and_gradient_of_pytorch(case):
    numbers = simulations.CASES[case][1]()
    looped, plain = (
        simulations_torch.value_and_gradient(case, *numbers, how)() for how in (True, False)
    )
    for a, b in zip(looped, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=simulations.CLOSE)
