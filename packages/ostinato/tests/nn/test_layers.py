"""RNN, GRU and LSTM against torch.nn's, in values and gradients, over the grid of options."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from layer_cases import KINDS, Case, assert_near, cases, gradients, tensors
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils import _pytree as pytree

import ostinato
from zoo.suites import one_in, since


def pair(kind: str, *args: Any, **kwargs: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """torch's layer and ours, with the same weights."""
    theirs = getattr(torch.nn, kind)(*args, **kwargs)
    ours = getattr(ostinato.nn, kind)(*args, **kwargs)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def played(layer: torch.nn.Module, case: Case, dtype: torch.dtype) -> tuple[Any, list[Any]]:
    """Results, and the gradients of x, hx and all parameters; numbers as float32 holds them."""
    x = case.x(torch.float32).to(dtype).requires_grad_()
    hx = pytree.tree_map_only(torch.Tensor, lambda h: h.to(dtype), case.hx(torch.float32))
    leaves = [leaf.requires_grad_() for leaf in tensors(hx)]
    results = layer(case.packed(x), hx)
    return results, gradients(results, [x, *leaves, *layer.parameters()])


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(case=cases())
def test_as_torch_in_float64(case):
    theirs, ours = case.layers(torch.float64)
    wanted, wanted_grads = played(theirs, case, torch.float64)
    got, grads = played(ours, case, torch.float64)
    assert_near(tensors(got), tensors(wanted), 1e-12)
    assert_near(grads, wanted_grads, 1e-12)
    assert type(got[0]) is type(wanted[0])
    if isinstance(got[0], PackedSequence):
        for mine, other in zip(got[0][1:], wanted[0][1:], strict=True):
            assert mine is other or torch.equal(mine, other)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_as_torch_in_float32(case):
    """Against float64. A sum of K products rounds by ε √K; that happens anew at each of n steps,
    and a parameter's gradient sums n·B of them. Starting weights (at most 1/√H each) hand an error
    on about undiminished; 4 is the room for the products in a gate and for tanh and σ."""
    _, ours = case.layers(torch.float32)
    exact, _ = case.layers(torch.float64)
    exact.load_state_dict(ours.state_dict())
    wanted, wanted_grads = played(exact, case, torch.float64)
    got, grads = played(ours, case, torch.float32)
    o = case.options
    n_terms = max(o["input_size"], 2 * o["hidden_size"]) + o["hidden_size"]
    n_steps = case.n_steps * o["num_layers"] * (2 if o["bidirectional"] else 1)
    bound = 4 * torch.finfo(torch.float32).eps * n_terms**0.5 * n_steps
    mine = [*tensors(got), *grads]
    bounds = [bound] * len(tensors(got)) + [bound * len(case.lengths)] * len(grads)
    for ours_is, exact_is, most in zip(
        mine, [*tensors(wanted), *wanted_grads], bounds, strict=True
    ):
        if exact_is.numel():
            magnitude = max(1.0, float(exact_is.detach().abs().max()))
            assert (ours_is.double() - exact_is).abs().max() <= most * magnitude


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["padded", "packed"])
def test_dropout_draws_as_torch(kind, form):
    theirs, ours = pair(kind, 3, 5, 3, dropout=0.4, bidirectional=True, dtype=torch.float64)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    if form == "packed":
        x = pack_padded_sequence(x, [3, 6, 1, 4], enforce_sorted=False)
    for mode in (True, False):
        theirs.train(mode), ours.train(mode)
        results = []
        for layer in (theirs, ours, ours):
            torch.manual_seed(7)
            results.append(tensors(layer(x)))
        assert_near(results[1], results[0], 1e-12)
        assert all(map(torch.equal, results[1], results[2]))
        assert torch.equal(results[1][0], ours(x)[0].data) is not mode  # another draw, or none


def test_dropout_drops_its_share():
    """The layer below gives ones, the layer above counts those that reach it, doubled."""
    rnn = ostinato.nn.RNN(1, 100, 2, dropout=0.5, nonlinearity="relu", bias=False)
    with torch.no_grad():
        for weight in rnn.parameters():
            weight.zero_()
        rnn.weight_ih_l0.fill_(1)
        rnn.weight_ih_l1.copy_(torch.eye(100))
    output, _ = rnn(torch.ones(50, 4, 1))
    assert set(output.unique().tolist()) == {0.0, 2.0}
    share = float((output == 0).float().mean())
    assert abs(share - 0.5) < 5 * 0.5 / output.numel() ** 0.5  # five standard deviations


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["padded", "batch_first", "unbatched", "packed"])
def test_all_states(kind, form):
    layer = getattr(ostinato.nn, kind)(3, 4, 2, bidirectional=True)
    layer.batch_first = form == "batch_first"
    lengths = [3, 5] if form == "packed" else [5, 5]
    x = torch.randn(5, 2, 3)
    if form == "unbatched":
        x = x[:, 0]
    elif form == "batch_first":
        x = x.transpose(0, 1)
    elif form == "packed":
        x = pack_padded_sequence(x, lengths, enforce_sorted=False)
    output, h_n, states = layer(x, return_all_states=True)

    plain = layer(x)
    assert all(map(torch.equal, tensors((output, h_n)), tensors(plain)))
    for state, end in zip(tensors(states), tensors(h_n), strict=True):
        if form == "batch_first":
            state = state.transpose(1, 2)
        state = state.reshape(4, 5, -1, 4)  # [L·D, T, B, H]
        for b, length in enumerate(lengths[: state.shape[2]]):
            ends = [state[i, 0 if i % 2 else length - 1, b] for i in range(4)]
            assert torch.equal(torch.stack(ends), end.reshape(4, -1, 4)[:, b])
    if form == "padded":  # the top layer's states are the output
        assert torch.equal(torch.cat([*tensors(states)[0][2:]], -1), output)


def test_cell_states_of_all_steps():
    lstm = ostinato.nn.LSTM(3, 4, proj_size=2)
    x, hx = torch.randn(5, 2, 3), None
    _, _, (h, c) = lstm(x, return_all_states=True)
    assert h.shape == (1, 5, 2, 2) and c.shape == (1, 5, 2, 4)
    for t in range(5):
        _, hx = lstm(x[t : t + 1], hx)
        assert torch.equal(h[:, t], hx[0]) and torch.equal(c[:, t], hx[1])


def wrong_calls() -> list[tuple[Any, ...]]:
    h = torch.zeros(2, 2, 4)
    return [
        (torch.randn(5, 2, 2),),  # features
        (torch.randn(5, 2, 3, 1),),
        (torch.randn(3),),
        (torch.randn(0, 2, 3),),
        (torch.randn(5, 2, 3).double(),),
        (torch.randn(5, 2, 3), h[:1]),  # layers
        (torch.randn(5, 2, 3), h[:, :1]),  # rows
        (torch.randn(5, 2, 3), h[:, 0]),
        (torch.randn(5, 3), h),
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", range(len(wrong_calls())))
def test_errors_are_torchs(kind, call):
    input, *hx = wrong_calls()[call]
    if hx and kind == "LSTM":
        hx = [(hx[0], hx[0])]
    errors = []
    for layer in pair(kind, 3, 4, 2):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            layer(input, *hx)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_move_both_ways(kind):
    theirs, ours = pair(kind, 3, 4, 2, bidirectional=True)
    assert repr(theirs) == repr(ours)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    x = torch.randn(5, 2, 3)
    again = getattr(ostinato.nn, kind)(3, 4, 2, bidirectional=True)
    stored = io.BytesIO()
    torch.save(theirs.state_dict(), stored)
    stored.seek(0)
    again.load_state_dict(torch.load(stored, weights_only=True))
    wanted = ours(x)[0]
    assert torch.equal(again(x)[0], wanted)
    theirs.load_state_dict(again.state_dict())
    assert torch.equal(copy.deepcopy(ours)(x)[0], wanted)
    assert torch.equal(pickle.loads(pickle.dumps(ours))(x)[0], wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_under_autocast(kind):
    """Torch's own path; with resets each layer plays as outside."""
    theirs, ours = pair(kind, 3, 4, 2, bidirectional=True, batch_first=True)
    x, resets = torch.randn(2, 6, 3), torch.rand(2, 6) < 0.4
    x[1, 3:] = float("nan")
    wanted = ours(x, resets=resets)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours(x.bfloat16(), resets=resets)[0].isnan(), wanted.isnan())
        assert torch.equal(ours(x, resets=resets)[0].nan_to_num(), wanted.nan_to_num())
        try:
            expected = theirs(x[:1])[0]
        except RuntimeError as error:  # oneDNN has no such LSTM for some processors
            pytest.skip(f"PyTorch itself does not play it here: {error}")
        assert torch.equal(ours(x[:1])[0], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_on_torchs_own_path(kind):
    """Half precision is torch's; lengths and resets work there too."""
    ours = getattr(ostinato.nn, kind)(3, 4, 2, bidirectional=True, batch_first=True)
    x, lengths = torch.randn(3, 6, 3), [4, 0, 6]
    x[1] = float("nan")
    wanted, wanted_h_n = ours(x, lengths=lengths)
    half_wanted, _ = ours(x[::2])
    resets = torch.rand(2, 6) < 0.4
    reset_wanted = ours(x[::2], resets=resets)[0]
    ours, x = ours.bfloat16(), x.bfloat16()
    assert (ours(x[::2])[0] - half_wanted).abs().max() < 0.03  # bfloat16 has 8 bits, |y| ≤ 1
    got, h_n = ours(x, lengths=lengths)
    assert got.dtype == torch.bfloat16
    assert (got - wanted).abs().max() < 0.03
    assert all(
        (a - b).abs().max() < 0.05 for a, b in zip(tensors(h_n), tensors(wanted_h_n), strict=True)
    )
    assert (ours(x[::2], resets=resets)[0] - reset_wanted).abs().max() < 0.03
    grads = gradients((got.float(), h_n), list(ours.parameters()))
    assert not any(grad.isnan().any() for grad in grads)


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated, and tells of every shape it sees
@pytest.mark.parametrize("kind", KINDS)
def test_transforms_of_torch(kind):
    _, layer = pair(kind, 3, 4, 2)
    x = torch.randn(5, 2, 3)
    weights = {name: 2 * p.detach() for name, p in layer.named_parameters()}
    other = copy.deepcopy(layer)
    other.load_state_dict(weights)
    called = torch.func.functional_call(layer, weights, (x,))[0]
    assert torch.equal(called, other(x)[0]) and not torch.equal(called, layer(x)[0])
    many = torch.func.vmap(lambda x: layer(x)[0])(torch.stack([x, 2 * x]))
    assert_near([many[1]], [layer(2 * x)[0]], 1e-6)
    traced = torch.jit.trace(layer, (x,))
    longer = torch.randn(9, 2, 3)
    assert_near([traced(longer)[0]], [layer(longer)[0]], 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives(kind):
    layer = getattr(ostinato.nn, kind)(2, 3, dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x)[0], (x,))


@pytest.mark.parametrize("how", ["engine", "loop"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_hidden_state_of_one_layer(kind, how, monkeypatch):
    """It goes in and comes out as it is: values, both derivatives, changes in place."""
    if how == "loop":
        monkeypatch.setenv("OSTINATO_ENGINE", "eager")
    torch.manual_seed(0)
    ours = getattr(ostinato.nn, kind)(3, 2).double()
    theirs = getattr(torch.nn, kind)(3, 2).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 3, 3, dtype=torch.float64)
    leaves = [torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def ends(layer, *hx):
        output, h_n = layer(x, hx if kind == "LSTM" else hx[0])
        return output, *(h_n if kind == "LSTM" else (h_n,))

    hx = leaves[: 2 if kind == "LSTM" else 1]
    found = []
    for layer in (ours, theirs):
        output, *h_n = ends(layer, *hx)
        for h in h_n:
            assert h.shape == (1, 3, 2)
            if how == "engine":  # of the loop's own results tanh keeps some for its gradient
                h.mul_(2)
        value = output.square().sum() + sum(h.square().sum() for h in h_n)
        found.append((output, *h_n, *torch.autograd.grad(value, (*hx, *layer.parameters()))))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradgradcheck(lambda *hx: ends(ours, *hx), tuple(hx))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_pair_of_states_may_be_a_list(num_layers):
    layer, x = ostinato.nn.LSTM(3, 4, num_layers), torch.randn(5, 2, 3)
    hx = [torch.randn(num_layers, 2, 4) for _ in range(2)]
    wanted = layer(x, tuple(hx))
    found = layer(x, hx)
    packed = layer(torch.nn.utils.rnn.pack_padded_sequence(x, [5, 5]), hx)
    for ours in (found, packed):
        for a, b in zip(ours[1], wanted[1], strict=True):
            assert torch.equal(a, b)


def test_scripting_compiles_torchs_layer():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 4)
            self.cell = ostinato.nn.GRUCell(3, 4)

        def forward(self, x: torch.Tensor):
            return self.lstm(x)[0], self.cell(x[0])

    model, x = Model(), torch.randn(5, 2, 3)
    ostinato.nn.accelerate(model)
    wanted = model(x)
    assert_near(list(torch.jit.script(model)(x)), list(wanted), 1e-6)
    ostinato.nn.restore(model)  # scripting has put torch's layers into it
    assert type(model.lstm) is torch.nn.LSTM and type(model.cell) is torch.nn.GRUCell


class Seen(torch.Tensor):
    """A tensor that notes what is done with it, as those of per-sample gradients act on it."""

    functions: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.functions.append(getattr(func, "__name__", ""))
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("kind", [*KINDS, "RNNCell", "GRUCell", "LSTMCell"])
@pytest.mark.parametrize("place", ["input", "weights"])
def test_subclasses_of_tensor_see_torchs_operation(kind, place):
    cell = kind.endswith("Cell")
    operation = kind.replace("RNN", "rnn_tanh").replace("Cell", "_cell").lower()
    x = torch.randn(2, 3) if cell else torch.randn(5, 2, 3)
    results = []
    for layer in pair(kind, 3, 4):
        weights = {name: p.detach() for name, p in layer.named_parameters()}
        given = x
        if place == "input":
            given = x.as_subclass(Seen)
        else:
            weights = {name: w.as_subclass(Seen) for name, w in weights.items()}
        Seen.functions.clear()
        results.append(torch.func.functional_call(layer, weights, (given,)))
        assert operation in Seen.functions
    for mine, wanted in zip(tensors(results[1]), tensors(results[0]), strict=True):
        assert type(mine) is type(wanted) and torch.equal(mine, wanted)


@pytest.mark.filterwarnings("error")
def test_an_empty_batch():
    for kind in KINDS:
        theirs, ours = pair(kind, 3, 4)
        assert_near(tensors(ours(torch.randn(5, 0, 3))), tensors(theirs(torch.randn(5, 0, 3))), 0)


@since((2, 13), "the export of a layer, PyTorch's or ours")
@pytest.mark.parametrize("layer", one_in(3, [ostinato.nn.RNN, ostinato.nn.GRU, ostinato.nn.LSTM]))
@pytest.mark.filterwarnings("ignore:While compiling")
def test_a_layer_is_exported_as_torchs(layer):
    m, x = layer(4, 5), torch.randn(6, 3, 4)
    exported = torch.export.export(m, (x,), strict=True).module()
    torch.testing.assert_close(exported(x), m(x))


@pytest.mark.parametrize("layer", one_in(3, [ostinato.nn.RNN, ostinato.nn.GRU, ostinato.nn.LSTM]))
def test_a_layer_is_freed_though_its_weights_lead_to_it(layer):

    def alive() -> Any:
        m = layer(4, 5)
        m.clip = 1.0
        m.weight_hh_l0.register_hook(lambda g: g.clamp(-m.clip, m.clip))
        m(torch.randn(6, 3, 4))[0].sum().backward()
        return weakref.ref(m)

    m = alive()
    gc.collect()
    assert m() is None
