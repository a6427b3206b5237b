"""Tables that Python and C++ both have: the same names and values, read through the module.

The table of operations is compared in test_functions.py.
"""

from dataclasses import fields, is_dataclass
from enum import IntEnum
from typing import Any

import pytest

from ostinato import _native
from ostinato.compiler.graph.arrays import STRETCH
from ostinato.compiler.lower.emit import MAX_BLOCK, MAX_REGISTERS, PANEL
from ostinato.compiler.play import bindings
from ostinato.engine import program as programs
from ostinato.engine.program import (
    MAX_ARGUMENTS,
    MAX_WIDTH,
    OP_NUMBERS,
    Code,
    Instruction,
    Kind,
    Operand,
    Program,
)

TABLES = _native.tables()


@pytest.mark.parametrize("table", [Kind, Code, bindings.How])
def test_enumerations(table: type[IntEnum]):
    assert [(member.name, member.value) for member in table] == TABLES[table.__name__]


def test_the_lists_that_arguments_come_from():
    assert TABLES["lists"] == [(name, getattr(bindings, f"_{name}")) for name, _ in TABLES["lists"]]
    assert [value for _, value in TABLES["lists"]] == list(range(5))


def test_limits():
    assert dict(TABLES["limits"]) == {
        "MAX_ARGUMENTS": MAX_ARGUMENTS,
        "MAX_BLOCK": MAX_BLOCK,
        "MAX_REGISTERS": MAX_REGISTERS,
        "MAX_WIDTH": MAX_WIDTH,
        "PANEL": PANEL,
        "STRETCH": STRETCH,
    }


class Counter:
    """Structures of program.py in which every number is another one."""

    def __init__(self) -> None:
        self.last = 100

    def number(self) -> int:
        self.last += 1
        return self.last

    def make(self, kind: type) -> Any:
        """One of a dataclass whose fields are numbers, or such dataclasses."""
        given: dict[str, Any] = {}
        for field in fields(kind):
            name = str(field.type)
            if name in ("int", "Kind", "Code"):
                given[field.name] = self.number()
            elif name == "Operand":
                given[field.name] = self.make(Operand)
            elif name in ("tuple[WeightBlock, ...]", "tuple[ElementRun, ...]"):
                part = getattr(programs, name[len("tuple[") : -len(", ...]")])
                given[field.name] = tuple(self.make(part) for _ in range(2))
            elif name == "bool":
                given[field.name] = True
            elif name == "float":
                given[field.name] = float(self.number())
            elif name == "str":
                given[field.name] = "tanh"
            else:
                raise TypeError(f"a field of another type: {kind.__name__}.{field.name}: {name}")
        return kind(**given)


def numbers_by_path(value: Any, path: str) -> list[tuple[str, int]]:
    """Every number of a structure, but for an instruction's scalar."""
    if is_dataclass(value):
        parts = [(field.name, getattr(value, field.name)) for field in fields(value)]
        if isinstance(value, Instruction):
            parts = [(name, part) for name, part in parts if name != "s"]
    elif isinstance(value, tuple):
        parts = [(str(i), part) for i, part in enumerate(value)]
    else:
        return [(path, OP_NUMBERS[value] if isinstance(value, str) else int(value))]
    return [pair for name, part in parts for pair in numbers_by_path(part, f"{path}.{name}")]


def test_the_numbers_of_a_program():
    """`Program.numbers` writes each number where the engine reads it, and so is each scalar's."""
    counter = Counter()
    lists = {
        "buffers": programs.Buffer,
        "weights": programs.Weight,
        "gradients": programs.Gradient,
        "carries": programs.Carry,
        "tables": programs.IndexTable,
        "products": programs.SmallProduct,
    }
    parts = {name: tuple(counter.make(kind) for _ in range(2)) for name, kind in lists.items()}
    sections = {
        name: tuple(counter.make(Instruction) for _ in range(n))
        for name, n in {"once": 1, "before": 2, "loop": 3, "after": 1}.items()
    }
    program = Program(counter.number(), True, **parts, **sections)

    expected = [("n_arguments", program.n_arguments), ("descending", 1)]
    for name in (*lists, "instructions"):
        expected += numbers_by_path(getattr(program, name), name)
    begin = 0
    for name, section in sections.items():
        expected += [(f"{name}.begin", begin), (f"{name}.end", begin + len(section))]
        begin += len(section)

    integers, scalars = program.numbers()
    found = _native.numbers_by_path(integers, scalars)
    assert len(dict(found)) == len(found)
    assert dict(found) == dict(expected)
    assert scalars == [x.s for x in program.instructions]
