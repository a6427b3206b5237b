"""Drawn loops against Python: values, gradients, errors, and all that a call leaves behind."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.util
import random
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grammar
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import ostinato
from ostinato.compiler.errors import Unsupported
from ostinato.loops.running import attempt
from ostinato.loops.running.site import Site
from zoo.suites import draws

POSITION = re.compile(r" \(position \d\)")  # of an argument: a method has one less than a function
IN_PLACE = re.compile("in-?place")  # PyTorch's texts differ with the kind of view


class Leaky(nn.Module):
    """A neuron that keeps its potential."""

    def __init__(self) -> None:
        super().__init__()
        self.mem: Any = None

    def reset(self) -> None:
        self.mem = None

    def forward(self, a: Tensor) -> Tensor:
        self.mem = a if self.mem is None else 0.9 * self.mem + a
        out = torch.sigmoid(4 * (self.mem - 1))
        self.mem = self.mem - out
        return out


class Parts(nn.Module):
    """What the programs use."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.lstm = nn.GRUCell(4, 4), nn.LSTMCell(4, 4)
        self.lin, self.leaky, self.gru = nn.Linear(4, 4), Leaky(), nn.GRU(4, 4, 2)
        self.cells = nn.ModuleList([nn.GRUCell(4, 4), nn.RNNCell(4, 4)])
        self.scale = 0.8
        self.mem: Any = None
        self.trace: Any = None
        self.log: list[Any] = []
        self.register_buffer("average", torch.ones(4))
        self.right, self.wrong = torch.eye(4).double(), torch.ones(3, 4).double()
        self.double()

    def detached(self) -> None:
        for module, name in ((self, "mem"), (self, "trace"), (self.leaky, "mem")):
            value = getattr(module, name)
            setattr(module, name, value.detach() if isinstance(value, Tensor) else value)
        self.average = self.average.detach()


@dataclasses.dataclass
class Call:
    """The arguments of one call, and how it is made."""

    batch: int
    steps: int
    flag: bool
    training: bool
    wants_grad: bool
    optional: bool

    def tensors(self, seed: int) -> list[Tensor]:
        own = torch.Generator().manual_seed(seed)
        shapes = (self.batch, self.steps, 4), (self.steps, self.batch, 4)
        return [torch.randn(s, dtype=torch.float64, generator=own) for s in (*shapes, shapes[1])]


def calls(rng: random.Random) -> list[Call]:
    """Two calls alike, one of another length or batch or mode, and the first again."""
    steps = rng.choice([1, 2, 5, 9, 10, 11, 12, 13, 16, 20])
    batch = rng.choice([1, 3, 4, min(steps, 12)])
    first = Call(batch, steps, rng.random() < 0.5, rng.random() < 0.5, True, rng.random() < 0.7)
    other = copy.copy(first)
    change = rng.choice(["steps", "batch", "flag", "training", "wants_grad", "optional"])
    value = getattr(first, change)
    setattr(other, change, not value if isinstance(value, bool) else rng.choice([3, 11, 14]))
    return [first, first, other, first]


def outcome(program: Callable[..., Any], parts: Parts, call: Call, seed: int) -> dict[str, Any]:
    """All that a user can see of one call."""
    parts.train(call.training)
    parts.detached()
    x, y, z = call.tensors(seed)
    x.requires_grad_(call.wants_grad)
    y.requires_grad_(call.wants_grad and call.flag)
    torch.manual_seed(seed)
    out, error, grads = None, None, None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with torch.set_grad_enabled(call.wants_grad):
                out = program(parts, x, y, z if call.optional else None, call.flag)
        except Exception as raised:
            error = raised
    state = torch.get_rng_state()
    wanted = [v for v in leaves(out) if isinstance(v, Tensor) and v.grad_fn is not None]
    failed, seen = None, list[Tensor]()
    if wanted:
        of = [v for v in (x, y, *parts.parameters()) if v.requires_grad]
        try:
            # The cosine of a large number is another for each of its roundings.
            goal = sum((v * v.detach().clamp(-9, 9).cos()).sum() for v in wanted)
            every = [v for v in leaves(out) if isinstance(v, Tensor)]
            chosen = every[call.steps % len(every)]
            if seed % 2 and chosen.grad_fn is not None:  # the gradient of a state between
                chosen.register_hook(lambda g: seen.append(g) or None)
            grads = torch.autograd.grad(goal, of, allow_unused=True)
        except RuntimeError as raised:
            failed = "inplace" if "inplace" in str(raised) else str(raised)
            failed = "between" if "has a hook" in failed else failed
    return {
        "error": (type(error), "" if IN_PLACE.search(str(error)) else POSITION.sub("", str(error))),
        "out": out,
        "grads": grads,
        "failed": failed,
        "hooked": seen,
        "state": {n: getattr(parts, n) for n in ("mem", "trace", "log", "average")},
        "leaky": parts.leaky.mem,
        "random": state,
        "arguments": (x, y, z),
        "warnings": [str(w.message) for w in caught],
    }


def leaves(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [leaf for v in value for leaf in leaves(v)]
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in leaves(v)]
    if dataclasses.is_dataclass(value):
        return [leaf for v in vars(value).values() for leaf in leaves(v)]
    return [value]


def difference(a: Any, b: Any, where: str = "", either: bool = False) -> str:
    """How what was found differs from what Python gives; "" where it does not.

    Args:
        either: whether one may have a history and the other none, as docs/loops.md says: an item of
            a list that has others with a gradient, or a view under no_grad. The gradients of all
            outputs show whether anything is missing.

    Twenty steps of some thirty operations with values near one, in another order of the sums:
    1e-9 is far above their rounding in float64, and far below a missing or doubled term.
    """
    if type(a) is not type(b):
        return f"{where}: {type(a).__name__}, Python {type(b).__name__}"
    if isinstance(a, Tensor):
        # A view of x under no_grad requires a gradient, too, but has no history.
        for what in ("shape", "dtype", "grad_fn"):
            v, w = (bool(of.grad_fn) if what == "grad_fn" else getattr(of, what) for of in (a, b))
            if v != w and not (either and what == "grad_fn"):
                return f"{where}: {what} {v}, Python {w}"
        if not a.is_floating_point():
            return "" if torch.equal(a, b) else f"{where}: {a} is not {b}"
        near = 1e-9 if a.dtype == torch.float64 else 1e-4
        same = torch.allclose(a, b, rtol=near, atol=near, equal_nan=True)
        return "" if same else f"{where}: differs by {(a - b).abs().max():.3g}"
    if isinstance(a, (tuple, list)):
        pairs = list(enumerate(zip(a, b, strict=False)))
        if len(a) != len(b):
            return f"{where}: {len(a)} items, Python {len(b)}"
        some = any(isinstance(v, Tensor) and v.grad_fn is not None for v in leaves(b))
        each = (difference(v, w, f"{where}[{i}]", either or some) for i, (v, w) in pairs)
        return next((d for d in each if d), "")
    if isinstance(a, dict):
        if list(a) != list(b):
            return f"{where}: keys {list(a)}, Python {list(b)}"
        return next((d for k in a if (d := difference(a[k], b[k], f"{where}.{k}", either))), "")
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        return difference(vars(a), vars(b), where, either)
    return "" if a == b else f"{where}: {a!r}, Python {b!r}"


def imported(text: str, folder: Path) -> Callable[..., Any]:
    """The function of a program, from a file, so that its source is found.

    Each begins at another line: a program that is drawn again would be the same code, of which scan
    says at the ninth recording that it is recorded too often.
    """
    number = len(list(folder.glob("drawn_*.py")))
    path = folder / f"drawn_{number}.py"
    path.write_text("\n" * number + text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run: Callable[..., Any] = module.run
    return run


def check(
    text: str, program: grammar.Program, rng: random.Random, folder: Path
) -> tuple[list[str], list[Site]]:
    """The differences from Python in some calls, and the loops."""
    plain = imported(text, folder)
    looped = ostinato.loop(plain)
    sites: list[Site] = getattr(looped, "__ostinato_loops__", [])
    late: Any = contextlib.nullcontext()
    if program.chance(8):
        program.python("each scan is refused late")
        late = refused_late()
    with late:
        return compared(plain, looped, calls(rng), program.stale, program.has_views), sites


@contextlib.contextmanager
def refused_late() -> Iterator[None]:
    """Each scan is recorded and played, and refused then: Python goes on as if it had not been."""
    played = attempt.scan_iterations

    def refuses(*arguments: Any) -> Any:
        played(*arguments)
        raise Unsupported("refused late")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempt, "scan_iterations", refuses)
        yield


def compared(
    plain: Callable[..., Any],
    looped: Callable[..., Any],
    made: list[Call],
    stale: bool = False,
    has_views: bool = False,
) -> list[str]:
    """The differences from Python in some calls.

    A scan may keep an input that the Python loop does not keep: a change of it before the backward
    pass is PyTorch's error then.

    Args:
        stale: whether the program makes such a change.
        has_views: whether it has views under no_grad, which require a gradient without a history.
    """
    torch.manual_seed(0)
    parts = Parts()
    other, found = copy.deepcopy(parts), []
    warned: list[str] = []
    for i, call in enumerate(made):
        expected, got = outcome(plain, parts, call, i // 2), outcome(looped, other, call, i // 2)
        known = expected.pop("warnings")
        warned += [w for w in got.pop("warnings") if w not in known]
        if expected["failed"] == "inplace" and got["failed"] is None:
            got.update(failed="inplace", grads=None, hooked=[])  # of what Python's loop had kept
        if got["failed"] == "between":  # an error, instead of a part of it
            expected.update(failed="between", grads=None, hooked=[])
        # A tensor without a gradient in Python may have one, as docs/loops.md says.
        if not expected["hooked"] or got["grads"] is None:
            expected["hooked"] = got["hooked"] = []
        if stale and got["failed"] == "inplace":
            expected.update(failed=got["failed"], grads=None, hooked=[])
        if d := difference(got, expected, either=has_views):
            found.append(f"call {i} {call} {d}")
            break
    n_loops = len(getattr(looped, "__ostinato_loops__", []))
    if len(warned) > n_loops:
        found.append(f"{len(warned)} warnings of {n_loops} loops")
    known = "runs in Python", "was recorded 8 times"
    return [*found, *[w for w in warned if not any(k in w for k in known)]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawn")


@draws(60)
@given(st.randoms(use_true_random=False))
def test_drawn_loops_mean_what_they_mean_in_python(folder, rng):
    text, program = grammar.drawn(rng)
    found, _ = check(text, program, rng, folder)
    assert not found, "\n".join([*found, text])


# What drawn programs showed, in short.


def two_names(p, x, y, z, flag):
    a, outs = [x[:, 0], x[:, 0]], []
    b = a if flag else list(a)
    for x_t in x.unbind(1):
        a[0] = torch.tanh(x_t + b[0])
        outs.append(b[0] * 2)
    return a, b, outs


def two_names_of_outputs(p, x, y, z, flag):
    a = b = []
    for x_t in x.unbind(1):
        a.append(p.lin(x_t))
        b.append(x_t * p.average)
    return a, b


def beyond_the_end(p, x, y, z, flag):
    out = torch.zeros_like(x)
    for t, x_t in enumerate(x.unbind(1), 1):
        p.average += 1
        out[:, t] = x_t
    return out


def refused_after_draws(p, x, y, z, flag):
    h, g = torch.zeros_like(x[:, 0]), x[:, 0]
    for t in range(x.shape[1]):
        g = 0.5 * g + x[:, t]
        if t == 3:
            g = g.sum()
        h = torch.tanh(nn.functional.dropout(x[:, t], 0.4) + h)
    return h, g


def backwards_by_number(p, x, y, z, flag):
    h, out = torch.zeros_like(x[:, 0]), []
    for t in reversed(range(x.shape[1])):
        h = torch.tanh(x[:, t] * (t + 1) + h)
        out.append((h, t))
    return out


def counted_from(p, x, y, z, flag):
    h = torch.zeros_like(x[:, 0])
    for i, x_t in enumerate(x.unbind(1), 1 if flag else 5):
        h = torch.tanh(x_t + h / i)
    return h


def more_state_than_was_seen(p, x, y, z, flag):
    p.mem, p.trace, p.log = x[:, 0], x[:, 0], []
    for t in range(x.shape[1]):
        p.mem = p.trace * 0.3 + p.mem
        if t == 0:
            continue
        p.trace = x[:, t]
        p.log.append(p.trace)
    return p.mem, list(p.log)


def fed_back(p, x, y, z, flag):
    h, o = x[:, 0], x[:, 1]
    for x_t in x.unbind(1):
        h = p.cell(o, h)
        o = p.lin(h) + 0.1 * x_t
    return h, o


def fails_as_a_step(p, x, y, z, flag):
    h, p.log = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        h = 0.5 * h + x[:, t]
        if t == 2:
            h = h.float()
        if flag:
            p.log.append(h)
    return h, list(p.log)


def one_with_a_gradient_and_one_without(p, x, y, z, flag):
    h, out = torch.zeros_like(x[:, 0]), []
    for a, b in zip(x.unbind(1), y.detach(), strict=True):
        h = torch.tanh(a + h)
        out.extend([h, b.clone()])
    return out


def filled(p, x, y, z, flag):
    """Elements that are read after a write by broadcasting, or of axes of 1."""
    h, buf, last = x[:, 0], torch.zeros_like(x), torch.zeros_like(y)
    for t in reversed(range(x.shape[1])):
        last[t] = g = h.unsqueeze(0)
        buf[:, t] = p.scale * x[:, t].sum(-1, keepdim=True)
        h = torch.tanh(h + (buf[:, t].sum(-1, keepdim=True) if flag else g[0]))
    return h, buf, last


def read_from(p, x, y, z, flag):
    h = torch.zeros_like(x[:, 0])
    for t in range(1 if flag else 3, x.shape[1]):
        h = torch.tanh(0.5 * h + read(x, t))
    return h


def read(x, t):
    return x[:, t] * 0.5


FOUND = [
    read_from,
    filled,
    fails_as_a_step,
    one_with_a_gradient_and_one_without,
    two_names,
    two_names_of_outputs,
    beyond_the_end,
    refused_after_draws,
    backwards_by_number,
    counted_from,
    more_state_than_was_seen,
    fed_back,
]


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("function", FOUND)
def test_found_by_drawing(function, flag):
    first = Call(3, 12, flag, True, True, False)
    other = dataclasses.replace(first, flag=not flag)
    longer = dataclasses.replace(first, steps=17)
    made = [first, first, other, longer, first]
    assert compared(function, ostinato.loop(function), made) == []
