"""explain: what it says of a step is what scan does with it."""

import json

import pytest
import torch

import ostinato
from ostinato.engine import native

T, B, F, H = 20, 24, 3, 8


def lstm():
    cell = torch.nn.LSTMCell(F, H)

    def step(carry, x):
        h, c = cell(x, carry)
        return (h, c), h

    return step


def explained(rows=B):
    init = torch.zeros(rows, H), torch.zeros(rows, H)
    return ostinato.explain(lstm(), init, torch.randn(T, rows, F))


def test_products_and_operations_of_an_lstm():
    e = explained()
    assert (e.native, e.reason, e.operation, e.advice) == (True, "", "", "")
    assert [(p.depth, p.width) for p in e.loop_products] == [(F, 4 * H), (H, 4 * H)]
    assert e.hoisted == ()
    ops = ["add", "copy", "mul", "mul", "mul", *["sigmoid"] * 3, "tanh", "tanh"]
    assert sorted(e.loop_ops) == ops  # the output is a copy: see `Scale.separate`
    assert [(p.depth, p.width) for p in e.backward_loop_products] == [(4 * H, H)]
    assert (e.n_steps, e.n_rows) == (T, B)
    # the gates, and from their gradients those of h and of both weights (x wants none)
    assert e.flops == 2 * T * B * 4 * H * ((F + H) + H + (F + H))


def test_few_rows_take_the_product_of_x_out_of_the_loop():
    e = explained(2)
    assert [(p.depth, p.width) for p in e.hoisted] == [(F, 4 * H)]
    assert [(p.depth, p.width) for p in e.loop_products] == [(H, 4 * H)]


def test_memory():
    """What is said is what training takes: the gates of T steps, both states of T + 1."""
    e = explained()
    assert e.saved_bytes == 4 * B * (T * 4 * H + (T + 1) * 2 * H)
    step, init = lstm(), (torch.zeros(B, H, requires_grad=True), torch.zeros(B, H))
    xs = torch.randn(T, B, F, requires_grad=True)
    native.workspaces_of_the_process.cache_clear()
    _, ys = ostinato.scan(step, init, xs)
    ys.sum().backward()
    kept = native.workspaces_of_the_process().kept_bytes()
    assert kept == ostinato.explain(step, init, xs).engine_bytes


def test_the_expected_time_is_that_of_the_products():
    e = explained()
    rate = e.flops / (e.expected_ms / 1e3)
    assert 1e9 < rate < 1e13  # one FLOP a nanosecond; more than any processor has
    assert e.isa == native.best_isa()


def test_as_a_dict_and_as_text():
    e = explained()
    text = json.dumps(e.to_dict())  # plain values only
    assert json.loads(text)["loop_products"][0] == {"depth": F, "width": 4 * H}
    said = str(e)
    for words in ("native", f"T={T}", f"B={B}", f"[B, {H}] @ [{H}, {4 * H}]", "sigmoid", "MFLOP"):
        assert words in said


def choosing(h, x):
    return torch.tanh(h + torch.multinomial(torch.softmax(h, -1), 1))


def steered(h, x):
    return h + 1 if h.sum().item() > 0 else h - 1


@pytest.mark.parametrize(
    ("step", "reason", "advice"),
    [(choosing, "random", "in xs"), (steered, "Python value", "torch.where")],
)
def test_a_step_that_cannot_be_recorded(step, reason, advice):
    e = ostinato.explain(step, torch.zeros(B, H), torch.randn(T, B, F))
    assert not e.native
    assert reason in e.reason
    assert advice in e.advice
    assert e.reason in str(e)
    assert str(e).startswith("not native")
    assert e.flops == 0


def test_sums_begin_where_their_init_is_computed():
    cell = torch.nn.GRUCell(3, 4)

    def step(h, x):
        h = cell(x, h)
        return h, h

    made = ostinato.explain(step, torch.zeros(8, 4), torch.zeros(5, 8, 3))
    assert "copy" not in made.backward_loop_ops


def test_to_divide_by_a_power_of_two_is_to_multiply():
    def step(h, x):
        h = h / 4 + x / -0.5 + x / 3
        return h, h

    xs = torch.randn(5, 8, 3) * torch.logspace(-30, 37, 3)
    init = torch.zeros(8, 3)
    made = ostinato.explain(step, init, xs)
    assert sorted(made.loop_ops) == ["add", "add", "copy", "div", "fill", "mul_s", "mul_s"]
    h, expected = init, []
    for x in xs:
        h, _ = step(h, x)
        expected.append(h)
    assert torch.equal(ostinato.scan(step, init, xs)[1], torch.stack(expected))


def test_advice_on_rows_that_do_not_fit():
    found = ostinato.explain(
        lambda h, x: h, (torch.zeros(3, 3), torch.zeros(2, 3)), torch.ones(4, 2, 3)
    )
    assert not found.native and "rows of the batch as its first axis" in found.advice


def test_transforms():
    W = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    init, xs = torch.zeros(3, 4, dtype=torch.float64), torch.randn(5, 3, 4, dtype=torch.float64)

    def step(h, x):
        return torch.tanh(x + h @ W)

    found = ostinato.explain(step, init, xs).transforms
    assert "first use" in found["jvp"] and "rows" in found["vmap"]
    (first,) = torch.autograd.grad(ostinato.scan(step, init, xs)[0].sum(), W, create_graph=True)
    torch.autograd.grad(first.square().sum(), W)
    found = ostinato.explain(step, init, xs)
    assert "recorded: " in found.transforms["jvp"] and "under jvp" in str(found)
    drawn = ostinato.explain(lambda h, x: h * torch.rand_like(h) + x, init, xs)
    assert "random" in drawn.transforms["vmap"]
