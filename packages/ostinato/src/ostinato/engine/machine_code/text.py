"""Register code as LLVM's text.

`native/plan/register_code.h` says what register code is, `native/kernels/registers-inl.h` what an
instruction does. One list of instructions becomes a function

    void f(i64 n, ptr registers, ptr streams, ptr moves, ptr sums)

with a loop over n steps. A register that a step writes is a value of LLVM, not memory: registers
that are only read are loaded before the loop, carries pass from step to step as phis. The bits are
the interpreter's: every operation is written out, nothing may be contracted or reassociated, and
functions such as exp are calls of the engine's own by their address. Constants are loaded like all
other registers. Known to LLVM, `x * 1.0` would become `x`, which a number that the engine reads as
zero would survive.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ostinato.engine.ops import OPS

Instruction = tuple[int, int, int, int, int]  # op, d, a, b, c

NAMES = [*OPS]
# Behind the operations, in the order of `RegisterOp` in `native/kernels/kernels.h`:
LOAD, STORE, ADD_TO, MULTIPLY_TO, END = range(len(NAMES), len(NAMES) + 5)

# Numbers that count as zero are zero, which LLVM would otherwise compute differently from the
# processor where it knows a result beforehand.
_ATTRIBUTES = 'nounwind "denormal-fp-math"="preserve-sign,preserve-sign"'


def instructions(code: bytes) -> list[Instruction]:
    """The instructions from the engine's numbers of 16 bits, without the one that ends a step."""
    return [(op, d, a, b, c) for op, d, a, b, c in struct.iter_unpack("=5H", code)][:-1]


class Arithmetic:
    """Operations on named values, as lines of text. Methods return the name of their result."""

    def __init__(self, is_double: bool, addresses: Sequence[int]):
        """For float64 or float32, with the addresses of the engine's operations, as in NAMES."""
        self.type, self.suffix = ("double", "f64") if is_double else ("float", "f32")
        self.smallest = 2.0**-1022 if is_double else 2.0**-126
        self.addresses = addresses
        self.lines: list[str] = []

    def put(self, text: str) -> str:
        self.lines.append(f"%v{len(self.lines)} = {text}")
        return f"%v{len(self.lines) - 1}"

    def number(self, x: float) -> str:
        return f"0x{struct.unpack('<Q', struct.pack('<d', x))[0]:016X}"

    def op(self, name: str, *operands: str) -> str:
        return self.put(f"{name} {self.type} {', '.join(operands)}")

    def call(self, name: str, *operands: str) -> str:
        given = ", ".join(f"{self.type} {x}" for x in operands)
        return self.put(f"call {self.type} @llvm.{name}.{self.suffix}({given})")

    def fma(self, a: str, b: str, c: str) -> str:
        return self.call("fma", a, b, c)

    def compare(self, how: str, a: str, b: str) -> str:
        return self.op(f"fcmp {how}", a, b)

    def select(self, mask: str, a: str, b: str) -> str:
        return self.put(f"select i1 {mask}, {self.type} {a}, {self.type} {b}")

    def truth(self, how: str, a: str, b: str) -> str:
        return self.select(self.compare(how, a, b), self.number(1), self.number(0))

    def flushed(self, a: str) -> str:
        is_small = self.compare("olt", self.call("fabs", a), self.number(self.smallest))
        return self.select(is_small, self.call("copysign", self.number(0), a), a)

    def extreme(self, a: str, b: str, first_if: str) -> str:
        """max_nan and min_nan of `native/kernels/math-inl.h`."""
        found = self.flushed(self.select(first_if, a, b))
        return self.select(self.compare("oeq", a, a), found, a)

    def max(self, a: str, b: str) -> str:
        return self.extreme(a, b, self.compare("olt", b, a))

    def min(self, a: str, b: str) -> str:
        return self.extreme(a, b, self.compare("olt", a, b))

    def by_address(self, op: int, *operands: str) -> str:
        """A call of the engine's own operation, which depends on nothing but its operands."""
        given = ", ".join(f"{self.type} {x}" for x in operands)
        to = f"inttoptr (i64 {self.addresses[op]} to ptr)"
        return self.put(f"call {self.type} {to}({given}) memory(none) nounwind willreturn")

    def operation(self, op: int, a: str, b: str, c: str) -> str:
        write = OPERATIONS.get(NAMES[op])
        return write(self, a, b, c) if write else self.by_address(op, a, b, c)


# The operations that are not calls, as in `native/kernels/ops.def`. An operation's scalar is c.
OPERATIONS: dict[str, Callable[[Arithmetic, str, str, str], str]] = {
    "copy": lambda e, a, b, c: a,
    "fill": lambda e, a, b, c: c,
    "neg": lambda e, a, b, c: e.op("fneg", a),
    "abs": lambda e, a, b, c: e.call("fabs", a),
    "sqrt": lambda e, a, b, c: e.call("sqrt", a),
    "add": lambda e, a, b, c: e.op("fadd", a, b),
    "sub": lambda e, a, b, c: e.op("fsub", a, b),
    "mul": lambda e, a, b, c: e.op("fmul", a, b),
    "div": lambda e, a, b, c: e.op("fdiv", a, b),
    "max": lambda e, a, b, c: e.max(a, b),
    "min": lambda e, a, b, c: e.min(a, b),
    "lt": lambda e, a, b, c: e.truth("olt", a, b),
    "le": lambda e, a, b, c: e.truth("ole", a, b),
    "eq": lambda e, a, b, c: e.truth("oeq", a, b),
    "ne": lambda e, a, b, c: e.truth("une", a, b),
    "add_s": lambda e, a, b, c: e.op("fadd", a, c),
    "mul_s": lambda e, a, b, c: e.op("fmul", a, c),
    "rsub_s": lambda e, a, b, c: e.op("fsub", c, a),
    "rdiv_s": lambda e, a, b, c: e.op("fdiv", c, a),
    "max_s": lambda e, a, b, c: e.max(a, c),
    "min_s": lambda e, a, b, c: e.min(a, c),
    "lt_s": lambda e, a, b, c: e.truth("olt", a, c),
    "gt_s": lambda e, a, b, c: e.truth("olt", c, a),
    "le_s": lambda e, a, b, c: e.truth("ole", a, c),
    "ge_s": lambda e, a, b, c: e.truth("ole", c, a),
    "eq_s": lambda e, a, b, c: e.truth("oeq", a, c),
    "fma": lambda e, a, b, c: e.fma(a, b, c),
    "select": lambda e, a, b, c: e.select(e.compare("oeq", a, e.number(0)), c, b),
    "select_s": lambda e, a, b, c: e.select(e.compare("oeq", a, e.number(0)), b, c),
    "select_else_s": lambda e, a, b, c: e.select(e.compare("oeq", a, e.number(0)), c, b),
    "lerp": lambda e, a, b, c: e.fma(c, e.op("fsub", b, a), a),
    "tanh_backward": lambda e, a, b, c: e.op("fmul", a, e.fma(e.op("fneg", b), b, e.number(1))),
    "sigmoid_backward": lambda e, a, b, c: e.op(
        "fmul", e.op("fmul", a, b), e.op("fsub", e.number(1), b)
    ),
    "max_backward": lambda e, a, b, c: e.select(
        e.compare("olt", b, c),
        e.number(0),
        e.select(e.compare("oeq", b, c), e.op("fmul", a, e.number(0.5)), a),
    ),
}


class _FunctionText:
    """One list of instructions, as the text of a function."""

    def __init__(self, code: list[Instruction], carries: Iterable[int], e: Arithmetic):
        self.code, self.carries, self.e = code, set(carries), e
        self.entry: list[str] = []
        self.phis: list[str] = []
        self.exit: list[str] = []
        written = {x[1] for x in code if x[0] <= LOAD}
        # Carries are whatever they were before the step, until it writes them.
        self.changed = sorted(written & self.carries)
        self.now = {r: f"%carry{r}" for r in self.changed}  # by register: its value
        self.streams: dict[int, None] = {}

    def at(self, of: str, i: int, type: str = "") -> str:
        """The address of element i, before the loop or behind it."""
        return f"getelementptr {type or self.e.type}, ptr {of}, i64 {i}"

    def read(self, register: int) -> str:
        if register not in self.now:
            self.now[register] = self.loaded(register)
        return self.now[register]

    def loaded(self, register: int) -> str:
        self.entry += [
            f"%place{register} = {self.at('%registers', register)}",
            f"%first{register} = load {self.e.type}, ptr %place{register}",
        ]
        return f"%first{register}"

    def element(self, of: str, i: int) -> str:
        return self.e.put(self.at(of, i))

    def stream(self, i: int) -> str:
        self.streams[i] = None
        return f"%stream{i}"

    def instruction(self, x: Instruction) -> None:
        op, d, a, b, c = x
        e = self.e
        if op < LOAD:
            arity, with_scalar = (
                OPS[NAMES[op]].arity,
                NAMES[op].endswith("_s") or NAMES[op] == "fill",
            )
            given = [self.read(r) if i < arity else e.number(0) for i, r in enumerate((a, b, c))]
            if with_scalar:
                given[2] = self.read(c)
            self.now[d] = e.operation(op, *given)
        elif op == LOAD:
            self.now[d] = e.put(f"load {e.type}, ptr {self.element(self.stream(a), b)}")
        elif op == STORE:
            value = self.read(c)
            e.lines.append(f"store {e.type} {value}, ptr {self.element(self.stream(a), b)}")
        else:
            place = self.element("%sums", d)
            before = e.put(f"load {e.type}, ptr {place}")
            after = (
                e.op("fadd", before, self.read(a))
                if op == ADD_TO
                else e.fma(self.read(a), self.read(b), before)
            )
            e.lines.append(f"store {e.type} {after}, ptr {place}")

    def text(self, name: str) -> str:
        for register in self.changed:
            self.loaded(register)
        for x in self.code:
            self.instruction(x)
        e = self.e
        for r in self.changed:
            self.phis.append(
                f"%carry{r} = phi {e.type} [ %first{r}, %entry ], [ {self.now[r]}, %loop ]"
            )
            self.exit.append(f"store {e.type} {self.now[r]}, ptr %place{r}")
        for s in self.streams:
            self.entry += [
                f"%slot{s} = {self.at('%streams', s, 'ptr')}",
                f"%begin{s} = load ptr, ptr %slot{s}",
                f"%by{s} = {self.at('%moves', s, 'i64')}",
                f"%move{s} = load i64, ptr %by{s}",
            ]
            self.phis.append(f"%stream{s} = phi ptr [ %begin{s}, %entry ], [ %next{s}, %loop ]")
            e.lines.append(f"%next{s} = getelementptr {e.type}, ptr %stream{s}, i64 %move{s}")
            self.exit.append(f"store ptr %next{s}, ptr %slot{s}")
        pointers = ", ".join(f"ptr noalias %{x}" for x in ("registers", "streams", "moves", "sums"))
        return "\n".join(
            [
                f"define void @{name}(i64 %n, {pointers}) #0 {{",
                "entry:",
                *self.entry,
                "br label %loop",
                "loop:",
                "%left = phi i64 [ %n, %entry ], [ %fewer, %loop ]",
                *self.phis,
                *e.lines,
                "%fewer = sub i64 %left, 1",
                "%more = icmp ne i64 %fewer, 0",
                "br i1 %more, label %loop, label %exit",
                "exit:",
                *self.exit,
                "ret void",
                "}",
            ]
        )


class GivenCode(NamedTuple):
    """Register code, as the engine gives it.

    Attributes:
        step: the instructions of a step.
        late_terms: those of each late term.
        carries: the registers that a step leaves to the next one.
        is_double: whether numbers are float64, not float32.
        addresses: of the engine's operations on numbers, in the order of NAMES.
    """

    step: bytes
    late_terms: list[bytes]
    carries: list[int]
    is_double: bool
    addresses: list[int]

    @property
    def lists(self) -> list[bytes]:
        return [self.step, *self.late_terms]


def module_text(source: GivenCode) -> str:
    """The functions f0, f1, … of the lists of instructions."""
    parts = []
    for i, code in enumerate(source.lists):
        e = Arithmetic(source.is_double, source.addresses)
        parts.append(_FunctionText(instructions(code), source.carries, e).text(f"f{i}"))
    for name, n in {"fabs": 1, "sqrt": 1, "copysign": 2, "fma": 3}.items():
        parts.append(f"declare {e.type} @llvm.{name}.{e.suffix}({', '.join([e.type] * n)})")
    return "\n".join([*parts, f"attributes #0 = {{ {_ATTRIBUTES} }}"])
