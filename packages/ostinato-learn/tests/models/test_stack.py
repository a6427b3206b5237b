from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor

import ostinato_learn
from ostinato_learn import SequenceClassifier, SequenceForecaster, SequenceTagger
from ostinato_learn.hyperparameters import Architecture, HyperparameterError
from ostinato_learn.models.stack import Stack


class Elman(torch.nn.Module):
    """torch.nn.RNNCell, as a user would write it."""

    def __init__(self, n_features: int, hidden_size: int):
        super().__init__()
        self.cell = torch.nn.RNNCell(n_features, hidden_size)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(
            torch.nn.functional.linear(x, self.cell.weight_ih, self.cell.bias_ih)
            + torch.nn.functional.linear(h, self.cell.weight_hh, self.cell.bias_hh)
        )


class TwoStates(torch.nn.Module):
    """A carry of two tensors, and an output that is neither."""

    def __init__(self, n_features: int, hidden_size: int):
        super().__init__()
        self.into = torch.nn.Linear(n_features, hidden_size)
        self.hidden_size = hidden_size

    def initial(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_zeros(len(x), self.hidden_size), x.new_ones(len(x), self.hidden_size)

    def forward(self, carry, x):
        a, b = carry
        a = 0.5 * a + torch.tanh(self.into(x))
        b = 0.9 * b + a
        return (a, b), a * b


def same_weights(stack: Stack, layers: torch.nn.RNN) -> None:
    names = [f"l{i}{side}" for i in range(layers.num_layers) for side in ("", "_reverse")]
    for cell, name in zip(stack.cells, names, strict=True):
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(cell.cell, kind).data.copy_(getattr(layers, f"{kind}_{name}").data)


def test_a_user_s_rnn_is_torch_s():
    torch.manual_seed(0)
    stack = Stack(
        Architecture(cell=Elman, hidden_size=5, num_layers=2, bidirectional=True), 3
    ).double()
    layers = torch.nn.RNN(3, 5, 2, bidirectional=True, batch_first=True).double()
    same_weights(stack, layers)
    x, lengths = torch.randn(4, 6, 3, dtype=torch.float64), torch.tensor([6, 4, 3, 1])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    wanted, last = layers(packed)
    wanted, _ = torch.nn.utils.rnn.pad_packed_sequence(wanted, batch_first=True)
    outputs, found = stack(x, lengths)
    torch.testing.assert_close(outputs, wanted)
    torch.testing.assert_close(found, last)
    grads = [
        torch.autograd.grad(o.square().sum(), m.parameters())
        for o, m in ((outputs, stack), (wanted, layers))
    ]
    by_size = [sorted(g.sum().item() for g in each) for each in grads]
    np.testing.assert_allclose(by_size[0], by_size[1], rtol=1e-9)


def test_a_carry_of_two_tensors_and_an_output_of_its_own():
    torch.manual_seed(0)
    stack = Stack(Architecture(cell=TwoStates, hidden_size=4), 2)
    x = torch.randn(3, 5, 2)
    outputs, last = stack(x)
    (cell,), carry = stack.cells, stack.cells[0].initial(x[:, 0])
    for t in range(5):
        carry, y = cell(carry, x[:, t])
        torch.testing.assert_close(outputs[:, t], y)
    torch.testing.assert_close(last[0], y)


def test_estimators_take_a_cell(tmp_path):
    generator = np.random.default_rng(0)
    X = generator.normal(size=(80, 6, 2)).astype(np.float32)
    small = {"cell": TwoStates, "hidden_size": 8, "iterations": 60, "learning_rate": 0.02}
    y = (X.sum((1, 2)) > 0).astype(int)
    model = SequenceClassifier(**small, optimizer="adam").fit(X, y)
    assert model.score(X, y) > 0.7  # 0.5 without learning; a deviation of 0.06 by chance
    model.save(tmp_path / "model")
    again = ostinato_learn.runtime.load(tmp_path / "model")
    assert (again.predict(X) == model.predict(X)).all()
    with pytest.raises(ValueError, match=r"'TwoStates' is a user's own.*runtime\.load\("):
        ostinato_learn.load(tmp_path / "model")
    tags = (X.cumsum(1).sum(2) > 0).astype(int)
    assert SequenceTagger(**small).fit(X, list(tags)).score(X, list(tags)) > 0.7
    waves = np.sin(np.arange(60) / 3)
    assert SequenceForecaster(horizon=3, **small).fit(waves).predict(waves).shape == (1, 3)


@pytest.mark.parametrize("cell", ["tanh", 3, None])
def test_what_is_no_cell_is_refused(cell):
    with pytest.raises(HyperparameterError, match="or a class of your own"):
        Architecture(cell=cell)


def test_a_cell_that_makes_no_module_or_a_wrong_output_is_named():
    with pytest.raises(TypeError, match=r"cell\(2, 4\) gave str"):
        Stack(Architecture(cell=lambda F, H: "x", hidden_size=4), 2)
    with pytest.raises(TypeError, match=r"cell=<class 'int'>: wanted a torch\.nn\.Module"):
        Stack(Architecture(cell=int), 2)

    class Wide(Elman):
        def forward(self, h, x):
            return h, torch.cat([h, h], 1)

    with pytest.raises(ValueError, match=r"outputs of the cell Wide are \[3, 5, 8\]"):
        Stack(Architecture(cell=Wide, hidden_size=4), 2)(torch.zeros(3, 5, 2))


def test_the_budget_that_is_named_as_the_least_is_enough_for_all_cells():
    stack = Stack(Architecture(cell=TwoStates, hidden_size=5, num_layers=2), 5)
    x = torch.randn(3, 400, 5, requires_grad=True)
    (plain,) = torch.autograd.grad(stack(x)[0].square().sum(), x)
    stack.memory_budget = "1kB"
    with pytest.raises(ValueError, match="memory=1000 for 2 layers and directions") as refused:
        stack(x)
    (least,) = re.findall(r"need at least (\d+) bytes", str(refused.value))
    stack.memory_budget = int(least)
    assert torch.equal(torch.autograd.grad(stack(x)[0].square().sum(), x)[0], plain)


class Learnt(TwoStates):
    """The first carry is learnt in part."""

    def __init__(self, n_features: int, hidden_size: int):
        super().__init__(n_features, hidden_size)
        self.first = torch.nn.Parameter(torch.linspace(0, 1, hidden_size))

    def initial(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, _ = super().initial(x)
        return a, self.first.expand(len(x), -1)


def test_reading_on_is_the_loop_that_begins_again_at_resets():
    torch.manual_seed(0)
    stack = Stack(Architecture(cell=Learnt, hidden_size=4, num_layers=2), 3).double()
    x = torch.randn(3, 9, 3, dtype=torch.float64)
    resets = torch.zeros(3, 9, dtype=torch.bool)
    resets[1, 2] = resets[1, 6] = resets[0, 4] = resets[2, 0] = True
    top, wanted = x, []
    for cell in stack.cells:
        carry, outputs = cell.initial(top[:, 0]), []
        for t in range(9):
            again = cell.initial(top[:, t])
            carry = tuple(
                torch.where(resets[:, t, None], new, old)
                for new, old in zip(again, carry, strict=True)
            )
            carry, y = cell(carry, top[:, t])
            outputs.append(y)
        top = torch.stack(outputs, 1)
        wanted += carry
    first, carry = stack.read_on(x[:, :4], None, resets[:, :4])
    rest, carry = stack.read_on(x[:, 4:], carry, resets[:, 4:])
    outputs = torch.cat([first, rest], 1)
    torch.testing.assert_close(outputs, top)
    assert len(carry) == 4
    for leaf, other in zip(carry, wanted, strict=True):
        torch.testing.assert_close(leaf, other[None])
    parameters = list(stack.parameters())
    ours = torch.autograd.grad(outputs.square().sum() + carry[1].sum(), parameters)
    theirs = torch.autograd.grad(top.square().sum() + wanted[1].sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        (lambda x: x @ torch.ones(2, 4), "depends on its first input"),
        (lambda x: torch.zeros(4), r"is \[4\]; wanted tensors \[3, …\]"),
        (lambda x: (), "is no tensor; wanted"),
    ],
)
def test_a_first_carry_that_cannot_begin_within_a_row_is_refused(initial, message):
    stack = Stack(Architecture(cell=Elman, hidden_size=4), 2)
    stack.cells[0].initial = initial
    with pytest.raises(ValueError, match=f"first carry of the cell Elman .*{message}"):
        stack.read_on(torch.randn(3, 5, 2))


def test_two_directions_cannot_read_on():
    both = Stack(Architecture(cell=Elman, hidden_size=4, bidirectional=True), 2)
    with pytest.raises(ValueError, match="read in two directions; wanted one"):
        both.read_on(torch.randn(3, 5, 2))
