"""The text of a C file and its header.

In the text @ stands for the prefix of the model's names, until the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ostinato.export.c_function import Function
from ostinato.export.c_ops import FUNCTIONS, needs_math, used
from ostinato.export.c_prepare import Prepare
from ostinato.export.c_program import Part
from ostinato.export.c_quantize import quantized

Array = np.ndarray[Any, np.dtype[Any]]
WIDTH = 100

# The text of the zero-clause BSD licence (SPDX: 0BSD), without a copyright line.
LICENCE = """\
Permission to use, copy, modify, and/or distribute this software for any purpose with or without
fee is hereby granted.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS
SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE
AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES
WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT,
NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE
OF THIS SOFTWARE.

SPDX-License-Identifier: 0BSD. The numbers in the tables are those of the model, and belong to
whoever the model belongs to."""


@dataclass(frozen=True)
class Source:
    """What the C code is made of.

    Attributes:
        name: the prefix of all names.
        title: of the model, for people.
        prepare: the preprocessing.
        step: from x and the states to the new states.
        answer: from the states to the answer.
        widths: of the states.
        n_outputs: K.
        outputs: what they are, for people; () if nothing is known.
        int8: whether weights are int8 with a scale for each row.
    """

    name: str
    title: str
    prepare: Prepare
    step: Part
    answer: Part
    widths: tuple[int, ...]
    n_outputs: int
    outputs: tuple[str, ...]
    int8: bool


def header(s: Source) -> str:
    """The .h file."""
    guard = f"{s.name.upper()}_H"
    members = [f"    float s{i}[{width}];" for i, width in enumerate(s.widths)]
    if s.prepare.last is not None:
        members.append(f"    float last[{s.prepare.n_columns}]; /* for missing inputs, scaled */")
    inputs = [f"in[{i}]: {m}" for i, m in enumerate(s.prepare.meanings) if m]
    outputs = [f"out[{i}]: {m}" for i, m in enumerate(s.outputs)]
    lines = [
        comment(
            f"{s.title}, one step at a time. Made by ostinato from a saved model.\n\n{LICENCE}"
        ),
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"enum {{ @INPUTS = {s.prepare.n_inputs}, @OUTPUTS = {s.n_outputs} }};",
        "",
        "/* What one stream remembers. Each stream has its own; all share the tables. */",
        "typedef struct {",
        *members,
        "} @state;",
        "",
        "/* Before the first step of a stream, and to begin again. */",
        "void @init(@state *s);",
        "",
        comment(
            "Read one element of the sequence. Returns 0, or i + 1 if in[i] is refused (NaN, "
            "infinite, or too far from what was trained): then nothing has changed. The answer "
            "after this step is written to out; where out is a null pointer, none is computed."
            + "".join(f"\n{line}" for line in [*inputs, *outputs])
        ),
        f"{_signature(s)};",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
        "",
    ]
    return named("\n".join(lines), s.name)


def source(s: Source) -> str:
    """The .c file."""
    names: dict[int, str] = {}
    tables = [*_tables(s, names)]
    step = Function(s.step, {"x0": "x", **_states(s, "carry")}, names, s.int8)
    answer = Function(s.answer, {"y0": "out", **_states(s, "x")}, names, s.int8)
    functions = [
        s.prepare.text,
        _function("static void @update(@state *s, const float *x)", step.body("s", "x")),
        _function("static void @answer(const @state *s, float *out)", answer.body("s", "out")),
        _function("void @init(@state *s)", _init(s)),
        _function(_signature(s), _step(s)),
    ]
    text = "\n".join(functions)
    helpers = "".join(FUNCTIONS[name] for name in used(text))
    includes = ["#include <float.h>", "#include <stdint.h>"]
    if needs_math(text + helpers):
        includes.insert(1, "#include <math.h>")
    head = [
        comment(f"{s.title}, one step at a time: see {s.name}.h.\n\n{LICENCE}"),
        f'#include "{s.name}.h"',
        "",
        *includes,
        "",
    ]
    whole = "\n".join([*head, "\n".join(tables), helpers, text])
    return named(whole, s.name)


def named(text: str, name: str) -> str:
    """The text with the model's prefix; constants have it in capital letters."""
    text = text.replace("@INPUTS", f"{name.upper()}_INPUTS")
    return text.replace("@OUTPUTS", f"{name.upper()}_OUTPUTS").replace("@", f"{name}_")


def comment(text: str) -> str:
    """A C comment, of lines that are not too long."""
    lines: list[str] = []
    for line in plain(text).split("\n"):
        words, here = line.split(" "), ""
        for word in words:
            if here and len(here) + 1 + len(word) > WIDTH - 3:
                lines.append(here)
                here = word
            else:
                here = f"{here} {word}" if here else word
        lines.append(here)
    return "/* " + "\n".join([lines[0], *(f"   {x}".rstrip() for x in lines[1:])]) + " */"


def plain(text: str) -> str:
    """A text of people that cannot end a comment, continue a line, or hide in an editor."""
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    text = text.replace("@", "(at)").replace("\\", "|").replace("??", "? ?")
    return text.replace("*", "x").replace("/", "|") if "*/" in text or "/*" in text else text


def table(kind: str, name: str, values: Sequence[str]) -> str:
    """A constant array."""
    lines, here = [], ""
    for value in values:
        if len(here) + len(value) + 7 > WIDTH:
            lines.append(here)
            here = ""
        here += f" {value}," if here else f"{value},"
    lines.append(here)
    body = "\n".join(f"    {line}" for line in lines)
    return f"static const {kind} {name}[{len(values)}] = {{\n{body}\n}};\n"


def floats(name: str, values: Array) -> str:
    """A constant array of finite numbers, each with as few digits as give the same bits."""
    texts = np.asarray(values, np.float32).ravel().astype(str)
    return table("float", name, [f"{text}f" for text in texts.tolist()])


def int8(name: str, values: Array) -> str:
    return table("int8_t", name, values.ravel().astype(str).tolist())


def _tables(s: Source, names: dict[int, str]) -> Iterator[str]:
    """The constant arrays; `names` receives their C names."""
    for name, numbers in s.prepare.doubles.items():
        if numbers:
            yield table("double", f"@{name}", [repr(v) for v in numbers])
    for name, values in s.prepare.tables.items():
        yield (int8 if values.dtype == np.int8 else floats)(f"@{name}", values)
    if s.prepare.last is not None:
        yield floats("@first", s.prepare.last)
    for p, prefix in ((s.step, "@"), (s.answer, "@answer_")):
        read = {o.buffer for x in p.instructions for o in (x.a, x.b, x.c)}
        for i, values in p.constants.items():
            if i in read and id(values) not in names:  # two parts may read one tensor
                names[id(values)] = f"{prefix}vector{i}"
                yield floats(names[id(values)], values)
        for i, w in enumerate(p.weights):
            name = names[id(w)] = f"{prefix}weights{i}"
            yield f"/* [{w.shape[0]}][{w.shape[1]}] */"
            if s.int8:
                q = quantized(w)
                yield int8(name, q.values)
                yield floats(f"{name}_scale", q.scale)
            else:
                yield floats(name, w)


def _signature(s: Source) -> str:
    return f"int @step(@state *s, const float in[{s.prepare.n_inputs}], float out[{s.n_outputs}])"


def _states(s: Source, argument: str) -> Mapping[str, str]:
    return {f"{argument}{i}": f"s->s{i}" for i in range(len(s.widths))}


def _init(s: Source) -> list[str]:
    lines = [f"    @fill(s->s{i}, 0.0f, {width});" for i, width in enumerate(s.widths)]
    if s.prepare.last is not None:
        lines.append(f"    @copy(s->last, @first, {s.prepare.n_columns});")
    return lines


def _step(s: Source) -> list[str]:
    scaled = s.prepare.arguments != "in"
    lines = [f"float x[{s.prepare.n_columns}];"] if scaled else []
    lines += [
        f"const int refused = @prepare({s.prepare.arguments});",
        "if (refused)",
        "    return refused;",
    ]
    if s.prepare.last is not None:
        lines.append(f"@copy(s->last, x, {s.prepare.n_columns});")
    lines += [
        f"@update(s, {'x' if scaled else 'in'});",
        "if (out)",
        "    @answer(s, out);",
        "return 0;",
    ]
    return [f"    {line}" for line in lines]


def _function(head: str, lines: list[str]) -> str:
    return "\n".join([head, "{", *lines, "}", ""])
