"""What `scan` refuses, and how it says so: the same whichever engine plays."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor

from ostinato import explain, scan
from zoo.playing import ENGINES

D = torch.float64
T, B, F, H = 6, 4, 3, 3


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    monkeypatch.setenv("OSTINATO_ENGINE", request.param)
    return request.param


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


INIT, XS = normal(B, H), normal(T, B, F)


def identity(h: Any, x: Any) -> Any:
    return torch.tanh(h + x)


WRONG = {
    "step last": (TypeError, r"step is float64.*scan\(step, init, xs\)", (INIT, XS, identity), {}),
    "no steps": (ValueError, "no steps", (identity, INIT, XS[:0]), {}),
    "no steps along dim": (ValueError, "dim=1", (identity, INIT, XS[:, :0]), {"dim": 1}),
    "unequal xs": (
        ValueError,
        r"\[6, 5\]",
        (lambda h, x: h, INIT, (XS, XS[:-1])),
        {},
    ),
    "no such dim": (ValueError, "dim=3", (identity, INIT, XS), {"dim": 3}),
    "xs without axes": (ValueError, r"shape \[\]", (identity, INIT, torch.tensor(1.0)), {}),
    "xs of numbers": (TypeError, "xs contains float", (identity, INIT, [1.0, 2.0]), {}),
    "xs an array": (TypeError, "xs contains ndarray", (identity, INIT, XS.numpy()), {}),
    "xs empty": (TypeError, "xs is empty", (identity, INIT, ()), {}),
    "init a number": (TypeError, "init contains int", (identity, 0, XS), {}),
    "init None": (TypeError, "init", (identity, None, XS), {}),
    "init empty": (TypeError, "init is empty", (identity, {}, XS), {}),
    "init made otherwise": (
        TypeError,
        "init contains defaultdict",
        (lambda h, x: h, defaultdict(list, a=INIT), XS),
        {},
    ),
    "init with None": (TypeError, "init", (lambda h, x: h, (INIT, None), XS), {}),
    "carry changes shape": (
        ValueError,
        r"\[4, 3\].*\[4, 6\]",
        (lambda h, x: torch.cat([h, x], 1), INIT, XS),
        {},
    ),
    "carry loses an axis": (
        ValueError,
        r"\[4, 3\].*\[4\]",
        (lambda h, x: (h.sum(1), x), INIT, XS),
        {},
    ),
    "init of one row": (
        ValueError,
        r"\[1, 3\].*\[4, 3\]",
        (identity, INIT[:1], XS),
        {},
    ),
    "carry changes dtype": (
        ValueError,
        "float64.*float32",
        (lambda h, x: torch.tanh(h + x).float(), INIT, XS),
        {},
    ),
    "one leaf of the carry changes": (
        ValueError,
        "leaf 1",
        (lambda c, x: (c[0], c[1][:, :1]), (INIT, INIT), XS),
        {},
    ),
    "result of another structure": (
        TypeError,
        "wanted the new carry",
        (lambda c, x: [c[0], c[1], x], (INIT, INIT), XS),
        {},
    ),
    "three results": (
        TypeError,
        "wanted the new carry",
        (lambda h, x: (h, x, x), INIT, XS),
        {},
    ),
    "a result that is nothing": (TypeError, "NoneType", (lambda h, x: None, INIT, XS), {}),
    "a carry that is a number": (
        TypeError,
        "wanted",
        (lambda c, x: (0.0, c[1]), (INIT, INIT), XS),
        {},
    ),
    "an output that is a number": (
        TypeError,
        "output.*float",
        (lambda h, x: (identity(h, x), 1.0), INIT, XS),
        {},
    ),
    "lengths too few": (ValueError, "wanted 4 integers", (identity, INIT, XS), {"lengths": [1, 2]}),
    "lengths too long": (
        ValueError,
        r"lengths\[2\] is 7; wanted 0 to 6",
        (identity, INIT, XS),
        {"lengths": [1, 2, 7, 3]},
    ),
    "lengths negative": (
        ValueError,
        r"lengths\[0\] is -1",
        (identity, INIT, XS),
        {"lengths": [-1, 2, 6, 3]},
    ),
    "lengths text": (TypeError, "lengths is a str", (identity, INIT, XS), {"lengths": "abcd"}),
    "lengths with None": (
        TypeError,
        "a NoneType.*wanted 4 integers",
        (identity, INIT, XS),
        {"lengths": [1, None, 2, 3]},
    ),
    "lengths complex": (
        ValueError,
        "complex",
        (identity, INIT, XS),
        {"lengths": torch.ones(B, dtype=torch.complex64)},
    ),
    "resets text": (TypeError, "resets is a str", (identity, INIT, XS), {"resets": "x"}),
    "dim text": (TypeError, "dim is a str", (identity, INIT, XS), {"dim": "time"}),
    "lengths with init that has no rows": (
        ValueError,
        r"every leaf of init.*float64\[\]",
        (lambda c, x: (torch.tanh(c[0] + x), c[1] + 1), (INIT, torch.zeros((), dtype=D)), XS),
        {"lengths": [1, 2, 3, 4]},
    ),
    "lengths with one output for all rows": (
        ValueError,
        r"every output of step needs the 4 rows .* shape \[\]",
        (lambda h, x: (torch.tanh(h + x), (h - x).square().mean()), INIT, XS),
        {"lengths": [1, 2, 3, 4]},
    ),
    "lengths with an output that sums over the rows": (
        ValueError,
        r"every output of step needs the 4 rows .* shape \[3\]",
        (lambda h, x: (torch.tanh(h + x), h.sum(0)), INIT, XS),
        {"lengths": [1, 2, 3, 4]},
    ),
    "lengths not whole": (
        ValueError,
        "integers",
        (identity, INIT, XS),
        {"lengths": torch.ones(B)},
    ),
    "resets the wrong way round": (
        ValueError,
        r"\[6, 4\]",
        (identity, INIT, XS),
        {"resets": torch.zeros(B, T, dtype=torch.bool)},
    ),
    "resets that are numbers": (
        ValueError,
        "wanted bool",
        (identity, INIT, XS),
        {"resets": torch.zeros(T, B)},
    ),
    "restart without resets": (
        ValueError,
        "without resets",
        (identity, INIT, XS),
        {"restart": INIT},
    ),
    "restart of another structure": (
        ValueError,
        "init's structure",
        (identity, INIT, XS),
        {"resets": torch.zeros(T, B, dtype=torch.bool), "restart": (INIT,)},
    ),
    "restart of another shape": (
        ValueError,
        r"shape \[2, 3\]",
        (identity, INIT, XS),
        {"resets": torch.zeros(T, B, dtype=torch.bool), "restart": INIT[:2]},
    ),
    "restart of another dtype": (
        ValueError,
        "same dtype",
        (identity, INIT, XS),
        {"resets": torch.zeros(T, B, dtype=torch.bool), "restart": INIT.float()},
    ),
    "lengths with xs that have no rows": (
        ValueError,
        "4 rows",
        (lambda h, x: torch.tanh(h + x), INIT, torch.ones(T, dtype=D)),
        {"lengths": [1, 2, 3, 4]},
    ),
    "an output without the axis dim": (
        ValueError,
        "dim=2",
        (lambda h, x: (identity(h, x), h.sum(1)), INIT, XS.movedim(0, 2)),
        {"dim": 2},
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_scan_refuses(engine, name):
    error, message, arguments, options = WRONG[name]
    with pytest.raises(error, match=message) as caught:
        scan(*arguments, **options)
    assert str(caught.value).startswith("scan: ")


def test_every_step_must_put_out_the_same_structure(monkeypatch):
    """Only the loop can see it: a recorded step has one structure."""
    monkeypatch.setenv("OSTINATO_ENGINE", "eager")
    count = iter(range(10))

    def step(h: Tensor, x: Tensor) -> Any:
        return h, (x if next(count) < 2 else (x, x))

    with pytest.raises(TypeError, match="at t=2"):
        scan(step, INIT, XS)


def test_warnings_point_to_where_scan_is_called():
    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.lgamma(h + x) * factor

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for factor in range(10):  # noqa: B007
            scan(step, INIT, XS)
    assert len(caught) == 2  # the loop plays it; it is recorded again and again
    assert {w.filename for w in caught} == {__file__}


@dataclasses.dataclass
class Pair:
    h: Tensor
    x: Tensor


def test_a_refused_step_is_not_recorded_again():
    """It is tried again at calls 2, 4, 8, … where no guard says what it reads."""

    def step(h: Tensor, x: Tensor) -> Tensor:
        pair = dataclasses.replace(Pair(h, h), x=x)
        return pair.h + pair.x + torch.ones(4, 1, dtype=D)  # of this batch alone

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(200):
            scan(step, INIT, XS)
    assert ["slow Python loop" in str(w.message) for w in caught] == [True]


@pytest.mark.filterwarnings("ignore:.*was recorded")
def test_a_step_that_belongs_to_no_module():
    step = eval("lambda h, x: torch.tanh(h + x)", {"torch": torch})
    for n in range(1, 12):
        assert scan(step, normal(2, n), normal(3, 2, n))[1].shape == (3, 2, n)


def test_an_error_of_the_step_is_not_swallowed(engine):
    class BrokenError(Exception):
        pass

    def step(h: Tensor, x: Tensor) -> Tensor:
        raise BrokenError

    for _ in range(2):
        with pytest.raises(BrokenError):
            scan(step, INIT, XS)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        scan(lambda h, x: h @ torch.ones(7, 7, dtype=D), INIT, XS)


def _product(h: Any, x: Any) -> Any:
    return torch.tanh(h @ torch.ones(3, 3, dtype=D) + x @ torch.ones(3, 3, dtype=D))


# xs is [6, 4, 3]. The message for a step that cannot be called with these arguments.
MISUNDERSTOOD = {
    "batch first": ((_product, INIT, XS.transpose(0, 1)), {}, r"\[6, 3\].*T=4.*B=4.*pass dim=1"),
    "of a module": (
        (torch.nn.GRUCell(3, 3).to(D), INIT, XS.transpose(0, 1)),
        {},
        "T=4 .*pass dim=1",
    ),
    "time first, dim=1": ((_product, INIT, XS), {"dim": 1}, "T=4 steps along dim=1.*pass dim=0"),
    "init and xs swapped": ((torch.add, XS, INIT[:, :2]), {}, r"the order is scan\(step, init"),
    "init of one row": ((identity, INIT[:1], XS), {}, "init has 1 rows: wanted"),
    "init without rows": ((_product, INIT[0], XS), {}, r"float64\[3\].*\[4, 3\]"),
    "another width": ((_product, INIT, XS[..., :2]), {}, r"\[4, 3\].*\[4, 2\]: xs has T=6"),
    "an error of the step's own": (
        (lambda h, x: [][1], INIT, XS),
        {},
        "step is given the carry first",
    ),
}


def _said(error: Exception) -> str:
    """The note, which before Python 3.11 is a part of the message."""
    (note,) = getattr(error, "__notes__", None) or [str(error)]
    return note


@pytest.mark.parametrize("name", MISUNDERSTOOD)
def test_an_error_of_the_step_says_how_it_was_called(engine, name):
    arguments, options, note = MISUNDERSTOOD[name]
    with pytest.raises((RuntimeError, ValueError, IndexError)) as caught:
        scan(*arguments, **options)
    found = _said(caught.value)
    assert re.search(note, found), found


def test_explain_says_it_too():
    (step, init, xs), _, note = MISUNDERSTOOD["batch first"]
    with pytest.raises(RuntimeError) as caught:
        explain(step, init, xs)
    assert re.search(note, _said(caught.value))


def test_before_python_3_11_the_message_says_it(engine):
    class OldError(ValueError):
        add_note = None

    def step(h: Tensor, x: Tensor) -> Tensor:
        raise OldError("mine")

    with pytest.raises(OldError, match=r"(?s)^mine\n.*float64\[4, 3\].*T=6"):
        scan(step, INIT, XS)


def test_an_unknown_engine_is_named(monkeypatch):
    monkeypatch.setenv("OSTINATO_ENGINE", "quick")
    with pytest.raises(ValueError, match=r"OSTINATO_ENGINE=quick.*native, reference, eager"):
        scan(identity, INIT, XS)
