"""Pieces of the drawn programs: state, outputs, and how iterations end (see grammar.py)."""

from __future__ import annotations

from typing import Any

ZERO = "torch.zeros(B, 4, dtype=x.dtype)"


def gives(loop: Any, *names: str) -> None:
    loop.program.returned += names


# ------------------------------------------------------------------------ state


def from_none(loop: Any) -> None:
    h = loop.program.name("h")
    loop.before.append(f"{h} = None")
    loop.body.append(f"{h} = p.cell({loop.value()}, {h})")
    loop.atoms += [h, h]
    gives(loop, h)


def from_zeros(loop: Any) -> None:
    h = loop.program.name("h")
    loop.before.append(f"{h} = {loop.program.rng.choice([ZERO, 'x.new_zeros(B, 4)', 'x[:, 0]'])}")
    loop.atoms += [h, h]
    loop.body.append(f"{h} = torch.tanh({loop.value()} + {h})")
    gives(loop, h)


def lstm(loop: Any) -> None:
    s = loop.program.name("s")
    if loop.program.chance(50):
        loop.before.append(f"{s} = None")
        loop.body.append(f"{s} = p.lstm({loop.value()}, {s})")
        loop.atoms.append(f"{s}[0]")
        gives(loop, s)
    else:
        loop.before.append(f"{s}, c{s} = {ZERO}, {ZERO}")
        loop.atoms.append(s)
        loop.body.append(f"{s}, c{s} = p.lstm({loop.value()}, ({s}, c{s}))")
        gives(loop, f"({s}, c{s})")


def layers(loop: Any) -> None:
    h, a, rng = loop.program.name("hs"), loop.program.name("a"), loop.program.rng
    loop.before.append(
        f"{h} = "
        + rng.choice([f"[{ZERO}] * 2", f"[{ZERO} for _ in range(2)]", "[x[:, 0], x[:, -1]]"])
    )
    kind = rng.randrange(4)
    if kind == 0:
        loop.body += [
            f"{a} = {loop.value()}",
            "for layer in range(2):",
            f"    {h}[layer] = p.cells[layer]({a}, {h}[layer])",
            f"    {a} = {h}[layer]",
        ]
    elif kind == 1:
        loop.body.append(f"{a}, {h} = of_layers(p, {loop.value()}, {h})")
    elif kind == 2:
        loop.body += [
            f"{a} = {loop.value()}",
            f"new{h} = []",
            "for layer, cell in enumerate(p.cells):",
            f"    {a} = cell({a}, {h}[layer])",
            f"    new{h}.append({a})",
            f"{h} = new{h}",
        ]
    else:
        loop.body += [
            f"{h}[0] = p.cell({loop.value()}, {h}[1])",
            f"{h}[1] = {h}[0] * 0.5 + {h}[1]",
            f"{a} = {h}[1]",
        ]
    loop.atoms += [a, f"{h}[0]"]
    gives(loop, h)


def in_a_dict(loop: Any) -> None:
    d = loop.program.name("d")
    loop.before.append(f"{d} = {{'a': {ZERO}, 'b': x[:, 0] * 2}}")
    loop.atoms += [f"{d}['a']", f"{d}['b']"]
    loop.body.append(f"{d}['a'] = 0.9 * {d}['b'] + {loop.value()}")
    if loop.program.chance(60):
        loop.body.append(f"{d}['b'] = {loop.value()}")
    gives(loop, d)


def in_objects(loop: Any) -> None:
    s, rng = loop.program.name("s"), loop.program.rng
    kind = rng.randrange(3)
    if kind == 0:
        loop.before.append(f"{s} = State({ZERO}, x[:, 1])")
        loop.atoms += [f"{s}.h", f"{s}.n"]
        loop.body += [f"{s}.h = {s}.n * 0.3 + {loop.value()}", f"{s}.n = {loop.value()}"]
    elif kind == 1:
        loop.before.append(f"{s} = State({ZERO}, x[:, 1])")
        loop.atoms += [f"{s}.h", f"{s}.n"]
        loop.body.append(f"{s} = dataclasses.replace({s}, h={loop.value()})")
    else:
        loop.before.append(f"{s} = Pair({ZERO}, x[:, -1])")
        loop.atoms += [f"{s}.a", f"{s}.b"]
        loop.body.append(
            f"{s} = "
            + rng.choice([f"{s}._replace(a={loop.value()})", f"Pair({s}.b * 0.5, {loop.value()})"])
        )
    gives(loop, s)


def in_slots(loop: Any) -> None:
    """An object without a `__dict__`; its number may only be written."""
    s, value = loop.program.name("s"), loop.value()
    loop.before.append(f"{s} = Slotted({ZERO})")
    if loop.program.chance(70):
        loop.atoms.append(f"{s}.h")
        value = loop.value()
    loop.body += [f"{s}.h = {value}", f"{s}.n += 1"]
    gives(loop, f"{s}.h", f"{s}.n")


def attribute(loop: Any) -> None:
    p, name = loop.program, loop.program.rng.choice(["mem", "trace"])
    if p.chance(60):
        loop.before.append(f"p.{name} = " + p.rng.choice(["None", ZERO]))
    loop.body += [
        f"if p.{name} is None:",
        f"    p.{name} = {ZERO}",
        f"p.{name} = 0.8 * p.{name} + {loop.value()}",
    ]
    loop.atoms.append(f"p.{name}")
    gives(loop, f"p.{name}")


def buffer(loop: Any) -> None:
    kind = loop.program.rng.randrange(3)
    loop.body.append(
        [
            "p.average = 0.9 * p.average + 0.1 * p.average.tanh() + 0.1",
            "p.average.mul_(0.9).add_(0.1)",
            "p.average += 1",
        ][kind]
    )
    if kind == 0:
        loop.atoms.append("(x[:, 0] * p.average)")
    gives(loop, "p.average.clone()")


def of_a_module(loop: Any) -> None:
    if loop.program.chance(60):
        loop.before.append("p.leaky.reset()")
    a = loop.program.name("a")
    loop.body.append(f"{a} = p.leaky({loop.value()})")
    loop.atoms.append(a)
    gives(loop, "p.leaky.mem")


def in_place(loop: Any) -> None:
    h, rng = loop.program.name("h"), loop.program.rng
    loop.before.append(f"{h} = {ZERO}")
    loop.atoms.append(f"{h}.clone()")
    loop.body.append(
        rng.choice(
            [
                f"{h} += {loop.value()}",
                f"{h} = {h} * 0.5; {h} += {loop.value()}",
                f"{h}.add_({loop.value()}).mul_(0.7)",
                f"{h}[:, :2] = {loop.value()}[:, 1:3]",
                f"{h} -= 0.1 * {loop.value()}",
                f"{h}.copy_({loop.value()})",
            ]
        )
    )
    gives(loop, h)


def counter(loop: Any) -> None:
    p, j = loop.program, loop.program.name("j")
    loop.before.append(f"{j} = 0")
    kind = p.rng.randrange(3)
    if kind == 0:
        loop.body.append(f"{j} += 1")
    elif kind == 1:
        loop.body += [f"{j} += 1", f"n{j} = {loop.value()} * (1 + {j} / 10)"]
        loop.atoms.append(f"n{j}")
    else:
        loop.before.append(f"n{j} = 1.0")
        loop.body += [f"n{j} *= 0.9", f"m{j} = {loop.value()} * n{j}"]
        loop.atoms.append(f"m{j}")
    gives(loop, j)
    p.python("a number that changes")


def read_back(loop: Any) -> None:
    p, o = loop.program, loop.program.name("o")
    loop.before.append(f"{o} = [{ZERO}]")
    loop.atoms += [f"{o}[-1]", f"{o}[-1]"]
    loop.body.append(f"{o}.append(p.cell({loop.value()}, {o}[-1]))")
    if p.chance(40):
        loop.atoms.append(f"{o}[-2]")
    gives(loop, o)


def delayed(loop: Any) -> None:
    a, b = loop.program.name("a"), loop.program.name("b")
    if loop.program.chance(50):
        loop.before.append(f"{a} = {b} = {ZERO}")
    else:
        loop.before += [f"{a} = x[:, 0]", f"{b} = {a}"]
    loop.atoms += [a, b]
    value = loop.value()
    loop.body += loop.program.rng.choice(
        [
            [f"{a}, {b} = {b}, {value}"],
            [f"{b} = {a}", f"{a} = {value}"],
            [f"{b} = {a} = {value}"],
            [f"{a} = {value}", f"{b} = {b} + {a}"],
        ]
    )
    gives(loop, a, b)


def total(loop: Any) -> None:
    p, s, rng = loop.program, loop.program.name("s"), loop.program.rng
    zero, value = rng.choice(["0", "0.0", "x.new_zeros(())"]), loop.value()
    if p.chance(50):
        value = f"({value}).square().mean()"
    loop.before.append(f"{s} = {zero}")
    loop.body.append(
        rng.choice([f"{s} = {s} + {value}", f"{s} += {value}", f"{s} = {value} + {s}"])
        if zero[0] == "0"
        else f"{s} = {s} + {value}"
    )
    gives(loop, s)


def history(loop: Any) -> None:
    p, q = loop.program, loop.program.name("q")
    loop.before.append(f"{q} = [{ZERO}, x[:, 0], {ZERO}]")
    loop.atoms += [f"{q}[0]", f"sum({q})"]
    value = loop.value()
    kind = p.rng.randrange(3)
    loop.body.append(
        [
            f"{q} = {q}[1:] + [{value}]",
            f"{q} = [{value}, *{q}[:-1]]",
            f"{q}.pop(0); {q}.append({value})",
        ][kind]
    )
    if kind == 2:
        p.python("a queue")
    gives(loop, q)


def same_list(loop: Any) -> None:
    """One list of two names."""
    p, a, b = loop.program, loop.program.name("a"), loop.program.name("b")
    made, of = [(f"[{ZERO}, x[:, 0]]", "list({})"), (f"{{0: {ZERO}, 1: x[:, 0]}}", "dict({})")][
        p.rng.randrange(2)
    ]
    other = p.rng.choice([a, f"{a} if flag else {of.format(a)}"])
    loop.before += [f"{a} = {made}", f"{b} = {other}"]
    loop.atoms += [f"{a}[0]", f"{b}[0]", f"{b}[1]"]
    loop.body += [f"{a}[0] = torch.tanh({loop.value()} + {b}[0])"]
    if p.chance(50):
        loop.body += [f"{b}[1] = {loop.value()}"]
    p.python("one list of two names")
    gives(loop, a, b)


def another_kind(loop: Any) -> None:
    """A state whose shape or type is another from the third iteration on."""
    p, h, n = loop.program, loop.program.name("h"), loop.program.name("n")
    loop.before += [f"{h}, {n} = {ZERO}, 0"]
    value = loop.value()
    change = p.rng.choice([f"{h}.float()", f"{h}[:, :1]", f"{h}.sum()", f"{h}.detach()"])
    t = loop.t if loop.t and loop.forward else None
    if t is None:
        loop.body.append(f"{n} += 1")
    loop.body += [f"{h} = 0.5 * {h} + {value}", f"if {t or n} == 3:", f"    {h} = {change}"]
    p.python("a state that changes its kind")
    gives(loop, h)


def closure(loop: Any) -> None:
    """A function within the program, whose variable is bound anew after the loop."""
    g, k = loop.program.name("g"), loop.program.name("k")
    new = loop.program.rng.choice(["p.lin.weight * 2", "3.0", "None"])
    loop.before += [f"{k} = p.scale * p.lin.bias", f"{g} = lambda a: torch.tanh(a) * {k}"]
    loop.atoms.append(f"{g}({loop.program.rng.choice(loop.atoms)})")
    loop.after.append(f"{k} = {new}")


def fed_back(loop: Any) -> None:
    """A decoder: its last output is its next input."""
    h, o = loop.program.name("h"), loop.program.name("o")
    loop.before.append(f"{h}, {o} = x[:, 0] * 0.5, x[:, -1]")
    loop.atoms.append(o)
    loop.body += [f"{h} = p.cell({o}, {h})", f"{o} = p.lin({h}) + 0.1 * {loop.value(1)}"]
    gives(loop, o)


def ring(loop: Any) -> None:
    """State of which each iteration reads and writes one place, again after a few of them."""
    t, rng = loop.t, loop.program.rng
    r, n = loop.program.name("ring"), rng.choice([2, 3])
    if t is None:
        return history(loop)
    kind, value = rng.randrange(3), loop.value()
    of = f"for k in range({n})"
    made = [f"[x[:, k] {of}]", f"{{k: x[:, k] {of}}}", f"torch.stack([x[:, k] {of}], 1)"][kind]
    loop.before.append(f"{r} = {made}")
    at, after = (f"{r}[{':, ' * (kind == 2)}{i} % {n}]" for i in (t, f"({t} + 1)"))
    read = rng.choice([at, after]) + ".clone()" * (kind == 2)
    loop.body.append(f"{at} = 0.5 * {read} + {value}")
    loop.atoms.append(after + ".clone()" * (kind == 2))
    loop.program.python("so many x[:, k] may not be there")
    return gives(loop, r)


def layered(loop: Any) -> None:
    """A state with the batch second, and one of whole numbers that is fed back."""
    s, k, a = loop.program.name("s"), loop.program.name("k"), loop.program.name("a")
    loop.before += [f"{s} = x.new_zeros(2, B, 4)", f"{k} = torch.zeros(B, dtype=torch.int64)"]
    fed = loop.program.rng.choice([f"p.lin.weight[{k}]", f"{loop.value(1)} + p.lin.weight[{k}]"])
    loop.body += [
        f"{a}, {s} = p.gru(({fed}).unsqueeze(0), {s})",
        f"{a} = {a}[0]",
        f"{k} = {a}.argmax(-1)",
    ]
    loop.atoms.append(a)
    loop.program.python("ties")
    gives(loop, s, k)


def of_the_whole_batch(loop: Any) -> None:
    """Rows that read each other, and a matrix without a batch."""
    p, h, m = loop.program, loop.program.name("h"), loop.program.name("m")
    loop.before += [f"{h}, {m} = {ZERO}, torch.eye(4, dtype=x.dtype)"]
    loop.body += p.rng.choice(
        [
            [f"{h} = {loop.value()}", f"{h} = torch.tanh({h} - {h}.mean(0))"],
            [
                f"{m} = 0.5 * {m} @ p.lin.weight + {h}.t() @ {h} / B",
                f"{h} = torch.tanh({loop.value()} @ {m})",
            ],
            [f"{h} = torch.tanh({h}.roll(1, 0) + {loop.value()})"],
        ]
    )
    loop.atoms.append(h)
    p.python("the whole batch as one row")
    gives(loop, h, m)


def in_a_context(loop: Any) -> None:
    """Gradients turned off or on within an iteration, and back."""
    p, a, b = loop.program, loop.program.name("a"), loop.program.name("h")
    p.has_views = True
    modes = ["torch.no_grad()", "torch.enable_grad()", "torch.set_grad_enabled(flag)"]
    if loop.t and p.chance(30):
        modes = [f"torch.set_grad_enabled({loop.t} {test})" for test in ("% 2 == 0", "< 3")]
        p.python("a mode that follows the index")
    loop.before.append(f"{b} = {ZERO}")
    loop.atoms.append(b)
    inside = p.rng.choice([f"{a} = {loop.value()}", f"{a} = torch.tanh({b} + {loop.value(1)})"])
    loop.body += [
        f"with {p.rng.choice(modes)}:",
        f"    {inside}",
        f"{b} = torch.tanh({a} + {loop.value()})",
    ]
    loop.atoms.append(a)
    gives(loop, b)


def a_mode_left(loop: Any) -> None:
    """An iteration that turns gradients off, or on, for the next."""
    p, m = loop.program, loop.program.name("mode")
    p.has_views = True
    loop.before.append(f"{m} = torch.is_grad_enabled()")
    loop.body.append(
        "torch.set_grad_enabled("
        + p.rng.choice(["not torch.is_grad_enabled()", f"{loop.t or 0} % 2 == 0", "flag"])
        + ")"
    )
    loop.after += [f"e{m} = torch.is_grad_enabled()", f"torch.set_grad_enabled({m})"]
    p.python("a mode that is left")
    gives(loop, f"e{m}")


STATES = [
    in_a_context, in_a_context, a_mode_left,
    ring, ring, layered, of_the_whole_batch,
    from_none, from_none, from_zeros, from_zeros, lstm, layers, in_a_dict, in_objects, attribute,
    buffer, of_a_module, in_place, counter, read_back, delayed, total, history, same_list, in_slots,
    another_kind, closure, fed_back,
]  # fmt: skip


# ------------------------------------------------------------------------ outputs


def conditional(loop: Any, line: str) -> list[str]:
    """A line behind a condition that Python knows."""
    p, t = loop.program, loop.t
    if not p.chance(25):
        return [line]
    conditions = ["flag", "z is None", "not p.training"]
    if t and loop.forward:
        conditions += [f"{t} > {loop.first}", f"{t} < T - 1", f"{t} == T - 1", f"{t} >= T // 2"]
        if p.chance(20):
            conditions = [f"{t} % 2 == 0", f"{t} % 3"]
    return [f"if {p.rng.choice(conditions)}:", f"    {line}"]


def appended(loop: Any) -> None:
    p, o, rng = loop.program, loop.program.name("out"), loop.program.rng
    loop.before.append(f"{o} = []")
    value = loop.value(1)
    t = loop.t or "0"
    form = rng.choice(
        [f"{o}.append({value})"] * 3
        + [
            f"{o} += [{value}]",
            f"{o}.insert(0, {value})",
            f"{o}.append(({value}, {t}))",
            f"{o}.extend([{value}, {loop.value(1)}])",
            f"{o}.append({{'v': {value}}})",
        ]
    )
    loop.body += conditional(loop, form)
    if "append((" not in form and "{" not in form and p.chance(70):
        joined = rng.choice(
            [
                "torch.stack({o}, 1)",
                "torch.stack({o})",
                "torch.cat({o}, dim=1)",
                "torch.stack({o}, dim=-1).sum(1)",
                "torch.cat({o})",
            ]
        ).format(o=o)
        loop.after.append(f"r{o} = {joined} if {o} else None")
        if p.chance(20):
            loop.after += [
                f"if r{o} is not None:",
                f"    r{o} = r{o} * 1" if p.chance(50) else f"    r{o}.mul_(2)",
            ]
        gives(loop, f"r{o}")
    if p.chance(50):
        gives(loop, o)


def of_its_length(loop: Any) -> None:
    """A list whose length is asked for, or that is made anew in each iteration."""
    o, rng, value = loop.program.name("out"), loop.program.rng, loop.value(1)
    loop.before.append(f"{o} = []")
    before = rng.choice(
        [
            f"({o}[-1] if {o} else x[:, 1])",
            f"({o}[-2] if len({o}) > 1 else x[:, 1])",
            f"x[:, 0] / (1 + len({o}))",
            f"({value} if len({o}) == 3 else x[:, 0])",
        ]
    )
    loop.body.append(
        rng.choice(
            [
                f"{o}.append({value} + {before})",
                f"{o} = {o} + [torch.sin({value}) + {before}]",
                f"{o} = [*{o}, {value} * {before}]",
            ]
        )
    )
    if loop.program.chance(50):
        loop.after.append(f"r{o} = torch.stack({o}, 1)")
        gives(loop, f"r{o}")
    gives(loop, o)


def numbers_into_a_buffer(loop: Any) -> None:
    b, t, rng = loop.program.name("buf"), loop.t, loop.program.rng
    if t is None or loop.first not in ("0", "1", "T - 1"):
        return of_its_length(loop)
    kind = rng.choice(["dtype=x.dtype", "dtype=torch.int64"])
    loop.before.append(f"{b} = torch.zeros(T, 2, {kind})")
    number = rng.choice(["1", f"2 * {t}"] + ([f"{t} / T", "0.5"] if "x" in kind else []))
    loop.body += conditional(loop, rng.choice([f"{b}[{t}] = {number}", f"{b}[{t}, 1] = {number}"]))
    return gives(loop, b)


def of_the_state(loop: Any) -> None:
    """The state itself is appended."""
    o = loop.program.name("out")
    states = [a for a in loop.atoms if a.isidentifier()]
    loop.before.append(f"{o} = []")
    loop.body.append(f"{o}.append({loop.program.rng.choice(states or loop.atoms)})")
    gives(loop, o)


def into_a_buffer(loop: Any) -> None:
    b, t, rng = loop.program.name("buf"), loop.t, loop.program.rng
    if t is None or loop.first not in ("0", "1", "T - 1"):
        return appended(loop)
    value = loop.value(1)
    kind = rng.randrange(7)
    shape = ["B, T, 4", "T, B, 4", "B, T, 4", "B, T, 4", "T, B, 4", "T, B, 4", "B, T, 4"][kind]
    make = rng.choice(["torch.zeros({}, dtype=x.dtype)", "x.new_zeros({})"]).format(shape)
    loop.before.append(f"{b} = {make}")
    line = [
        f"{b}[:, {t}] = {value}",
        f"{b}[{t}] = {value}",
        f"{b}[:, {t}, :] = {value}",
        f"{b}[:, T - 1 - {t}] = {value}",
        f"{b}[{t}, :, :] = {value}",
        f"{b}[{t}] = last{b} = ({value}).unsqueeze(0)",
        f"{b}[:, {t}] = p.scale",
    ][kind]
    lines = conditional(loop, line)
    loop.body += lines
    if len(lines) == 1 and (kind == 6 or loop.program.chance(20)):
        at = f"{t}" if shape[0] == "T" else f":, {'T - 1 - ' * (kind == 3)}{t}"
        loop.body.append(f"r{b} = {b}[{at}].sum(-1, keepdim=True)")
        loop.program.python("an element that is read after it was written")
    return gives(loop, b)


def accumulated(loop: Any) -> None:
    b, t = loop.program.name("buf"), loop.t
    if t is None or loop.first not in ("0", "1", "T - 1"):
        return appended(loop)
    loop.before.append(f"{b} = torch.ones(B, T, 4, dtype=x.dtype)")
    loop.body.append(f"{b}[:, {t}] += {loop.value(1)}")
    loop.program.python("buf[:, t] += …")
    return gives(loop, b)


def longer(loop: Any) -> None:
    """A tensor that each iteration makes longer; its last elements may be read."""
    p, o, rng, value = loop.program, loop.program.name("o"), loop.program.rng, loop.value(1)
    axis = rng.choice([0, 1, 1, -2])
    piece = f"({value}).unsqueeze({axis if axis >= 0 else 1})"
    given = rng.choice([f", {axis}", f", dim={axis}"]) if axis else rng.choice(["", ", 0"])
    begin = rng.choice(
        [
            f"torch.zeros({'B, 0' if axis else '0, B'}, 4, dtype=x.dtype)",
            "None",
            f"x[:, :2]{'' if axis else '.transpose(0, 1)'}",
        ]
    )
    kind = rng.randrange(4)
    last = f"{o}[:, -1]" if axis else f"{o}[-1]"
    parts = [f"{o}, {piece}", f"{o}, {piece}", f"{piece}, {o}", f"{o}, {piece}, {piece} * 2"][kind]
    if "x[" in begin and kind < 2 and p.chance(60):
        last = rng.choice([last, f"{o}[:, -2:].sum(1)" if axis else f"{o}[-2:].mean(0)"])
        parts = f"{o}, torch.tanh({piece} + ({last}).unsqueeze({axis if axis >= 0 else 1}))"
        loop.atoms.append(last)
    made = f"torch.cat({rng.choice(['[{}]', '({})']).format(parts)}{given})"
    loop.before.append(f"{o} = {begin}")
    if begin == "None":
        loop.body += rng.choice(
            [
                [f"{o} = {piece} if {o} is None else {made}"],
                [f"if {o} is None:", f"    {o} = {piece}", "else:", f"    {o} = {made}"],
            ]
        )
    else:
        loop.body += conditional(loop, f"{o} = {made}")
    gives(loop, o)


def into_a_dict(loop: Any) -> None:
    o = loop.program.name("outs")
    loop.before.append(f"{o} = {{'a': [], 'b': []}}")
    loop.body += [f"{o}['a'].append({loop.value(1)})", f"{o}['b'].append({loop.value(1)})"]
    gives(loop, o)


def of_the_module(loop: Any) -> None:
    loop.before.append("p.log = []")
    loop.body += conditional(loop, f"p.log.append({loop.value(1)})")
    gives(loop, "list(p.log)")


def by_number(loop: Any) -> None:
    """A list or a dict with a place for each iteration."""
    o, t = loop.program.name("o"), loop.t
    if t is None or loop.first not in ("0", "1", "T - 1"):
        return into_a_dict(loop)
    loop.before.append(f"{o} = " + loop.program.rng.choice(["[None] * T", "{}"]))
    loop.body.append(f"{o}[{t}] = {loop.value(1)}")
    return gives(loop, o)


def same_growing_list(loop: Any) -> None:
    """One growing list of two names."""
    a, b = loop.program.name("la"), loop.program.name("lb")
    loop.before += [f"{a} = []", f"{b} = {a}"]
    loop.body += [f"{a}.append({loop.value(1)})", f"{b}.append({loop.value(1)})"]
    loop.program.python("one list of two names")
    gives(loop, a, b)


def comprehension(loop: Any) -> None:
    o, rng = loop.program.name("c"), loop.program.rng
    over, element = rng.choice(
        [("for k in range(T)", "x[:, k]"), ("for v in y", "v"), ("for v in x.unbind(1)", "v")]
    )
    made = f"[p.leaky(p.lin({element})) {over}]"
    loop.after.append(f"{o} = " + rng.choice([made, f"torch.stack({made}, 1)"]))
    gives(loop, o)


def scoped(loop: Any) -> None:
    """Comprehensions whose scopes functions keep, or that bind a name again."""
    o, rng = loop.program.name("c"), loop.program.rng
    k = rng.choice(["k", "v", loop.t or "k"])
    made = rng.choice(
        [
            f"[(lambda a, {k}={k}: a * {k})({{}}) for {k} in range(1, 11)]",
            f"[f({{}}) for f in [lambda a: a * {k} for {k} in range(1, 11)]]",
            f"[sum(w * {k} for w in ({{}}, 2)) for {k} in xs]",
            f"[max(({k} for {k} in ({k}, {k} * 2)), key=lambda {k}: {k}.sum()) for {k} in y]",
            f"[[{k} * 2 for {k} in ({k}, {{}})][0] for {k} in xs]",
            f"[[*g][0] for g in [({k} * w for w in (1, 2)) for {k} in xs]]",
        ]
    )
    if loop.program.chance(40):
        loop.body.append(f"{o} = {made.format(loop.value(1))}[-1]")
        if k == loop.t:
            loop.atoms.append(f"(x[:, 0] * {k})")
    else:
        loop.after.append(f"{o} = {made.format('x[:, 0]')}")
    loop.program.python("a comprehension that stays")
    gives(loop, o)


def index_after(loop: Any) -> None:
    """Names of an iteration that are read after the loop."""
    if loop.t:
        gives(loop, loop.t)
    last = loop.program.name("last")
    loop.body.append(f"{last} = {loop.value()}")
    loop.after.append(f"{last} = {last} * 2")
    gives(loop, last)


OUTPUTS = [
    longer, longer,
    appended, appended, appended, of_the_state, into_a_buffer, into_a_buffer, accumulated,
    of_its_length, of_its_length, numbers_into_a_buffer,
    into_a_dict, of_the_module, by_number, same_growing_list, comprehension, index_after,
    scoped, scoped,
]  # fmt: skip


# ------------------------------------------------------------------------ ends of iterations


def endings(loop: Any) -> None:
    """An iteration that ends early, or the loop, or all by an error."""
    p, t = loop.program, loop.t
    at = p.rng.choice([0, 1, 3, 7, 10])
    kind = p.rng.choice(
        ["continue", "break", "raise", "beyond", "shape", "try", "return", "value", "after", "skip"]
    )
    if kind == "value":
        loop.body.insert(0, f"if {loop.atoms[0]}.sum() > 1000:")
        loop.body.insert(1, "    raise ValueError('large')")
        return p.python("a branch on values")
    if kind == "after":
        loop.after.append("p.lin.weight.detach().add_(0.1)")
        p.stale = True
        return None
    if t is None:
        return None
    if kind == "continue" and len(loop.body) > 1:
        test = p.rng.choice([f"{t} == {loop.first}", f"{t} == {at}", f"{t} < 2"])
        where = next(
            (
                i
                for i in range(1, len(loop.body))
                if loop.body[i][0] != " " and loop.body[i][:2] != "if"
            ),
            0,
        )
        loop.body[where:where] = [f"if {test}:", "    continue"]
        return p.python("continue before state") if where else None
    if kind == "break":
        loop.body += [f"if {t} == {at}:", "    break"]
    elif kind == "raise":
        loop.body += [f"if {t} == {at}:", f"    raise ValueError(f'at {{{t}}}')"]
    elif kind == "beyond":
        loop.body.append(f"b{at} = y[{t} + 1] * 2")
    elif kind == "shape":
        loop.body += [f"e = y[{t}] @ (p.wrong if {t} == {at} else p.right)"]
    elif kind == "try":
        loop.body += ["try:", f"    e = y[{t} + 1]", "except IndexError:", "    e = None"]
    elif kind == "return":
        loop.body += [f"if {t} == {at}:", "    return [x]"]
    elif kind == "skip":
        loop.body.insert(0, f"if {t} == {at}: continue")
    return p.python(kind)
