"""Programs of steps with large rows: each array is read as seldom as it can be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_lowering import codes, programs
from torch import Tensor

from ostinato.engine.program import Code, Instruction, Kind, Program

B, F = 32, 6
HEADS, D = 2, 24  # a state of 1,152 columns
PLACES, H = 40, 30

pytestmark = pytest.mark.filterwarnings("error")


def weight(*shape: int) -> Tensor:
    return (torch.randn(*shape) / 4).requires_grad_()


def blocks(instructions: tuple[Instruction, ...], width: int) -> list[int]:
    """The number of instructions in each block of so many columns."""
    return [x.count for x in instructions if x.code == Code.BLOCK and x.n == width]


@pytest.fixture
def memory(monkeypatch) -> list[Program]:
    """Of gated linear attention: a state of matrices, read by a query of the same step."""
    Wq, Wk, Wv, Wa = (weight(F, HEADS * D) for _ in range(4))

    def step(S: Tensor, x: Tensor) -> Any:
        q, k, v, a = ((x @ W).view(-1, HEADS, D) for W in (Wq, Wk, Wv, Wa))
        S = torch.sigmoid(a)[..., None] * S + k[..., :, None] * v[..., None, :]
        return S, (q[..., None, :] @ S).flatten(1)

    return programs(step, torch.zeros(B, HEADS, D, D), torch.randn(5, B, F), monkeypatch)


def test_a_memory_is_read_in_the_loop_where_it_is_near(memory):
    forward, backward = memory
    for program in memory:
        assert Code.PRODUCT in codes(program.loop)
        assert Code.PRODUCT not in codes(program.after)
    # The query and all that is beside it: one product of x.
    assert codes(forward.loop).count(Code.GEMM) == 1
    assert Code.ROW_SUM not in codes(backward.after)


def test_an_outer_product_is_computed_where_it_is_added(memory):
    """Neither pass writes one, and each passes over its state once."""
    for program in memory:
        assert len(blocks(program.loop, HEADS * D * D)) == 1


def test_sums_follow_the_block_that_computes_their_operand(memory):
    """There the engine adds them up while the operand is in L1."""
    loop = memory[1].loop
    at = codes(loop).index(Code.BLOCK)
    while loop[at].n != HEADS * D * D:
        at += 1 + loop[at].count
    behind = codes(loop)[at + 1 + loop[at].count :]
    assert behind[:3] == [Code.ROW_SUM] * 3


def test_the_transpose_of_an_outer_product_moves_nothing(monkeypatch):
    """The gradient of what a product over the first axis reads."""
    Wk, Wv = weight(F, HEADS * D), weight(F, HEADS * D)

    def step(S: Tensor, x: Tensor) -> Any:
        k, v = (torch.tanh(x @ W).view(-1, HEADS, D) for W in (Wk, Wv))
        S = S + k[..., :, None] * (v - torch.einsum("bhkv,bhk->bhv", S, k))[..., None, :]
        return S, torch.einsum("bhkv,bhk->bhv", S, k).flatten(1)

    for program in programs(step, torch.zeros(B, HEADS, D, D), torch.randn(5, B, F), monkeypatch):
        assert Code.TAKE not in codes(program.loop)


def test_places_that_share_a_captured_vector_are_one_product(monkeypatch):
    """So is its gradient: attention over an encoded sequence is no product for each place."""
    W, v = weight(H, H), weight(H)

    def step(carry: Any, x: Tensor) -> Any:
        h, keys = carry
        scores = torch.softmax(torch.tanh(keys + (h @ W)[:, None]) @ v, 1)
        h = torch.tanh(x + (scores[..., None] * keys).sum(1))
        return (h, keys), h

    init = torch.zeros(B, H), torch.randn(B, PLACES, H)
    forward, backward = programs(step, init, torch.randn(5, B, H), monkeypatch)
    assert codes(forward.loop).count(Code.GEMM) == 1
    assert Code.PRODUCT in codes(forward.loop)
    assert codes(backward.after).count(Code.OUTER) == 1  # of W
    # Nobody wants the gradient of the sequence, and each step reads it where it was given.
    wide = [b for b in (*forward.buffers, *backward.buffers) if b.width == PLACES * H]
    assert not [b for b in wide if b.kind in (Kind.PAIR, Kind.TAPE)]


def test_gradients_of_a_captured_array_are_added_up_in_the_loop(monkeypatch):
    """A chunk of steps of them would be larger than the caches."""
    A = weight(HEADS * D, D)

    def step(h: Tensor, x: Tensor) -> Any:
        h = torch.exp(-A * A) * h + x[..., None]
        return h, h.sum(2)

    init = torch.zeros(B, HEADS * D, D)
    _, backward = programs(step, init, torch.randn(5, B, HEADS * D), monkeypatch)
    assert Code.COLUMN_SUM in codes(backward.loop)
    assert all(b.width < HEADS * D * D for b in backward.buffers if b.kind == Kind.CHUNK)
