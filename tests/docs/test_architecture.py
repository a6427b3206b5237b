"""The programs in docs/architecture.md are those of the real compiler."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import torch

from ostinato import scan
from ostinato.engine import native
from ostinato.engine.program import Code, Instruction, Kind, Operand, Program
from sources import CORE, LEARN, NATIVE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"


def operand(o: Operand, program: Program) -> str:
    if o.buffer < -1:
        return f"r{o.register}"
    if program.buffers[o.buffer].kind in (Kind.VECTOR, Kind.LOCAL):
        return str(o.buffer)
    return f"{o.buffer}[t+{o.dt}]" if o.dt else f"{o.buffer}[t]"


def lines(section: tuple[Instruction, ...], program: Program) -> list[str]:
    """A section in the page's notation; a block is one line."""
    found = []
    for x in section:
        d, a, b, c = (operand(o, program) if o.buffer != -1 else "" for o in (x.d, x.a, x.b, x.c))
        if x.code == Code.GEMM:
            found.append(f"gemm {d} = " + (f"{c} + " if c else "") + f"{a} · weight {x.weight}")
        elif x.code == Code.BLOCK:
            found.append("block")
        elif x.code == Code.OP:
            separator = " " if found[-1] == "block" else " ; "
            found[-1] += f"{separator}{d} = " + " ".join(filter(None, [x.op, a, b, c]))
        elif x.code == Code.COLUMN_SUM:
            found.append(f"column sum gradient {x.weight} += {a}")
        else:
            assert x.code == Code.OUTER, x
            found.append(f"outer gradient {x.weight} += {a}ᵀ {b}")
    return found


def programs_of_the_example(monkeypatch) -> dict[bool, Program]:
    """Those of a training call, by whether they run backwards in time."""
    made: dict[bool, Program] = {}
    make = native.make

    def watched(program, *rest):
        made[program.descending] = program
        return make(program, *rest)

    monkeypatch.setattr(native, "make", watched)
    U, W, b = (torch.randn(*s, requires_grad=True) for s in [(28, 128), (128, 128), (128,)])

    def step(h, x):
        return torch.tanh(x @ U + h @ W + b)

    scan(step, torch.zeros(64, 128), torch.randn(28, 64, 28))[1].square().mean().backward()
    return made


def test_the_programs_on_the_page(monkeypatch):
    page = [re.sub(r"\s+", " ", line) for line in PAGE.read_text(encoding="utf-8").splitlines()]
    programs = programs_of_the_example(monkeypatch)
    assert sorted(programs) == [False, True]
    for program in programs.values():
        wanted = []
        for name in ("once", "before", "loop", "after"):
            heads = itertools.chain([name], itertools.repeat(""))
            wanted += [
                f"{head} {line}"
                for head, line in zip(heads, lines(getattr(program, name), program), strict=False)
            ]
        first = page.index(wanted[0])
        assert page[first : first + len(wanted)] == wanted


def pairs(text: str) -> list[tuple[str, str]]:
    """(name, file) wherever the page has a name and behind it, in brackets, its file."""
    return re.findall(r"`[\w.:]*?(\w+)`\s+\(`([\w/]+\.\w+)`", text)


def defined(name: str, file: str) -> bool:
    """Whether a file of the package or of the engine defines a function or class of this name."""
    files = [p for top in (CORE, LEARN, NATIVE) for p in top.rglob(Path(file).name)]
    (path,) = [p for p in files if p.as_posix().endswith(f"/{file}")]
    before = r"(?:def|class)" if path.suffix == ".py" else r"(?:[\w>*&]|::)"
    return bool(re.search(rf"{before}\s*{name}\b", path.read_text(encoding="utf-8")))


def test_the_functions_on_the_way_are_where_the_page_says():
    found = pairs(PAGE.read_text(encoding="utf-8"))
    assert len(found) > 12
    assert [pair for pair in found if not defined(*pair)] == []


def test_a_function_that_moved_is_found():
    assert pairs("`cache.find` → `_observed` (`compiler/cache.py`)") == [
        ("_observed", "compiler/cache.py")
    ]
    assert defined("_observed", "compiler/cache.py")
    assert not defined("_observed", "_scan.py")
