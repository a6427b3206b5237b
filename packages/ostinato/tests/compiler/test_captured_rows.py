"""Captured tensors with a row for each of the batch: an encoder's states, a mask drawn before."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ostinato
from ostinato import tree
from ostinato.compiler.capture import record
from ostinato.compiler.capture.captured_rows import MOST_TRIES
from zoo.playing import assert_close, assert_native, counting, least_memory, loop, play
from zoo.small import assert_same
from zoo.steps import Case, Kit
from zoo.suites import one_in

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*was recorded"),
]

F, H, S, WORDS = 5, 6, 7, 11
Make = Callable[[Kit, int], Case]


def _weights(kit: Kit) -> tuple[Tensor, Tensor]:
    return kit.weight(F, H), kit.weight(H, H)


def _case(kit: Kit, step: Any, leaves: list[Tensor]) -> Case:
    return Case(step, leaves, lambda B: kit.normal(B, H) * 0.3, lambda B: kit.normal(B, F))


def _rows(kit: Kit, *shape: int) -> Tensor:
    return kit.normal(*shape).requires_grad_()


def _attention(kit: Kit, B: int) -> Case:
    (U, W), encoded = _weights(kit), _rows(kit, B, S, H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        scores = torch.bmm(encoded, (h @ W)[..., None]).squeeze(-1).softmax(-1)
        return torch.tanh(x @ U + torch.bmm(scores[:, None], encoded).squeeze(1))

    return _case(kit, step, [U, W, encoded])


def _masked_attention(kit: Kit, B: int) -> Case:
    """Two captured tensors, keys and values, and a mask of truth values."""
    (U, W), keys, values = _weights(kit), _rows(kit, B, S, H), _rows(kit, B, S, H)
    hidden = torch.arange(S) >= torch.arange(1, B + 1)[:, None]

    def step(h: Tensor, x: Tensor) -> Any:
        scores = torch.einsum("bh,bsh->bs", h @ W, keys).masked_fill(hidden, -torch.inf)
        attended = scores.softmax(1)
        h = torch.tanh(x @ U + torch.einsum("bs,bsh->bh", attended, values))
        return h, attended

    return _case(kit, step, [U, W, keys, values])


def _dropout(kit: Kit, B: int) -> Case:
    (U, W), mask = _weights(kit), (kit.uniform(B, H) > 0.3).to(kit.dtype) / 0.7

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ U + (h * mask) @ W)

    return _case(kit, step, [U, W])


def _scale_of_a_row(kit: Kit, B: int) -> Case:
    (U, W), scale = _weights(kit), _rows(kit, B)
    return _case(kit, lambda h, x: torch.tanh(x @ U + h @ W) * scale[:, None], [U, W, scale])


def _speaker(kit: Kit, B: int) -> Case:
    """A whole number for each row, an index of a table."""
    (U, W), table = _weights(kit), kit.weight(WORDS, H)
    ids = torch.arange(B) % WORDS
    return _case(kit, lambda h, x: torch.tanh(x @ U + h @ W + table[ids]), [U, W, table])


def _of_a_module(kit: Kit, B: int) -> Case:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = kit.module(nn.GRUCell, F + H, H)
            self.encoded = _rows(kit, B, S, H)

        def forward(self, h: Tensor, x: Tensor) -> Any:
            context = (self.encoded * h[:, None]).sum(-1).softmax(-1)[:, None] @ self.encoded
            h = self.cell(torch.cat([x, context[:, 0]], 1), h)
            return h, context[:, 0]

    decoder = Decoder()
    return _case(kit, decoder, [*decoder.parameters(), decoder.encoded])


def _keys_in_the_step(kit: Kit, B: int) -> Case:
    """What depends on captured tensors alone, written into the step (PyTorch's tutorial)."""
    (U, W), encoded = _weights(kit), _rows(kit, B, S, H)
    to_keys, v = kit.module(nn.Linear, H, H), kit.weight(H, 1)

    def step(h: Tensor, x: Tensor) -> Tensor:
        keys = to_keys(encoded)
        scores = (torch.tanh(keys + (h @ W)[:, None]) @ v).softmax(1)
        return torch.tanh(x @ U + (scores * encoded).sum(1))

    return _case(kit, step, [U, W, v, *to_keys.parameters(), encoded])


def _products_of_products(kit: Kit, B: int) -> Case:
    """Time first, through views and an activation; one product is an output, too."""
    (U, W), encoded = _weights(kit), _rows(kit, S, B, H)
    kernel = kit.weight(H, H)

    def step(h: Tensor, x: Tensor) -> Any:
        inner = torch.relu(torch.matmul(encoded, W)) @ kernel
        alike = torch.bmm(inner.transpose(0, 1), encoded.permute(1, 2, 0)).softmax(-1)
        attended = torch.einsum("sbh,bh->bs", inner, h)
        h = torch.tanh(x @ U + torch.bmm(alike, attended[..., None]).sum(1))
        return h, (inner[0], attended)

    return _case(kit, step, [U, W, kernel, encoded])


def _output_alone(kit: Kit, B: int) -> Case:
    """What only an output shows, beside a matrix of as many rows as the batch."""
    (U, W), encoded = _weights(kit), _rows(kit, B, H)
    square = kit.weight(B, H)

    def step(h: Tensor, x: Tensor) -> Any:
        return torch.tanh(x @ U + h @ W), (encoded * 2, h @ square.T)

    return _case(kit, step, [U, W, encoded, square])


def _view(kit: Kit, B: int) -> Case:
    (U, W), encoded = _weights(kit), _rows(kit, B, H, S)
    states = encoded.transpose(1, 2)  # not dense
    same = encoded[:, :, :1].squeeze(-1).expand(B, H)
    return _case(
        kit,
        lambda h, x: torch.tanh(x @ U + h @ W + (states * h[:, None]).mean(1)) * same,
        [U, W, encoded],
    )


def _time_first(kit: Kit, B: int) -> Case:
    """The layout of torch.nn: a sequence `[S, B, H]`, a last state `[L, B, H]`."""
    (U, W), encoded, last = _weights(kit), _rows(kit, S, B, H), _rows(kit, 2, B, H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        states = encoded.transpose(0, 1)
        context = ((states * h[:, None]).sum(-1).softmax(1)[..., None] * states).sum(1)
        return torch.tanh(x @ U + context @ W + last[-1])

    return _case(kit, step, [U, W, encoded, last])


def _masks_of_an_lstm(kit: Kit, B: int) -> Case:
    """A mask for each gate, of input and state: as many tensors as a step may have weights."""
    masks = [(kit.uniform(B, n) > 0.3).to(kit.dtype) / 0.7 for n in (F, H) for _ in range(4)]
    weights = [kit.weight(n, H) for n in (F, H) for _ in range(4)]

    def step(h: Tensor, x: Tensor) -> Tensor:
        i, f, g, o = (
            (x * masks[k]) @ weights[k] + (h * masks[4 + k]) @ weights[4 + k] for k in range(4)
        )
        return torch.sigmoid(o) * torch.tanh(torch.sigmoid(f) * h + torch.sigmoid(i) * g.tanh())

    return _case(kit, step, weights)


def _gathered(kit: Kit, B: int) -> Case:
    """An index may have fewer rows than what it reads: other batches than small ones tell."""
    (U, W), encoded = _weights(kit), _rows(kit, B, S, H)
    at = torch.arange(B).remainder(S)[:, None, None].expand(B, 1, H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ U + h @ W + encoded.gather(1, at).squeeze(1))

    return _case(kit, step, [U, W, encoded])


def _mean_of_some_rows(kit: Kit, B: int) -> Case:
    """A weight of each row, in quotients of sums over the batch."""
    (U, W), some = _weights(kit), kit.uniform(B) + 0.5

    def step(h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(x @ U + h @ W)
        return h, (h.square().sum(1) * some).sum() / some.sum()

    return _case(kit, step, [U, W])


def _beside_a_shared_leaf(kit: Kit, B: int) -> Case:
    """A step size without a batch in xs."""
    W, force = kit.weight(H, H), _rows(kit, B, H)
    return Case(
        lambda h, dt: h + dt * (torch.tanh(h @ W) - force),
        [W, force],
        lambda B: kit.normal(B, H) * 0.3,
        lambda B: kit.normal() * 0.1,
    )


STEPS: list[Make] = [
    _attention,
    _masked_attention,
    _dropout,
    _scale_of_a_row,
    _speaker,
    _of_a_module,
    _output_alone,
    _view,
    _time_first,
    _masks_of_an_lstm,
    _gathered,
    _keys_in_the_step,
    _products_of_products,
]
WITHOUT_LENGTHS: list[Make] = [_mean_of_some_rows, _beside_a_shared_leaf]


@pytest.mark.parametrize("make", STEPS + WITHOUT_LENGTHS)
def test_as_the_loop_plays_it(make: Make) -> None:
    """Of one row, of as many as F or H is, or as positions are captured, and of others."""
    for i, B in enumerate([1, 2, 3, F, H, S, 9]):
        if make is _mean_of_some_rows and B == 1:  # a single weight is as good as a number
            continue
        case = make(Kit(torch.float64), B)
        init, xs = case.init(B), case.xs(4, B)
        ours = play(ostinato.scan, case, init, xs, reverse=i % 2 == 1)
        assert_close(ours, play(loop, case, init, xs, reverse=i % 2 == 1), 1e-10)
        assert_native(case, init, xs)


def _by_the_loop(step: Any, init: Any, xs: Any, **options: Any) -> Any:
    """The loop over all rows at once: each row of the definition alone would meet those of all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSTINATO_ENGINE", "eager")
        return ostinato.scan(step, init, xs, **options)


@pytest.mark.parametrize("make", STEPS)
def test_rows_that_end_and_begin_anew(make: Make) -> None:
    B, T = 4, 6
    case = make(Kit(torch.float64), B)
    init, xs = case.init(B), case.xs(T, B)
    options = {"lengths": torch.tensor([6, 2, 5, 1])}
    for more in ({}, {"resets": torch.rand(T, B) > 0.6}):
        ours = play(ostinato.scan, case, init, xs, **options, **more)
        assert_close(ours, play(_by_the_loop, case, init, xs, **options, **more), 1e-10)
        assert_native(case, init, xs, **options, **more)


@pytest.mark.parametrize("make", STEPS)
def test_within_a_budget(make: Make) -> None:
    case = make(Kit(torch.float64), 4)
    init, xs = case.init(4), case.xs(40, 4)
    expected = play(ostinato.scan, case, init, xs)
    least = least_memory(case, init, xs)
    assert least is not None
    assert_close(play(ostinato.scan, case, init, xs, memory=least), expected, 1e-10)


def test_no_checkpoint_keeps_them() -> None:
    """Encoded sequences may be larger than all else; the loss of a long run fits beside them."""
    kit, T = Kit(torch.float64), 400
    W, encoded = kit.weight(H, H), _rows(kit, 4, 100, H)
    bytes_of = encoded.numel() * 8
    case = _case(kit, lambda h, x: torch.tanh(x @ U + (encoded * (h @ W)[:, None]).sum(1)), [W])
    U = kit.weight(F, H)
    case.leaves = [U, W, encoded]
    init, xs = case.init(4), case.xs(T, 4)
    least = least_memory(case, init, xs)
    plan = ostinato.explain(case.step, init, xs, memory=least).memory
    assert plan.n_segments > 10
    assert least < 20 * bytes_of
    ours = play(ostinato.scan, case, init, xs, memory=least)
    assert_close(ours, play(ostinato.scan, case, init, xs), 1e-10)


def test_what_no_step_raises_is_passed_on() -> None:
    """As a signal handler does, also while the tensors with rows are looked for."""
    case = _attention(Kit(torch.float64), 4)

    def step(h: Tensor, x: Tensor) -> Tensor:
        if len(h) == 5:
            raise TimeoutError("enough")
        return case.step(h, x)

    with pytest.raises(TimeoutError, match="enough"):
        ostinato.scan(step, case.init(4), case.xs(3, 4))


def test_a_step_that_is_refused_anyway_is_not_tried_for_long(monkeypatch) -> None:
    """Sixteen square matrices, as many rows as units, and a batch size in the step."""
    kit, tries = Kit(torch.float64), []
    reached = record._reached
    monkeypatch.setattr(record, "_reached", lambda *of: tries.append(of) or reached(*of))
    weights = [kit.weight(H, H) for _ in range(16)]

    def step(h: Tensor, x: Tensor) -> Tensor:
        for W in weights:
            h = torch.tanh(h @ W)
        return h + torch.zeros(6, 1, dtype=h.dtype)

    assert H == 6
    assert not ostinato.explain(step, kit.normal(H, H), kit.normal(3, H, F)).native
    forms, batches = 2, 2  # the batch may be the second axis; and two other sizes are tried
    assert 0 < len(tries) <= forms * batches * (MOST_TRIES + 1)


@pytest.mark.parametrize("make", STEPS)
def test_truncate_cuts_the_carry_alone(make: Make) -> None:
    """A captured tensor gets the gradient of all windows, though the carry holds it."""
    case = make(Kit(torch.float64), 4)
    init, xs = case.init(4), case.xs(7, 4)
    for reverse, lengths in ((False, None), (True, [7, 2, 5, 1])):
        options: dict[str, Any] = {"reverse": reverse, "lengths": lengths, "truncate": 2}
        ours = play(ostinato.scan, case, init, xs, **options)
        assert_close(ours, play(_by_the_loop, case, init, xs, **options), 1e-12)
    assert ostinato.explain(case.step, init, xs, truncate=2).native


def test_a_new_sequence_at_every_call() -> None:
    """An encoder's states are made anew; the step is recorded once, and a call calls it no more."""
    kit = Kit(torch.float64)
    U, W = _weights(kit)

    def decoding(encoded: Tensor) -> Any:
        return lambda h, x: torch.tanh(x @ U + (encoded * (h @ W)[:, None]).sum(1))

    for i in range(4):
        encoded = kit.normal(8, S, H).requires_grad_()
        step, init, xs = decoding(encoded), kit.normal(8, H), kit.normal(5, 8, F)
        with counting(step) as calls:
            _, ours = ostinato.scan(step, init, xs)
        assert i == 0 or calls == [0]
        pairs = (
            torch.autograd.grad(y.square().sum(), [encoded, U, W])
            for y in (ours, loop(step, init, xs)[1])
        )
        assert_same(*pairs)


def test_another_batch_is_not_recorded_anew_and_a_wrong_one_is_refused(monkeypatch) -> None:
    kit, recorded = Kit(torch.float64), []
    monkeypatch.setattr("ostinato.compiler.cache.count_recording", lambda *of: recorded.append(of))
    ostinato.forget(_attention(kit, 8).step)
    for B in (8, 4, 9, 8):
        case = _attention(kit, B)
        init, xs = case.init(B), case.xs(5, B)
        assert_close(play(ostinato.scan, case, init, xs), play(loop, case, init, xs), 1e-10)
        assert_native(case, init, xs)
    assert len(recorded) == 1
    with pytest.raises(RuntimeError, match="Expected size for first two dimensions"):
        ostinato.scan(case.step, case.init(4), case.xs(5, 4))


def test_frozen_and_thawed() -> None:
    case = _attention(Kit(torch.float64), 4)
    encoded = case.parameters[-1]
    init, xs = case.init(4), case.xs(5, 4)
    for needs in (True, False, True):
        encoded.requires_grad_(needs)
        ours = play(ostinato.scan, case, init, xs)
        assert_close(ours, play(loop, case, init, xs), 1e-10)
        assert bool(ours.d_parameters[-1].any()) is needs


def test_changed_between_forward_and_backward() -> None:
    case = _attention(Kit(torch.float64), 4)
    encoded = case.parameters[-1]
    _, ys = ostinato.scan(case.step, case.init(4), case.xs(5, 4))
    with torch.no_grad():
        encoded.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys.sum().backward()


def test_the_same_tensor_twice_and_then_two() -> None:
    """As keys and as values; which are one is a part of what was recorded."""
    kit = Kit(torch.float64)
    U, kept = kit.weight(F, H), {"keys": _rows(kit, 4, S, H), "values": _rows(kit, 4, S, H)}

    def step(h: Tensor, x: Tensor) -> Tensor:
        attended = (kept["keys"] * h[:, None]).sum(-1).softmax(1)[..., None]
        return torch.tanh(x @ U + (attended * kept["values"]).sum(1))

    keys, values = kept.values()
    for kept["keys"], kept["values"] in ((keys, keys), (keys, values), (values, values)):
        case = _case(kit, step, [U, *{id(t): t for t in kept.values()}.values()])
        init, xs = case.init(4), case.xs(5, 4)
        assert_close(play(ostinato.scan, case, init, xs), play(loop, case, init, xs), 1e-10)


def test_a_decoder_may_get_its_first_input_at_every_step() -> None:
    """Cho et al. 2014: the encoder's last state is the first carry, and a constant input."""
    kit = Kit(torch.float64)
    U, W = _weights(kit)
    for B in (4, 4, 3):
        summary, xs = kit.normal(B, H).requires_grad_(), kit.normal(5, B, F)

        def step(h: Tensor, x: Tensor, summary: Tensor = summary) -> Tensor:
            return torch.tanh(x @ U + (h + summary) @ W)

        leaves = [U, W, summary]
        for init in (summary, summary.detach() * 2, summary):
            found = [
                torch.autograd.grad(how(step, init, xs)[1].square().sum(), leaves)
                for how in (ostinato.scan, loop)
            ]
            assert_same(*found)
            assert ostinato.explain(step, init, xs).native


@pytest.mark.parametrize("make", one_in(3, [_attention, _keys_in_the_step, _products_of_products]))
def test_its_gradient_is_differentiable(make: Make) -> None:
    case = make(Kit(torch.float64), 2)
    init, xs = case.init(2), case.xs(3, 2)

    def f(*leaves: Tensor) -> Any:
        return tuple(tree.leaves(ostinato.scan(case.step, init, xs)[1]))

    assert torch.autograd.gradcheck(f, case.parameters)
    assert torch.autograd.gradgradcheck(f, case.parameters)


def test_what_depends_on_captured_tensors_alone_is_computed_once() -> None:
    case = _keys_in_the_step(Kit(torch.float64), 4)
    init, xs = case.init(4), case.xs(5, 4)
    U, W, v, weight, bias, encoded = case.parameters
    keys = encoded @ weight.T + bias

    def with_keys(h: Tensor, x: Tensor) -> Tensor:
        scores = (torch.tanh(keys + (h @ W)[:, None]) @ v).softmax(1)
        return torch.tanh(x @ U + (scores * encoded).sum(1))

    of_each_step, once = (ostinato.explain(s, init, xs) for s in (case.step, with_keys))
    assert of_each_step.loop_products == once.loop_products
    assert of_each_step.loop_ops == once.loop_ops


@pytest.mark.parametrize(
    "of", [nn.functional.silu, nn.functional.gelu, lambda t: t @ torch.eye(H).to(t)]
)
def test_what_is_changed_in_place_is_no_factor_of_a_product(of: Any) -> None:
    """Seen from the changes, not from the values: the first calls mask nothing."""
    kit = Kit(torch.float64)
    U, W = _weights(kit)
    for n_padded in (0, 0, 3):
        encoded, padding = _rows(kit, 4, S, H), torch.zeros(4, S, dtype=torch.bool)
        padding[:, S - n_padded :] = True

        def step(h: Tensor, x: Tensor, encoded: Tensor = encoded, padding: Tensor = padding) -> Any:
            inner = of(encoded)
            inner.masked_fill_(padding[:, :, None], 0.0)
            return torch.tanh(x @ U + ((inner @ W) * h[:, None]).sum(1))

        case = _case(kit, step, [U, W, encoded])
        init, xs = case.init(4), case.xs(3, 4)
        assert_close(play(ostinato.scan, case, init, xs), play(loop, case, init, xs), 1e-10)


def test_products_of_columns_and_in_inference_mode() -> None:
    kit = Kit(torch.float64)
    U, W = _weights(kit)
    columns = np.array([2, 1, 0, 0, 3, 5])
    with torch.inference_mode():
        for take in (columns, slice(None)):
            encoded = kit.normal(4, S, H)

            def step(h: Tensor, x: Tensor, encoded: Tensor = encoded, take: Any = take) -> Any:
                return torch.tanh(x @ U + ((encoded[:, :, take] @ W) * h[:, None]).sum(1))

            init, xs = kit.normal(4, H), kit.normal(3, 4, F)
            ours, theirs = ostinato.scan(step, init, xs), loop(step, init, xs)
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("how", ["in place", "no gradient", "a hook", "another for few rows"])
def test_a_product_that_the_step_does_more_with(how: str) -> None:
    """It is computed at every step, as written."""
    kit = Kit(torch.float64)
    (U, W), encoded, other = _weights(kit), _rows(kit, 6, S, H), kit.weight(H, H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(how != "no gradient"):
            of = other if how == "another for few rows" and len(h) < 4 else W
            keys = encoded @ of
            if how == "in place":
                keys[:, 0] += 1
            elif how == "a hook" and keys.requires_grad:
                keys.register_hook(lambda g: 2 * g)
        return torch.tanh(x @ U + (keys * h[:, None]).mean(1))

    case = _case(kit, step, [U, W, other, encoded])
    init, xs = case.init(6), case.xs(4, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of these the loop plays
        ours = play(ostinato.scan, case, init, xs)
    assert_close(ours, play(loop, case, init, xs), 1e-10)


def test_a_matrix_that_fits_by_chance_stays_one() -> None:
    """With as many rows as the batch, a matrix is summed over the rows as any other."""
    kit = Kit(torch.float64)
    U, W = kit.weight(F, H), kit.normal(H, H).requires_grad_()
    encoded = _rows(kit, H, S, H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ U + h @ W + (encoded * h[:, None]).sum(1))

    case = _case(kit, step, [U, W, encoded])
    init, xs = case.init(H), case.xs(4, H)
    assert_close(play(ostinato.scan, case, init, xs), play(loop, case, init, xs), 1e-10)
    assert len(ostinato.explain(step, init, xs).loop_products) == 1
