"""Loops as people write them, functions of `Parts` and x [B, T, 6]; compared with Python."""

from __future__ import annotations

import collections
import copy
import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Leaky(nn.Module):
    """A neuron that keeps its potential in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.mem: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mem is None:
            self.mem = torch.zeros_like(x)
        self.mem = 0.9 * self.mem + x
        out = torch.sigmoid(5 * (self.mem - 1))
        self.mem = self.mem - out
        return out


class Parts(nn.Module):
    """Modules that the loops use, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.lstm = nn.GRUCell(6, 5), nn.LSTMCell(6, 5)
        self.head, self.inner = nn.Linear(5, 3), nn.Linear(6, 6)
        self.leaky, self.gru = Leaky(), nn.GRU(6, 6, 2)
        self.trace: list[Any] = []
        self.double()


def stacked(p, x):
    h, out = None, []
    for t in range(x.size(1)):
        h = p.cell(x[:, t], h)
        out.append(p.head(h))
    return torch.stack(out, 1), h


def with_lstm(p, x):
    state, out = None, []
    for x_t in x.unbind(1):
        state = p.lstm(x_t, state)
        out += [state[0]]
    return torch.cat(out, dim=1), state


def into_a_buffer(p, x):
    h, out = x.new_zeros(len(x), 5), x.new_zeros(len(x), x.shape[1], 3)
    for t in range(x.shape[1]):
        h = p.cell(x[:, t, :], h)
        out[:, t] = p.head(h)
    return out


def time_first(p, x):
    x = x.transpose(0, 1)
    h, out = x.new_zeros(x.shape[1], 5), torch.empty(len(x), x.shape[1], 3, dtype=x.dtype)
    for i, x_t in enumerate(x):
        h = p.cell(x_t, h)
        if i > 0:
            out[i, :, :] = p.head(h)
        else:
            out[i, :, :] = 1
    return out


def crf(p, x):
    score = p.head(p.cell(x[:, 0]))
    for i in range(1, x.shape[1]):
        both = score.unsqueeze(2) + p.head.weight[:3, :3] + p.head(p.cell(x[:, i])).unsqueeze(1)
        score = torch.where(x[:, i, :1] > -1, torch.logsumexp(both, 1), score)
    return torch.logsumexp(score, 1)


def neighbours(p, x):
    before, h, total, T = torch.zeros_like(x[:, 0]), None, 0, x.shape[1]
    for t in range(1, T):
        h = p.cell(x[..., t, :] - x[:, t - 1] + before + x[:, T - t - 1], h)
        before, total = before * 0.9 + x[:, t - 1] * 0.1, total + p.head(h)
    return total, before


def of_attributes(p, x):
    p.leaky.mem, out, potentials = None, [], []
    for step in range(x.shape[1]):
        out.append(p.leaky(p.inner(x[:, step])))
        potentials.append(p.leaky.mem)
    return torch.stack(out), torch.stack(potentials)


def layers_backwards(p, x):
    h = [x.new_zeros(len(x), 6) for _ in range(2)]
    outs = {"a": [], "b": []}
    for t in reversed(range(x.shape[1])):
        inner = x[:, t]
        for layer in range(2):
            h[layer] = torch.tanh(p.inner(inner) + h[layer])
            inner = h[layer]
        outs["a"].append(inner)
        outs["b"].append((h[0], t))
        last = inner * 2
        if t == 0 or t >= x.shape[1] - 2:
            continue
        h[0] = h[0] * 0.5
    return torch.stack(outs["a"]), h, last, outs["b"], t


def in_place(p, x):
    h, out = x.new_zeros(len(x), 6), []
    given = h
    for t, x_t in enumerate(x.transpose(0, 1)):
        h += torch.tanh(p.inner(x_t))
        h.mul_(0.9)
        out.insert(0, h.sum(1))
        last = x[:, t + 1] if t < x.shape[1] - 1 else x[:, 0]
    assert given is h
    return torch.stack(out), h, last


def in_a_list_of_the_module(p, x):
    h = None
    for a, b in zip(x.unbind(1), x.flip(1).unbind(1), strict=True):
        h = p.cell(a * b, h)
        p.trace.append(h)
    return h, p.trace


def the_index_as_a_number(p, x):
    h, T, out = None, x.shape[1], []
    for t in range(T):
        h = p.cell(x[:, t] * (1 + t / T) - torch.sin(x[:, 0]) / (t + 1), h)
        out.append((h * t, 2 * t))
    return h, out


def through_a_buffer(p, x):
    T = x.shape[1]
    states = x.new_zeros(len(x), T + 2, 5)
    for t in range(T):
        states[:, t + 2] = p.cell(x[:, t], states[:, t + 1] - 0.5 * states[:, t])
    return states


def through_a_list(p, x):
    h, T = [x.new_zeros(len(x), 5)], x.shape[1]
    both = [(h[0], h[0])] * 2
    for t in range(1, T):
        h.append(p.cell(x[:, t], h[-1] + 0.5 * h[t - 1]))
        both.append((h[-1], both[-2][0] + both[-1][1]))
    return h, torch.stack(h), both


def a_list_by_index(p, x):
    T = x.shape[1]
    h = [None] * T
    h[0] = p.cell(x[:, 0])
    for t in range(1, T):
        h[t] = p.cell(x[:, t], h[t - 1])
    return torch.stack(h)


def comprehension(p, x):
    p.leaky.mem = None
    return torch.stack([p.leaky(x_t * 2) for x_t in x.unbind(1)], dim=1)


def sums(p, x):
    h, loss, other = None, 0.0, x.new_zeros(())
    for t in range(x.shape[1] - 1):
        h = p.cell(x[:, t], h)
        loss += nn.functional.mse_loss(p.head(h), x[:, t + 1, :3])
        other = h.abs().mean() + other
    return loss, other, h


def several_courses(p, x):
    h, out, late = None, [], []
    for t in range(x.shape[1] + 12 - 12):
        h = p.cell(x[:, t], h)
        if t == 9:
            h = -h
        if t >= x.shape[1] - 2:
            late.append(h)
        before = value = x[:, t - 1] if t > 0 else torch.zeros_like(x[:, 0])
        out.append(before + value)
    return h, torch.stack(out), late


def numbers_as_state(p, x):
    h, j, beta, last, seen = None, 0, 1.0, -1, []
    outs = torch.zeros(x.shape[1], len(x), 5, dtype=x.dtype)
    p.count = 0
    for t in range(x.shape[1]):
        h = p.cell(x[:, j] * beta, h) * (1 - 0.01 * last)
        outs[j] = h
        beta = beta * 0.9 + 0.01 * t
        j += 1
        p.count += 2
        seen.append((j, beta))
        last = t
    return outs, j, beta, last, seen, p.count


def queues(p, x):
    delayed, past = [x[:, 0]] * 3, collections.deque([x[:, 1]] * 2, maxlen=2)
    for t in range(x.shape[1]):
        delayed.append(torch.tanh(x[:, t] + delayed.pop(0)))
        past.append(x[:, t] + past[0] * 0.5)
    return delayed, list(past)


def picks_and_rows(p, x):
    h, B = None, len(x)
    tags = torch.arange(B * x.shape[1]).view(B, -1) % 3
    scores, out = x.new_zeros(B), x.new_zeros(B, x.shape[1], 3)
    for t in range(1, x.shape[1]):
        h = p.cell(x[:, t], h)
        e = p.head(h)
        rows = torch.arange(B)
        scores = scores + e[rows, tags[:, t]] + x[rows, t, tags[:, t - 1]]
        out[rows, t] = e
    return scores, out


def names_of_a_comprehension(p, x):
    h, outs, kept, keeps = None, [], {"a": []}, False
    for t in range(x.shape[1]):
        h = p.cell(x[:, t], h)
        outs.append(h)
        if keeps:
            name = "a"
            kept[name].append(h)
    return torch.stack(outs), {name: len(v) for name, v in kept.items()}


def gathered(p, x):
    h, table, T = None, p.inner.weight, x.shape[1]
    for t in range(T):
        h = p.cell(x[:, t // 2] + table[t % 6] - x[:, (3 * t) % T], h)
    return h


def under_a_flag(p, x):
    h, outs, keeps = None, [], False
    if keeps:
        kept = []
    for t in range(x.shape[1]):
        h = p.cell(x[:, t], h)
        outs.append(h)
        if keeps:
            kept.append(h)
    try:
        return kept
    except UnboundLocalError:
        return torch.stack(outs)


def elements_as_indices(p, x):
    """Tags and words name rows of tables; a mask in float32 beside float64."""
    table, tags = p.inner.weight, (x.transpose(0, 1) > 0).sum(2) % 6
    mask = (tags > 1).float()
    scores, h, last = x.new_zeros(len(x)), None, tags[0]
    for i in range(1, len(tags)):
        scores = scores + table[tags[i - 1], tags[i]] * mask[i]
        scores += x[torch.arange(len(x)), i, tags[i]] * mask[i]
    for tag, m in zip(tags[1:], mask[1:], strict=True):
        h = p.cell(table[tag] + table[last], h) * m.unsqueeze(1)
        last = tag
    return scores, h


def integrated(p, x, grid, at):
    """The states at some times: the one that the grid has reached decides what is written."""
    out, y, j = x.new_zeros(len(at), *x[:, 0].shape), x[:, 0], 1
    out[0] = y
    for t0, t1 in zip(grid[:-1], grid[1:]):  # noqa: B905, RUF007
        y = y + (t1 - t0) * torch.tanh(p.inner(y)) * (1 - t0)
        while j < len(at) and t1 >= at[j]:
            out[j] = y * (2 - at[j])
            j += 1
    return out, j


def input_at(p, x, t):
    return x[:, t] + p.sequence[:, t]


def in_called_functions(p, x):
    h, p.sequence = None, x * 2
    for t in range(x.shape[1]):
        h = p.cell(input_at(p, x, t) + x.narrow(1, t, 1).squeeze(1) + x.select(1, t), h)
    p.sequence = None
    return h


def lists_of_numbers(p, x):
    h, T = x.new_zeros(len(x), 6), x.shape[1]
    weights, order = [0.1 * i for i in range(T)], [(3 * i) % T for i in range(T)]
    times = np.linspace(0, 1, T + 1)
    for i, (w, t) in enumerate(zip(weights, reversed(order), strict=True)):
        h = torch.tanh(x[:, t] * w + (times[i + 1] - times[i]) * h) * weights[t]
        h = h + np.sin(i / 3) * x[:, int(i / 2)] * math.exp(-i) + float(i)
    return h


@dataclasses.dataclass
class Memory:
    h: Tensor
    steps: int = 0


class Pair(NamedTuple):
    h: Tensor
    weight: float


def numbers_in_structures(p, x):
    zeros = x.new_zeros(len(x), 6)
    memory, pair, state = Memory(zeros), Pair(zeros, 1.0), {"h": [zeros, 0], "n": 3}
    for t in range(x.shape[1]):
        memory = Memory(torch.tanh(x[:, t] + memory.h / (1 + memory.steps)), memory.steps + 1)
        pair = pair._replace(h=x[:, t] * pair.weight + pair.h, weight=pair.weight * 0.9)
        state = {"h": [state["h"][0] * 0.5 + x[:, state["n"] - 3], t], "n": state["n"] + 1}
    return memory.h, memory.steps, pair, state


def branches_that_repeat(p, x):
    h, g, outs, some, n = None, x.new_zeros(len(x), 6), [], [], 0
    buffer = x.new_zeros(len(x), x.shape[1] + 1, 6)
    for t in range(x.shape[1]):
        h = p.cell(x[:, t] * (1 + n / 10) + x[:, t - 1], h)
        if t % 2 == 0:
            h, n = h * 0.5, n + 1
            outs.append(h[:, :2])
        g = torch.tanh(p.inner(x[:, t]) + g) if t % 4 else g.detach()
        buffer[:, t + 1] = g + 0.5 * buffer[:, t] + t
        outs.append(h)
        some.append(g)
    return outs, torch.stack(some), buffer, n, t


def lengths_of_lists(p, x):
    outs, kept, starred, early = [], [], [], torch.zeros(x.shape[1], dtype=torch.int64)
    for x_t in x.unbind(1):
        before = outs[-2] if len(outs) > 1 else torch.zeros_like(x_t)
        outs.append(torch.tanh(p.inner(x_t) + before / (1 + len(outs))))
        kept = kept + [kept[-1] * 0.5 + x_t if kept else x_t]  # noqa: RUF005
        starred = [*starred, x_t]
    for t in range(x.shape[1]):
        before = outs[t] if t in {0, 1} else before * 0.9
        outs[0] = outs[0] + before
        early[t] = t * 2
    return outs, torch.stack(kept), starred, early


def buffers_made_in_the_loop(p, x):
    h = None
    for t in range(x.shape[1]):
        h = p.cell(x[:, t], h)
        if t == 0:
            saved = {"h": x.new_zeros(x.shape[1], *h.shape), "y": [x.new_zeros(len(x), 3, 20)]}
        saved["h"][t] = h
        saved["y"][0][:, :, t] = p.head(h)
    return saved, h


def made_longer(p, x):
    outs, ends, seen = None, torch.tensor([], dtype=x.dtype), x[:, :1]
    h = x.new_zeros(len(x), 6)
    for t in range(x.size(1)):
        before = seen[:, -1] + torch.select(x, 1, t)
        h = torch.tanh(p.inner(before) + h)
        outs = h.unsqueeze(1) if outs is None else torch.cat([outs, h.unsqueeze(1)], dim=1)
        ends = torch.cat((h[None, :, :2], h[None, :, 2:4], ends))
        seen = torch.cat([seen, torch.sin(h + seen[:, -1])[:, None]], 1)
    return outs, ends, seen, h


def seasons(p, x):
    season, memory = [x[:, 0], x[:, 1]], x.new_zeros(len(x), 4, 6)
    outs, level = [], x[:, 0]
    for t in range(x.size(1)):
        level = torch.tanh(0.5 * level + x[:, t] - season[t % 2] + memory[:, (t + 1) % 4])
        season[t % 2] = 0.2 * level + p.inner(season[t % 2])
        memory[:, t % 4] = level
        outs.append(level)
    return torch.stack(outs, 1), season, memory


def after_a_washout(p, x):
    h, states, T = x.new_zeros(len(x), 6), [], x.size(1)
    for t in range(T):
        h = torch.tanh(p.inner(x[:, t]) + h)
        if t >= 6:
            states.append(torch.cat([x[:, t], h], -1))
    return torch.stack(states, 1)


def words_of_a_decoder(p, x):
    state, word = x.new_zeros(2, len(x), 6), torch.zeros(len(x), dtype=torch.int64)
    forced, words = torch.arange(x.size(1)) % 3 == 0, x.argmax(-1)
    outs = []
    for t in range(x.size(1)):
        out, state = p.gru(p.inner.weight[word].unsqueeze(0), state)
        out = p.inner(out.squeeze(0)) * (1 + t / 10)
        word = torch.where(forced[t], words[:, t], out.argmax(1))
        outs.append(out)
    return torch.stack(outs, 1), state


def kalman_of_one_series(p, x):
    A, C, y = p.inner.weight[:2, :2], p.inner.weight[:1, 2:4], x[0, :, 0]
    mean, P, out = x.new_zeros(2, 1), torch.eye(2, dtype=x.dtype), []
    for t in range(len(y)):
        mean, P = A @ mean, A @ P @ A.t() + 0.1 * torch.eye(2, dtype=x.dtype)
        K = P @ C.t() / (C @ P @ C.t() + 1)
        mean, P = mean + K * (y[t] - C @ mean), P - K @ C @ P
        out.append(mean[0, 0])
    return torch.stack(out), P


def standardized(p, x):
    h, outs = x.new_zeros(len(x), 6), []
    for t in range(x.size(1)):
        a = p.inner(x[:, t]) + h
        h = torch.tanh((a - a.mean(0)) / (a.var(0, unbiased=False) + 1e-5).sqrt())
        outs.append(h)
    return torch.stack(outs)


NATIVE = [
    made_longer, seasons, after_a_washout, words_of_a_decoder, kalman_of_one_series, standardized,
    buffers_made_in_the_loop,
    numbers_in_structures, branches_that_repeat,
    in_called_functions, lists_of_numbers, lengths_of_lists,
    elements_as_indices,
    under_a_flag,
    gathered,
    picks_and_rows,
    queues,
    names_of_a_comprehension,
    numbers_as_state,
    comprehension, sums, several_courses,
    through_a_buffer, through_a_list, a_list_by_index,
    the_index_as_a_number,
    stacked, with_lstm, into_a_buffer, time_first, crf, neighbours, of_attributes,
    layers_backwards, in_place, in_a_list_of_the_module,
]  # fmt: skip


def sites(function: Callable[..., Any]) -> list[Any]:
    return getattr(function, "__ostinato_loops__", [])


def leaves(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [leaf for v in value for leaf in leaves(v)]
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in leaves(v)]
    return [value]


def run(function: Callable[..., Any], parts: Parts, x: Tensor) -> list[Any]:
    """Values, then gradients, then what the attributes hold."""
    x = x.clone().requires_grad_()
    out = leaves(function(parts, x))
    total = sum((o * o.detach().cos()).sum() for o in out if isinstance(o, Tensor))
    wanted = [x, *parts.parameters()]
    grads = torch.autograd.grad(total, wanted, allow_unused=True)
    return [*out, *grads, parts.leaky.mem, *parts.trace]


def compare(function: Callable[..., Any], looped: Callable[..., Any], x: Tensor) -> None:
    """Values, gradients and attributes are those of Python, within rounding of float64.

    A sum of 20 steps of some ten terms, in another order: 1e-10 relative is far above its rounding
    and far below any missing or doubled term.
    """
    parts = Parts()
    other = copy.deepcopy(parts)
    wanted = run(function, parts, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run(looped, other, x)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        if isinstance(b, Tensor):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        else:
            assert type(a) is type(b) and a == b
