"""`LanguageNet`, and the loss that never holds all logits, beside PyTorch's cross-entropy."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F

from ostinato_learn.models import LanguageNet
from ostinato_learn.tasks.language.net import LanguageArchitecture, next_token_loss

# N, V, logits of a block: one block; whole blocks; a short last block; a row a block; rows of one
SHAPES = [(6, 5, 1000), (6, 5, 15), (7, 5, 15), (7, 5, 1), (1, 1, 1)]


def small(**arguments) -> LanguageNet:
    torch.manual_seed(0)
    given = {"n_tokens": 11, "cell": "lstm", "hidden_size": 6, "embedding_size": 6} | arguments
    return LanguageNet(**given)


def readout(N, V, dtype, D=4):
    g = torch.Generator().manual_seed(N * V)
    leaves = [torch.randn(*shape, generator=g, dtype=dtype) for shape in ((N, D), (V, D), (V,))]
    targets = torch.randint(V, (N,), generator=g)
    return [leaf.requires_grad_() for leaf in leaves], targets


@pytest.mark.parametrize(("N", "V", "block"), SHAPES)
@pytest.mark.parametrize("factor", [1.0, -2.5])
def test_the_loss_and_its_gradients_are_those_of_cross_entropy(N, V, block, factor):
    leaves, targets = readout(N, V, torch.float64)
    features, weight, bias = leaves
    wanted = F.cross_entropy(F.linear(features, weight, bias), targets)
    loss = next_token_loss(features, weight, bias, targets, block)
    # A few roundings of numbers near one, of sums over at most 7 · 5 terms.
    torch.testing.assert_close(loss, wanted, rtol=1e-14, atol=1e-14)
    ours = torch.autograd.grad(factor * loss, leaves)
    theirs = torch.autograd.grad(factor * wanted, leaves)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-14)


def test_the_loss_of_large_logits_is_finite():
    leaves, targets = readout(7, 5, torch.float32)
    leaves[0].data *= 1e4
    features, weight, bias = leaves
    loss = next_token_loss(features, weight, bias, targets, 10)
    torch.testing.assert_close(loss, F.cross_entropy(F.linear(features, weight, bias), targets))
    loss.backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_loss_holds_no_array_of_all_logits():
    """2,048 tokens of 5,000: all logits are 41 MB; cross_entropy holds three arrays of that size.

    The loss needs a block of 4 MB and little more beside its gradients of 7 MB.
    """
    script = """
        import torch
        from pathlib import Path
        import torch.nn.functional as F
        from ostinato_learn.tasks.language.net import next_token_loss

        features, weight = torch.randn(2048, 256), torch.randn(5000, 256)
        leaves = [features, weight, torch.zeros(5000)]
        for leaf in leaves:
            leaf.requires_grad_()
        targets = torch.randint(5000, (2048,))
        torch.mm(torch.randn(99, 99), torch.randn(99, 99))  # loads the library

        def plain(features, weight, bias, targets):
            return F.cross_entropy(F.linear(features, weight, bias), targets)

        def peak():  # in MB, of this program alone: ru_maxrss begins with the parent's
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

        peaks = [peak()]
        for loss in (next_token_loss, plain):
            torch.autograd.grad(loss(*leaves, targets), leaves)
            peaks.append(peak())
        print(peaks[1] - peaks[0], peaks[2] - peaks[1])
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ours, further = map(float, done.stdout.split())
    assert ours < 40
    assert further > 60


def test_without_gradients_none_is_computed():
    (features, weight, bias), targets = readout(7, 5, torch.float64)
    with torch.no_grad():
        loss = next_token_loss(features, weight, bias, targets)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, F.cross_entropy(F.linear(features, weight, bias), targets))


@pytest.mark.parametrize(
    "variant",
    [
        {"cell": "rnn"},
        {"cell": "gru", "embedding_size": 0},
        {"cell": "lstm", "tied": True},
        {"cell": "rnn", "tied": True, "embedding_size": 3},
        {"cell": "lstm", "num_layers": 2, "dropout": 0.5},
    ],
    ids=str,
)
def test_chunks_with_their_state_give_what_the_whole_gives(variant):
    net = small(**variant).double().eval()
    tokens = torch.randint(11, (3, 9))
    whole, end = net(tokens)
    first, carry = net(tokens[:, :4])
    rest, end_of_parts = net(tokens[:, 4:], carry)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    torch.testing.assert_close(end_of_parts, end)
    assert net.logits(whole).shape == (3, 9, 11)
    again = LanguageNet(**net.config).double().eval()
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again.logits(again(tokens)[0]), net.logits(whole), rtol=0, atol=0)


def test_a_reset_forgets():
    net = small().double()
    tokens = torch.randint(11, (2, 8))
    resets = torch.zeros(2, 8, dtype=torch.bool)
    resets[1, 5] = True
    _, carry = net(torch.randint(11, (2, 3)))
    states, _ = net(tokens, carry, resets)
    torch.testing.assert_close(states[0], net(tokens, carry)[0][0])
    torch.testing.assert_close(states[1, 5:], net(tokens[:, 5:])[0][1])
    assert not torch.allclose(states[1, 5:], net(tokens, carry)[0][1, 5:])


@pytest.mark.parametrize(
    "variant",
    [{}, {"embedding_size": 0}, {"tied": True}, {"tied": True, "embedding_size": 3}],
    ids=str,
)
def test_gradients_of_the_whole_network(variant):
    """All parameters receive the gradient that the plain loss gives."""
    net = small(**variant).double()
    tokens, targets = torch.randint(11, (3, 5)), torch.randint(11, (3, 5))
    features, _ = net(tokens)
    plain = F.cross_entropy(net.logits(features).flatten(0, 1), targets.flatten())
    wanted = torch.autograd.grad(plain, list(net.parameters()))
    came = torch.autograd.grad(net.loss(net(tokens)[0], targets), list(net.parameters()))
    for one, other in zip(came, wanted, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other)


def test_one_hot_is_an_embedding_by_the_identity():
    one_hot, embedded = small(embedding_size=0), small(embedding_size=11)
    embedded.body.load_state_dict(one_hot.body.state_dict())
    embedded.embedding.weight.data = torch.eye(11)
    tokens = torch.randint(11, (2, 4))
    torch.testing.assert_close(one_hot(tokens)[0], embedded(tokens)[0])


def test_tied_weights_are_one_tensor_and_are_saved_once():
    net = small(tied=True, embedding_size=3)
    assert net.output[0] is net.embedding.weight
    n = 11 * 3 + 11 + (6 * 3 + 3) + 4 * 6 * (3 + 6 + 2)
    assert sum(w.numel() for w in net.state_dict().values()) == n


def test_refusals():
    for arguments, message in [
        ({"tied": True, "embedding_size": 0}, "tied=True with embedding_size=0"),
        ({"embedding_size": -1}, "embedding_size=-1: wanted a whole number, 0 or more"),
        ({"n_tokens": 0}, "n_tokens=0: wanted"),
        ({"cell": "cnn"}, "cell='cnn': wanted one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            small(**arguments)
    for arguments, message in [
        ({"bidirectional": True}, "bidirectional=True in a language model"),
        ({"init": "notebook"}, "init='notebook' in a language model"),
    ]:
        with pytest.raises(ValueError, match=message):
            LanguageArchitecture(**arguments)
