"""RNNCell, GRUCell and LSTMCell against torch.nn's, and in `scan`."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import assert_near, gradients, tensors
from torch.nn.utils import parametrizations

import ostinato
from zoo.suites import draws, one_in

CELLS = ["RNNCell", "GRUCell", "LSTMCell"]


def pair(kind: str, *args: Any, **kwargs: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    theirs = getattr(torch.nn, kind)(*args, **kwargs)
    ours = getattr(ostinato.nn, kind)(*args, **kwargs)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@draws(100)
@given(
    kind=st.sampled_from(CELLS),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    rows=st.sampled_from([(), (1,), (3,), (0,)]),
    bias=st.booleans(),
    relu=st.booleans(),
    has_hx=st.booleans(),
)
def test_as_torch(kind, sizes, rows, bias, relu, has_hx):
    n_features, n_hidden = sizes
    options = {"nonlinearity": "relu"} if kind == "RNNCell" and relu else {}
    theirs, ours = pair(kind, n_features, n_hidden, bias=bias, dtype=torch.float64, **options)
    x = torch.randn(*rows, n_features, dtype=torch.float64, requires_grad=True)
    leaves = [torch.randn(*rows, n_hidden, dtype=torch.float64, requires_grad=True) for _ in "hc"]
    hx = None if not has_hx else tuple(leaves) if kind == "LSTMCell" else leaves[0]
    wanted, got = theirs(x, hx), ours(x, hx)
    assert type(wanted) is type(got) and repr(theirs) == repr(ours)
    assert_near(tensors(got), tensors(wanted), 1e-12)
    wanted_grads = gradients(wanted, [x, *leaves, *theirs.parameters()])
    assert_near(gradients(got, [x, *leaves, *ours.parameters()]), wanted_grads, 1e-12)


@pytest.mark.parametrize("kind", CELLS)
def test_a_layer_is_the_cell_repeated(kind):
    """Bit for bit: by hand, by scan over cell.step, and as a layer with these weights."""
    cell = getattr(ostinato.nn, kind)(3, 4)
    layer = getattr(ostinato.nn, kind.removesuffix("Cell"))(3, 4)
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    x = torch.randn(6, 2, 3)
    hx, states = None, []
    for x_t in x:
        hx = cell(x_t, hx)
        states.append(tensors(hx)[0])
    zero = torch.zeros(2, 4)
    carry, _ = ostinato.scan(cell.step, (zero, zero) if kind == "LSTMCell" else zero, x)
    output, h_n = layer(x)
    assert torch.equal(torch.stack(states), output)
    for by_hand, by_scan, by_layer in zip(*map(tensors, (hx, carry, h_n)), strict=True):
        assert torch.equal(by_hand, by_scan) and torch.equal(by_hand, by_layer[0])


def wrong_calls() -> list[tuple[Any, ...]]:
    x, h = torch.randn(2, 3), torch.zeros(2, 4)
    return [
        (torch.randn(2, 5),),
        (torch.randn(2, 2, 3),),
        (torch.tensor(1.0),),
        (x.double(),),
        (x, h[:, :2]),
        (x, h[:1]),
        (x, h.double()),
        (x, h[None]),
    ]


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("call", range(len(wrong_calls())))
def test_errors_are_torchs(kind, call):
    x, *hx = wrong_calls()[call]
    if hx and kind == "LSTMCell":
        hx = [(hx[0], hx[0])]
    errors = []
    for cell in pair(kind, 3, 4):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            cell(x, *hx)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


def test_a_state_of_the_wrong_kind_is_torchs_error():
    x, h = torch.randn(2, 3), torch.zeros(2, 4)
    for kind, hx in (
        ("LSTMCell", h),
        ("LSTMCell", (h, h, h)),
        ("GRUCell", (h,)),
        ("RNNCell", (h,)),
    ):
        errors = []
        for cell in pair(kind, 3, 4):
            with pytest.raises((RuntimeError, TypeError, AttributeError)) as caught:
                cell(x, hx)
            errors.append((caught.type, str(caught.value)))
        assert errors[0] == errors[1]
    for cell in pair("RNNCell", 3, 4):
        cell.nonlinearity = "sine"
        with pytest.raises(RuntimeError, match="sine"):
            cell(x)


@pytest.mark.parametrize("kind", CELLS)
def test_under_autocast_as_torch(kind):
    theirs, ours = pair(kind, 3, 4)
    x = torch.randn(2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(map(torch.equal, tensors(ours(x)), tensors(theirs(x))))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("sizes", [(0, 4), (4, 0), (0, 0)])
def test_nothing_to_compute(kind, sizes):
    """A cell without features or hidden units gives what torch's gives, gradients included."""
    theirs, ours = pair(kind, *sizes)
    x = torch.randn(2, sizes[0])
    wanted, got = theirs(x), ours(x)
    assert [t.shape for t in tensors(got)] == [t.shape for t in tensors(wanted)]
    assert_near(tensors(got), tensors(wanted), 1e-6)
    wanted_grads = gradients(wanted, list(theirs.parameters()))
    assert_near(gradients(got, list(ours.parameters())), wanted_grads, 1e-6)


@pytest.mark.parametrize(
    "cell", one_in(3, [ostinato.nn.RNNCell, ostinato.nn.GRUCell, ostinato.nn.LSTMCell])
)
def test_a_compiled_cell_goes_into_the_graph(cell):
    c, x = cell(4, 5), torch.randn(3, 4)
    found = torch.compile(c, backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(found, c(x))


def test_a_weight_that_is_computed_is_computed_once_a_call():
    """And the step of such a cell is played natively: no warning."""
    cells = [torch.nn.GRUCell(3, 4), ostinato.nn.GRUCell(3, 4)]
    cells[1].load_state_dict(cells[0].state_dict())
    for cell in cells:
        torch.manual_seed(0)
        parametrizations.spectral_norm(cell, "weight_hh")  # iterates at every look
        parametrizations.weight_norm(cell, "weight_ih")
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert_near([cells[1](x, h)], [cells[0](x, h)], 1e-5)
    found, wanted = (cell.parametrizations.weight_hh[0]._u for cell in cells[::-1])
    assert torch.equal(found, wanted)


class Scaled(ostinato.nn.RNNCell):
    """A cell whose own step reads what a layer does not say."""

    factor = 1.0

    @property
    def step(self):
        inner = super().step
        return lambda h, x: inner(h, x) * self.factor


def test_the_step_of_a_subclass_may_read_anything():
    cell, x, h = Scaled(3, 4), torch.randn(2, 3), torch.randn(2, 4)
    plain = cell(x, h)
    cell.factor = 0.5
    assert_near([cell(x, h)], [plain * 0.5], 1e-6)
