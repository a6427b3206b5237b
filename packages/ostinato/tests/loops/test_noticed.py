"""Nothing that the body of a loop could notice differs: see the section in docs/loops.md.

Functions of `Parts` and x [B, T, 6], compared with Python.
"""

from __future__ import annotations

import copy
import functools
import numbers
import weakref

import numpy as np
import pytest
import torch
from compared import same_as_python

import ostinato
from ostinato.loops.iteration.index import Index

pytestmark = [
    pytest.mark.filterwarnings("ignore:the loop"),
    pytest.mark.filterwarnings("ignore:.*recorded"),
    pytest.mark.filterwarnings("ignore:loop. .*no `for` loop"),
]


# ------------------------------------------------------------------------ what is iterated over


def a_work_list(p, x):
    """Breadth first: the body lengthens the list that the loop goes through."""
    todo, out = [x[:, 0]], []
    for h in todo:
        if len(todo) < 15:
            todo += [torch.tanh(h), 0.5 * h]
        out.append(p.inner(h))
    return torch.stack(out), len(todo)


def a_long_work_list(p, x):
    todo, out = [*x.unbind(1)], []
    for h in todo:
        h = torch.tanh(p.inner(h))
        out.append(h)
        if len(todo) < 2 * x.shape[1]:
            todo.append(h)
    return torch.stack(out), len(todo)


def a_list_by_another_name(p, x):
    todo = [*x.unbind(1)]
    more, total = todo, torch.zeros_like(x[:, 0])
    for h in todo:
        total = torch.tanh(total + h)
        if len(more) < 2 * x.shape[1]:
            more.append(h * 0.5)
    return total, len(todo)


def a_list_without_a_name(p, x):
    p.trace = [*x.unbind(1)]
    total, n = torch.zeros_like(x[:, 0]), x.shape[1]
    for h in p.trace:
        total = torch.tanh(total + h)
        if len(p.trace) < 2 * n:
            p.trace.append(total)
    return total


def an_enumerated_work_list(p, x):
    todo, out = [x[:, 0]], []
    for i, h in enumerate(todo, 3):
        if len(todo) < 20:
            todo.append(torch.tanh(p.inner(h)))
        out.append(h * i)
    return torch.stack(out)


def a_zipped_work_list(p, x):
    todo, out = [x[:, 0]], []
    for h, x_t in zip(todo, x.unbind(1)):  # noqa: B905
        todo.append(torch.tanh(p.inner(h) + x_t))
        out.append(h)
    return torch.stack(out), len(todo)


def a_list_that_becomes_shorter(p, x):
    todo, out = [*x.unbind(1)], []
    for h in todo:
        out.append(torch.tanh(h))
        todo.pop()
    return torch.stack(out), len(todo)


def a_reversed_list_that_becomes_longer(p, x):
    todo, out = [*x.unbind(1)], []
    for h in reversed(todo):
        out.append(torch.tanh(h))
        todo.append(h)
    return torch.stack(out), len(todo)


def numbers_without_a_tensor(p, x):
    nodes, seen = [1], []
    for n in nodes:
        seen.append(n)
        nodes += [m for m in (2 * n, 2 * n + 1) if m < 16]
    return seen


def a_later_item_replaced(p, x):
    xs, total = [*x.unbind(1)], torch.zeros_like(x[:, 0])
    for t, h in enumerate(xs):
        total = torch.tanh(total + h)
        if t + 1 < len(xs):
            xs[t + 1] = xs[t + 1] + total
    return total, xs


def a_later_item_replaced_at_once(p, x):
    xs, total = [*x.unbind(1)], torch.zeros_like(x[:, 0])
    for h in xs:
        total = torch.tanh(total + h)
        xs[-1] = total
    return total, xs


def later_numbers_replaced(p, x):
    order, h = list(range(x.shape[1])), torch.zeros_like(x[:, 0])
    for i, t in enumerate(order):
        h = torch.tanh(x[:, t] + h)
        order[-1 - i // 2] = 0
    return h, order


ITERATED = [
    a_work_list,
    a_long_work_list,
    a_list_by_another_name,
    a_list_without_a_name,
    an_enumerated_work_list,
    a_zipped_work_list,
    a_list_that_becomes_shorter,
    a_reversed_list_that_becomes_longer,
    numbers_without_a_tensor,
    a_later_item_replaced,
    a_later_item_replaced_at_once,
    later_numbers_replaced,
]


@pytest.mark.parametrize("function", ITERATED)
def test_the_iterated_object_s_own_iterator_decides(function):
    assert not same_as_python(function)


def read(x, t):
    return x[:, t] * 0.5


def read_from_the_end(p, x):
    h, T = torch.zeros_like(x[:, 0]), x.shape[1]
    for t in range(T - 1):
        h = torch.tanh(0.3 * h + read(x, T - 1 - t))
    return h


@pytest.mark.parametrize("lengths", [(14, 13, 14, 12), (14, 15, 14, 16, 15)])
def test_a_called_function_reads_other_elements_at_another_length(lengths):
    assert same_as_python(read_from_the_end, lengths)


def places_in_turn(p, x):
    """A dict keeps the order of its keys, also where iterations are taken three at a time."""
    ring, found = [x[:, 0], x[:, 1], x[:, 2]], {}
    for t in range(x.shape[1]):
        ring[t % 3] = torch.tanh(ring[t % 3] + x[:, t])
        found[t] = x[:, t]
    return ring, list(found), list(found.values())


def test_a_dict_keeps_the_order_of_its_keys():
    assert same_as_python(places_in_turn, (29, 29))


# ------------------------------------------------------------------------ comprehensions


def lambdas_with_defaults(p, x):
    made = [lambda v, k=k: v * k for k in range(1, 12)]
    return [f(x[:, 0]) for f in made]


def lambdas_of_the_name(p, x):
    rows = [[(t, 3 - k) for k in range(3)] for t in range(10)]
    rows = [sorted(b, key=lambda b: b[1]) for b in rows]
    return [max(s, key=lambda s: -s[1]) for s in rows]


def closures_of_two_evaluations(p, x):
    made = []
    for n in (1.0, 2.0):
        made += [[lambda v: v * k + n for k in range(10)]]  # noqa: B023
    return [f(x[:, 0]) for fs in made for f in fs]


def generators_that_stay(p, x):
    both = []
    for n in (1.0, 2.0):
        gs = [(v * k + n for v in (1.0, 2.0)) for k in range(10)]
        both.append(gs)
    return [[*g] for gs in both for g in gs]


def nested_names(p, x):
    k = 7
    out = [torch.stack([x[:, k] * k for k in range(2)]).sum(0) + k for k in range(10)]
    return torch.stack(out), k


def names_of_a_lambda_only(p, x):
    return [(lambda t: t * 2)(t) + (lambda *t, **k: len(t))(t, t) for t in x.unbind(1)]


def nothing_lives_longer(p, x):
    made = [torch.tanh(v) for v in x[:, :5].unbind(1)]
    known = weakref.ref(made[-1])
    del made
    return known() is None


COMPREHENSIONS = [
    lambdas_with_defaults,
    lambdas_of_the_name,
    closures_of_two_evaluations,
    generators_that_stay,
    nested_names,
    names_of_a_lambda_only,
    nothing_lives_longer,
]


@pytest.mark.parametrize("function", COMPREHENSIONS)
def test_a_comprehension_has_its_own_scope(function):
    same_as_python(function)


# ------------------------------------------------------------------------ the kind of the index


def embedded(t, h):
    """A timestep's features, of a number or a tensor."""
    if not isinstance(t, int):
        return torch.zeros_like(h)
    return h * (t + 1)


def by_type(t, h):
    return h * 2 if type(t) is int else h * t


def by_class(t, h):
    return h * 2 if t.__class__ is int else h


def by_name(t, h):
    return h * 2 if type(t).__name__ == "int" else h


def by_number(t, h):
    return h * 2 if isinstance(t, numbers.Number) else h


def by_integral(t, h):
    return h * 2 if isinstance(t, numbers.Integral) else h


def by_match(t, h):
    match t:
        case float():
            return h
        case int():
            return h * 2
    return h * 3


def by_bits(t, h):
    return h * 2 if hasattr(t, "bit_length") else h


def by_iteration(t, h):
    return h * 2 if hasattr(t, "__iter__") or hasattr(t, "__len__") else h


def by_step(t, h):
    return h * 2 if hasattr(t, "step") or hasattr(t, "key") or hasattr(t, "tensor") else h


def by_shape(t, h):
    return h * 2 if not hasattr(t, "shape") else h


def by_type_of_a_fraction(t, h):
    return h * 2 if isinstance(t / 4, float) and not isinstance(t / 4, int) else h


def by_a_power(t, h):
    """An int up to t = 5, and a float later."""
    return h * 2 if isinstance(2 ** (5 - t), int) else h


def by_type_in_a_container(t, h):
    return h * 2 if type((t,)[0]) in (int, float) else h


def by_a_number_of_numpy(t, h):
    return h * 2 if t == np.int64(4) or t in (np.int64(6), 1j) else h


def by_a_copy(t, h):
    return h * copy.deepcopy(t) + copy.copy(t)


def by_none(t, h):
    return h * 2 if t is not None and t != "a" and t != (1,) else h


def by_dispatch(t, h):
    return _dispatched(t, h)


@functools.singledispatch
def _dispatched(t, h):
    return h


@_dispatched.register
def _(t: int, h):
    return h * 2


def by_bool(t, h):
    return h * 2 if isinstance(t == 3, bool) and isinstance(t > 2, int) else h


ASKED = [
    embedded, by_type, by_class, by_name, by_number, by_integral, by_match, by_bits, by_iteration,
    by_step, by_shape, by_type_of_a_fraction, by_a_power, by_type_in_a_container,
    by_a_number_of_numpy, by_a_copy, by_none, by_dispatch, by_bool,
]  # fmt: skip

# The loops that are native all the same.
ANSWERED = [
    embedded,
    by_class,
    by_number,
    by_integral,
    by_match,
    by_iteration,
    by_step,
    by_shape,
    by_type_of_a_fraction,
    by_a_power,
    by_none,
    by_dispatch,
    by_bool,
]


@pytest.mark.parametrize("function", ASKED)
def test_the_index_is_an_int_to_a_function_that_asks(function):
    def run(p, x):
        h, out = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            h = torch.tanh(function(t, h) + x[:, t])
            out.append(h)
        return torch.stack(out)

    native = same_as_python(run)
    assert native is (function in ANSWERED)


def by_printing(t, h):
    print("a step")
    return h


def by_writing(t, h):
    h += 1
    return h


@pytest.mark.parametrize("function", [by_name, by_type, by_printing, by_writing])
def test_a_function_that_an_iteration_calls_from_another_call_on_is_examined(function, capsys):
    def run(x, called):
        h = torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            h = torch.tanh(called(t, x[:, t]) + h)
        return h

    looped, found = ostinato.loop(run), []
    looped(torch.randn(3, 12, 4), lambda t, h: h)
    x = torch.randn(3, 12, 4, dtype=torch.float64)
    looped(x, lambda t, h: h)
    for how in (run, looped):
        own = x.clone()
        found.append((how(own, function), own, capsys.readouterr().out))
    assert found[0][2] == found[1][2]
    torch.testing.assert_close(found[1][:2], found[0][:2], rtol=1e-12, atol=1e-12)


def test_the_index_has_the_attributes_of_an_int_or_refuses_to_say():
    of_all = set(dir(object)) | {"__slots__", "__module__", "__getattr__"}
    own = set(dir(Index)) - of_all - {"__firstlineno__", "__static_attributes__"}  # Python 3.13
    assert {name for name in own if not name.startswith("_") or name.endswith("__")} <= {*dir(int)}


def asked_in_the_body(p, x):
    h, out = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        k = 2 if type(t) is int and type(t / 2) is not int else 30
        if isinstance(t, int) and isinstance(t, numbers.Number):
            k += 5
        h = torch.tanh(h * k + x[:, t])
        out.append(h)
    return torch.stack(out)


def test_the_index_is_an_int_in_the_body():
    assert same_as_python(asked_in_the_body)
