"""What the programs of some steps consist of."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

import ostinato
from ostinato.compiler import graph, lower, plan, steps
from ostinato.compiler.backward.rematerialize import choose_saved
from ostinato.compiler.graph.builder import Builder
from ostinato.compiler.graph.node import Node
from ostinato.compiler.lower.emit import MAX_BLOCK, MAX_REGISTERS
from ostinato.compiler.lower.fuse_gemm import fuse_gemm
from ostinato.compiler.lower.lower import lower as lower_pass
from ostinato.compiler.lower.spec import (
    Accumulation,
    CarrySpec,
    Leaf,
    Output,
    PassSpec,
    split_outputs,
)
from ostinato.engine import native
from ostinato.engine.program import Code, Instruction, Kind, Program
from zoo.playing import loop, rows_apart
from zoo.steps import make

B, F, H = 64, 5, 8  # so many rows that the products of x stay in the loop

# A step that is played by the loop after all would pass each comparison: scan warns of that.
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _recorded_by_no_other_test(monkeypatch):
    """Of a step that was recorded often in this process scan would warn now."""
    monkeypatch.setattr(steps, "_times", Counter())


def programs(step: Any, init: Any, xs: Any, monkeypatch: pytest.MonkeyPatch) -> list[Program]:
    """The forward and the backward one of a call that is trained."""
    made: list[Program] = []
    real = native.make

    def noted(program: Program, kind: Any) -> Any:
        made.append(program)
        return real(program, kind)

    monkeypatch.setattr(native, "make", noted)
    ostinato.forget(step)
    carry, ys = ostinato.scan(step, init, xs)
    leaves = pytree.tree_leaves((carry, ys))
    torch.autograd.backward([y.sum() for y in leaves if y.requires_grad])
    return made[-2:]


def of_the_zoo(name: str, monkeypatch: pytest.MonkeyPatch) -> list[Program]:
    case = make(name, torch.float64, F, H)
    init = pytree.tree_map(lambda t: t.requires_grad_(), case.init(B))
    return programs(case.step, init, case.xs(6, B), monkeypatch)


def codes(instructions: tuple[Instruction, ...]) -> list[Code]:
    return [x.code for x in instructions]


def width(program: Program, kind: Kind) -> int:
    return sum(b.width for b in program.buffers if b.kind == kind)


@pytest.mark.parametrize(
    ("name", "columns"),
    [("lstm_chunk", 4), ("gru_reset_after", 4), ("slstm_stabilised", 5), ("lem", 4)],
)
def test_what_is_kept_for_the_backward_pass(name, columns, monkeypatch):
    forward, _ = of_the_zoo(name, monkeypatch)
    kept = [b for b in forward.buffers if b.kind == Kind.TAPE and b.extra == 0]
    assert sum(b.width for b in kept) == columns * H


def test_the_fewest_columns_are_kept():
    """Of three comparisons of two products the two; of one comparison itself; nothing of what is at
    hand; and an expensive function where it is."""
    b = Builder()
    x, y, d = (b.node(name, (), (), "rows", (H,)) for name in "xyd")
    p, q = (b.node("matmul", (n,), (), "rows", (H,)) for n in (x, y))
    masks = [b.op("lt", p, q), b.op("lt", q, p), b.op("eq", p, q)]
    used = [b.op("mul", d, mask) for mask in masks]
    assert choose_saved(used, {d}, {x, y}) == [p, q]
    assert choose_saved(used[:1], {d}, {x, y}) == [masks[0]]
    assert choose_saved([b.op("mul", d, b.op("add", x, y))], {d}, {x, y}) == []
    again, dear = b.op("exp", b.op("sub", p, y)), b.op("softplus", p)
    assert choose_saved([b.op("mul", d, again), b.op("mul", d, p)], {d}, {x, y}) == [p]
    assert choose_saved([b.op("mul", d, dear), b.op("mul", d, p)], {d}, {x, y}) == [p, dear]


def test_a_value_is_computed_where_it_is_read(monkeypatch):
    """(1 − d) y, read by one block behind a product, lies nowhere."""
    forward, backward = of_the_zoo("lem", monkeypatch)
    assert width(forward, Kind.STEP) == 0
    assert width(backward, Kind.STEP) == H  # what the second product adds to


def test_an_operation_on_what_the_loop_computes_is_played_in_it(monkeypatch):
    W = torch.randn(H, H, dtype=torch.float64, requires_grad=True)

    def step(h, x):
        h = torch.tanh(x + h @ W)
        return h, 2 * h.square() + x

    forward, _ = programs(
        step, torch.zeros(3, H).double(), torch.randn(5, 3, H).double(), monkeypatch
    )
    assert forward.after == ()
    assert width(forward, Kind.CHUNK) == 0


@pytest.mark.parametrize("name", ["slstm_stabilised", "lem", "lstm_chunk"])
def test_products_that_are_added_follow_each_other(name, monkeypatch):
    added = 0
    for program in of_the_zoo(name, monkeypatch):
        made: list[Any] = []  # results of the products so far
        for before, x in zip(program.loop, program.loop[1:], strict=False):
            made += [(before.d, before.n)] * (before.code == Code.GEMM)
            if x.code == Code.GEMM and (x.d, x.n) in made:
                assert (before.code, before.d, before.n) == (Code.GEMM, x.d, x.n)
                added += 1
    assert added > 0


@pytest.mark.parametrize("n", [1, 24, 27, 40])
def test_many_values_at_once_that_become_one_pass_each(n):
    """Each product waits in a register for its tanh, and one for itself."""
    W = torch.randn(H, H) / 10

    def step(h, x):
        parts = x.chunk(n + 1, 1)
        products = [part * h for part in parts]
        ys = [torch.tanh(p) for p in products[:-1]]
        return h @ W, torch.cat([*ys, products[-1].square()], 1)

    for rows in (3, 8, 33):
        init, xs = torch.randn(rows, H), torch.randn(5, rows, (n + 1) * H)
        with torch.no_grad():
            torch.testing.assert_close(
                ostinato.scan(step, init, xs), loop(step, init, xs), rtol=1e-5, atol=1e-5
            )


def test_a_choice_between_a_value_and_a_constant():
    """One pass with the comparison: the constant is the choice's, the comparison has none."""
    W = torch.randn(H, H) / 10

    def step(h, x):
        h = torch.where(x < h, 0.25, x) + torch.where(x <= h, x, -0.5) + h @ W
        return h, torch.where(x * h > 0, 3.0, h)

    init, xs = torch.randn(9, H), torch.randn(5, 9, H)
    with torch.no_grad():
        torch.testing.assert_close(ostinato.scan(step, init, xs), loop(step, init, xs))


def gradients(ys: Any, of: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return torch.autograd.grad(ys, of, torch.randn_like(ys))


def assert_gradients(step: Any, init: Any, xs: Any, of: list[torch.Tensor]) -> None:
    found, right = (gradients(f(step, init, xs)[1], of) for f in (ostinato.scan, loop))
    torch.testing.assert_close(found, right)


def operations(program: Program) -> list[str]:
    return [x.op for x in (*program.before, *program.loop, *program.after) if x.code == Code.OP]


def test_the_gradient_of_the_larger_or_the_smaller_is_one_operation(monkeypatch):
    """Zero for the other, half where both are equal."""
    W = torch.randn(H, H).double() / 3
    p, q = (torch.randint(0, 3, (6, B, H)).double().requires_grad_() for _ in "pq")
    init = torch.zeros(B, H).double()

    def step(h, x):
        p, q = x
        h = torch.tanh(h @ W + torch.maximum(p, q) - 0.3 * torch.minimum(q, p))
        return h, h

    _, backward = programs(step, init, (p, q), monkeypatch)
    of_max = [name for name in operations(backward) if name in ("max_backward", "eq", "lt")]
    assert of_max == ["max_backward"] * 4
    assert_gradients(step, init, (p, q), [p, q])


def test_the_gradients_of_a_quotient_take_one_division(monkeypatch):
    W = (torch.randn(H, H).double() / 3).requires_grad_()
    init, xs = torch.randn(B, H).double(), torch.randn(6, B, H).double()

    def step(h, x):
        h = (h @ W + x) / (1.5 + h * h)
        return h, h

    _, backward = programs(step, init, xs, monkeypatch)
    assert operations(backward).count("div") == 1
    assert_gradients(step, init, xs, [W])


def test_a_quotient_of_quotients_ends():
    """Each factor of a product is a quotient by the same divisor, or twice."""
    b = Builder()
    w, x, y = (b.node(name, (), (), "rows", (H,)) for name in "wxy")
    once, twice = b.op("div", w, y), b.op("div", b.op("div", x, y), y)
    for factors in ((once, twice), (twice, once), (twice, twice)):
        assert b.op("mul", *factors).inputs == factors
    assert b.op("mul", twice, w) is b.op("mul", once, twice.inputs[0])


@pytest.mark.parametrize(
    ("rows", "units", "apart"),
    [(4, 8, False), (8, 8, True), (32, 32, True), (32, 64, True), (32, 65, False), (65, 32, False)],
)
def test_a_carry_lies_apart_from_the_output_where_threads_would_share_a_page(
    rows, units, apart, monkeypatch
):
    """Up to 8 KB of float32 a step, unless one group of rows is played by columns."""
    W = (torch.randn(units, units) / units).requires_grad_()
    init, xs = torch.zeros(rows, units), torch.randn(4, rows, units)

    def step(h, x):
        h = torch.tanh(h @ W + x)
        return h, (h, 2 * h, h)

    forward, backward = programs(step, init, xs, monkeypatch)
    for program in (forward, backward):
        carries = [b for b in program.buffers if b.extra == 1]
        assert [b.kind for b in carries] == [Kind.TAPE if apart else Kind.TIME]
    (h_n, ys), (right, right_ys) = (f(step, init, xs) for f in (ostinato.scan, loop))
    torch.testing.assert_close((h_n, ys), (right, right_ys))
    assert len({y.data_ptr() for y in (h_n, *ys)}) == 4
    total, right_total = sum(ys), sum(right_ys)
    with torch.no_grad():
        ys[0].zero_()  # whatever becomes of the caller's
    found, right = gradients(total, [W]), gradients(right_total, [W])
    # 4 · 65 terms, of some 6 at most, each rounded to 2⁻²⁴ of the sum so far
    torch.testing.assert_close(found, right, rtol=0, atol=260 * 6 * 2**-24)


def kept_leaves(program: Program) -> int:
    """Of the carry: those that lie there at every step."""
    return sum(b.extra == 1 for b in program.buffers)


@pytest.mark.parametrize(("name", "kept"), [("slstm_stabilised", 3), ("lstm_chunk", 2), ("lem", 2)])
def test_a_leaf_of_the_carry_that_the_backward_pass_can_do_without(name, kept, monkeypatch):
    """sLSTM's running maximum is that of two values which are kept anyway."""
    forward, backward = of_the_zoo(name, monkeypatch)
    assert kept_leaves(forward) == kept
    assert kept_leaves(backward) <= kept


@pytest.mark.parametrize("part", [slice(None), slice(2, 5)], ids=["all of it", "some columns"])
def test_a_leaf_is_kept_where_its_last_value_is_needed(part, monkeypatch):
    """By the gradient of W alone: all of it, or some columns, which would not lie apart."""
    W = (torch.randn(H, H).double() / 9).requires_grad_()
    init, xs = (torch.zeros(B, H).double(),) * 2, torch.randn(5, B, H).double()

    def step(carry, x):
        h, c = carry
        h = torch.tanh(x + c[:, part] @ W[part])
        return (h, (0.5 * c + x).square() / 9), h

    forward, _ = programs(step, init, xs, monkeypatch)
    assert kept_leaves(forward) == 2
    assert_gradients(step, init, xs, [W])


@pytest.mark.parametrize("name", ["slstm_stabilised", "stack_of_two"])
def test_without_gradients_nothing_is_kept_but_the_outputs(name, monkeypatch):
    made: list[Program] = []
    real = native.make
    monkeypatch.setattr(native, "make", lambda p, kind: made.append(p) or real(p, kind))
    case = make(name, torch.float64, F, H)
    for rows, reverse in itertools.product((3, B), (False, True)):
        made.clear()
        init, xs = case.init(rows), case.xs(6, rows)
        lengths = torch.arange(rows) % 7
        with torch.no_grad():
            found = ostinato.scan(case.step, init, xs, lengths=lengths, reverse=reverse)
            right = rows_apart(case.step, init, xs, lengths=lengths.tolist(), reverse=reverse)
        torch.testing.assert_close(found, right)
        kinds = [b.kind for b in made[-1].buffers]
        assert Kind.TAPE not in kinds
        assert Kind.PAIR in kinds


def test_two_parameters_of_different_shapes_with_one_gradient():
    """Both gradients are one sum, which is collected in the shape of the first."""
    W, flat = (torch.randn(n, dtype=torch.float64, requires_grad=True) for n in ((H, H), (H * H,)))
    init, xs = torch.randn(3, H).double(), torch.randn(5, 3, H).double()

    def square_first(h, x):
        h = torch.tanh(x + h @ W + h @ flat.view(H, H))
        return h, h

    def flat_first(h, x):
        h = torch.tanh(x + h @ flat.view(H, H) + h @ W)
        return h, h

    for step in (square_first, flat_first):
        assert_gradients(step, init, xs, [W, flat])


def test_the_limits_of_a_block_are_those_of_the_engine():
    (header,) = (Path(__file__).parents[2] / "native").rglob("program.h")
    found = re.findall(r"constexpr \w+ (kMaxBlock|kMaxRegisters) = (\d+);", header.read_text())
    assert sorted(found) == [("kMaxBlock", str(MAX_BLOCK)), ("kMaxRegisters", str(MAX_REGISTERS))]


def imported(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_the_lowering_imports_no_torch():
    """Neither itself nor by what it imports of the compiler."""
    (folder,), (below,) = lower.__path__, graph.__path__
    seen = set().union(*(imported(path) for path in Path(folder).glob("*.py")))
    others = {m for m in seen if m.startswith("ostinato.") and ".lower." not in m}
    of_engine = {f"ostinato.engine.{name}" for name in ("ops", "program")}
    of_graph = {f"ostinato.compiler.graph.{name}" for name in ("arrays", "node")}
    of_compiler = {f"ostinato.compiler.{name}" for name in ("errors", "lock")}
    assert others == of_graph | of_compiler | of_engine
    for name in ("arrays", "identities", "node"):  # arrays.py imports the second
        seen |= imported(Path(below) / f"{name}.py")
    for name in ("errors", "lock"):
        seen |= imported(Path(below).parent / f"{name}.py")
    assert not {m for m in seen if m.split(".")[0] == "torch"}
    assert "torch" in imported(Path(below) / "evaluate.py")  # this would have been found


def test_a_pass_lowered_again_gives_the_same_program():
    """Nothing in it depends on the order of a set of nodes, which are hashed by their addresses."""
    made: list[tuple[PassSpec, Any]] = []  # held, so that the next nodes lie elsewhere
    for _ in range(16):
        build = Builder()
        x, h = (build.node(name, (), (0,), "rows", (H,)) for name in ("x", "state"))
        new = build.matmul(h, build.captured(0, (H, H)))
        for _ in range(4):  # two registers at a time become free
            new = build.op("add", build.op("tanh", new), build.op("exp", build.op("mul", new, x)))
        carry = CarrySpec("carry0", True, "init0", "final0", h, new)
        spec = PassSpec({x: Leaf("x0", H)}, (carry,), ())
        made.append((spec, lower_pass(spec).program.numbers()))
    assert all(numbers == made[0][1] for _, numbers in made)


PASSES = [
    "split_outputs",
    "fuse_gemm",
    "find_by_places",
    "hoist",
    "bridge_carries",
    "schedule",
    "sink",
    "assign_buffers",
    "without_copies",
]


def read_only(value: Any) -> Any:
    """What a pass gave, whose mappings refuse any change; all else in it is frozen."""
    if isinstance(value, Mapping):
        return MappingProxyType(value)
    if isinstance(value, tuple):
        return tuple(map(read_only, value))
    mappings = {f.name: getattr(value, f.name) for f in fields(value)}
    mappings = {name: read_only(v) for name, v in mappings.items() if isinstance(v, Mapping)}
    return replace(value, **mappings)


@pytest.mark.parametrize("name", ["lstm_chunk", "gru_reset_after", "slstm_stabilised", "lem"])
def test_no_pass_edits_what_another_gave(name, monkeypatch):
    passes = {n for n, f in vars(lower.lower).items() if inspect.isfunction(f) and n[0] != "_"}
    assert passes - {"lower", "emit", "replace"} == set(PASSES)
    specs: list[PassSpec] = []
    monkeypatch.setattr(plan, "lower", lambda spec: specs.append(spec) or lower_pass(spec))
    of_the_zoo(name, monkeypatch)
    assert len(specs) >= 2
    right = [lower_pass(spec).program for spec in specs]
    for each in PASSES:
        real = getattr(lower.lower, each)
        monkeypatch.setattr(lower.lower, each, lambda *given, f=real: read_only(f(*given)))
    assert [lower_pass(read_only(spec)).program for spec in specs] == right


@pytest.mark.parametrize("limit", ["MAX_ARGUMENTS", "MAX_WIDTH"])
def test_a_pass_beyond_a_limit_of_the_engine_plays_the_loop(limit, monkeypatch):
    monkeypatch.setattr(lower.emit, limit, 3)
    xs = torch.randn(3, 2, 4)
    with pytest.warns(
        UserWarning, match=r"has 4 (numbers|tensors); the engine takes 3|has \d tensors"
    ):
        assert torch.equal(
            ostinato.scan(lambda h, x: h + x, xs[0], xs)[1], loop(torch.add, xs[0], xs)[1]
        )


CHAINS = [  # terms; as an output without and with hoisting, and as the new carry
    ("h@W b", "[b + hW]", "[b + hW]", "[b + hW]"),
    ("h@W b x@U", "[b + xU + hW]", "[[b + xU] + hW]", "([hW] + [b + xU])"),
    ("x@U b h@W x", "([b + xU + hW] + x)", "([[b + xU] + hW] + x)", "(([hW] + [b + xU]) + x)"),
    ("x@U x b", "([b + xU] + x)", "([b + xU] + x)", "([b + xU] + x)"),
    ("h@W x b", "[(x + b) + hW]", "[(x + b) + hW]", "[(x + b) + hW]"),
    ("x h@W h", "[(x + h) + hW]", "[(x + h) + hW]", "[(x + h) + hW]"),
    ("h@W tanh(h@U) b", "([b + hW] + tanh[hU])", "([b + hW] + tanh[hU])", "([b + hW] + tanh[hU])"),
]


@pytest.mark.parametrize(("terms", "plain", "hoisting", "new_carry"), CHAINS)
def test_the_order_in_which_a_chain_is_added_up(terms, plain, hoisting, new_carry):
    """The cases of `fuse_gemm`. [accumulation], (addition)."""
    build = Builder()
    x, h = (build.node(name, (), (0,), "rows", (H,)) for name in ("x", "state"))
    W, U, b = build.captured(0, (H, H)), build.captured(1, (H, H)), build.captured(2, (H,))
    names = {x: "x", h: "h", W: "W", U: "U", b: "b"}
    term = {
        "x": x,
        "h": h,
        "b": b,
        "h@W": build.matmul(h, W),
        "x@U": build.matmul(x, U),
        "tanh(h@U)": build.op("tanh", build.matmul(h, U)),
    }
    first, *others = (term[name] for name in terms.split())
    total = first
    for other in others:
        total = build.op("add", total, other)

    def shown(n: Node) -> str:
        if n in names:
            return names[n]
        if isinstance(n, Accumulation):
            terms = [*map(shown, n.start), *(shown(a) + shown(w) for a, w in n.products)]
            return f"[{' + '.join(terms)}]"
        if n.op == "add":
            return f"({' + '.join(map(shown, n.inputs))})"
        return ("" if n.op == "copy" else n.op) + "".join(map(shown, n.inputs))

    def fused(hoist: bool, written: Node) -> str:
        carry = CarrySpec("carry0", True, "init0", "final0", h, written)
        leaves = {x: Leaf("x0", H)}
        spec = PassSpec(leaves, (carry,), (Output(total, "y0"),), hoist=hoist)
        fused_spec = fuse_gemm(split_outputs(spec))
        return shown(fused_spec.outputs[0 if written is total else 1].node)

    assert fused(False, h) == plain
    assert fused(True, h) == hoisting
    assert fused(False, total) == fused(True, total) == new_carry
