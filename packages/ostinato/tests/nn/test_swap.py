"""accelerate, restore and inspect over models as people have them."""

from __future__ import annotations

import abc
import copy
import logging
import pickle

import pytest
import torch
from layer_cases import assert_near, tensors
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_padded_sequence

import ostinato
from ostinato.nn import accelerate, inspect, restore

NAMES = ["RNN", "GRU", "LSTM"]


class Tagger(torch.nn.Module):
    """Two layers of which one is used twice, a cell, and a head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, 6)
        self.encoder = torch.nn.LSTM(6, 6, 2, batch_first=True)
        self.shared = torch.nn.GRU(6, 6, batch_first=True)
        self.again = self.shared
        self.cell = torch.nn.GRUCell(6, 6)
        self.head = torch.nn.Linear(6, 11)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x, _ = self.encoder(self.embed(tokens))
        x, h_n = self.again(self.shared(x)[0])
        return self.head(x + self.cell(h_n[0])[:, None])


TOKENS = torch.arange(24).reshape(4, 6) % 11


def reported(model: torch.nn.Module) -> dict[str, str]:
    """name → reason"""
    return {layer.name: layer.reason for layer in inspect(model)}


@pytest.mark.parametrize("name", NAMES)
def test_every_class_there_and_back(name):
    layer = getattr(torch.nn, name)(3, 4)  # the model itself is the layer
    before = vars(layer).copy()
    assert accelerate(layer) is layer
    assert type(layer) is getattr(ostinato.nn, name)
    assert isinstance(layer, getattr(torch.nn, name))
    assert restore(layer) is layer
    assert type(layer) is getattr(torch.nn, name)
    assert vars(layer) == before


def test_only_classes_change():
    model = Tagger()
    parameters = list(model.parameters())
    modules = list(model.modules())
    wanted = model(TOKENS)
    accelerate(model)
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    assert [id(m) for m in model.modules()] == [id(m) for m in modules]
    assert model.again is model.shared and model.head.weight is model.embed.weight
    assert_near([model(TOKENS)], [wanted], 1e-5)
    assert {name for name, reason in reported(model).items() if not reason} == {"encoder", "shared"}
    assert [layer.accelerated for layer in inspect(model)] == [True, True, False]
    assert type(restore(model).encoder) is torch.nn.LSTM
    assert torch.equal(model(TOKENS), wanted)


def test_training_goes_on():
    """An optimizer made before, a frozen layer, and the same steps as without acceleration."""
    models = [Tagger().double() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        for parameter in model.shared.parameters():
            parameter.requires_grad_(False)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.5)
        if model is models[1]:
            accelerate(model)
        for _ in range(3):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(TOKENS).mT, TOKENS).backward()
            optimizer.step()
        assert all(p.grad is None for p in model.shared.parameters())
    trained = [list(model.state_dict().values()) for model in models]
    assert_near(trained[1], trained[0], 1e-10)
    assert (models[0].encoder.weight_hh_l0.grad != 0).any()


def test_hooks_fire_and_modes_stay():
    model = Tagger()
    model.encoder.eval()
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, args: seen.append("before"))
    model.encoder.register_forward_hook(lambda module, args, result: seen.append("after"))
    model.encoder.register_full_backward_hook(lambda module, *gradients: seen.append("back"))
    accelerate(model, verify=(TOKENS,))
    assert model.training and not model.encoder.training
    seen.clear()
    model(TOKENS).sum().backward()
    assert seen == ["before", "after", "back"]


@pytest.mark.filterwarnings("ignore")  # of weight_norm, which is old
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "old_weight_norm"])
def test_parametrized(kind):
    layers = [torch.nn.LSTM(3, 4, 2, dtype=torch.float64) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    results = []
    for layer in layers:
        torch.manual_seed(3)
        if kind == "old_weight_norm":
            torch.nn.utils.weight_norm(layer, "weight_hh_l0")
        else:
            getattr(parametrizations, kind)(layer, "weight_hh_l0")
        if layer is layers[1]:
            accelerate(layer)
            assert isinstance(layer, ostinato.nn.LSTM)
            if kind != "old_weight_norm":  # of which torch makes no copies
                assert isinstance(copy.deepcopy(layer), ostinato.nn.LSTM)
        optimizer = torch.optim.SGD(layer.parameters(), 0.5)
        for _ in range(3):  # spectral_norm iterates at every look at the weight
            optimizer.zero_grad()
            layer(x)[0].sum().backward()
            optimizer.step()
        results.append([layer(x)[0], *layer.parameters()])
    assert_near(results[1], results[0], 1e-10)
    if kind != "old_weight_norm":
        restore(layers[1])
        assert type(layers[1]).__mro__[1:] == type(layers[0]).__mro__[1:]
        accelerate(layers[1])
        parametrize.remove_parametrizations(layers[1], "weight_hh_l0")
        assert type(layers[1]) is ostinato.nn.LSTM
        assert type(restore(layers[1])) is torch.nn.LSTM


class Peephole(torch.nn.LSTM):
    """A subclass that computes by itself."""

    def forward(self, x, hx=None):
        c = torch.tanh(x @ self.weight_ih_l0.mT)
        return c, (c[-1:], c[-1:])


class Bare(torch.nn.LSTM):
    pass


class Named(torch.nn.GRU):
    """A subclass with a method and an argument of its own."""

    def __init__(self, *sizes, scale=2.0, **named):
        super().__init__(*sizes, **named)
        self.scale = scale

    def first_state(self, x):
        return x.new_zeros(1, x.shape[1], self.hidden_size)


class Doubling(abc.ABC, torch.nn.RNNBase):
    def forward(self, x, hx=None, *, scale=2.0):
        y, h = super().forward(scale * x, hx)
        return self.last(y), h

    @abc.abstractmethod
    def last(self, y): ...


class Doubled(Doubling, torch.nn.LSTM):
    def last(self, y):
        return y + 1


class OtherStates(torch.nn.LSTM):
    def permute_hidden(self, hx, permutation):
        return hx


@pytest.mark.parametrize("kind", [Bare, Named, Doubled])
def test_subclasses_that_leave_the_computation_to_torchs_layer(kind):
    plain = kind(3, 4).double()
    fast = copy.deepcopy(plain)
    state = {name: id(p) for name, p in fast.named_parameters()}
    x = torch.randn(9, 2, 3, dtype=torch.float64, requires_grad=True)
    accelerate(fast, verify=(x.detach(),))
    assert isinstance(fast, kind) and isinstance(fast, (ostinato.nn.LSTM, ostinato.nn.GRU))
    assert repr(fast) == repr(plain) and str(inspect(fast)[0]).endswith(": accelerated")
    assert {name: id(p) for name, p in fast.named_parameters()} == state
    copies = [fast, copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))]
    for layer in copies:
        assert isinstance(layer, kind) and inspect(layer)[0].accelerated
        results = [of(x)[0] for of in (plain, layer)]
        both = [
            [y, *torch.autograd.grad(y.square().sum(), [x, *of.parameters()])]
            for y, of in zip(results, (plain, layer), strict=True)
        ]
        assert_near(both[1], both[0], 1e-10)
    assert type(restore(fast)) is kind


class GRU(torch.nn.Module):
    """A user's own class of that name: no concern of ours, but what it contains is."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.GRU(3, 4)


@pytest.mark.filterwarnings("ignore")  # scripting, tracing and quantization are deprecated
def test_what_is_left_alone(caplog):
    patched = torch.nn.GRU(3, 4)
    patched.forward = patched.forward
    zoo = torch.nn.ModuleDict(
        {
            "plain": torch.nn.RNN(3, 4),
            "users": GRU(),
            "subclass": Peephole(3, 4),
            "states": OtherStates(3, 4),
            "scripted": torch.jit.script(torch.nn.LSTM(3, 4)),
            "traced": torch.jit.trace(torch.nn.GRU(3, 4), torch.randn(2, 2, 3)),
            "quantized": torch.ao.nn.quantized.dynamic.LSTM(3, 4),
            "meta": torch.nn.LSTM(3, 4, device="meta"),
            "patched": patched,
            "cell": torch.nn.GRUCell(3, 4),
            "linear": torch.nn.Linear(3, 4),
        }
    )
    kinds = {name: type(module) for name, module in zoo.named_modules()}
    assert not any(layer.accelerated for layer in inspect(zoo))
    with caplog.at_level(logging.INFO, logger="ostinato"):
        accelerate(zoo)
    reasons = reported(zoo)
    assert reasons.keys() == {
        "plain",
        "users.inner",
        "subclass",
        "states",
        "scripted",
        "traced",
        "quantized",
        "meta",
        "patched",
        "cell",
    }
    assert reasons["plain"] == reasons["users.inner"] == ""
    for name, words in {
        "subclass": "a subclass of torch's, test_swap.Peephole",
        "states": "a subclass of torch's, test_swap.OtherStates",
        "scripted": "TorchScript",
        "traced": "TorchScript",
        "quantized": "not torch.nn's, but torch.ao.nn.quantized",
        "meta": "meta device",
        "patched": "its forward was replaced",
        "cell": "one step a call gains nothing; ostinato.nn.GRUCell has a step for scan",
    }.items():
        assert words in reasons[name]
        assert type(zoo[name]) is kinds[name]
        warned = [r for r in caplog.records if f"accelerate: {name} (" in r.getMessage()]
        assert [r.levelname for r in warned] == ["WARNING"] and words in warned[0].getMessage()
    assert any("plain (RNN): accelerated" in r.getMessage() for r in caplog.records)
    restore(zoo)
    assert {name: type(module) for name, module in zoo.named_modules()} == kinds


def test_twice_and_copies():
    model = accelerate(accelerate(Tagger()))
    other = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert torch.equal(other(TOKENS), model(TOKENS))
    assert type(restore(other).encoder) is torch.nn.LSTM  # a copy knows that it was swapped
    assert type(model.encoder) is ostinato.nn.LSTM


def test_restore_leaves_what_was_built_so():
    built = [ostinato.nn.GRU(3, 4), ostinato.nn.GRUCell(3, 4)]
    model = torch.nn.ModuleList([*built, torch.nn.GRU(3, 4)])
    assert all(layer.accelerated for layer in inspect(accelerate(model)))
    restore(model)
    assert [type(layer) for layer in model] == [*map(type, built), torch.nn.GRU]


def test_a_model_without_layers_is_reported(caplog):
    accelerate(torch.nn.Sequential(torch.nn.Linear(3, 4)))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "Sequential has no recurrent layer of torch.nn; loops=True" in record.getMessage()


@pytest.mark.parametrize("function", [accelerate, restore, inspect])
def test_not_a_model(function):
    with pytest.raises(TypeError, match=r"got a dict; wanted a torch.nn.Module"):
        function({})


def test_report_reads_well():
    model = torch.nn.Sequential(torch.nn.LSTM(3, 4), Peephole(3, 4))
    first, second = map(str, inspect(accelerate(model)))
    assert first == "0 (LSTM): accelerated"
    assert second.startswith("1 (Peephole): left alone: it is a subclass")
    assert str(inspect(torch.nn.GRU(3, 4))[0]).startswith("the model itself (GRU): left alone")


def test_results_of_tuples():
    lstm = torch.nn.LSTM(3, 4)
    x = torch.randn(5, 2, 3)
    wanted = tensors(lstm(x))
    assert_near(tensors(accelerate(lstm)(x)), wanted, 1e-5)


class Reader(torch.nn.Module):
    """A layer used as models use it: flattened, packed, with a state given, then dropout."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn = getattr(torch.nn, kind)(
            3, 4, 2, batch_first=True, bidirectional=True, dropout=0.5, dtype=torch.float64
        )

    def forward(self, x: torch.Tensor, lengths: list[int], h: torch.Tensor) -> list[torch.Tensor]:
        self.rnn.flatten_parameters()
        hx = (h, 2 * h) if isinstance(self.rnn, torch.nn.LSTM) else h
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return [*tensors(self.rnn(packed, hx)), *tensors(self.rnn(x, hx))]


def pair(make):
    """A model twice, with the same weights; the second is accelerated."""
    theirs = make()
    return theirs, accelerate(copy.deepcopy(theirs))


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_calls_as_models_make_them(kind):
    results = []
    for model in pair(lambda: Reader(kind)):
        torch.manual_seed(1)
        x, h = torch.randn(3, 5, 3).double(), torch.randn(4, 3, 4).double().requires_grad_()
        found = model(x, [2, 5, 3], h)
        sum(result.sum() for result in found).backward()
        results.append([*found, h.grad, *(p.grad for p in model.parameters())])
        assert not torch.equal(model(x, [2, 5, 3], h)[0], found[0])  # another draw of dropout
    assert_near(results[1], results[0], 1e-10)


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_inference_and_then_training(without_gradients):
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    theirs, ours = pair(lambda: torch.nn.LSTM(3, 4, dtype=torch.float64))
    with without_gradients():
        wanted, output = theirs(x)[0], ours(x)[0]
    assert_near([output], [wanted], 1e-10)
    assert not output.requires_grad and output.is_inference() == wanted.is_inference()
    for model in (theirs, ours):
        model(x)[0].sum().backward()
    assert_near(*([p.grad for p in model.parameters()] for model in (ours, theirs)), 1e-10)


@pytest.mark.parametrize("assign", [False, True])
def test_state_dicts_move_both_ways(assign):
    x = torch.randn(5, 2, 3)
    theirs, ours = torch.nn.GRU(3, 4, 2), accelerate(torch.nn.GRU(3, 4, 2))
    before = ours(x)[0]
    ours.load_state_dict(theirs.state_dict(), assign=assign)
    assert_near([ours(x)[0]], [theirs(x)[0]], 1e-5)  # what was played before does not linger
    assert not torch.allclose(ours(x)[0], before, atol=1e-3)
    again = torch.nn.GRU(3, 4, 2)
    again.load_state_dict(ours.state_dict(), assign=assign)
    assert torch.equal(again(x)[0], theirs(x)[0])


def test_a_copy_has_weights_of_its_own():
    x = torch.randn(5, 2, 3)
    model = accelerate(torch.nn.LSTM(3, 4))
    model(x)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.weight_hh_l0.mul_(2)
    other(x)[0].sum().backward()
    assert model.weight_hh_l0.grad is None and (other.weight_hh_l0.grad != 0).any()
    assert not torch.equal(other(x)[0], model(x)[0])


def test_tied_weights():
    """Between two layers, and between the two of one stack."""

    def make():
        model = torch.nn.Sequential(*(torch.nn.LSTM(4, 4, 2, dtype=torch.float64) for _ in "ab"))
        model[1].weight_hh_l0 = model[0].weight_hh_l0
        model[1].weight_hh_l1 = model[1].weight_hh_l0
        return model

    x = torch.randn(5, 2, 4, dtype=torch.float64)
    trained = []
    for model in pair(make):
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        for _ in range(3):
            optimizer.zero_grad()
            model[1](model[0](x)[0])[0].sum().backward()
            optimizer.step()
        assert model[0].weight_hh_l0 is model[1].weight_hh_l0 is model[1].weight_hh_l1
        trained.append(list(model.parameters()))
    assert_near(trained[1], trained[0], 1e-10)


def test_frozen_in_part():
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    theirs, ours = pair(lambda: torch.nn.GRU(3, 4, dtype=torch.float64))
    for model in (theirs, ours):
        model.weight_hh_l0.requires_grad_(False)
        model(x)[0].sum().backward()
        assert model.weight_hh_l0.grad is None
    trained = [[p.grad for p in m.parameters() if p.requires_grad] for m in (ours, theirs)]
    assert_near(*trained, 1e-10)
    ours.requires_grad_(False)
    assert not ours(x)[0].requires_grad
    ours.requires_grad_(True)  # and thawed again
    ours(x)[0].sum().backward()
    assert (ours.weight_hh_l0.grad != 0).any()


@pytest.mark.filterwarnings("ignore")  # scripting is deprecated
def test_a_scripted_part_of_a_model():
    part = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LSTM(3, 4)))
    model = torch.nn.ModuleDict({"scripted": part, "plain": torch.nn.LSTM(3, 4)})
    x = torch.randn(5, 2, 3)
    wanted = part(x)[0]
    reasons = reported(accelerate(model))
    assert reasons["plain"] == "" and "TorchScript" in reasons["scripted.1"]
    assert torch.equal(part(x)[0], wanted)


@pytest.mark.filterwarnings("ignore")  # quantization is deprecated
def test_tools_that_ask_for_torchs_own_class():
    """docs/accelerate.md: quantize_dynamic passes our classes by, so restore first."""
    model = torch.nn.Sequential(accelerate(torch.nn.LSTM(3, 4)))
    quantize = torch.ao.quantization.quantize_dynamic
    assert type(quantize(model, {torch.nn.LSTM})[0]) is ostinato.nn.LSTM
    assert type(quantize(restore(model), {torch.nn.LSTM})[0]) is torch.ao.nn.quantized.dynamic.LSTM


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_an_output_may_be_changed_in_place(name):
    """docs/accelerate.md: backward needs the output as it was, and plays the layer again."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(3, 4, dtype=torch.float64)  # in float32 torch's LSTM raises
    ours = accelerate(copy.deepcopy(theirs))
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    for layer in (theirs, ours):
        output, _ = layer(x)
        output *= 2
        output.square().sum().backward()
    for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=1e-12)
