"""Leaves that are not rows of real numbers: complex ones, and carries `[L, B, H]` of torch.nn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import ostinato
from zoo.complex_steps import COMPLEX
from zoo.playing import (
    assert_close,
    assert_native,
    assert_played_as_by_the_loop,
    loop,
    play,
    rows_apart,
)
from zoo.steps import Case, Kit, inputs
from zoo.suites import one_in

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*was recorded"),
]
ROOT = torch.tensor([1, 1j, -1, -1j], dtype=torch.complex128)
PUBLISHED = ("lru", "s4d", "unitary_rnn", "complex_and_real_leaves", "rotations_of_complex_inputs")


def _case(name: str, dtype: torch.dtype = torch.float64) -> Case:
    case = COMPLEX[name](Kit(dtype))
    ostinato.forget(case.step)  # expressions share one code
    return case


def assert_same_leaves(ours: Any, wanted: Any) -> None:
    ours, wanted = pytree.tree_flatten(ours), pytree.tree_flatten(wanted)
    assert ours[1] == wanted[1]
    for one, other in zip(ours[0], wanted[0], strict=True):
        assert one.dtype is other.dtype
        assert torch.allclose(one, other, rtol=0, atol=1e-12)  # roundings of 10⁻¹⁵


@pytest.mark.parametrize("name", one_in(2, PUBLISHED))
def test_complex_leaves_with_every_option(name):
    case = _case(name, torch.float32)
    init, xs = case.init(11), case.xs(4, 11)
    # Rounding of a few steps of some tens of operations each: 100 ε.
    assert_close(play(ostinato.scan, case, init, xs), play(loop, case, init, xs), 100 * 2**-23)
    case = _case(name)
    init, xs = case.init(4), case.xs(6, 4)
    resets = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) > 0.6
    for options in ({"lengths": [6, 3, 0, 5]}, {"resets": resets}, {"truncate": 2}):
        ours = play(ostinato.scan, case, init, xs, **options)
        assert_close(ours, play(rows_apart, case, init, xs, **options), 1e-10)
    plain = play(loop, case, init, xs)
    assert_close(play(ostinato.scan, case, init, xs, memory="1MB"), plain, 1e-10)
    batch_first = pytree.tree_map(lambda t: t.transpose(0, 1), xs)
    ours = play(ostinato.scan, case, init, batch_first, dim=1)
    assert_close(ours, play(loop, case, init, batch_first, dim=1), 1e-10)


@pytest.mark.parametrize(
    "step, of_carry, of_xs",
    [
        (lambda h, x: (0.9 * h + x.abs(), x * h), torch.float64, torch.complex128),
        (lambda h, x: (0.9 * h + x.abs(), h * x.real), torch.float64, torch.complex128),
        (lambda h, x: (0.9 * h + x.abs(), {"z": h * x, "r": h}), torch.float64, torch.complex128),
        (lambda h, x: (0.9j * h + x, h.real * x), torch.complex128, torch.float64),
        (lambda h, x: (0.9j * h + x, (h.imag, h)), torch.complex128, torch.float64),
    ],
)
@pytest.mark.parametrize("in_dict", [False, True])
def test_outputs_have_the_structure_of_the_step(step, of_carry, of_xs, in_dict):
    """Whichever of a carry that is one tensor, xs and y are complex."""
    ostinato.forget(step)

    def of_a_dict(carry: Any, x: Any) -> Any:
        h, y = step(carry["h"], x["x"])
        return {"h": h}, y

    h, x = torch.randn(4, 3, dtype=of_carry), torch.randn(7, 4, 3, dtype=of_xs)
    played, init, xs = (of_a_dict, {"h": h}, {"x": x}) if in_dict else (step, h, x)
    for dim in (0, 1):
        given = xs if dim == 0 else pytree.tree_map(lambda t: t.transpose(0, 1), xs)
        ours = ostinato.scan(played, init, given, dim=dim)
        assert_same_leaves(ours, loop(played, init, given, dim=dim))
    assert ostinato.explain(played, init, xs).native


def test_an_operation_that_pairs_do_not_have_says_what_to_write():
    W = torch.randn(4, 4, dtype=torch.complex128)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.linalg.solve(W, (h * x)[..., None])[..., 0]

    h, xs = torch.randn(3, 4, dtype=torch.complex128), torch.randn(5, 3, 4, dtype=torch.float64)
    found = ostinato.explain(step, h, xs)
    assert not found.native
    assert "of complex numbers: write it in pairs of real tensors" in found.reason


@pytest.mark.parametrize(
    "step, instead",
    [
        (
            lambda h, x: (0.9 * h + x, torch.complex(h + x, h - x)),
            lambda h, x: (0.9 * h + x, torch.view_as_real(torch.complex(h + x, h - x))),
        ),
        (
            lambda h, x: (0.9 * h + x, {"z": ROOT * h, "r": h}),
            lambda h, x: (0.9 * h + x, {"z": torch.view_as_real(ROOT * h), "r": h}),
        ),
    ],
)
def test_complex_outputs_of_real_leaves_play_the_loop_and_say_why(step, instead):
    ostinato.forget(step)
    h, xs = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 3, 4, dtype=torch.float64)
    found = ostinato.explain(step, h, xs)
    assert not found.native
    assert "the output is complex, and init and xs are real" in found.reason
    with pytest.warns(UserWarning, match="runs .* in the slow Python loop"):
        ours = ostinato.scan(step, h, xs)
    assert_same_leaves(ours, loop(step, h, xs))
    assert ostinato.explain(instead, h, xs).native
    carry, y = ostinato.scan(instead, h, xs)
    as_complex = pytree.tree_map(lambda t: torch.view_as_complex(t) if t.dim() == 4 else t, y)
    assert_same_leaves((carry, as_complex), loop(step, h, xs))


def test_a_tensor_made_of_a_complex_number():
    number = 0.3 + 0.1j

    def step(h: Tensor, x: Tensor) -> Tensor:
        return h * 0.5 + (x * torch.tensor(number, dtype=torch.complex128)).imag

    h, xs = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 3, 4, dtype=torch.float64)
    found = ostinato.explain(step, h, xs)
    assert found.native, found.reason
    assert_same_leaves(ostinato.scan(step, h, xs), loop(step, h, xs))
    number = -0.2 + 0.7j
    assert_same_leaves(ostinato.scan(step, h, xs), loop(step, h, xs))


def test_a_change_in_place_of_a_complex_view_plays_the_loop():
    """PyTorch itself has no gradient of the functional form."""

    def step(h: Tensor, x: Tensor) -> Tensor:
        z = h * x
        z[:, :2].mul_(2)
        return z

    h, xs = torch.randn(3, 4, dtype=torch.complex128), torch.randn(5, 3, 4, dtype=torch.float64)
    with pytest.warns(UserWarning, match="runs .* in the slow Python loop"):
        ours = ostinato.scan(step, h, xs)
    for a, b in zip(ours, loop(step, h, xs), strict=True):
        assert torch.equal(a, b)


# ---- the batch as the second axis of the carry


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_carries_of_layers_are_the_loop(kind):
    """The LSTM's output has torch.nn's axis of time, too."""
    kit = Kit(torch.float64)
    layers = kit.module(kind, kit.F, kit.H, 2)

    def init(B: int) -> Any:
        leaves = kit.normal(2, B, kit.H), kit.normal(2, B, kit.H)
        return leaves if kind is nn.LSTM else leaves[0]

    def step(carry: Any, x: Tensor) -> Any:
        y, carry = layers(x[None], carry)
        return carry, y if kind is nn.LSTM else y[0]

    case = Case(step, list(layers.parameters()), init, inputs(kit))
    assert_played_as_by_the_loop(case, (4, 9, 2, 1), T=5)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_over_windows_are_the_loop(kind: Any, dtype: torch.dtype) -> None:
    """A layer reads a window of three elements; of an LSTM in float32 PyTorch calls oneDNN's.

    Rounding adds up to some √(T · H) ε of values around 1.
    """
    kit = Kit(dtype)
    layer = kind(4, kit.H, 2, batch_first=True, bidirectional=True).to(dtype)

    def step(h: Tensor, x: Tensor) -> Any:
        y, _ = layer(x.view(x.shape[0], 3, 4) + h[:, :, None])
        return torch.tanh(y.mean(2)), y[:, -1]

    weights = list(layer.parameters())
    case = Case(step, weights, lambda B: kit.normal(B, 3), lambda B: kit.normal(B, 12))
    init, xs = case.init(4), case.xs(3, 4)
    ours, theirs = (play(how, case, init, xs) for how in (ostinato.scan, loop))
    assert_close(ours, theirs, 1e-4 if dtype is torch.float32 else 1e-10)
    assert_native(case, init, xs)


def test_the_batch_is_second_in_some_leaves_and_outputs() -> None:
    """As the state of torch.nn.LSTM beside a vector; also of as many layers as rows."""
    kit = Kit(torch.float64)
    lstm, linear = kit.module(nn.LSTM, kit.F, kit.H, 2), kit.module(nn.Linear, kit.H, kit.F)

    def init(B: int) -> Any:
        return (kit.normal(2, B, kit.H), kit.normal(2, B, kit.H)), kit.normal(B, kit.F)

    def step(carry: Any, x: Tensor) -> Any:
        state, a = carry
        y, state = lstm((x + a)[None], state)
        return (state, torch.tanh(linear(y[0]))), torch.stack([y[0], -y[0], a @ linear.weight])

    case = Case(step, [*lstm.parameters(), *linear.parameters()], init, inputs(kit))
    assert_played_as_by_the_loop(case, (4, 2, 3, 1), T=5)


def test_an_output_without_layers_where_another_step_of_the_code_has_them() -> None:
    def of(summed: bool) -> Any:
        def step(h: Tensor, x: Tensor) -> Any:
            first = torch.tanh(x + h[0])
            h = torch.stack([first, torch.tanh(first + h[1])])
            return h, (h[1].sum(-1).to(torch.int16) + 1 if summed else h)

        return step

    init, xs = torch.zeros(2, 3, 4), torch.ones(5, 3, 4)  # [L, B, H]
    ostinato.scan(of(False), init, xs)
    with pytest.warns(UserWarning, match="in the slow Python loop"):
        ours = ostinato.scan(of(True), init, xs)
    assert_same_leaves(ours, loop(of(True), init, xs))
