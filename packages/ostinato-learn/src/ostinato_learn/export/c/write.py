"""The text of a C file and its header.

In the text @ means the prefix of the model's names, until the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ostinato_learn.export.c.function import Function, number
from ostinato_learn.export.c.ops import FUNCTIONS, needs_math, used
from ostinato_learn.export.c.prepare import TOKEN, Prepare
from ostinato_learn.export.c.program import Part
from ostinato_learn.export.c.quantize import quantized

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
    """The parts of a model that become C code.

    Attributes:
        name: the prefix of all names.
        title: the title of the model.
        prepare: the preprocessing.
        step: from x and the states to the new states.
        answer: from the states to the answer.
        widths: the widths of the states.
        n_outputs: K.
        outputs: their descriptions; () if unknown.
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


# SSE's MXCSR (FTZ and DAZ), and FPCR or FPSCR of ARM (FZ).
_FLUSH = """\
/* Call it once in each thread that plays: numbers below 1.2e-38 are zeros there from then on. On
   some processors each of them costs a hundred cycles, and a state fades to them when the input is
   silent. With another compiler or processor it does nothing. */
#if defined(__GNUC__) && defined(__SSE2__)
#define @FLUSH_DENORMALS()                                  \\
    do {                                                    \\
        unsigned int flags_;                                \\
        __asm__ volatile("stmxcsr %0" : "=m"(flags_));      \\
        flags_ |= 0x8040u;                                  \\
        __asm__ volatile("ldmxcsr %0" : : "m"(flags_));     \\
    } while (0)
#elif defined(__GNUC__) && defined(__aarch64__)
#define @FLUSH_DENORMALS()                                  \\
    do {                                                    \\
        unsigned long long flags_;                          \\
        __asm__ volatile("mrs %0, fpcr" : "=r"(flags_));    \\
        flags_ |= 1u << 24;                                 \\
        __asm__ volatile("msr fpcr, %0" : : "r"(flags_));   \\
    } while (0)
#elif defined(__GNUC__) && defined(__arm__) && defined(__ARM_FP)
#define @FLUSH_DENORMALS()                                  \\
    do {                                                    \\
        unsigned int flags_;                                \\
        __asm__ volatile("vmrs %0, fpscr" : "=r"(flags_));  \\
        flags_ |= 1u << 24;                                 \\
        __asm__ volatile("vmsr fpscr, %0" : : "r"(flags_)); \\
    } while (0)
#else
#define @FLUSH_DENORMALS() ((void)0)
#endif
"""


def header(s: Source) -> str:
    """The .h file."""
    members = [f"float s{i}[{width}];" for i, width in enumerate(s.widths)]
    if s.prepare.last is not None:
        members.append(f"float last[{s.prepare.n_columns}]; /* for missing inputs, scaled */")
    refused = (
        "i + 1 if in[i] is refused (NaN, infinite, or too far from what was trained)"
        if s.prepare.parameter != TOKEN
        else "1 if there is no such token"
    )
    says = (
        f"Read one element of the sequence. Returns 0, or {refused}: then nothing has changed. The "
        "answer after this step is written to out; where out is a null pointer, none is computed."
    )
    given = "token" if s.prepare.parameter == TOKEN else "in[{}]"
    inputs = [f"{given.format(i)}: {m}" for i, m in enumerate(s.prepare.meanings) if m]
    outputs = [f"out[{i}]: {m}" for i, m in enumerate(s.outputs)]
    signature = _signature(s)
    says = "\n".join([says, *inputs, *outputs])
    guard = f"{s.name.upper()}_H"
    about = f"{s.title}, one step at a time. Made by ostinato from a saved model.\n\n{LICENCE}"
    lines = [
        comment(about),
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        *(["#include <stdint.h>", ""] if "int32_t" in "".join([signature, *members]) else []),
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"enum {{ @INPUTS = {s.prepare.n_inputs}, @OUTPUTS = {s.n_outputs} }};",
        "",
        _FLUSH,
        "/* The state of one stream. Each stream has its own; all share the tables. */",
        "typedef struct {",
        *(f"    {member}" for member in members),
        "} @state;",
        "",
        "/* Before the first step of a stream, and to restart it. */",
        "void @init(@state *s);",
        "",
        comment(says),
        f"{signature};",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
        "",
    ]
    return named("\n".join(lines), s.name, ["INPUTS", "OUTPUTS", "FLUSH_DENORMALS"])


def source(s: Source) -> str:
    """The .c file."""
    names: dict[int, str] = {}
    names |= {id(w): "@tokens" for w in tied(s)}
    tables = [*_prepare_tables(s.prepare), *part_tables(parts_of(s), names, s.int8)]
    step = Function(s.step, {"x0": "x", **states(s.widths, "carry")}, names, s.int8)
    answer = Function(s.answer, {"y0": "out", **states(s.widths, "x")}, names, s.int8)
    functions = [
        s.prepare.text,
        function("static void @update(@state *s, const float *x)", step.body("s", "x")),
        function("static void @answer(const @state *s, float *out)", answer.body("s", "out")),
        function("void @init(@state *s)", _init(s)),
        function(_signature(s), _step(s)),
    ]
    text = "\n".join(functions)
    helpers = "".join(FUNCTIONS[helper] for helper in used(text))
    includes = ["#include <float.h>", "#include <stdint.h>"]
    in_tables = any(word in table for table in tables for word in ("INFINITY", "NAN"))
    if in_tables or needs_math(text + helpers):
        includes.insert(1, "#include <math.h>")
    head = [
        comment(f"{s.title}, one step at a time: see {s.name}.h.\n\n{LICENCE}"),
        f'#include "{s.name}.h"',
        "",
        *includes,
        "",
    ]
    whole = "\n".join([*head, "\n".join(tables), helpers, text])
    return named(whole, s.name, ["INPUTS", "OUTPUTS"])


def tied(s: Source) -> list[Array]:
    """The weights that are also the table of tokens, and need no memory of their own."""
    tables = s.prepare.tables
    if "tokens" not in tables:
        return []

    def same(w: Array) -> bool:
        if not s.int8:
            return np.array_equal(w, tables["tokens"])
        q = quantized(w)
        of = ((q.values, tables["tokens"]), (q.scale, tables["tokens_scale"]))
        return all(np.array_equal(*pair) for pair in of)

    return [w for w in s.answer.weights if w.shape == tables["tokens"].shape and same(w)]


def parts_of(s: Source) -> dict[str, Part]:
    """By the prefix of their tables."""
    return {"@": s.step, "@answer_": s.answer}


def named(text: str, name: str, constants: Iterable[str] = ()) -> str:
    """The text with the model's prefix; constants have it in capital letters."""
    for end in constants:
        text = text.replace(f"@{end}", f"{name.upper()}_{end}")
    return text.replace("@", f"{name}_")


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
    """A user's text that cannot end a comment, continue a line, or hide in an editor."""
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
    """A constant array, each number with as few digits as give the same bits."""
    values = np.asarray(values, np.float32).ravel()
    texts = [f"{text}f" for text in values.astype(str).tolist()]
    for i in np.flatnonzero(~np.isfinite(values)):
        texts[i] = number(values[i])
    return table("float", name, texts)


def doubles(name: str, values: Sequence[float]) -> str:
    """A constant array of doubles, each with as few digits as give the same bits."""
    return table("double", name, [repr(v) for v in values])


def int8(name: str, values: Array) -> str:
    """A constant array of numbers from −128 to 127."""
    return table("int8_t", name, values.ravel().astype(str).tolist())


def _prepare_tables(prepare: Prepare) -> Iterator[str]:
    for name, numbers in prepare.doubles.items():
        if numbers:
            yield doubles(f"@{name}", numbers)
    for name, values in prepare.tables.items():
        yield (int8 if values.dtype == np.int8 else floats)(f"@{name}", values)
    if prepare.last is not None:
        yield floats("@first", prepare.last)


def part_tables(parts: Mapping[str, Part], names: dict[int, str], as_int8: bool) -> Iterator[str]:
    """The constant arrays of parts, by the prefix of their names; `names` receives these, and has
    the arrays that are written elsewhere."""
    for prefix, p in parts.items():
        read = {o.buffer for x in p.instructions for o in (x.a, x.b, x.c)}
        for i, values in p.constants.items():
            if i in read and id(values) not in names:  # two parts may read one tensor
                names[id(values)] = f"{prefix}vector{i}"
                yield floats(names[id(values)], values)
        for i, w in enumerate(p.weights):
            if id(w) in names:
                continue
            name = names[id(w)] = f"{prefix}weights{i}"
            yield f"/* [{w.shape[0]}][{w.shape[1]}] */"
            if as_int8:
                q = quantized(w)
                yield int8(name, q.values)
                yield floats(f"{name}_scale", q.scale)
            else:
                yield floats(name, w)


def table_bytes(parts: Iterable[Part], as_int8: bool, elsewhere: Iterable[Array] = ()) -> int:
    """Bytes of the weights of parts, their scales, and the constants that are read.

    Args:
        elsewhere: weights that are counted elsewhere.
    """
    total, counted = 0, set(map(id, elsewhere))
    for p in parts:
        read = {o.buffer for x in p.instructions for o in (x.a, x.b, x.c)}
        total += 4 * sum(v.size for i, v in p.constants.items() if i in read)
        own = [w for w in p.weights if id(w) not in counted]
        total += sum(w.size + 4 * w.shape[1] if as_int8 else 4 * w.size for w in own)
    return total


def _signature(s: Source) -> str:
    return f"int @step(@state *s, {s.prepare.parameter}, float out[{s.n_outputs}])"


def states(widths: Sequence[int], argument: str) -> dict[str, str]:
    """The C names of the states, by the arguments of a part."""
    return {f"{argument}{i}": f"s->s{i}" for i in range(len(widths))}


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


def function(head: str, lines: list[str]) -> str:
    """A function: its head, and the lines of its body."""
    return "\n".join([head, "{", *lines, "}", ""])
