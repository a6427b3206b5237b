"""Errors and effects of a body come at the iterations at which Python shows them."""

from __future__ import annotations

import contextvars
import dataclasses
import os
import queue

import pytest
import torch
from compared import same_as_python
from test_random_loops import refused_late

import forms
import ostinato

pytestmark = pytest.mark.filterwarnings("ignore:the loop")


# ------------------------------------------------------------------------ errors of numbers


TABLE = torch.nn.Embedding(9, 6).double().requires_grad_(False)


def divided(p, x):
    h = torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        h = torch.tanh(h + x[:, t])
        p.trace.append(t)
        h = h * (1 / (t - 11))
    return h


def looked_up(p, x):
    h, words = torch.zeros_like(x[:, 0]), torch.arange(x.shape[1]).expand(len(x), -1)
    for t in range(x.shape[1]):
        p.trace.append(t)
        h = torch.tanh(h + x[:, t] + TABLE(words[:, t]))
    return h


def looked_up_below_zero(p, x):
    h, words = torch.zeros_like(x[:, 0]), torch.zeros(len(x), x.shape[1], dtype=torch.int64)
    words[1, 10] = -1
    for t in range(x.shape[1]):
        p.trace.append(t)
        h = torch.tanh(h + x[:, t] + TABLE(words[:, t]))
    return h


def indexed(p, x):
    h, words = torch.zeros_like(x[:, 0]), torch.arange(x.shape[1])
    for t in range(x.shape[1]):
        p.trace.append(t)
        h = torch.tanh(h + x[:, t] + TABLE.weight[words[t]])
    return h


def gathered(p, x):
    h, columns = torch.zeros_like(x[:, 0]), torch.arange(x.shape[1]).expand(len(x), -1)
    for t in range(x.shape[1]):
        p.trace.append(t)
        h = torch.tanh(h + x[:, t].gather(1, columns[:, t : t + 1]))
    return h


def computed_words(p, x):
    word, out = torch.zeros(len(x), dtype=torch.int64), []
    for t in range(x.shape[1]):
        out.append(TABLE(word) + x[:, t])
        p.trace.append(t)
        word = word + 1
    return torch.stack(out)


FAILING = [divided, looked_up, looked_up_below_zero, indexed, gathered, computed_words]


@pytest.mark.parametrize("function", FAILING)
def test_an_error_comes_at_its_iteration(function):
    parts, x, looped = forms.Parts(), torch.randn(3, 14, 6).double(), ostinato.loop(function)
    for _ in range(2):
        found = []
        for how in (looped, function):
            parts.trace.clear()
            with pytest.raises((IndexError, ZeroDivisionError, RuntimeError)) as error:
                how(parts, x)
            found.append((type(error.value), str(error.value), len(parts.trace)))
        assert found[0] == found[1]
    assert len(forms.sites(looped)) == 1


def test_random_numbers_are_those_of_python_after_a_lookup_that_fails():
    def function(p, x):
        h, words = torch.zeros_like(x[:, 0]), torch.arange(x.shape[1])
        for t in range(x.shape[1]):
            h = torch.tanh(h + x[:, t] + torch.rand_like(h) + TABLE.weight[words[t]])
        return h

    states = []
    for how in (ostinato.loop(function), function):
        torch.manual_seed(0)
        with pytest.raises(IndexError):
            how(forms.Parts(), torch.ones(3, 14, 6).double())
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


# ------------------------------------------------------------------------ effects


VARIABLE = contextvars.ContextVar("variable", default=0)


def modes_left(p, x):
    before, h = torch.is_grad_enabled(), torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        torch.set_grad_enabled(t % 2 == 0)
        h = torch.tanh(h + p.inner(x[:, t]))
    found = torch.is_grad_enabled()
    torch.set_grad_enabled(before)
    return h, found


def modes_toggled(p, x):
    before, h = torch.is_grad_enabled(), torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        torch.set_grad_enabled(not torch.is_grad_enabled())
        h = torch.tanh(h + p.inner(x[:, t]))
    found = torch.is_grad_enabled()
    torch.set_grad_enabled(before)
    return h, found


def modes_of_contexts(p, x):
    h = torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        with torch.set_grad_enabled(t % 2 == 0):
            a = p.inner(x[:, t])
        h = torch.tanh(h + a)
    return h, torch.is_grad_enabled()


def a_default_type(p, x):
    before, h = torch.get_default_dtype(), torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        wide = torch.get_default_dtype() == torch.float64
        torch.set_default_dtype(torch.float32 if wide else torch.float64)
        h = torch.tanh(h + x[:, t])
    found = str(torch.get_default_dtype())
    torch.set_default_dtype(before)
    return h, found


def bytes_of_a_function(p, x):
    made, h = bytearray(), torch.zeros_like(x[:, 0])

    def note():
        made.append(7)

    for t in range(x.shape[1]):
        h = torch.tanh(h + x[:, t])
        note()
    return h, len(made)


def a_queue(p, x):
    made, h = queue.SimpleQueue(), torch.zeros_like(x[:, 0])
    made.put("first")
    for t in range(x.shape[1]):
        h = torch.tanh(h + x[:, t])
        made.put(t)
    return h, [made.get() for _ in range(made.qsize())]


def a_context_variable(p, x):
    VARIABLE.set(0)
    h = torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        h = torch.tanh(h + x[:, t])
        VARIABLE.set(VARIABLE.get() + 1)
    return h, VARIABLE.get()


def the_environment(p, x):
    os.environ["OSTINATO_NOTICED"] = ""
    h = torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        h = torch.tanh(h + x[:, t])
        os.environ["OSTINATO_NOTICED"] += "a"
    return h, os.environ.pop("OSTINATO_NOTICED")


class Counting(dict):
    """Counts what is stored."""

    n = 0

    def __setitem__(self, key, value):
        self.n += 1
        super().__setitem__(key, value)


class CountingList(list):
    """Counts what is appended."""

    n = 0

    def append(self, value):
        self.n += 1
        super().append(value)


def a_mapping_that_counts(p, x):
    d = Counting()
    d["h"] = torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        d["h"] = torch.tanh(d["h"] + x[:, t])
    return d["h"], d.n


def a_list_that_counts(p, x):
    outs, h = CountingList(), torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        h = torch.tanh(h + x[:, t])
        outs.append(h)
    return [*outs], outs.n


def modes_left_over_elements(p, x):
    """The views of unbind are made before the body turns gradients off."""
    h, last = torch.zeros_like(x[:, 0]), []
    for x_t in x.unbind(1):
        h = torch.tanh(h + x_t)
        torch.set_grad_enabled(False)
        last.append(x_t)
    torch.set_grad_enabled(True)
    return h, last


def errors_of_select(p, x):
    h = torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        h = torch.tanh(h + x.select(1, t + 2) + x.narrow(1, t - 1, 1).squeeze(1))
    return h


EFFECTS = [
    modes_left_over_elements,
    errors_of_select,
    modes_left,
    modes_toggled,
    modes_of_contexts,
    a_default_type,
    bytes_of_a_function,
    a_queue,
    a_context_variable,
    the_environment,
    a_mapping_that_counts,
    a_list_that_counts,
]


@pytest.mark.parametrize("function", EFFECTS)
def test_effects_are_those_of_python(function):
    same_as_python(function)


# ------------------------------------------------------------------------ elements changed in place


def one_tensor_of_two_places(p, x):
    h = [torch.zeros_like(x[:, 0])] * 2
    for t in range(x.shape[1]):
        for layer in range(2):
            h[layer] += x[:, t]
    return h


def a_list_of_two_names(p, x):
    outs = [[], []]
    first = outs[0]
    for t in range(x.shape[1]):
        for k in range(2):
            outs[k] += [torch.tanh(x[:, t]) * k]
    return first, outs


def an_index_that_is_computed_once(p, x):
    total, turns = x.new_zeros(40, *x[:, 0].shape), iter(range(40))
    for t in range(x.shape[1]):
        total[next(turns)] += x[:, t]
    return total


def numbers_that_do_not_fit(p, x):
    total = torch.zeros(x.shape[1], dtype=torch.int64)
    for t in range(x.shape[1]):
        total[t] += 0.5
    return total


def rows_that_do_not_fit(p, x):
    total = torch.zeros(x.shape[1], 1, 6, dtype=x.dtype)
    for t in range(x.shape[1]):
        total[t] += x[:, t]
    return total


def read_before_the_value(p, x):
    counts, h = [0, 0], torch.zeros_like(x[:, 0])

    def step(k):
        counts[k] = 5
        return 1

    for t in range(x.shape[1]):
        k = 1
        counts[k] += step(k)
        h = torch.tanh(h + x[:, t])
    return h, counts


IN_PLACE = [
    one_tensor_of_two_places,
    a_list_of_two_names,
    an_index_that_is_computed_once,
    numbers_that_do_not_fit,
    rows_that_do_not_fit,
    read_before_the_value,
]


@pytest.mark.parametrize("function", IN_PLACE)
def test_an_element_is_changed_in_place_as_in_python(function):
    same_as_python(function)


# ------------------------------------------------------------------------ state in slots


@dataclasses.dataclass(slots=True)
class Slotted:
    h: torch.Tensor
    n: int = 0


class Derived(Slotted):
    """With a `__dict__` beside the slots of its base."""


class ByHand:
    __slots__ = ("h", "log", "n")

    def __init__(self, h):
        self.h, self.n, self.log = h, 0, []


SLOTTED = pytest.mark.parametrize("kind", [Slotted, Derived, ByHand])


def in_slots(kind):
    def function(p, x):
        s, out = kind(x[:, 0] * 0), []
        for t in range(x.shape[1]):
            s.h = torch.tanh(p.inner(x[:, t]) + s.h)
            s.n += 1
            out.append(s.h * s.n)
        return torch.stack(out), s.h, s.n

    return function


def only_written(kind):
    def function(p, x):
        s, h = kind(x[:, 0] * 0), x[:, 0] * 0

        def keep(h):
            s.h, s.n = h, s.n + 1
            getattr(s, "log", []).append(1)

        for t in range(x.shape[1]):
            h = torch.tanh(p.inner(x[:, t]) + h)
            keep(h)
        return s.h, s.n, len(getattr(s, "log", ()))

    return function


@SLOTTED
def test_slots_are_state(kind):
    assert same_as_python(in_slots(kind))


@SLOTTED
def test_slots_that_are_only_written(kind):
    same_as_python(only_written(kind))


@pytest.mark.parametrize("make", [in_slots, only_written])
@SLOTTED
def test_nothing_is_left_of_a_scan_that_is_refused_late(kind, make):
    """See `test_random_loops.refused_late`, which drawn programs of all forms go through, too."""
    with refused_late():
        assert not same_as_python(make(kind))


def effects(p, x):
    """All that a body can change beside tensors, and what is undone if its scan is refused."""
    h, seen, words = x[:, 0] * 0, {}, []
    for t in range(x.shape[1]):
        h = torch.tanh(p.inner(x[:, t]) + h + 0.1 * torch.rand_like(h))
        p.trace.append(t)
        p.mem = h
        seen[t] = h.detach()
        words.append(h)
    return h, p.mem, seen, words, len(p.trace)


def test_nothing_is_left_of_attributes_lists_and_draws():
    with refused_late():
        assert not same_as_python(effects)


@pytest.mark.parametrize("function", forms.NATIVE, ids=lambda f: f.__name__)
def test_nothing_is_left_of_any_form_that_is_refused_late(function):
    with refused_late():
        assert not same_as_python(function)


# ------------------------------------------------------------------------ containers of the state


def changed_by_the_next(p, x):
    """The next iteration changes the appended dict before it makes a copy, as sinabs does."""
    state, kept = {"h": x[:, 0] * 0, "i": x[:, 0] * 0}, []
    for t in range(x.shape[1]):
        state["i"] = 0.9 * state["i"] + x[:, t]
        state = {**state, "h": torch.tanh(p.inner(state["i"]) + state["h"])}
        kept.append(state)
    return torch.stack([s["i"] for s in kept]), torch.stack([s["h"] for s in kept])


def changed_by_a_function(p, x):
    state, kept = [x[:, 0] * 0], []

    def update(state, x_t):
        state[0] = torch.tanh(p.inner(x_t) + state[0])
        return list(state)

    for t in range(x.shape[1]):
        state = update(state, x[:, t])
        kept.append((t, state))
    return torch.stack([s[0] for _, s in kept])


def appended_as_copies(p, x):
    state, kept = {"h": x[:, 0] * 0}, []
    for t in range(x.shape[1]):
        state["h"] = torch.tanh(p.inner(x[:, t]) + state["h"])
        kept.append(dict(state))
    return torch.stack([s["h"] for s in kept])


@pytest.mark.parametrize("function", [changed_by_the_next, changed_by_a_function])
def test_what_is_appended_and_changed_later_is_as_in_python(function):
    assert not same_as_python(function)


def test_copies_of_a_state_that_changes_are_native():
    assert same_as_python(appended_as_copies)
