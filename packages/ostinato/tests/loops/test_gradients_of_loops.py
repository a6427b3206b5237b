"""The gradients of a loop: of elements, of states between, of parameters without a path."""

from __future__ import annotations

import functools

import pytest
import torch
from compared import same_as_python

import forms
import ostinato

pytestmark = pytest.mark.filterwarnings("ignore:the loop")


def a_target_of_no_grad(p, x):
    h, losses = x[:, 0] * 0, []
    for t in range(x.shape[1] - 1):
        h = torch.tanh(p.inner(x[:, t]) + h)
        with torch.no_grad():
            target = x[:, t + 1]
        losses.append(((h - target) ** 2).mean())
    return torch.stack(losses)


def read_by(x, t):
    return x[:, t]


def a_target_of_a_function(p, x):
    h, losses = x[:, 0] * 0, []
    for t in range(x.shape[1] - 1):
        h = torch.tanh(p.inner(x[:, t]) + h)
        with torch.no_grad():
            target = read_by(x, t) + x.select(1, t + 1)
        losses.append(((h - target) ** 2).mean())
    return torch.stack(losses)


def a_written_element(p, x):
    h, out = x[:, 0] * 0, torch.zeros_like(x)
    for t in range(1, x.shape[1]):
        h = torch.tanh(p.inner(x[:, t]) + h)
        out[:, t] = h
        with torch.no_grad():
            before = out[:, t - 1] + out[:, t]
        h = h + before
    return out


def items_of_a_list(p, x):
    """An item of a list is the same tensor, with its gradient, under no_grad."""
    items, h, out = list(x.unbind(1)), x[:, 0] * 0, []
    for t in range(len(items)):
        with torch.no_grad():
            item = items[t]
        h = torch.tanh(p.inner(item) + h)
        out.append(h)
    return torch.stack(out)


@pytest.mark.parametrize(
    "function",
    [a_target_of_no_grad, a_target_of_a_function, a_written_element, items_of_a_list],
    ids=lambda f: f.__name__,
)
def test_an_element_read_under_no_grad_gets_no_gradient(function):
    same_as_python(function)


def test_a_loop_with_such_an_element_is_native():
    assert same_as_python(a_target_of_no_grad)


# ------------------------------------------------------------------------ states between


def states(p, x, within=lambda h: None):
    h, hs, answers = x[:, 0] * 0, [], []
    for t in range(x.shape[1]):
        h = torch.tanh(p.inner(x[:, t]) + h)
        within(h)
        hs.append(h)
        answers.append(p.inner(h))
    return hs, answers, h


ASKED = {
    "retain_grad": lambda hs, answers, h: hs[10].retain_grad(),
    "hook": lambda hs, answers, h: hs[10].register_hook(lambda g: None),
    "hook of the last": lambda hs, answers, h: hs[-1].register_hook(lambda g: None),
    "hook of the end": lambda hs, answers, h: h.register_hook(lambda g: None),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("from_all", [True, False])
def test_to_ask_for_the_gradient_of_a_state_between_is_an_error(ask, from_all):
    x = torch.randn(3, 14, 6, dtype=torch.float64)
    hs, answers, h = ostinato.loop(states)(forms.Parts(), x)
    ask(hs, answers, h)
    goal = sum(v.sum() for v in (*hs, *answers)) if from_all else h.sum()
    with pytest.raises(RuntimeError, match="hook or keeps its gradient"):
        goal.backward()


def ask_for(hook, h):
    h.register_hook(hook) if hook else h.retain_grad()


@pytest.mark.parametrize("by_hook", [False, True])
def test_what_the_error_says_to_write_gives_pythons_gradients(by_hook):
    found = []
    for how in (states, ostinato.loop(states)):
        torch.manual_seed(0)
        seen: list[torch.Tensor] = []
        hook = functools.partial(list.append, seen)
        parts, x = forms.Parts(), torch.randn(3, 14, 6, dtype=torch.float64)
        hs, _, h = how(parts, x, within=functools.partial(ask_for, hook if by_hook else None))
        h.sum().backward()
        found.append(torch.stack(seen if by_hook else [v.grad for v in hs]))
    assert len(found[0]) == 14
    torch.testing.assert_close(*found)


def test_answers_that_no_later_iteration_reads_have_their_gradients():
    x, found = torch.randn(3, 14, 6, dtype=torch.float64), []
    answers = ostinato.loop(states)(forms.Parts(), x)[1]
    answers[10].retain_grad()
    answers[11].register_hook(found.append)
    (2 * sum(v.sum() for v in answers)).backward()
    assert (answers[10].grad == 2).all() and (found[0] == 2).all()


def handed_on(p, x):
    older, h = x[:, 0], x[:, 0] * 0
    for t in range(x.shape[1]):
        older, h = h, torch.tanh(p.inner(x[:, t]) + h + older)
    return older, h


def written(p, x):
    older, h = x[:, 0] * 0, x[:, 0] * 0
    for t in range(x.shape[1]):
        older += x[:, t]
        h = torch.tanh(p.inner(older.clone()) + h)
    return older, h


def an_element(p, x):
    h, last = x[:, 0] * 0, None
    for x_t in x.unbind(1):
        last = x_t
        h = torch.tanh(p.inner(x_t) + h)
    return last, h


@pytest.mark.parametrize("function", [handed_on, written, an_element])
def test_an_older_state_on_which_the_last_one_depends_is_watched(function):
    x = torch.randn(3, 14, 6, dtype=torch.float64).requires_grad_()
    looped = ostinato.loop(function)
    older, h = looped(forms.Parts(), x)
    assert forms.sites(looped)[0].native
    older.register_hook(lambda g: None)
    with pytest.raises(RuntimeError, match="hook or keeps its gradient"):
        (older.sum() + h.sum()).backward()


def test_what_depends_on_what_is_found_where_there_are_gradients():
    def function(p, x):
        h, last = x[:, 0] * 0, None
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] + h)
            last = p.inner(h)
        return h, last

    looped = ostinato.loop(function)
    x = torch.randn(3, 14, 6, dtype=torch.float64)
    for _ in range(2):
        looped(forms.Parts(), x)[1].sum().backward()
    h, last = looped(forms.Parts(), x.requires_grad_())
    h.register_hook(lambda g: None)
    with pytest.raises(RuntimeError, match="hook or keeps its gradient"):
        last.sum().backward()


def test_an_item_of_a_stacked_list_is_watched():
    def function(p, x):
        h, answers = x[:, 0] * 0, []
        for t in range(x.shape[1]):
            h = torch.tanh(p.inner(x[:, t]) + h)
            answers.append(p.inner(h))
        return torch.stack(answers), answers

    x = torch.randn(3, 14, 6, dtype=torch.float64)
    whole, answers = ostinato.loop(function)(forms.Parts(), x)
    answers[10].retain_grad()
    with pytest.raises(RuntimeError, match="hook or keeps its gradient"):
        whole.sum().backward()


# ------------------------------------------------------------------------ without a path


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v, threshold):
        ctx.save_for_backward(v)
        return (v > threshold).to(v)

    @staticmethod
    def backward(ctx, g):
        return g / (1 + ctx.saved_tensors[0].abs()) ** 2, None


@pytest.mark.parametrize("before", [True, False], ids=["computed before", "computed within"])
def test_a_parameter_without_a_path_has_no_gradient(before):
    def function(p, tau, unused, x):
        decay, v, out = torch.exp(-1 / tau), x[:, 0] * 0, []
        for t in range(x.shape[1]):
            own = decay * 1 if before else torch.exp(-1 / tau)
            v = v * 0.9 + p.inner(x[:, t])
            out.append(Spike.apply(v, own))
            v = v - out[-1].detach() * unused.detach()
        return torch.stack(out, 1)

    looped, p = ostinato.loop(function), forms.Parts()
    tau, unused = (torch.nn.Parameter(torch.ones(6, dtype=torch.float64)) for _ in range(2))
    for _ in range(3):
        p.zero_grad()
        looped(p, tau, unused, torch.randn(3, 14, 6, dtype=torch.float64)).sum().backward()
        assert tau.grad is None and unused.grad is None
        assert p.inner.weight.grad is not None
    assert forms.sites(looped)[0].native
