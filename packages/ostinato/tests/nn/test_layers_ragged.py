"""Rows that differ in time: lengths, packed and ragged input, resets."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from layer_cases import KINDS, assert_near, cases, gradients, tensors
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

import ostinato
import ostinato_learn
from zoo.suites import draws


@draws(150)
@given(case=cases(forms=("padded",), shortest=0))
def test_lengths_are_each_row_alone(case):
    theirs, ours = case.layers(torch.float64)
    ours_x, their_x = (case.x(torch.float64).requires_grad_() for _ in range(2))
    batch_first = case.options["batch_first"]
    hx = case.hx(torch.float64)
    zero = ours._zero_hidden(ours_x.transpose(0, 1) if batch_first else ours_x)
    h = zero if hx is None else hx
    rows = []
    for b, length in enumerate(case.lengths):
        x = their_x[b] if batch_first else their_x[:, b]
        hidden = pytree.tree_map(lambda leaf, b=b: leaf[:, b], h)
        output, ends = theirs(x[:length], hidden) if length else (x.new_zeros(0, 1), hidden)
        width = theirs(x)[0].shape[1]
        silence = x.new_zeros(case.n_steps - length, width)
        rows.append((torch.cat([output.reshape(length, width), silence]), ends))
    output = torch.stack([row[0] for row in rows], 0 if batch_first else 1)
    h_n = [torch.stack(ends, 1) for ends in zip(*(tensors(row[1]) for row in rows), strict=True)]

    got = ours(ours_x, hx, lengths=case.lengths)
    assert_near(tensors(got), [output, *h_n], 1e-12)
    if any(case.lengths):
        wanted_grads = gradients((output, h_n), [their_x, *theirs.parameters()])
        assert_near(gradients(got, [ours_x, *ours.parameters()]), wanted_grads, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", [float("nan"), float("inf"), 1e30])
def test_padding_reaches_nothing(kind, padding):
    layer = getattr(ostinato.nn, kind)(3, 4, 2, bidirectional=True, batch_first=True)
    lengths = torch.tensor([2, 5, 0, 3])
    clean = torch.randn(4, 5, 3)
    dead = torch.arange(5) >= lengths[:, None]
    results = []
    for filling in (0.0, padding):
        x = torch.where(dead[..., None], filling, clean).requires_grad_()
        played = layer(x, lengths=lengths)
        results.append([*tensors(played), *gradients(played, [x, *layer.parameters()])])
    assert all(map(torch.equal, *results))
    assert (results[0][0][dead] == 0).all()
    assert (results[0][-1 - len(list(layer.parameters()))][dead] == 0).all()  # gradient of x


def test_lengths_of_any_kind():
    gru = ostinato.nn.GRU(3, 4)
    x = torch.randn(5, 3, 3)
    wanted, _ = gru(x, lengths=[4, 0, 5])
    for lengths in (torch.tensor([4, 0, 5]), torch.tensor([4, 0, 5], dtype=torch.uint8), (4, 0, 5)):
        assert torch.equal(gru(x, lengths=lengths)[0], wanted)
    assert_near([gru(x[:, 0], lengths=4)[0]], [wanted[:, 0]], 1e-6)  # unbatched


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ([1, 2], "wanted 3 integers"),
        ([1.0, 2.0, 3.0], "wanted 3 integers"),
        ([True, False, True], "wanted 3 integers"),
        ([1, 6, 2], r"lengths\[1\] is 6; wanted 0 to 5"),
        ([1, 2, -1], r"lengths\[2\] is -1"),
    ],
)
def test_wrong_lengths(lengths, words):
    with pytest.raises(ValueError, match=words):
        ostinato.nn.GRU(3, 4)(torch.randn(5, 3, 3), lengths=lengths)


def test_lengths_that_are_no_numbers():
    with pytest.raises(TypeError, match="lengths is a str; wanted 3 integers"):
        ostinato.nn.GRU(3, 4)(torch.randn(5, 3, 3), lengths="123")


def test_lengths_beside_a_packed_input():
    packed = pack_padded_sequence(torch.randn(5, 2, 3), [5, 2])
    with pytest.raises(ValueError, match="brings its own"):
        ostinato.nn.GRU(3, 4)(packed, lengths=[5, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_ragged_is_packed(kind):
    layer = getattr(ostinato.nn, kind)(3, 4)
    rows = [torch.randn(length, 3) for length in (2, 6, 1)]
    output, h_n = layer(ostinato_learn.data.Ragged.from_list([row.numpy() for row in rows]))
    wanted, wanted_h_n = layer(pack_sequence(rows, enforce_sorted=False))
    assert torch.equal(output.data, wanted.data)
    assert torch.equal(output.unsorted_indices, wanted.unsorted_indices)
    assert all(map(torch.equal, tensors(h_n), tensors(wanted_h_n)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("restarts", [False, True])
def test_resets_split_the_sequence(kind, direction, restarts):
    layer = getattr(ostinato.nn, kind)(3, 4, bidirectional=True, dtype=torch.float64)
    zero = layer._zero_hidden(torch.zeros(1, 2, 3, dtype=torch.float64))
    hx = pytree.tree_map(torch.randn_like, zero)
    restart = pytree.tree_map(torch.randn_like, zero) if restarts else None
    other = restart if restarts else zero
    x = torch.randn(7, 2, 3, dtype=torch.float64, requires_grad=True)
    other_x = x.detach().clone().requires_grad_()
    resets = torch.zeros(7, 2, dtype=torch.bool)
    cuts = {0: [0, 3, 7], 1: [0, 2, 5, 7]}  # row → where its segments begin, and the end
    for b, starts in cuts.items():
        resets[starts[1:-1], b] = True
    output, h_n = layer(x, hx, resets=resets, restart=restart)

    half = slice(0, 4) if direction == "forward" else slice(4, 8)
    d = 0 if direction == "forward" else 1
    wanted = []
    for b, edges in cuts.items():
        segments = list(pairwise(edges))
        first = 0 if direction == "forward" else len(segments) - 1  # played from hx
        pieces = []
        for k, (begin, end) in enumerate(segments):
            start = hx if k == first else other
            start = pytree.tree_map(lambda leaf, b=b: leaf[:, b], start)
            piece, ends = layer(other_x[begin:end, b], start)
            pieces.append(piece[:, half])
            if k == (len(segments) - 1 if direction == "forward" else 0):
                for leaf, end_leaf in zip(tensors(h_n), tensors(ends), strict=True):
                    assert_near([leaf[d, b]], [end_leaf[d]], 1e-12)
        wanted.append(torch.cat(pieces))
    wanted = torch.stack(wanted, 1)
    assert_near([output[..., half]], [wanted], 1e-12)
    assert_near(
        gradients(output[..., half], [x, *layer.parameters()]),
        gradients(wanted, [other_x, *layer.parameters()]),
        1e-12,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_resets_lie_as_the_input(kind):
    layer = getattr(ostinato.nn, kind)(3, 4, 2, bidirectional=True)
    x, resets = torch.randn(6, 3, 3), torch.rand(6, 3) < 0.4
    zero = layer._zero_hidden(x)
    restart = pytree.tree_map(torch.randn_like, zero)
    lengths = [4, 6, 2]
    output, h_n = layer(x, resets=resets, restart=restart, lengths=lengths)

    batch_first = copy.deepcopy(layer)
    batch_first.batch_first = True
    swapped, swapped_h_n = batch_first(
        x.transpose(0, 1), resets=resets.T, restart=restart, lengths=lengths
    )
    assert torch.equal(swapped.transpose(0, 1), output)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    got, packed_h_n, states = layer(packed, resets=resets, restart=restart, return_all_states=True)
    padded, _ = pad_packed_sequence(got)
    assert_near([padded], [output], 1e-6)
    assert_near([torch.cat([*tensors(states)[0][2:]], -1)], [output], 1e-6)
    for b in range(3):
        row = pytree.tree_map(lambda leaf, b=b: leaf[:, b], restart)
        alone, alone_h_n = layer(x[:, b], resets=resets[:, b], restart=row, lengths=lengths[b])
        assert_near([alone], [output[:, b]], 1e-6)
        for leaves in zip(*map(tensors, (h_n, swapped_h_n, packed_h_n)), strict=True):
            assert_near([leaf[:, b] for leaf in leaves[1:]], [leaves[0][:, b]] * 2, 1e-6)
        assert_near(tensors(alone_h_n), [leaf[:, b] for leaf in tensors(h_n)], 1e-6)


def test_learned_restart():
    """One initial state for all rows broadcasts, and learns."""
    gru = ostinato.nn.GRU(3, 4)
    begin = torch.randn(1, 1, 4, requires_grad=True)
    resets = torch.zeros(5, 2, dtype=torch.bool)
    resets[3, 0] = True
    output, _ = gru(torch.randn(5, 2, 3), resets=resets, restart=begin)
    (gradient,) = torch.autograd.grad(output.sum(), begin)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"resets": torch.zeros(2, 5, dtype=torch.bool)}, r"shape \[2, 5\]; wanted .* \[5, 2\]"),
        ({"resets": torch.zeros(5, 2)}, "float32 of shape"),
        ({"restart": torch.zeros(1, 2, 4)}, "without resets="),
        (
            {"resets": torch.zeros(5, 2, dtype=torch.bool), "restart": torch.zeros(1, 3, 4)},
            r"restart has the shape \[1, 3, 4\]; wanted .* \[1, 2, 4\]",
        ),
    ],
)
def test_wrong_resets(arguments, words):
    with pytest.raises(ValueError, match=words):
        ostinato.nn.GRU(3, 4)(torch.randn(5, 2, 3), **arguments)
