"""The body of a C function from the instructions of a part.

A block of elementwise operations is one loop; the engine's registers are its variables. In the text
@ means the prefix of the model's names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ostinato.internal import NONE, OPS, Code, Instruction, Kind, Operand, Unsupported
from ostinato_learn.export.c.ops import EXPRESSIONS
from ostinato_learn.export.c.program import Part, in_place, is_one_number, local_arrays

Array = np.ndarray[Any, np.dtype[Any]]
_INDENT = "    "


class Function:
    """Writes the statements of one part.

    Args:
        part: the part that the function computes.
        places: the C name of each argument, such as "x0", "y0" or "carry0".
        names: the C names of constants and weights, by identity of the array.
        int8: whether the weights are int8, each with an array of scales.
    """

    def __init__(self, part: Part, places: Mapping[str, str], names: Mapping[int, str], int8: bool):
        self.part, self.places, self.names, self.int8 = part, places, names, int8
        self.in_place = in_place(part)
        self.copied = {c.buffer for c in part.program.carries} - self.in_place
        self.arrays = local_arrays(part, self.copied)

    def body(self, *parameters: str) -> list[str]:
        """Declarations and statements, indented once; parameters are those of the function."""
        statements = list(self.statements())
        widths: dict[int, int] = {}
        for buffer, array in self.arrays.items():
            width = self.part.program.buffers[buffer].width
            widths[array] = max(width, widths.get(array, 0))
        memory = [f"float b{array}[{width}];" for array, width in widths.items()]
        for i in sorted(self.copied):
            old, width = self.places[self.part.name(i)], self.part.program.buffers[i].width
            statements.append(f"@copy({old}, {self.local(i)}, {width});")
        unused = [
            f"(void){name};"
            for name in parameters
            if not any(re.search(rf"\b{name}\b", line) for line in statements)
        ]
        return [_INDENT + line for line in [*memory, *unused, *statements]]

    def statements(self) -> Iterator[str]:
        """The statements of the part, instruction by instruction."""
        instructions = self.part.instructions
        at = 0
        while at < len(instructions):
            x = instructions[at]
            if x.code == Code.BLOCK:
                yield from self.block(instructions[at + 1 : at + 1 + x.count], x.n)
                at += x.count
            elif x.code == Code.GEMM:
                yield from self.product(x)
            else:
                yield from self.within_row(x)
            at += 1

    # ---- products

    def product(self, x: Instruction) -> Iterator[str]:
        """d = c + a · W, or a · W: d is filled with c or zeros, then the product is added to it."""
        d = self.row(x.d)
        if x.c == NONE:
            yield f"@fill({d}, 0.0f, {x.n});"
        elif x.c != x.d:
            yield f"@copy({d}, {self.row(x.c)}, {x.n});"
        weights = self.names[id(self.part.weights[x.weight])]
        if self.int8:
            yield f"@product_int8({d}, {self.row(x.a)}, {weights}, {weights}_scale, {x.k}, {x.n});"
        else:
            yield f"@product({d}, {self.row(x.a)}, {weights}, {x.k}, {x.n});"

    # ---- sums, elements and small products within the row

    def within_row(self, x: Instruction) -> Iterator[str]:
        """A reduction, a selection of elements or a small product, as calls of C functions.

        Raises:
            Unsupported: there is no C code for the instruction.
        """
        d, a = self.row(x.d), self.row(x.a)
        if x.code in (Code.ROW_SUM, Code.ROW_MAX):
            name = "row_sum" if x.code == Code.ROW_SUM else "row_max"
            yield f"@{name}({d}, {a}, {x.n // (x.k * x.inner)}, {x.k}, {x.inner});"
        elif x.code == Code.TAKE:
            column = x.d.column
            for run in self.part.program.tables[x.weight].runs:
                to = self.row(replace(x.d, column=column))
                if run.start < 0:
                    yield f"@fill({to}, 0.0f, {run.count});"
                else:
                    source = self.row(replace(x.a, column=x.a.column + run.start))
                    yield f"@take({to}, {source}, {run.count}, {run.step});"
                column += run.count
        elif x.code == Code.PRODUCT:
            p = self.part.program.products[x.weight]
            apart = (1, p.K) if p.across else (p.N, 1)
            sizes = ", ".join(map(str, (p.groups, p.M, p.K, p.N, *apart)))
            yield f"@small_product({d}, {a}, {self.row(x.b)}, {sizes});"
        else:
            raise Unsupported(f"C code has no {x.code.name} yet")

    # ---- blocks

    def block(self, instructions: Sequence[Instruction], n: int) -> Iterator[str]:
        """A loop over n columns."""
        index = "i" if n > 1 else ""
        ahead, inside = [], []
        held: dict[Operand, str] = {}  # the variables of operands
        for i, x in enumerate(instructions):
            variable = f"v{i}"
            if is_one_number(x, n):
                ahead.append(f"const float {variable} = {self.element(x.a)};")
            elif x.code == Code.BROADCAST:
                inside.append(f"const float {variable} = {self.spread(x, n)};")
            elif x.op == "copy" and x.a in held:
                variable = held[x.a]
            else:
                text = self.expression(x, held, index)
                inside.append(f"const float {variable} = {text};")
            held[x.d] = variable
            if x.d.buffer >= 0:
                inside.append(f"{self.element(x.d, index)} = {variable};")
        if n > 1:
            loop = f"for (int i = 0; i < {n}; i++) {{"
            inside = [loop, *(_INDENT + line for line in inside), "}"]
        if ahead or n == 1:  # variables of only this block
            inside = ["{", *(_INDENT + line for line in [*ahead, *inside]), "}"]
        yield from inside

    def spread(self, x: Instruction, n: int) -> str:
        """The i-th of n elements [o][j][i] that are equal for every j: element [o][i] of x.a."""
        block, inner = x.k * x.inner, x.inner
        terms = [] if block == n else [f"i / {block} * {inner}" if inner > 1 else f"i / {block}"]
        terms += [f"i % {inner}"] if inner > 1 else []
        return self.element(x.a, " + ".join(terms))

    def expression(self, x: Instruction, held: Mapping[Operand, str], index: str) -> str:
        """An elementwise operation as C.

        Args:
            x: the operation.
            held: the variables of operands; all others are read from their arrays.
            index: the index of a loop over columns; "" for a single column.
        """
        operands = dict(zip("abc", (x.a, x.b, x.c)[: OPS[x.op].arity], strict=False))
        texts = {k: held.get(o) or self.element(o, index) for k, o in operands.items()}
        texts["s"] = number(x.s)
        return re.sub(r"\b[abcs]\b", lambda m: texts[m[0]], EXPRESSIONS[x.op])

    # ---- places

    def element(self, o: Operand, index: str = "") -> str:
        """The value of a column; with an index, of the column so far behind it."""
        at = " + ".join([str(o.column)] * (o.column > 0) + [index] * bool(index))
        return f"{self.array(o)}[{at or 0}]"

    def row(self, o: Operand) -> str:
        """The address of a column."""
        return f"{self.array(o)} + {o.column}" if o.column else self.array(o)

    def array(self, o: Operand) -> str:
        """The name of the array that holds an operand.

        A constant is a table, a value within a step is a local array, and all others are parameters
        of the function. A new carry is local while the old one is still read.
        """
        kind = self.part.program.buffers[o.buffer].kind
        if o.buffer in self.part.constants:
            return self.names[id(self.part.constants[o.buffer])]
        if kind in (Kind.STEP, Kind.CHUNK):
            return self.local(o.buffer)
        if o.dt == 1 and o.buffer in self.copied:
            return self.local(o.buffer)
        return self.places[self.part.name(o.buffer)]

    def local(self, buffer: int) -> str:
        return f"b{self.arrays[buffer]}"


def number(value: float) -> str:
    """A float32 as C writes it, with as few digits as give the same bits."""
    v = np.float32(value)
    if np.isnan(v):
        return "NAN"
    if np.isinf(v):
        return "INFINITY" if v > 0 else "-INFINITY"
    positional, scientific = (
        write(v, trim="0") for write in (np.format_float_positional, np.format_float_scientific)
    )
    return f"{min(positional, scientific, key=len)}f"
