"""What `scan` means and what it refuses, the same whichever engine plays."""

from __future__ import annotations

import functools
from collections import OrderedDict, namedtuple
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils import _pytree as pytree

from ostinato import scan
from zoo.playing import ENGINES, assert_close, loop, play, rows_apart
from zoo.steps import Case, make
from zoo.suites import draws

pytestmark = pytest.mark.filterwarnings("ignore:.*was recorded")  # one code at many sizes: meant

D = torch.float64
T, B, F, H = 6, 4, 3, 3  # F = H, so that a state can also be an input


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    monkeypatch.setenv("OSTINATO_ENGINE", request.param)
    return request.param


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def rnn() -> tuple[Any, Tensor, Tensor]:
    U = normal(F, H, seed=1).requires_grad_()
    W = normal(H, H, seed=2).requires_grad_()
    return (lambda h, x: torch.tanh(x @ U + h @ W)), U, W


def assert_equal(ours: Any, theirs: Any) -> None:
    """The same structure and shapes, and values but for rounding."""
    assert pytree.tree_structure(ours) == pytree.tree_structure(theirs)
    pairs = list(zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True))
    for a, b in pairs:
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------- the definition


def test_a_sum_over_time(engine):
    """No helper, no reference: numbers that anyone can check."""
    xs = torch.tensor([[[1.0]], [[2.0]], [[3.0]]])
    total, sums = scan(lambda total, x: total + x, torch.tensor([[10.0]]), xs)
    assert total.tolist() == [[16.0]]
    assert sums.tolist() == [[[11.0]], [[13.0]], [[16.0]]]


def test_reverse_plays_from_the_end_and_keeps_the_order_of_xs(engine):
    xs = torch.tensor([[[1.0]], [[2.0]], [[3.0]]])
    total, sums = scan(lambda total, x: total + x, torch.tensor([[10.0]]), xs, reverse=True)
    assert total.tolist() == [[16.0]]
    assert sums.tolist() == [[[16.0]], [[15.0]], [[13.0]]]


@pytest.mark.parametrize("reverse", [False, True])
def test_values_and_gradients_are_those_of_a_loop(engine, reverse):
    step, U, W = rnn()
    case = Case(step, [U, W], lambda n: None, lambda n: None)
    init, xs = normal(B, H), normal(T, B, F, seed=3)
    ours = play(scan, case, init, xs, reverse=reverse)
    assert_close(ours, play(loop, case, init, xs, reverse=reverse), 1e-12)


@pytest.mark.parametrize(
    "dim, reverse", [(0, True), (1, False), (2, True), (-1, False), (-2, True), (-3, False)]
)
def test_time_lies_along_any_axis(engine, dim, reverse):
    step, *_ = rnn()
    init, xs = normal(B, H), normal(T, B, F, seed=3)
    carry, ys = scan(step, init, xs.movedim(0, dim), dim=dim, reverse=reverse)
    expected_carry, expected_ys = loop(step, init, xs, reverse=reverse)
    assert_equal(carry, expected_carry)
    assert_equal(ys, expected_ys.movedim(0, dim))


def test_outputs_of_other_ranks_have_time_at_dim_too(engine):
    def step(h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(h + x)
        return h, {"row": h.sum(1), "wide": h[:, None, :] * x[:, :, None]}

    init, xs = normal(B, H), normal(T, B, F, seed=3)
    _, ys = scan(step, init, xs.movedim(0, 1), dim=1)
    assert ys["row"].shape == (B, T)
    assert ys["wide"].shape == (B, T, F, H)
    _, expected = loop(step, init, xs)
    assert_equal(ys, {name: y.movedim(0, 1) for name, y in expected.items()})


# ---------------------------------------------------------------------------------- structures


def _pair(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.tanh(h + x), 0.5 * h


class State(NamedTuple):
    h: Tensor
    c: Tensor


STRUCTURES = {
    "tensor": (lambda h: h, lambda c, x: torch.tanh(c + x)),
    "one in a tuple": (lambda h: (h,), lambda c, x: (torch.tanh(c[0] + x),)),
    "tuple": (lambda h: (h, 2 * h), lambda c, x: (torch.tanh(c[0] + x), c[0] + 0.5 * c[1])),
    "list": (lambda h: [h, 2 * h], lambda c, x: [torch.tanh(c[0] + x), c[0] + 0.5 * c[1]]),
    "dict": (
        lambda h: {"h": h, "c": 2 * h},
        lambda c, x: {"h": torch.tanh(c["h"] + x), "c": c["h"] + 0.5 * c["c"]},
    ),
    "ordered dict": (
        lambda h: OrderedDict(h=h, c=2 * h),
        lambda c, x: OrderedDict(h=torch.tanh(c["h"] + x), c=c["h"] + 0.5 * c["c"]),
    ),
    "named tuple": (
        lambda h: State(h, 2 * h),
        lambda c, x: State(torch.tanh(c.h + x), c.h + 0.5 * c.c),
    ),
    "nested": (
        lambda h: {"a": (h, [2 * h]), "b": h[:, :1]},
        lambda c, x: {"a": (torch.tanh(c["a"][0] + x), [c["a"][0] + c["b"]]), "b": c["b"] * 0.9},
    ),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_any_structure_of_carry_is_handed_on_and_given_back(engine, name):
    make_init, step = STRUCTURES[name]
    init, xs = make_init(normal(B, H)), normal(T, B, F, seed=3)
    assert_equal(scan(step, init, xs), loop(step, init, xs))


@pytest.mark.parametrize("name", STRUCTURES)
def test_any_structure_of_carry_with_an_output_of_its_own(engine, name):
    make_init, step = STRUCTURES[name]
    init, xs = make_init(normal(B, H)), normal(T, B, F, seed=3)

    def with_output(carry: Any, x: Tensor) -> Any:
        return step(carry, x), [x.sum(1), {"first": pytree.tree_leaves(carry)[0]}]

    assert_equal(scan(with_output, init, xs), loop(with_output, init, xs))


@pytest.mark.parametrize("wrap", [tuple, list, lambda xs: dict(zip("abc", xs, strict=False))])
def test_any_structure_of_xs(engine, wrap):
    xs = wrap([normal(T, B, F, seed=3), normal(T, B, F, seed=4)])

    def step(h: Tensor, x: Any) -> Tensor:
        a, b = x.values() if isinstance(x, dict) else x
        return torch.tanh(h + a * b)

    assert_equal(scan(step, normal(B, H), xs), loop(step, normal(B, H), xs))


def test_a_dict_has_no_order(engine):
    def step(carry: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        h = torch.tanh(carry["h"] + x)
        return {"c": carry["c"] + h, "h": h}

    carry, ys = scan(step, {"h": normal(B, H), "c": normal(B, H, seed=1)}, normal(T, B, F))
    h, c = normal(B, H), normal(B, H, seed=1)
    for x in normal(T, B, F):
        h = torch.tanh(h + x)
        c = c + h
    assert_equal(carry["h"], h)
    assert_equal(carry["c"], c)
    assert_equal(ys["h"][-1], h)


# ------------------------------------------------------------------------- what a step returns


def test_two_tensors_for_a_carry_of_one_are_carry_and_output(engine):
    carry, ys = scan(_pair, normal(B, H), normal(T, B, F, seed=3))
    assert_equal((carry, ys), loop(_pair, normal(B, H), normal(T, B, F, seed=3)))
    assert not torch.allclose(carry, ys[-1])


def test_two_tensors_for_a_carry_of_two_are_the_new_carry_and_the_output(engine):
    init = normal(B, H), normal(B, H, seed=1)
    carry, ys = scan(lambda c, x: _pair(c[0], x), init, normal(T, B, F, seed=3))
    assert isinstance(carry, tuple) and isinstance(ys, tuple)
    assert_equal(carry, (ys[0][-1], ys[1][-1]))


def test_a_step_may_put_nothing_out(engine):
    carry, ys = scan(lambda h, x: (torch.tanh(h + x), ()), normal(B, H), normal(T, B, F))
    assert ys == ()
    assert_equal(carry, loop(lambda h, x: torch.tanh(h + x), normal(B, H), normal(T, B, F))[0])


def test_outputs_may_be_truth_values(engine):
    def step(h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(h + x)
        return h, (h > 0, h)

    _, (signs, states) = scan(step, normal(B, H), normal(T, B, F))
    assert signs.dtype == torch.bool
    assert torch.equal(signs, states > 0)


def test_outputs_may_be_inputs_states_and_constants(engine):
    def step(h: Tensor, x: Tensor) -> Any:
        return torch.tanh(h + x), (x, h, torch.ones_like(h))

    init, xs = normal(B, H), normal(T, B, F)
    carry, (same_xs, before, ones) = scan(step, init, xs)
    expected_carry, (_, expected_before, _) = loop(step, init, xs)
    assert torch.equal(same_xs, xs)
    assert_equal((carry, before), (expected_carry, expected_before))
    assert torch.equal(before[0], init)
    assert torch.equal(ones, torch.ones(T, B, H, dtype=D))


def test_outputs_share_no_memory(engine):
    """Not with each other, nor with the last carry, nor with what was given."""

    def step(h: Any, x: Tensor) -> Any:
        new = torch.tanh(h[0] + x)
        return (new, h[1]), (new, new, x, h[1])

    given = [normal(B, H, seed=1), normal(B, H, seed=2), normal(T, B, F, seed=3)]
    carry, ys = scan(step, tuple(given[:2]), given[2])
    others = [*carry, *given]
    kept = [t.clone() for t in (*ys, *others)]
    for i, y in enumerate(ys):
        y.zero_()
        kept[i].zero_()
        for t, wanted in zip((*ys, *others), kept, strict=True):
            assert torch.equal(t, wanted)
    carry, ys = scan(step, tuple(given[:2]), given[2])
    kept = [y.clone() for y in ys]
    carry[0].zero_()
    for y, wanted in zip(ys, kept, strict=True):
        assert torch.equal(y, wanted)


def test_shapes_of_every_rank(engine):
    cases = [
        (lambda h, x: torch.tanh(0.5 * h + x), normal(B), normal(T, B)),
        (lambda h, x: torch.tanh(h + x[:, None]), normal(B, H), normal(T, B)),
        (lambda h, x: torch.tanh(h + x), normal(B, 2, H), normal(T, B, 2, H)),
        (lambda h, x: torch.tanh(h + x.mean(1)), normal(B, H), normal(T, B, 5, H)),
    ]
    for step, init, xs in cases:
        assert_equal(scan(step, init, xs), loop(step, init, xs))


# ---------------------------------------------------------------------------- lengths and resets


def ragged_case(
    reverse: bool,
    with_lengths: bool,
    with_resets: bool,
    with_restart: bool,
    seed: int,
    rows: int = B,
    steps: int = T,
) -> tuple[Case, Any, Any, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    step, U, W = rnn()
    options: dict[str, Any] = {"reverse": reverse}
    leaves = [U, W]
    if with_lengths:
        options["lengths"] = torch.from_numpy(rng.integers(0, steps + 1, rows))
        options["lengths"][int(rng.integers(rows))] = steps
    if with_resets:
        options["resets"] = torch.from_numpy(rng.random((steps, rows)) < 0.3)
        if with_restart:
            options["restart"] = normal(1, H, seed=seed).requires_grad_()
            leaves.append(options["restart"])
    case = Case(step, [U, W], lambda n: None, lambda n: None, leaves)
    return case, normal(rows, H, seed=seed), normal(steps, rows, F, seed=seed + 1), options


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("what", ["lengths", "resets", "restart", "lengths and restart"])
def test_lengths_and_resets_against_rows_played_apart(engine, what, reverse):
    for seed in range(3):
        case, init, xs, options = ragged_case(
            reverse, "lengths" in what, what != "lengths", "restart" in what, seed
        )
        expected = play(rows_apart, case, init, xs, **options)
        if "lengths" in what:  # what lies in the padding must not matter
            for b, n in enumerate(options["lengths"]):
                xs[n:, b] = float("nan")
        assert_close(play(scan, case, init, xs, **options), expected, 1e-12)


@draws(40)
@given(
    seed=st.integers(0, 10_000),
    reverse=st.booleans(),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    rows=st.integers(1, 9),
    steps=st.integers(1, 5),
)
def test_any_lengths_and_resets(seed, reverse, flags, rows, steps):
    case, init, xs, options = ragged_case(reverse, *flags, seed, rows, steps)
    how = rows_apart if flags[0] or flags[1] else loop
    expected = play(how, case, init, xs, **options)
    assert_close(play(scan, case, init, xs, **options), expected, 1e-12)


@pytest.mark.parametrize("lengths", [[0], [1], [6], [6, 1, 0], [2, 6, 1, 1, 0]])
@pytest.mark.parametrize(
    "name, reverse", [("gru_reset_after", False), ("lstm_chunk", True), ("stack_of_three", False)]
)
def test_steps_of_one_row_and_of_none(name, lengths, reverse):
    """Hidden units that fill the registers of any machine: there one row has ways of its own."""
    T, B = 6, len(lengths)
    case = make(name, torch.float64, 3, 64)
    init, xs = case.init(B), case.xs(T, B)
    ours = play(scan, case, init, xs, lengths=lengths, reverse=reverse)
    assert_close(ours, play(rows_apart, case, init, xs, lengths=lengths, reverse=reverse), 1e-12)


def test_resets_do_the_same_along_another_axis(engine):
    step, *_ = rnn()
    init, xs = normal(B, H), normal(T, B, F)
    resets = normal(T, B, seed=5) > 0.5
    lengths = [T, 0, 3, 1]
    carry, ys = scan(step, init, xs, lengths=lengths, resets=resets)
    for dim in (1, 2, -1, -2):
        moved = scan(step, init, xs.movedim(0, dim), dim=dim, lengths=lengths, resets=resets)
        assert_equal(moved, (carry, ys.movedim(0, dim)))


def test_a_reset_selects_and_never_multiplies(engine):
    """A state that overflowed in one segment is forgotten by the next, and so is its gradient."""
    step, _, W = rnn()
    init = normal(B, H).fill_(float("inf")).requires_grad_()
    xs = normal(T, B, F).requires_grad_()
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[0] = True
    carry, ys = scan(step, init, xs, resets=resets)
    assert_equal((carry, ys), loop(step, torch.zeros(B, H, dtype=D), xs))
    d_init, d_W = torch.autograd.grad(ys.sum(), [init, W])
    assert not d_init.any()
    assert torch.isfinite(d_W).all()


def test_a_row_without_steps_keeps_its_carry(engine):
    step, _, W = rnn()
    init, xs = normal(B, H).requires_grad_(), normal(T, B, F).requires_grad_()
    carry, ys = scan(step, init, xs, lengths=[0] * B)
    assert torch.equal(carry, init)
    assert not ys.any()
    d_init, d_xs, d_W = torch.autograd.grad(
        carry.sum() + ys.sum(), [init, xs, W], allow_unused=True
    )
    assert torch.equal(d_init, torch.ones(B, H, dtype=D))
    assert d_xs is None or not d_xs.any()
    assert d_W is None or not d_W.any()


def test_nothing_flows_back_from_the_padding(engine):
    step, U, W = rnn()
    init, xs = normal(B, H).requires_grad_(), normal(T, B, F).requires_grad_()
    lengths = [T, 0, 3, 1]
    _, ys = scan(step, init, xs, lengths=lengths)
    weights = torch.ones_like(ys)
    quiet = torch.autograd.grad(ys, [U, W, init, xs], weights, retain_graph=True)
    for b, n in enumerate(lengths):
        weights[n:, b] = float("nan")
        assert not quiet[3][n:, b].any()
    loud = torch.autograd.grad(ys, [U, W, init, xs], weights)
    for a, b in zip(quiet, loud, strict=True):
        assert torch.equal(a, b)


def test_a_step_undefined_at_zero_is_not_given_zeros_in_the_padding(engine):
    W = normal(H, H).requires_grad_()

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x / x.norm(dim=1, keepdim=True) + h @ W)

    init, xs = normal(B, H).requires_grad_(), normal(T, B, F)
    lengths = [T, 0, 3, 1]
    for b, n in enumerate(lengths):
        xs[n:, b] = 0
    xs.requires_grad_()
    carry, ys = scan(step, init, xs, lengths=lengths)
    grads = torch.autograd.grad(carry.sum() + ys.square().sum(), [W, init, xs])
    assert all(torch.isfinite(t).all() for t in (carry, ys, *grads))


def test_lengths_come_as_a_list_or_any_integers(engine):
    step, *_ = rnn()
    init, xs = normal(B, H), normal(T, B, F)
    wanted = scan(step, init, xs, lengths=[T, 0, 3, 1])
    for dtype in (torch.int64, torch.int32, torch.uint8):
        assert_equal(scan(step, init, xs, lengths=torch.tensor([T, 0, 3, 1], dtype=dtype)), wanted)
    assert_equal(scan(step, init, xs, lengths=np.array([T, 0, 3, 1])), wanted)


def test_restart_has_the_structure_of_init_and_its_gradient(engine):
    W = normal(H, H).requires_grad_()

    def step(carry: dict[str, Tensor], x: Tensor) -> Any:
        return {"h": torch.tanh(x + carry["h"] @ W), "c": carry["c"] * 0.5 + carry["h"]}, carry["h"]

    init = {"h": normal(B, H, seed=1), "c": normal(B, H, seed=2)}
    restart = {"h": normal(B, H, seed=3).requires_grad_(), "c": normal(H, seed=4).requires_grad_()}
    case = Case(step, [W], lambda n: None, lambda n: None, [W, *restart.values()])
    options = {"resets": normal(T, B, seed=5) > 0.3, "restart": restart}
    for reverse in (False, True):
        ours = play(scan, case, init, normal(T, B, F), reverse=reverse, **options)
        theirs = play(rows_apart, case, init, normal(T, B, F), reverse=reverse, **options)
        assert_close(ours, theirs, 1e-12)


def test_positional_arguments_follow_pytorch_and_the_rest_are_keywords():
    def add(h: Tensor, x: Tensor) -> Tensor:
        return h + x

    init, xs = normal(B, H), normal(T, B, F)
    with pytest.raises(TypeError):
        scan(add, init, xs, 1)
    assert_equal(scan(step=add, init=init, xs=xs), loop(add, init, xs))
    assert_equal(
        scan(functools.partial(lambda a, h, x: a * h + x, 0.5), init, xs),
        loop(lambda h, x: 0.5 * h + x, init, xs),
    )


def test_the_checkers_can_fail():
    """The helpers of these tests must notice a wrong value, gradient, shape or dtype."""
    step, U, W = rnn()
    case = Case(step, [U, W], lambda n: None, lambda n: None)
    init, xs = normal(B, H), normal(T, B, F, seed=3)

    def off_in_value(*args: Any, **options: Any) -> Any:
        carry, ys = loop(*args, **options)
        return carry, ys * (1 + 1e-11)

    def off_in_gradient(*args: Any, **options: Any) -> Any:
        carry, ys = loop(*args, **options)
        return carry, ys + 1e-6 * (ys - ys.detach())

    def off_in_dtype(*args: Any, **options: Any) -> Any:
        carry, ys = loop(*args, **options)
        return carry, ys.float().double().float()

    right = play(loop, case, init, xs)
    assert_close(right, play(loop, case, init, xs), 1e-12)
    for wrong in (off_in_value, off_in_gradient, off_in_dtype):
        with pytest.raises(AssertionError):
            assert_close(play(wrong, case, init, xs), right, 1e-12)
    resets = torch.ones(T, B, dtype=torch.bool)
    with pytest.raises(AssertionError):
        assert_close(play(rows_apart, case, init, xs, resets=resets), right, 1e-12)


SHAPES_OF_ONE_VALUE = {
    "heads": lambda v: v.view(-1, 2, 2),
    "one column": lambda v: v.sum(1, keepdim=True).squeeze(1),
    "an axis more": lambda v: v.unsqueeze(1),
    "a copy": lambda v: v.view(-1, 4, 1).clone(),
    "two": lambda v: (v, v.view(-1, 2, 2), v[:, None]),
}


@pytest.mark.filterwarnings("error")  # it is played by the engine
@pytest.mark.parametrize(
    "lengths, reverse", [(None, False), (None, True), ([5, 1, 3], True), ("one row", False)]
)
@pytest.mark.parametrize("name", SHAPES_OF_ONE_VALUE)
def test_an_output_that_is_the_carry_in_another_shape(name, reverse, lengths):
    W = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)

    def step(h, x):
        h = torch.tanh(x + h @ W)
        return h, SHAPES_OF_ONE_VALUE[name](h)

    n_rows = 1 if lengths == "one row" else 3
    init = torch.randn(n_rows, 4, dtype=torch.float64)
    options = {"reverse": reverse, "lengths": None if n_rows == 1 else lengths}
    how = rows_apart if options["lengths"] else loop
    if how is loop:
        del options["lengths"]
    for n_steps in (1, 5):
        if n_steps == 1 and "lengths" in options:
            continue
        xs = torch.randn(n_steps, n_rows, 4, dtype=torch.float64)
        found = []
        for play_it in (scan, how):
            last, ys = play_it(step, init, xs, **options)
            ys = ys if isinstance(ys, tuple) else (ys,)
            loss = last.sum() + sum(y.square().sum() for y in ys)
            found.append((last, ys, torch.autograd.grad(loss, W)))
        torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)


def test_outputs_and_carries_of_equal_values_in_different_shapes():
    def step(c, x):
        z = c[1] + x
        return (torch.tanh(z.view(-1, 4, 1)), torch.tanh(z)), torch.tanh(z)

    init, xs = (torch.zeros(5, 4, 1), torch.zeros(5, 4)), torch.randn(3, 5, 4)
    torch.testing.assert_close(scan(step, init, xs), loop(step, init, xs))


@pytest.mark.filterwarnings("error")
def test_the_keys_of_a_carry_may_come_in_any_order_at_any_depth():
    pair = namedtuple("pair", "of rest")

    def leaf():
        return torch.randn(2, 3, dtype=torch.float64)

    def turned(c, x):
        return {"c": c["c"] + x, "h": c["h"] * x}

    xs = torch.randn(4, 2, 3, dtype=torch.float64)
    for init, step in (
        ({"a": {"h": leaf(), "c": leaf()}}, lambda c, x: ({"a": turned(c["a"], x)}, x)),
        ([{"h": leaf(), "c": leaf()}, leaf()], lambda c, x: ([turned(c[0], x), c[1] + x], x)),
        (pair({"h": leaf(), "c": leaf()}, leaf()), lambda c, x: pair(turned(c.of, x), c.rest + x)),
    ):
        for _ in range(2):
            carry, _ = scan(step, init, xs)
            h, c = pytree.tree_leaves(init)[:2]
            found = pytree.tree_leaves(carry)[:2]
            for x in xs:
                h, c = h * x, c + x
            torch.testing.assert_close(found, [h, c])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "f",
    [lambda left, w: w / left, lambda left, w: (left * w).sqrt(), lambda left, w: (left * w).log()],
)
def test_no_pole_beyond_the_end_of_a_row_spoils_a_gradient(f, reverse):
    """The carry counts down: where a row ends the next step would divide by zero."""
    lengths = [3, 1, 2, 0]
    W = torch.ones(1, dtype=torch.float64, requires_grad=True)
    left = torch.tensor(lengths, dtype=torch.float64)[:, None]
    xs = torch.ones(3, 4, 1, dtype=torch.float64, requires_grad=True)

    def step(s, x):
        return (s[0] * 0.5 + x * W, s[1] - 1), x * f(s[1], W)

    init = (torch.zeros(4, 1, dtype=torch.float64), left)
    found = []
    for how in (scan, rows_apart):
        _, ys = how(step, init, xs, lengths=lengths, reverse=reverse)
        found.append(torch.autograd.grad(ys.sum(), [W, xs]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
