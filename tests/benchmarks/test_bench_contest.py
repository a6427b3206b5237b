"""Who may compete, and how they are timed."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from benchmarks.cells import GRU, LEM, LSTM, RNN, SLSTM, Shape
from benchmarks.harness import QUICK, Contender, Samples, measure, ratio
from benchmarks.problem import Entrant, Maker, NotHereError, Problem, admit, difference
from benchmarks.results import Absent

from benchmarks import peers_jax, peers_keras, peers_torch

TINY = Shape("tiny", B=3, T=4, F=2, H=5)


@pytest.mark.parametrize("cell", [RNN, GRU, LSTM, LEM, SLSTM], ids=lambda c: c.name)
def test_ours_and_pytorchs_give_the_right_answer(cell):
    problem = Problem(cell, TINY)
    peers = [p for p in peers_torch.peers(problem, compiled=False) if p.name != "PyTorch scan"]
    found = admit(peers_torch.ours(problem), peers, problem.right, problem.tolerance)
    assert [type(c) for c in found] == [Contender] * len(found)
    assert set(problem.right) == {"ys", *problem.names}


def test_with_the_loss_on_the_last_state_gradients_vanish_and_are_right():
    problem = Problem(LSTM, Shape("long", B=2, T=400, F=1, H=5), last=True)
    layer, *_ = peers_torch.peers(problem, compiled=False)
    peers = [layer, peers_torch.flushing(layer)]
    found = admit(peers_torch.ours(problem), peers, problem.right, problem.tolerance)
    assert [type(c) for c in found] == [Contender] * 3
    assert 0 < np.abs(problem.right["d_init1"]).max() < 2.0**-126
    assert torch.tensor(1e-30) * torch.tensor(1e-10) > 0  # the flag is as it was


@pytest.mark.slow
@pytest.mark.parametrize("cell", [RNN, GRU, LSTM], ids=lambda c: c.name)
def test_jax_gives_the_right_answer(cell):
    pytest.importorskip("jax")
    problem = Problem(cell, TINY)
    for hoist in (False, True):
        entrant = peers_jax._make(problem, ((1, hoist),))
        assert difference(entrant.answer(entrant.run()), problem.right, problem.tolerance) is None


def test_keras_gives_the_right_answer_with_its_own_order_of_gates():
    pytest.importorskip("jax")
    if find_spec("keras") is None:  # importing it here would choose a backend
        pytest.skip("keras is not installed")
    problem = Problem(GRU, TINY)
    entrant = peers_keras._make(problem)
    assert difference(entrant.answer(entrant.run()), problem.right, problem.tolerance) is None


def test_a_wrong_answer_is_seen():
    problem = Problem(RNN, TINY)
    right = problem.right
    assert difference(right, right, 0.0) is None
    for name in right:
        off = {**right, name: right[name] * (1 + 2 * problem.tolerance)}
        assert name in difference(off, right, problem.tolerance)
    nan = {**right, "ys": np.full_like(right["ys"], np.nan)}
    assert "ys is off" in difference(nan, right, problem.tolerance)
    no_gradient = {k: v for k, v in right.items() if k != "d_w_hh"}
    assert difference(no_gradient, right, problem.tolerance) == "gave no d_w_hh"
    transposed = {**right, "d_w_ih": right["d_w_ih"].T}
    assert "shape" in difference(transposed, right, problem.tolerance)


def test_peers_that_are_wrong_or_missing_or_fail_are_listed_not_timed():
    problem = Problem(RNN, TINY)
    wrong = {**problem.right, "d_b_hh": -problem.right["d_b_hh"]}

    def missing():
        raise NotHereError("not installed")

    def failing():
        raise RuntimeError("first line\nsecond line")

    makers = [
        Maker("wrong", lambda: Entrant(lambda: None, lambda _: wrong)),
        Maker("missing", missing),
        Maker("failing", failing),
    ]
    _, *found = admit(peers_torch.ours(problem), makers, problem.right, problem.tolerance)
    assert [type(f) for f in found] == [Absent] * 3
    assert "d_b_hh is off" in found[0].reason
    assert found[1].reason == "not installed"
    assert found[2].reason == "fails: RuntimeError: first line"


def test_our_own_wrong_answer_stops_everything():
    problem = Problem(RNN, TINY)
    zeros = {name: np.zeros_like(a) for name, a in problem.right.items()}
    ours = Maker("ours", lambda: Entrant(lambda: None, lambda _: zeros))
    with pytest.raises(AssertionError, match="ours: ys is off"):
        admit(ours, [], problem.right, problem.tolerance)


def test_a_ratio_is_taken_within_rounds_both_were_timed_in():
    a, b = Samples(Contender("a", print)), Samples(Contender("b", print))
    a.by_round.update({0: 2.0, 1: 20.0, 2: 2.0, 3: 1e9})
    b.by_round.update({0: 1.0, 1: 10.0, 2: 1.0})
    assert ratio(a, b) == 2.0
    assert b.timing(a).ratio == 0.5
    assert b.timing().ratio is None


def test_contenders_play_in_turn_and_the_slow_ones_meet_the_others():
    order = []

    def call(name, size):
        product = torch.ones(size, size)

        def run():
            order.append(name)
            return product @ product

        return Contender(name, run)

    effort = replace(QUICK, rounds=5, share_s=0.0, least=2)
    samples = measure([call("a", 2), call("b", 2)], effort)
    assert [sorted(s.by_round) for s in samples] == [[0, 4], [0, 4]]
    turns = [n for n, before in zip(order, ["", *order], strict=False) if n != before]
    assert turns == ["a", "b"] * 3  # the first for a rough estimate


def test_flops_are_those_of_five_products():
    T, B, F, H = TINY.T, TINY.B, TINY.F, TINY.H
    with_x, with_h = 2 * T * B * F * 3 * H, 2 * T * B * H * 3 * H
    assert GRU.gflop(TINY) == pytest.approx((2 * with_x + 3 * with_h) / 1e9)
