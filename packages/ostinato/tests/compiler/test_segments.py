"""`memory=` and `truncate=`: runs in segments.

Within a budget they have the bits of the run in one piece. Where the gradient of the carry stops,
they are a loop that detaches.
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ostinato import explain, machine, nn, scan
from ostinato.arguments import bytes_in
from ostinato.compiler.play.autograd import ScanCall
from ostinato.compiler.play.segmented import SegmentedRun
from ostinato.compiler.play.step import CompiledStep
from zoo.bits import assert_same_bits, assert_the_plain_run
from zoo.modern import MODERN
from zoo.playing import (
    ENGINES,
    assert_close,
    assert_same_gradients,
    gradients_of,
    least_memory,
    play,
    rows_apart,
)
from zoo.random_steps import Draw, Hypothesis, random_case
from zoo.steps import Case, Kit, make
from zoo.suites import in_pairs, one_in, since

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*was recorded"),
    pytest.mark.filterwarnings("error:.*slow Python loop"),
]
_numbers = itertools.count()


@pytest.fixture
def segments(monkeypatch):
    """The segments of each run, and the levels of its plan."""
    seen: list[int] = []
    forward = ScanCall.forward

    def counted(self, tensors, train):
        outs, tape = forward(self, tensors, train)
        groups = getattr(tape, "groups", [])
        seen.append(sum(len(span) for group in groups for span in group))
        return outs, tape

    monkeypatch.setattr(ScanCall, "forward", counted)
    return seen


def assert_bits_of_one_piece(
    case: Case, init: Any, xs: Any, budgets: tuple[float, ...], **options: Any
) -> None:
    """Within budgets of so many times the least.

    At 1 and 1.25 there are two levels of checkpoints, at 2 one, at 6 long segments.
    """
    whole = play(scan, case, init, xs, **options)
    least = least_memory(case, init, xs, **options)
    if least is None:  # no gradient, or the loop plays
        return
    for budget in budgets:
        ours = play(scan, case, init, xs, memory=int(budget * least), **options)
        assert_same_bits(ours, whole, (options, budget))


CASES = ["tanh_rnn_matmul", "lstm_chunk", "gru_reset_after", "slstm_stabilised", "stack_of_three"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name, threads, backward", one_in(5, in_pairs(CASES, [2, 1], [0, 1]), of_several=True)
)
def test_bits_of_one_piece(name, threads, backward, segments, dtype):
    """B = 1: threads share columns; 9: two groups; 33: four. T is no multiple of any chunk."""
    case = make(name, dtype, 5, 7)
    torch.set_num_threads(threads)
    for i, (T, B) in enumerate([(701, 1), (401, 9), (299, 33)]):
        reverse, budgets = i % 2 != backward, ((1, 2), (1.25, 6))[(i + threads) % 2]
        assert_bits_of_one_piece(case, case.init(B), case.xs(T, B), budgets, reverse=reverse)
    assert max(segments) > 20


def options_of(T: int, B: int) -> list[dict[str, Any]]:
    random = torch.Generator().manual_seed(2)
    lengths = [T, 0, 1, *torch.randint(0, T + 1, (B,), generator=random).tolist()][:B]
    resets = torch.rand(T, B, generator=random) < 0.15
    ways = itertools.product([False, True], [None, lengths], [None, resets])
    return [{"reverse": r, "lengths": n, "resets": marks} for r, n, marks in ways]


@pytest.mark.parametrize("k", one_in(2, [33, 4, None, 200]))
@pytest.mark.parametrize("name", CASES[:3])
def test_ragged_rows_resets_and_windows(name, k, segments):
    """Windows shorter than a span, and longer; none, and those as long as the sequence."""
    case = make(name, torch.float32, 5, 7)
    T, B = 333, 9
    init, xs = case.init(B), case.xs(T, B)
    for i, options in enumerate([*options_of(T, B), {"lengths": [T] * B}]):
        budgets = ((1, 6), (1.5,))[(i + i // 2 + i // 4) % 2]  # not in step with any option
        assert_bits_of_one_piece(case, init, xs, budgets, truncate=k, **options)
        if k is None:
            assert_the_plain_run(case, init, xs, truncate=(T, T + 1, 10 * T)[i % 3], **options)
    assert max(segments) > 20


@pytest.mark.parametrize("name", one_in(4, MODERN))
def test_rows_that_are_arrays(name):
    """A weight that multiplies several rows of a row has a gradient of several terms.

    Their order within a chunk of steps is that of a run in one piece. B = 5: one group; 17: two,
    with sums that would be late if they had one term.
    """
    case = MODERN[name](Kit(torch.float32))
    for T, B, reverse in [(70, 5, False), (33, 17, True)]:
        init, xs = case.init(B), case.xs(T, B)
        assert_bits_of_one_piece(case, init, xs, (1, 2), reverse=reverse)
        assert_the_plain_run(case, init, xs, truncate=T, reverse=reverse)


@pytest.mark.slow
def test_gradients_too_large_for_accumulators(segments):
    """Summed late, over a number of steps of their own: 25 beside chunks of 51 here."""
    case = make("tanh_rnn_matmul", torch.float32, 3, 520)
    assert_bits_of_one_piece(case, case.init(10), case.xs(2600, 10), (1,))
    assert max(segments) > 1


@pytest.mark.parametrize("width", [1, 5])
def test_a_weight_whose_gradient_has_two_terms(width, segments):
    """Of one column the terms are column sums, else products; a chunk adds one after another."""

    def step(carry: Any, x: Tensor) -> Any:
        leaky, _ = carry
        leaky = 0.9 * leaky + 0.1 * torch.tanh(F.linear(x, W))
        return leaky, torch.tanh(x @ W.t() * 0.5)

    kit = Kit(torch.float32)
    W = kit.weight(width, 3)
    case = Case(step, [W], lambda B: (torch.ones(B, width),) * 2, lambda B: kit.normal(B, 3))
    for T, B in [(17, 2), (131, 1), (300, 9)]:
        assert_bits_of_one_piece(case, case.init(B), case.xs(T, B), (1, 1.25, 2))
    assert max(segments) > 5


def test_a_weight_that_multiplies_input_and_carry(segments):
    kit = Kit(torch.float32)
    W = kit.weight(6, 6)
    case = Case(
        lambda h, x: torch.tanh(x @ W + h @ W),
        [W],
        lambda B: kit.normal(B, 6),
        lambda B: kit.normal(B, 6),
    )
    assert_bits_of_one_piece(case, case.init(20), case.xs(600, 20), (1, 1.25, 2))
    assert max(segments) > 1


def test_leaves_without_a_batch(segments):
    kit = Kit(torch.float32)
    U, W = kit.weight(4, 6), kit.weight(6, 6)
    case = Case(
        lambda h, x: torch.tanh(U.T @ x + W @ h),
        [U, W],
        lambda B: kit.normal(6),
        lambda B: kit.normal(4),
    )
    init, xs = kit.normal(6), kit.normal(90, 4)
    assert_bits_of_one_piece(case, init, xs, (1,))
    assert_the_plain_run(case, init, xs, truncate=90)
    assert max(segments) > 1


def of_a_random_step(draw: Any) -> None:
    case = random_case(draw, torch.float32)
    case.step.__code__ = case.step.__code__.replace(co_name=f"step_{next(_numbers)}")
    T, B = draw.pick([70, 131, 300]), draw.pick([1, 2, 3, 8, 9, 17])
    options: dict[str, Any] = {"reverse": bool(draw.integer(0, 1))}
    if draw.integer(0, 2) == 0:
        options["lengths"] = [draw.integer(0, T) for _ in range(B)]
    if draw.integer(0, 3) == 0:
        random = torch.Generator().manual_seed(draw.integer(0, 1000))
        options["resets"] = torch.rand(T, B, generator=random) < 0.1
    torch.set_num_threads(draw.integer(1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some steps are played by the loop
        assert_bits_of_one_piece(case, case.init(B), case.xs(T, B), (1, 1.5), **options)


@pytest.mark.parametrize("seed", one_in(4, range(12)))
def test_random_steps(seed):
    of_a_random_step(Draw(seed))


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_more_random_steps(data):
    of_a_random_step(Hypothesis(data))


# ------------------------------------------------------------------------- windows: truncate=


@pytest.mark.parametrize(
    "engine, name, k", one_in(2, in_pairs(ENGINES, CASES, [3, 1, 12]), of_several=True)
)
def test_a_loop_that_detaches(engine, name, k, monkeypatch):
    """Double precision; rounding grows over at most 13 steps of widths below 10."""
    monkeypatch.setenv("OSTINATO_ENGINE", engine)
    case = make(name, torch.float64, 5, 7)
    T, B = 13, 5
    init, xs = case.init(B), case.xs(T, B)
    for options in options_of(T, B):
        ours = play(scan, case, init, xs, truncate=k, **options)
        theirs = play(rows_apart, case, init, xs, truncate=k, **options)
        assert_close(ours, theirs, 1e-11)
        if engine == "native" and k < 12:
            whole = play(rows_apart, case, init, xs, **options)
            with pytest.raises(AssertionError):  # the gradients of a loop without it are others
                assert_close(ours, whole, 1e-3)


@pytest.mark.parametrize("seed", range(15))
def test_windows_of_random_steps(seed):
    draw = Draw(100 + seed)
    case = random_case(draw)
    case.step.__code__ = case.step.__code__.replace(co_name=f"step_{next(_numbers)}")
    T, B, k = draw.pick([2, 5, 11]), draw.pick([1, 3, 8]), draw.pick([1, 2, 4])
    init, xs = case.init(B), case.xs(T, B)
    options = draw.pick(options_of(T, B))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are played by the loop
        ours = play(scan, case, init, xs, truncate=k, **options)
        theirs = play(rows_apart, case, init, xs, truncate=k, **options)
    for (name, a), (_, b) in zip(ours.named(), theirs.named(), strict=True):
        error, scale = float((a - b).abs().max()), float(b.abs().max())
        assert error <= 1e-9 * scale + 1e-12, (name, options, k)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reverse", [False, True])
def test_windows_do_not_depend_on_padding(engine, reverse, monkeypatch):
    monkeypatch.setenv("OSTINATO_ENGINE", engine)
    W = (torch.randn(3, 3) / 2).requires_grad_()

    def step(h, x):
        return torch.tanh(x + h @ W)

    x, length, found = torch.randn(5, 2, 3), torch.tensor([5, 4]), []
    for T in (5, 6, 7, 8):
        xs = torch.cat([x, torch.full((T - 5, 2, 3), torch.nan)]).requires_grad_()
        init = torch.zeros(2, 3, requires_grad=True)
        last, ys = scan(step, init, xs, lengths=length, reverse=reverse, truncate=2)
        loss = ys[:5].sin().sum() + last.sum()
        d_init, d_xs = torch.autograd.grad(loss, [init, xs])
        found.append((last, ys[:5], d_init, d_xs[:5]))
    for each in found[1:]:
        assert all(map(torch.equal, each, found[0]))


def test_windows_that_are_none():
    W = torch.randn(3, 3, requires_grad=True)

    def step(h, x):
        return torch.tanh(x + h @ W)

    for wrong in (0, -3):
        with pytest.raises(ValueError, match=f"truncate is {wrong}; wanted at least 1"):
            scan(step, torch.zeros(2, 3), torch.zeros(4, 2, 3), truncate=wrong)
    for wrong in (1.5, True, "3"):
        with pytest.raises(TypeError, match="whole number of steps"):
            scan(step, torch.zeros(2, 3), torch.zeros(4, 2, 3), truncate=wrong)


# ------------------------------------------------------------------------------ what has a gradient

LOSSES = [
    lambda carry, ys: ys[0].sum() + ys[1].sum(),  # expanded gradients
    lambda carry, ys: ys[0][40].square().sum(),
    lambda carry, ys: carry[0].square().sum(),
    lambda carry, ys: carry[1].sum() * 2,
    lambda carry, ys: (ys[1].square() * ys[0].detach()).sum() + carry[1].sum(),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_some_of_the_outputs(loss):
    reverse = loss in LOSSES[1::2]
    case = make("lstm_chunk", torch.float32, 5, 7)
    init, xs = case.init(9), case.xs(300, 9)
    memory = least_memory(case, init, xs)
    whole = gradients_of(scan, case, init, xs, loss, reverse=reverse)
    ours = gradients_of(scan, case, init, xs, loss, reverse=reverse, memory=memory)
    assert_same_gradients(ours, whole)


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


def test_leaves_of_a_carry_that_take_turns_and_counters(segments):
    """A flag in the carry is of another type; a leaf that only counts has no gradient."""
    W = torch.randn(4, 4, requires_grad=True)

    def step(carry, x):
        a, b, n, flag = carry
        new = torch.tanh(a @ W + x + n)
        return (b, new, (n + 1) * 0.5, new > 0), (a * flag, flag)

    def run(memory):
        init = (
            torch.ones(2, 4, requires_grad=True),
            torch.zeros(2, 4, requires_grad=True),
            torch.zeros(2, 4),
            torch.zeros(2, 4, dtype=torch.bool),
        )
        xs = torch.sin(torch.arange(2400.0).view(300, 2, 4)).requires_grad_()
        carry, (y, flags) = scan(step, init, xs, memory=memory)
        assert flags.dtype == torch.bool and carry[3].dtype == torch.bool
        assert not carry[2].requires_grad
        d = torch.autograd.grad(y.square().sum() + carry[0].sum(), [W, *init[:2], xs])
        return [*carry, y, flags, *d]

    assert all(torch.equal(a, b) for a, b in zip(run(80_000), run(None), strict=True))
    assert max(segments) > 1


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
    memory = least_memory(case, init, xs)
    xs = xs.requires_grad_()
    for budget in (memory, memory * 2):
        plan = explain(case.step, init, xs, memory=budget).memory
        scan(case.step, init, xs, memory=budget)
        assert plan is not None and segments[-1] == plan.n_segments


def test_tapes_of_all_segments_have_room_for_the_longest(monkeypatch):
    """So that each takes the place of the one before. The checkpoints lie in one piece a leaf."""
    case = make("lstm_chunk", torch.float32, 5, 7)
    init, xs = case.init(9), case.xs(997, 9)
    memory = 2 * least_memory(case, init, xs)
    lengths, rooms, pieces = set(), set(), set()
    forward, backward = CompiledStep.forward, SegmentedRun.backward

    def play_forward(self, given, *others, room_steps=0, **options):
        lengths.add(len(given[-1]))
        rooms.add(max(len(given[-1]), room_steps))
        return forward(self, given, *others, room_steps=room_steps, **options)

    def play_backward(run, *others):
        pieces.update(t.untyped_storage().data_ptr() for carry in run.checkpoints for t in carry)
        return backward(run, *others)

    monkeypatch.setattr(CompiledStep, "forward", play_forward)
    monkeypatch.setattr(SegmentedRun, "backward", play_backward)
    play(scan, case, init, xs, memory=memory)
    assert len(lengths) == 2 and rooms == {max(lengths)} and len(pieces) == 2


@pytest.mark.parametrize("memory", [0, -1, "0MB", "64 parsecs", "MB", "-3MB", ""])
def test_budgets_that_are_none(memory):
    with pytest.raises(ValueError, match="memory is"):
        bytes_in(memory)
    with pytest.raises(TypeError, match="memory is"):
        bytes_in(1.5)


def test_budgets():
    given = {"64MB": 64_000_000, "1.5 GiB": 3 << 29, "10kB": 10_000, "7": 7, "2 MiB": 2 << 20, 5: 5}
    assert {text: bytes_in(text) for text in given} == given


def test_a_run_that_does_not_fit_is_reported_before(monkeypatch):
    """Where the tape has 256 MB or more, the memory of the machine is asked for."""
    layer = nn.LSTM(1, 128)
    x = torch.zeros(2100, 64, 1)
    monkeypatch.setattr(machine, "available_memory", lambda: 200_000_000)
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
    memory = least_memory(case, tuple(leaves[:2]), leaves[2])
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


@since((2, 13), "hooks of a leaf that a Function saves under such hooks")
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
    memory = least_memory(case, init, xs, dim=1)
    assert_same_bits(
        play(scan, case, init, xs, dim=1, memory=memory), play(scan, case, init, xs, dim=1), "dim=1"
    )
    with torch.no_grad():
        assert torch.equal(total(within()), total(plain()))


def test_the_engine_of_the_definition(monkeypatch):
    """NumPy's: equal within rounding, since it sums in another order."""
    case = make("lstm_chunk", torch.float64, 3, 4)
    init, xs = case.init(3), case.xs(60, 3)
    plain = play(scan, case, init, xs)
    monkeypatch.setenv("OSTINATO_ENGINE", "reference")
    memory = least_memory(case, init, xs)
    assert_close(play(scan, case, init, xs, memory=memory), plain, 1e-12)
