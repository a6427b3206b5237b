"""`memory=`: a run in segments has the bits of the run in one piece, within its budget."""

from __future__ import annotations

import itertools
import re
import warnings
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from ostinato import environment, explain, nn, scan
from ostinato.arguments import bytes_in
from ostinato.compiler.play.segmented import SegmentedCall
from zoo.playing import Played, assert_close, play
from zoo.random_steps import Draw, Hypothesis, random_case
from zoo.steps import Case, make

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*was recorded"),
    pytest.mark.filterwarnings("error:.*slow loop"),
]
_numbers = itertools.count()


def least(case: Case, init: Any, xs: Any, **options: Any) -> int:
    """The least budget that a refusal names."""
    with pytest.raises(ValueError, match="need at least") as refused:
        play(scan, case, init, xs, memory=1, **options)
    found = re.search(r"at least (\d+) bytes", str(refused.value))
    assert found
    return int(found[1])


def same(ours: Played, theirs: Played, what: Any) -> None:
    for (name, a), (_, b) in zip(ours.named(), theirs.named(), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)), (what, name)


@pytest.fixture
def segments(monkeypatch):
    """The segments of each run, and the levels of its plan."""
    seen: list[int] = []
    forward = SegmentedCall.forward

    def counted(self, tensors, train):
        outs, tape = forward(self, tensors, train)
        groups = getattr(tape, "groups", [])
        seen.append(sum(len(span) for group in groups for span in group))
        return outs, tape

    monkeypatch.setattr(SegmentedCall, "forward", counted)
    return seen


def budgets(of: int) -> list[int]:
    """With two levels of checkpoints, with one, and for long segments."""
    return [of, of * 5 // 4, of * 2, of * 6]


CASES = ["tanh_rnn_matmul", "lstm_chunk", "gru_reset_after", "slstm_stabilised", "stack_of_three"]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_bits_of_one_piece(name, threads, segments):
    """B = 1: threads share columns; 9: two groups; 33: four. T is no multiple of any chunk."""
    case = make(name, torch.float32, 5, 7)
    torch.set_num_threads(threads)
    for T, B in [(1500, 1), (401, 9), (299, 33)]:
        init, xs = case.init(B), case.xs(T, B)
        for reverse in (False, True):
            whole = play(scan, case, init, xs, reverse=reverse)
            for memory in budgets(least(case, init, xs, reverse=reverse)):
                ours = play(scan, case, init, xs, reverse=reverse, memory=memory)
                same(ours, whole, (T, B, reverse, memory))
    assert max(segments) > 20


@pytest.mark.parametrize("name", CASES[:3])
def test_ragged_rows_and_resets(name, segments):
    case = make(name, torch.float32, 5, 7)
    random = torch.Generator().manual_seed(1)
    T, B = 333, 9
    init, xs = case.init(B), case.xs(T, B)
    lengths = torch.tensor([T, 0, 1, 200, 17, 16, 300, 64, 128])
    resets = torch.rand(T, B, generator=random) < 0.02
    for reverse, marks in itertools.product([False, True], [None, resets]):
        for n in (lengths, torch.full((B,), T), None):
            options = {"reverse": reverse, "lengths": n, "resets": marks}
            whole = play(scan, case, init, xs, **options)
            for memory in budgets(least(case, init, xs, **options)):
                same(play(scan, case, init, xs, memory=memory, **options), whole, options)
    assert max(segments) > 20


def test_gradients_too_large_for_accumulators():
    """Summed late, over a number of steps of their own: 25 beside chunks of 51 here."""
    case = make("tanh_rnn_matmul", torch.float32, 3, 520)
    T, B = 2600, 10
    init, xs = case.init(B), case.xs(T, B)
    whole = play(scan, case, init, xs)
    memory = least(case, init, xs)
    same(play(scan, case, init, xs, memory=memory), whole, memory)


@pytest.mark.parametrize("width", [1, 5])
def test_a_weight_whose_gradient_has_two_terms(width, segments):
    """Of one column the terms are column sums, else products; a chunk adds one after another."""

    def step(carry: Any, x: Tensor) -> Any:
        leaky, _ = carry
        leaky = 0.9 * leaky + 0.1 * torch.tanh(F.linear(x, W))
        return leaky, torch.tanh(x @ W.t() * 0.5)

    random = torch.Generator().manual_seed(3)
    W = torch.randn(width, 3, generator=random).requires_grad_()
    for T, B in [(17, 2), (131, 1), (300, 9)]:
        case = Case(step, [W], lambda B: (torch.ones(B, width),) * 2, lambda B: torch.randn(B, 3))
        init, xs = case.init(B), case.xs(T, B)
        whole = play(scan, case, init, xs)
        for memory in budgets(least(case, init, xs)):
            same(play(scan, case, init, xs, memory=memory), whole, (T, B, memory))
    assert max(segments) > 5


def chain(options: dict[str, Any], seed: int, case: Case, T: int, B: int, threads: int) -> None:
    case.step.__code__ = case.step.__code__.replace(co_name=f"step_{next(_numbers)}")
    torch.set_num_threads(threads)
    init, xs = case.init(B), case.xs(T, B)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some steps are played by the loop
        whole = play(scan, case, init, xs, **options)
        try:
            play(scan, case, init, xs, memory=1, **options)
        except ValueError as refusal:
            found = re.search(r"at least (\d+) bytes", str(refusal))
            assert found, refusal
            memory = int(found[1])
        else:
            return  # no gradient, or the loop plays
        for budget in (memory, memory * 3 // 2):
            ours = play(scan, case, init, xs, memory=budget, **options)
            same(ours, whole, (seed, options, T, B, budget))


def drawn(draw: Any, T: int, B: int) -> dict[str, Any]:
    options: dict[str, Any] = {"reverse": bool(draw.integer(0, 1))}
    if draw.integer(0, 2) == 0:
        options["lengths"] = [draw.integer(0, T) for _ in range(B)]
    if draw.integer(0, 3) == 0:
        random = torch.Generator().manual_seed(draw.integer(0, 1000))
        options["resets"] = torch.rand(T, B, generator=random) < 0.1
    return options


@pytest.mark.parametrize("seed", range(12))
def test_random_steps(seed):
    draw = Draw(seed)
    T, B = draw.pick([70, 131, 300]), draw.pick([1, 2, 3, 8, 9, 17])
    chain(drawn(draw, T, B), seed, random_case(draw, torch.float32), T, B, 1 + seed % 2)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_more_random_steps(data):
    draw = Hypothesis(data)
    T, B = draw.pick([70, 131, 300]), draw.pick([1, 2, 3, 8, 9, 17])
    case = random_case(draw, torch.float32)
    chain(drawn(draw, T, B), 0, case, T, B, draw.integer(1, 2))


# ------------------------------------------------------------------------------ what has a gradient

LOSSES = [
    lambda carry, ys: ys[0].sum() + ys[1].sum(),  # expanded gradients
    lambda carry, ys: ys[0][40].square().sum(),
    lambda carry, ys: carry[0].square().sum(),
    lambda carry, ys: carry[1].sum() * 2,
    lambda carry, ys: (ys[1].square() * ys[0].detach()).sum() + carry[1].sum(),
]


def gradients(loss: Any, case: Case, init: Any, xs: Tensor, **options: Any) -> list[Tensor | None]:
    """Of the loss, as autograd gives them: None where there is none."""
    leaves = [t.detach().clone().requires_grad_() for t in pytree.tree_leaves(init)]
    xs = xs.detach().clone().requires_grad_()
    carry, ys = scan(case.step, pytree.tree_unflatten(leaves, pytree.tree_structure(init)), xs,
                     **options)  # fmt: skip
    wanted = [*case.wanted, *leaves, xs]
    return list(torch.autograd.grad(loss(carry, ys), wanted, allow_unused=True))


def same_gradients(ours: list[Tensor | None], theirs: list[Tensor | None]) -> None:
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert (a is None) == (b is None), i
        assert a is None or b is None or torch.equal(a, b), i


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reverse", [False, True])
def test_some_of_the_outputs(loss, reverse):
    case = make("lstm_chunk", torch.float32, 5, 7)
    T, B = 300, 9
    init, xs = case.init(B), case.xs(T, B)
    memory = least(case, init, xs)
    whole = gradients(loss, case, init, xs, reverse=reverse)
    same_gradients(gradients(loss, case, init, xs, reverse=reverse, memory=memory), whole)


def test_a_step_without_an_output():
    W = torch.randn(7, 7, requires_grad=True)

    def step(h, x):
        return torch.tanh(x + h @ W), None

    h, xs = torch.randn(3, 7), torch.randn(400, 3, 7)
    found = []
    for memory in (None, 80_000):
        last, ys = scan(step, h, xs, memory=memory)
        assert ys == ()
        found.append((last, torch.autograd.grad(last.sum(), W)[0]))
    assert all(map(torch.equal, *found))


def test_leaves_of_a_carry_that_take_turns_and_counters():
    """A flag in the carry is of another type; a leaf that only counts has no gradient."""
    W = torch.randn(4, 4, requires_grad=True)

    def step(carry, x):
        a, b, n, flag = carry
        new = torch.tanh(a @ W + x + n)
        return (b, new, (n + 1) * 0.5, new > 0), (a * flag, flag)

    def run(memory):
        init = (torch.ones(2, 4, requires_grad=True), torch.zeros(2, 4, requires_grad=True),
                torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.bool))  # fmt: skip
        xs = torch.sin(torch.arange(2400.0).view(300, 2, 4)).requires_grad_()
        carry, (y, flags) = scan(step, init, xs, memory=memory)
        assert flags.dtype == torch.bool and carry[3].dtype == torch.bool
        assert not carry[2].requires_grad
        d = torch.autograd.grad(y.square().sum() + carry[0].sum(), [W, *init[:2], xs])
        return [*carry, y, flags, *d]

    with pytest.raises(ValueError, match="need at least") as refused:
        run(1)
    memory = int(re.findall(r"at least (\d+)", str(refused.value))[0])
    assert all(torch.equal(a, b) for a, b in zip(run(memory), run(None), strict=True))


# --------------------------------------------------------------------------- what is said of memory


def test_explain_shows_the_plan():
    case = make("lstm_chunk", torch.float32, 5, 7)
    init, xs = case.init(9), case.xs(3000, 9)
    assert explain(case.step, init, xs).memory is None
    whole = explain(case.step, init, xs, memory="100MB")
    assert whole.memory is not None and whole.memory.n_segments == 1
    assert "nothing is computed again" in str(whole)
    some = explain(case.step, init, xs, memory="600kB")
    plan = some.memory
    assert plan is not None and plan.levels == 1 and plan.n_segments > 1
    assert plan.peak_bytes <= 600_000 < whole.memory.peak_bytes
    assert f"{plan.n_segments} segments of {plan.segment_steps} steps" in str(some)
    assert some.to_dict()["memory"]["again_steps"] == 3000 - plan.segment_steps
    with pytest.raises(ValueError, match="need at least"):
        explain(case.step, init, xs, memory=1)


def test_the_plan_is_what_is_played(segments):
    case = make("lstm_chunk", torch.float32, 5, 7)
    init, xs = case.init(9), case.xs(1000, 9)
    memory = least(case, init, xs)
    xs = xs.requires_grad_()
    for budget in (memory, memory * 2):
        plan = explain(case.step, init, xs, memory=budget).memory
        scan(case.step, init, xs, memory=budget)
        assert plan is not None and segments[-1] == plan.n_segments


@pytest.mark.parametrize("memory", [0, -1, "0MB", "64 parsecs", "MB", "-3MB", ""])
def test_budgets_that_are_none(memory):
    with pytest.raises(ValueError, match="memory is"):
        bytes_in(memory)
    with pytest.raises(TypeError, match="memory is"):
        bytes_in(1.5)


def test_budgets():
    given = {"64MB": 64_000_000, "1.5 GiB": 3 << 29, "10kB": 10_000, "7": 7, "2 MiB": 2 << 20, 5: 5}
    assert {text: bytes_in(text) for text in given} == given


def test_a_run_that_does_not_fit_is_told_before(monkeypatch):
    """Where the tape has 256 MB or more, the memory of the machine is asked for."""
    layer = nn.LSTM(1, 128)
    x = torch.zeros(2100, 64, 1)
    monkeypatch.setattr(environment, "available_memory", lambda: 200_000_000)
    with pytest.warns(UserWarning, match=r'0.\d\d GB .* memory="50MB"'):
        layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(x[:100])
        layer(x, memory="50MB")


# ------------------------------------------------------------------- as other runs with autograd


@pytest.fixture
def budgeted():
    """A call of scan in many segments: (its tensors, the scan within a budget, the plain scan)."""
    case = make("lstm_chunk", torch.float64, 3, 4)
    T, B = 150, 2
    leaves = [t.requires_grad_() for t in (*case.init(B), case.xs(T, B))]
    memory = least(case, tuple(leaves[:2]), leaves[2])
    tensors = [*case.wanted, *leaves]

    def run(**options: Any) -> tuple[Any, Any]:
        return scan(case.step, tuple(leaves[:2]), leaves[2], **options)

    return tensors, lambda: run(memory=memory), run


def total(played: tuple[Any, Any]) -> Tensor:
    carry, ys = played
    return sum((t.square().sum() for t in (*carry, *ys)), torch.zeros(()))


def test_twice_differentiable(budgeted):
    tensors, within, plain = budgeted
    found = []
    for how in (within, plain):
        first = torch.autograd.grad(total(how()), tensors, create_graph=True)
        again = sum((d.square().sum() for d in first), torch.zeros(()))
        found.append(torch.autograd.grad(again, tensors))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-12)


def test_backward_twice(budgeted):
    """The tapes of the last span are gone after the first time, and computed again."""
    tensors, within, _ = budgeted
    loss = total(within())
    first = torch.autograd.grad(loss, tensors, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(loss, tensors)))


def test_outputs_changed_in_place(budgeted):
    tensors, within, plain = budgeted
    found = []
    for how in (within, plain):
        carry, ys = how()
        loss = ys[0].sum() + carry[1].sum()
        with torch.no_grad():
            ys[0].zero_()
            carry[1].fill_(3)
        found.append(torch.autograd.grad(loss, tensors))
    assert all(map(torch.equal, *found))


def test_other_data_between_the_passes(budgeted):
    tensors, within, _ = budgeted
    loss = total(within())
    tensors[0].data = tensors[0].data * 2
    with pytest.raises(RuntimeError, match="was given other data"):
        loss.backward()


def test_a_weight_changed_in_place(budgeted):
    tensors, within, _ = budgeted
    loss = total(within())
    with torch.no_grad():
        tensors[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_hooks_on_saved_tensors_and_gradients(budgeted):
    tensors, within, plain = budgeted
    found = []
    for how in (within, plain):
        seen: list[Tensor] = []
        handle = tensors[-1].register_hook(lambda d, seen=seen: seen.append(d))
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
            loss = total(how())
        found.append([*torch.autograd.grad(loss, tensors), *seen])
        handle.remove()
        assert len(seen) == 1
    assert all(map(torch.equal, *found))


def test_along_another_axis_and_without_gradients(budgeted):
    _, within, plain = budgeted
    case = make("lstm_chunk", torch.float32, 3, 4)
    init, xs = case.init(2), case.xs(150, 2).transpose(0, 1)
    memory = least(case, init, xs, dim=1)
    same(play(scan, case, init, xs, dim=1, memory=memory),
         play(scan, case, init, xs, dim=1), "dim=1")  # fmt: skip
    with torch.no_grad():
        assert torch.equal(total(within()), total(plain()))


def test_the_engine_of_the_definition(monkeypatch):
    """NumPy's: equal within rounding, since it sums in another order."""
    case = make("lstm_chunk", torch.float64, 3, 4)
    init, xs = case.init(3), case.xs(60, 3)
    plain = play(scan, case, init, xs)
    monkeypatch.setenv("OSTINATO_ENGINE", "reference")
    memory = least(case, init, xs)
    assert_close(play(scan, case, init, xs, memory=memory), plain, 1e-12)
