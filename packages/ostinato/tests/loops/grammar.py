"""Programs with loops over time, drawn piece by piece from the forms that people write.

A program is a function `run(p, x, y, z, flag)` of modules and tensors. Every value within a loop
is `[B, 4]`, so that all pieces fit together. A piece that docs/loops.md lists as native keeps
`native` true; `reasons` names the others.
"""

from __future__ import annotations

import random
import textwrap
from dataclasses import dataclass, field

W = 4  # features of every value

HEAD = '''\
"""A drawn program."""
import collections, dataclasses, math, numbers
import torch
from torch.nn import functional as F

SCALE = 0.7


@dataclasses.dataclass
class State:
    h: torch.Tensor
    n: torch.Tensor


@dataclasses.dataclass(slots=True)
class Slotted:
    h: torch.Tensor
    n: int = 0


Pair = collections.namedtuple("Pair", "a b")


def mixed(a, b, k=0.5):
    return torch.sin(a) * k + b / (1 + b.abs())


def read(x, t):
    return x[:, t] * 0.5


def asked(a, t):
    match t:
        case float():
            return a
        case int() if isinstance(t, numbers.Integral) and not hasattr(t, "shape"):
            return a * 0.5 + 0.01 * t
    return -a


def asked_by_type(a, t):
    return a * 0.5 if type(t) is int else -a


def of_layers(p, a, hs):
    new = []
    for layer, h in enumerate(hs):
        a = p.cells[layer](a, h)
        new.append(a)
    return a, new


'''


@dataclass
class Program:
    """A program while it is drawn.

    Attributes:
        native: whether docs/loops.md says that all its loops are native.
        reasons: the pieces for which it does not.
        stale: whether it changes what the backward pass may read.
        has_views: whether it makes views under no_grad.
    """

    rng: random.Random
    native: bool = True
    reasons: list[str] = field(default_factory=list)
    stale: bool = False
    has_views: bool = False
    names: int = 0
    lines: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)

    def name(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"

    def python(self, why: str) -> None:
        self.native = False
        self.reasons.append(why)

    def chance(self, percent: int) -> bool:
        return self.rng.randrange(100) < percent


@dataclass
class Loop:
    """A loop while it is drawn: what its body may read, and its lines."""

    program: Program
    atoms: list[str] = field(default_factory=list)  # expressions [B, W]
    t: str | None = None  # the loop's variable as a number
    first: str = "0"  # its first value
    before: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)
    last: list[str] = field(default_factory=list)  # the end of its body, with a place for a value
    header: str = ""
    forward: bool = True

    # -------------------------------------------------------------------- expressions

    def value(self, depth: int = 2) -> str:
        """An expression [B, W]."""
        p, rng = self.program, self.program.rng
        if not depth or p.chance(30):
            return rng.choice(self.atoms)
        a = self.operand(depth - 1)
        forms = [
            "p.lin({a})", "torch.tanh({a})", "0.9 * {a}", "{a} + {b}", "{a} * {b}",
            "mixed({a}, {b})",
            "torch.sigmoid({a} - {b})", "torch.where({a} > 0, {b}, {a})", "F.relu({a}) + 0.1 * {b}",
            "torch.cat([{a}, {b}], -1)[..., 1:5]", "{a}.clone()", "{a}.detach() + {b}",
            "{a}.softmax(-1)", "({a} if flag else {b})", "p.cell({a}, {b})", "{a} * SCALE",
            "torch.stack([{a}, {b}]).mean(0)", "{a}.clamp(-1, 1)", "torch.maximum({a}, {b})",
        ]  # fmt: skip
        if self.t is not None:
            forms += [
                "{a} * (1 + {t} / T)",
                "({a} if {t} == {first} else {b})",
                "{a} / (T - {t} + 1)",
                "{a} * ({t} + 1)",
                "{a} * ({t} % 3)",
                "{a} * 0.9 ** {t}",
                "{a} * math.sin({t})",
                "{a} * ws[{t}]",
                "({a} if {t} in (1, 4) else {b})",
                "({a} if {t} in {{2, 3}} else {b})",
                "{a} * (float({t}) + ws[{t} // 2])",
            ]
            if p.chance(15):
                forms = [
                    "asked({a}, {t})",
                    "({a} if isinstance({t}, int) else {b})",
                    "({a} if type({t}) is int else {b})",
                    "asked({a}, {t} / 2)",
                    "({b} if hasattr({t}, '__len__') else {a})",
                    "({a} if isinstance(2 ** (4 - {t}), int) else {b})",
                ]
            elif p.chance(3):
                forms = ["asked_by_type({a}, {t})", "({a} if hasattr({t}, 'real') else {b})"]
                p.python("a question that is a reason")
            elif p.chance(15):
                forms += ["({a} if {t} % 2 else {b})", "({b} if {t} % 3 == 1 else {a})"]
            if self.forward:
                forms += ["({b} if {t} > {first} else {a})", "({b} if {t} < T - 1 else {a})"]
        if p.chance(6):
            forms = [
                "F.dropout({a}, 0.4, p.training)",
                "{a} + 0.1 * torch.randn_like({b})",
                "{a} * torch.rand(B, 4, dtype=x.dtype)",
                "F.dropout({a}, 0.25)",
                "{a} * torch.bernoulli(torch.sigmoid({b}))",
            ]
        form = rng.choice(forms)
        return form.format(
            a=a, b=self.operand(depth - 1) if "{b}" in form else "", t=self.t, first=self.first
        )

    def operand(self, depth: int) -> str:
        """The same, for an operator or a method after it."""
        value = self.value(depth)
        return f"({value})" if any(f" {sign} " in value for sign in "+-*") else value

    # -------------------------------------------------------------------- headers

    def head(self) -> None:
        rng, p = self.program.rng, self.program
        kind = rng.choice([
            *["range"] * 6, "from1", "offset", "short", "back", "reversed", "step", "for", "for",
            "numbers", "order",
            "enumerate", "enumerate", "zip", "split", "list", "mixed", "blind", "optional",
            "growing", "replaced",
        ])  # fmt: skip
        t = rng.choice(["t", "i", "step"])
        reads = [f"x[:, {t}]", f"x[:, {t}, :]", f"x[..., {t}, :]", f"xt[{t}]", f"xs[{t}]",
                 f"x[:, {t}:{t} + 1].squeeze(1)", f"x[:, T - {t} - 1]", f"y[{t}]",
                 f"y[{t}:{t} + 1].mean(0)", f"x[:, {t} - 1]", f"y[T - 1 - {t}]",
                 f"x.select(1, {t})", f"x[:, max({t} - 2, 0)]", f"x[:, min({t} + 1, T - 1)]",
                 f"x.narrow(1, {t}, 1).squeeze(1)", f"torch.select(x, 1, {t})",
                 f"x[:, order[{t}]]", f"read(x, {t})", f"read(x, T - 1 - {t})"]  # fmt: skip
        self.setup.append("ws, order = [0.1 * k for k in range(40)], list(range(x.shape[1]))[::-1]")
        self.setup += ["T, B = x.shape[1], x.size(0)", "xt, xs = x.transpose(0, 1), x.unbind(1)"]
        if kind in ("range", "blind", "optional"):
            self.header, self.t = f"for {t} in range(T):", t
            if kind == "blind":
                self.header, self.t, reads = f"for {rng.choice('_k')} in range(T):", None, []
            if kind == "optional":
                reads = [
                    f"(x[:, {t}] if z is None else z[{t}])",
                    f"(y[{t}] if flag else y[T - {t} - 1])",
                ]
        elif kind == "from1":
            self.header, self.t, self.first = f"for {t} in range(1, T):", t, "1"
        elif kind == "offset":
            self.header, self.t, self.first = f"for {t} in range(s, T):", t, "s"
            self.setup.append("s = 1 if flag else T // 4")
        elif kind == "short":
            self.header, self.t = f"for {t} in range(T - 1):", t
            reads += [f"x[:, {t} + 1]", f"y[{t} + 1]"]
        elif kind in ("back", "reversed"):
            self.header = f"for {t} in " + (
                "range(T - 1, -1, -1):" if kind == "back" else "reversed(range(T)):"
            )
            self.t, self.first, self.forward = t, "T - 1", False
            reads.remove(f"x[:, {t} - 1]")
        elif kind == "step":
            self.header, self.t, self.forward = f"for {t} in range(0, T, 2):", t, False
        elif kind == "for":
            over = rng.choice(
                ["x.unbind(1)", "y", "xt", "torch.unbind(x, dim=1)", "list(xs)", "reversed(xs)"]
            )
            self.header, reads = f"for x_t in {over}:", ["x_t", "x_t.tanh()"]
        elif kind == "enumerate":
            start = rng.choice(["", "", ", 1", ", start=2", ", int(flag)"])
            over = rng.choice(["x.unbind(1)", "y", "x.transpose(0, 1)"])
            self.header, self.t = f"for {t}, x_t in enumerate({over}{start}):", t
            self.first = start.rpartition("=")[2].removeprefix(", ") or "0"
            if start:
                reads, self.forward = [], False
            reads = [*reads, "x_t", "x_t", "x_t"]
        elif kind == "zip":
            over = rng.choice(
                ["x.unbind(1), y", "xs, y, strict=True", "y, xt", "y, y.flip(0)", "y[:-1], y[1:]"]
            )
            self.header, reads = f"for a_t, b_t in zip({over}):", ["a_t", "b_t"]
        elif kind == "numbers":
            over = rng.choice(["zip(ws, x.unbind(1))", "zip(ws[1:], y)", "zip(reversed(ws), xs)"])
            self.header, reads = f"for w, x_t in {over}:", ["x_t", "x_t * w", "x_t / (1 + w)"]
        elif kind == "order":
            self.header, self.t = f"for {t} in order:", t
            self.first, self.forward = "T - 1", False
            reads = [f"x[:, {t}]", f"y[{t}]", f"read(x, {t})"]
        elif kind == "split":
            over = rng.choice(["x.split(1, 1)", "x.chunk(T, 1)", "torch.split(x, 1, dim=1)"])
            self.header, reads = f"for x_t in {over}:", ["x_t.squeeze(1)", "x_t[:, 0]"]
        elif kind == "list":
            self.header, self.t = f"for {t} in range(len(xs)):", t
            reads = [f"xs[{t}]", f"y[{t}]"]
        elif kind == "growing":  # a work list
            todo, end = p.name("todo"), rng.choice(["T", "2 * T", "len(xs) + 3"])
            self.setup.append(f"{todo} = {rng.choice(['[x[:, 0]]', 'list(xs)', '[*xs[:9]]'])}")
            over = rng.choice(
                [
                    f"for x_t in {todo}:",
                    f"for i, x_t in enumerate({todo}):",
                    f"for x_t, _ in zip({todo}, range(30)):",
                ]
            )
            self.header, reads = over, ["x_t", "x_t * 0.5"]
            self.last.append(f"if len({todo}) < {end}:")
            self.last.append(
                "    "
                + rng.choice(
                    [f"{todo}.append({{}})", f"{todo} += [{{}}]", f"{todo}.extend([{{}}, x_t])"]
                )
            )
            p.python("a list that its loop lengthens")
        elif kind == "replaced":  # later items of what the loop goes through
            todo = p.name("todo")
            self.setup.append(f"{todo} = list(xs)")
            self.header, self.t = f"for {t}, x_t in enumerate({todo}):", t
            reads = ["x_t", f"x[:, {t}]"]
            self.last += [f"if {t} + 1 < T:", f"    {todo}[{t} + 1] = {{}}"]
            p.python("a later item replaced")
        elif kind == "mixed":
            self.header = f"for {t}, (a_t, b_t) in enumerate(zip(xs, y)):"
            self.t, reads = t, ["a_t", "b_t", f"x[:, {t}]"]
        self.atoms += reads or ["x[:, 0]"]
        if p.chance(20):
            self.setup.append("w = torch.ones_like(x[:, 0]) * p.scale")
            self.atoms.append("w")

    # -------------------------------------------------------------------- the whole

    def text(self) -> list[str]:
        body = [*self.body, *[line.format(self.value(1)) for line in self.last]] or ["pass"]
        return [*self.setup, *self.before, self.header, *[f"    {b}" for b in body], *self.after]


def drawn(rng: random.Random) -> tuple[str, Program]:
    """The source of a program, and what is known of it."""
    from pieces import OUTPUTS, STATES, endings

    p = Program(rng)
    for _ in range(rng.choice([1, 1, 1, 2])):
        loop = Loop(p)
        loop.head()
        for piece in rng.sample(STATES, rng.choice([1, 1, 2, 2, 3])):
            piece(loop)
        for piece in rng.sample(OUTPUTS, rng.choice([0, 1, 1, 2])):
            piece(loop)
        if p.chance(20):
            endings(loop)
        lines = loop.text()
        if p.chance(6):
            lines = ["for epoch in range(2):", *[f"    {x}" for x in lines]]
        elif p.chance(6):
            lines = [
                "for layer in range(2):",
                *[f"    {x}" for x in lines],
                "    x = torch.tanh(x) + p.lin(x)",
            ]
        elif p.chance(4):
            lines = ["with torch.no_grad():", *[f"    {x}" for x in lines]]
        p.lines += lines
    body = "\n".join([*p.lines, f"return [{', '.join(p.returned)}]"])
    return f"{HEAD}def run(p, x, y, z, flag):\n{textwrap.indent(body, '    ')}\n", p
