"""Properties of a loop's body that its syntax tree shows."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from typing import Any

from ostinato.loops.text.dataflow import FUNCTIONS, free_names, own_nodes, reads, writes

_JOINED = {"stack", "cat", "concat", "concatenate", "vstack", "hstack"}
LENGTHENING = {"cat", "concat", "concatenate"}
_GROWING = {"append", "extend", "insert"}
_CHANGING = {
    *_GROWING,
    "add",
    "update",
    "setdefault",
    "pop",
    "clear",
    "remove",
    "appendleft",
    "popleft",
    "reverse",
    "sort",
}
# Calls with an effect that a user sees in each iteration.
_SEEN = {"print", "write", "writelines", "writerow", "input", "add_scalar", "sleep"}
_LOGGED = {"debug", "info", "warning", "error", "critical", "exception"}


def names_of(target: ast.expr) -> set[str]:
    """The names in a target, as `a` and `b` in `a, (b, c[i])`, with those of its indices."""
    return {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}


def breaks(body: list[ast.stmt]) -> bool:
    """Whether statements contain a `break` that ends the loop around them."""
    for s in body:
        if isinstance(s, ast.Break):
            return True
        if isinstance(s, (ast.For, ast.While)):
            if breaks(s.orelse):
                return True
            continue
        inner = [getattr(s, field, None) for field in ("body", "orelse")]
        inner += [case.body for case in getattr(s, "cases", [])]
        if not isinstance(s, (*FUNCTIONS, ast.ClassDef)) and any(i and breaks(i) for i in inner):
            return True
    return False


def root_of(node: ast.expr) -> str | None:
    """The name whose attributes and items are taken: `x` of `x.y[0]`; None for other values."""
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def element_names(loop: ast.For, body: list[ast.stmt]) -> set[str]:
    """The loop's variables that are elements of a sequence: `tag` in `for tag in tags`.

    The other variables may be numbers.

    Args:
        loop: the loop.
        body: the body of the function.
    """
    assigned = [n for s in body for n in ast.walk(s) if isinstance(n, ast.Assign)]
    numbers = {"range"} | {
        name for s in assigned if "range" in reads(s.value) for name in names_of(s.targets[0])
    }

    def found(target: ast.expr, of: ast.expr) -> set[str]:
        name = getattr(of.func, "id", "") if isinstance(of, ast.Call) else ""
        if isinstance(of, ast.Call) and isinstance(target, ast.Tuple) and of.args:
            if name == "enumerate":
                return found(target.elts[-1], of.args[0])
            if name == "zip" and len(target.elts) == len(of.args):
                return set().union(*map(found, target.elts, of.args))
        return set() if reads(of) & numbers else names_of(target)

    return found(loop.target, loop.iter)


def index_names(loop: ast.For, elements: Collection[str] = ()) -> set[str]:
    """The names of whole numbers that follow the iteration.

    These are the loop's variables, names computed from them by plain arithmetic
    (idx = T - 1 - t), and counters (j += 1).

    Args:
        loop: the loop.
        elements: variables that are no numbers.
    """
    stored = [
        n.id
        for s in loop.body
        for n in ast.walk(s)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    ]
    found = names_of(loop.target).difference(elements) | {
        s.target.id
        for s in own_nodes(loop.body)
        if isinstance(s, ast.AugAssign)
        and isinstance(s.target, ast.Name)
        and isinstance(s.value, ast.Constant)
        and stored.count(s.target.id) == 1
    }
    plain = (
        ast.Name,
        ast.Constant,
        ast.BinOp,
        ast.UnaryOp,
        ast.operator,
        ast.unaryop,
        ast.expr_context,
    )
    for s in own_nodes(loop.body):
        if not isinstance(s, ast.Assign) or not reads(s.value) & found:
            continue
        if all(isinstance(n, plain) for n in ast.walk(s.value)):
            found |= {t.id for t in s.targets if isinstance(t, ast.Name)}
    return found


def plain_elements(loop: ast.For, fixed: Collection[str]) -> dict[int, tuple[str, tuple[Any, ...]]]:
    """Elements `x[t]`, `x[:, t]` of names that the loop does not bind: number → name and index.

    In the index, the loop's variable is its path in the target: () in `for t in`, (0,) in
    `for t, y in`.
    """
    bound = writes(loop.body)
    paths = {name: p for name, p in _paths(loop.target, ()) if name not in bound}
    found = {}
    for n in (n for s in loop.body for n in ast.walk(s) if isinstance(n, ast.Subscript)):
        name = getattr(n.value, "id", "")
        parts = n.slice.elts if isinstance(n.slice, ast.Tuple) else [n.slice]
        index = tuple([paths.get(p.id) if isinstance(p, ast.Name) else _whole(p) for p in parts])
        if name in fixed and None not in index:
            found[n._number] = name, index  # type: ignore[attr-defined]
    return found


def _paths(target: ast.expr, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    if isinstance(target, ast.Name):
        yield target.id, path
    if isinstance(target, (ast.Tuple, ast.List)):
        for i, part in enumerate(target.elts):
            yield from _paths(part, (*path, i))


def _whole(part: ast.expr) -> Any:
    """The part `:` or `...` of an index; None for others."""
    if getattr(part, "value", None) is ...:
        return ...
    is_slice = isinstance(part, ast.Slice) and not (part.lower or part.upper or part.step)
    return slice(None) if is_slice else None


def changed_names(body: list[ast.stmt], index: set[str]) -> set[str]:
    """Names of objects that a body changes in place: x.append(…), x[i] = …, x.add_(…).

    Objects of which each iteration writes one element, at the loop's index, are left out; not those
    of which it writes the same ones again, `x[t % n] = …`, or reads many, `x[:, :t]`.
    """
    parted = parted_names(body, index)
    found = set()
    for n in own_nodes(body):
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute):
            name, of = n.func.attr, n.func.value
            if name == "copy_" and isinstance(of, ast.Subscript) and _is_own(of.slice, index):
                found.add(root_of(of.value) if root_of(of.value) in parted else None)
                continue
            if name in _CHANGING or (name.endswith("_") and not name.startswith("_")):
                found.add(root_of(n.func.value))
        elif isinstance(n, ast.Subscript) and not isinstance(n.ctx, ast.Load):
            root = root_of(n.value)
            found.add(None if _is_own(n.slice, index) and root not in parted else root)
    return {n for n in found if n is not None}


def grown_names(body: list[ast.stmt]) -> dict[str, int]:
    """Names of lists that a body may make longer → the depth of the list in the name's value."""
    found: dict[str, int] = {}
    for n in own_nodes(body):
        of = None
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute):
            of = n.func.value if n.func.attr in _GROWING else None
        elif isinstance(n, ast.AugAssign) and isinstance(n.op, ast.Add):
            of = n.target
        elif extended_list(n) is not None:
            of = n.targets[0]  # type: ignore[attr-defined]
        depth = 0
        while isinstance(of, (ast.Subscript, ast.Attribute)):
            of, depth = of.value, depth + 1
        if isinstance(of, ast.Name):
            found[of.id] = min(depth, found.get(of.id, depth))
    return found


def parted_names(body: list[ast.stmt], index: Collection[str]) -> set[str | None]:
    """The names of objects of which a body reads or writes slices that grow."""
    return {
        root_of(n.value)
        for n in own_nodes(body)
        if isinstance(n, ast.Subscript) and has_prefix(n.slice, index)
    }


def has_prefix(slice_: ast.expr, index: Collection[str]) -> bool:
    """Whether an index has a slice that grows: `:t`."""
    return any(
        isinstance(s, ast.Slice)
        and (s.lower is None or getattr(s.lower, "value", None) == 0)
        and not reads(s.upper).isdisjoint(index)
        for s in ast.walk(slice_)
    )


def _is_own(slice_: ast.expr, index: set[str]) -> bool:
    """Whether an index is of an iteration alone: it moves, and does not repeat."""
    again = any(isinstance(m, ast.Mod) for m in ast.walk(slice_))
    return bool(reads(slice_) & index) and not again


def selects(n: ast.AST) -> bool:
    """Whether a call may select elements: x.select(1, t), x.narrow(1, t, 1)."""
    if not isinstance(n, ast.Call) or getattr(n.func, "attr", "") not in ("select", "narrow"):
        return False
    parts = [*n.args, *[k.value for k in n.keywords]]
    return bool(reads(*parts)) and not any(isinstance(a, ast.Starred) for a in n.args)


def extended_list(n: ast.AST) -> tuple[ast.expr, ast.expr] | None:
    """The list and the added list in `outs = outs + [h]` or `outs = [*outs, h]`."""
    if not isinstance(n, ast.Assign) or len(n.targets) != 1:
        return None
    name, of, more = getattr(n.targets[0], "id", None), None, None
    if isinstance(n.value, ast.BinOp) and isinstance(n.value.op, ast.Add):
        of, more = n.value.left, n.value.right
    elif isinstance(n.value, ast.List) and n.value.elts:
        first, *rest = n.value.elts
        if isinstance(first, ast.Starred):
            of, more = first.value, ast.copy_location(ast.List(rest, ast.Load()), n.value)
    is_list = isinstance(more, ast.List) and name is not None
    return (of, more) if is_list and getattr(of, "id", None) == name else None  # type: ignore[return-value]


def is_longer(n: ast.AST) -> str | None:
    """The name in a value `torch.cat([outs, h], 1)` or `torch.cat([h, outs])`, first or last."""
    if not isinstance(n, ast.Call) or getattr(n.func, "attr", "") not in LENGTHENING or not n.args:
        return None
    names = [getattr(p, "id", None) for p in getattr(n.args[0], "elts", ())]
    ends = [names[i] for i in (0, -1) if len(names) > 1 and names[i] is not None]
    return next((name for name in ends if names.count(name) == 1), None)


def longer_names(body: list[ast.stmt]) -> dict[str, int]:
    """Names of tensors that a body only makes longer: `outs = torch.cat([outs, h], 1)` → the axis.

    Its other statements may read such a tensor. Where they take elements, or ask whether it is
    None, its node is marked: they need not have the whole of it.
    """
    axes: dict[str, set[int | None]] = {}
    fine: set[int] = set()
    for s in own_nodes(body):
        if isinstance(s, ast.Assign) and len(s.targets) == 1:
            name, values = getattr(s.targets[0], "id", None), _either(s.value)
            longer = [v for v in values if name is not None and is_longer(v) == name]
            for call in longer:
                assert isinstance(call, ast.Call) and name is not None
                axes.setdefault(name, set()).add(_axis(call))
                parts = call.args[0].elts  # type: ignore[attr-defined]
                fine |= {id(p) for p in parts if getattr(p, "id", None) == name}
            if not any(name in reads(v) for v in values if v not in longer):
                fine.add(id(s.targets[0]))
        elif isinstance(s, ast.Compare) and isinstance(s.ops[0], (ast.Is, ast.IsNot)):
            fine.add(id(s.left))
        elif isinstance(s, ast.Subscript) and isinstance(s.ctx, ast.Load):
            fine.add(id(s.value))
    others = set()
    for n in (n for s in body for n in ast.walk(s) if isinstance(n, ast.Name)):
        n._in_parts = id(n) in fine  # type: ignore[attr-defined]
        others |= set() if id(n) in fine or isinstance(n.ctx, ast.Load) else {n.id}
    return {
        name: axis
        for name, (axis, *more) in axes.items()
        if axis is not None and not more and name not in others
    }


def _either(value: ast.expr) -> list[ast.expr]:
    """The values that an expression may have: both of `a if flag else b`."""
    if isinstance(value, ast.IfExp):
        return [*_either(value.body), *_either(value.orelse)]
    return [value]


def _axis(call: ast.Call) -> int | None:
    """The axis of `torch.cat(…, 1)`; None if the text does not give it."""
    given = [*call.args[1:2], *[k.value for k in call.keywords if k.arg in ("dim", "axis")]]
    try:
        axis = ast.literal_eval(given[0]) if given else 0
    except ValueError:
        return None
    return axis if type(axis) is int else None


def only_joined(body: list[ast.stmt]) -> set[str]:
    """Names of lists that start empty, grow by one item, and are given to torch.stack and cat.

    No other code reads these lists; their items need not exist one by one.
    """
    fine: list[ast.Name] = []
    lists: set[str] = set()
    nodes = [n for s in body for n in ast.walk(s)]
    for n in nodes:
        if isinstance(n, ast.Assign) and len(n.targets) == 1:
            for target, value in _pairs(n.targets[0], n.value):
                if isinstance(target, ast.Name) and isinstance(value, ast.List) and not value.elts:
                    lists.add(target.id)
                    fine.append(target)
                elif isinstance(target, ast.Name) and getattr(value, "value", 0) is None:
                    fine.append(target)  # released
        elif isinstance(n, ast.Expr) and isinstance(n.value, ast.Call):
            function = n.value.func
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                fine += [function.value] if function.attr == "append" else []
        elif isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name):
            fine += [n.target] if isinstance(n.value, ast.List) else []
        elif isinstance(n, ast.Call) and is_joining(n) and isinstance(n.args[0], ast.Name):
            fine.append(n.args[0])
    ids = {id(n) for n in fine}
    others = {n.id for n in nodes if isinstance(n, ast.Name) and id(n) not in ids}
    return lists - others


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """The pairs of targets and values in an assignment; two in `a, b = c, d`."""
    both = isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List))
    if both and len(target.elts) == len(value.elts):  # type: ignore[attr-defined]
        return list(zip(target.elts, value.elts, strict=True))  # type: ignore[attr-defined]
    return [(target, value)]


def is_joining(node: ast.Call) -> bool:
    """Whether a call joins tensors of a list, as `torch.stack(rows)` does."""
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    return name in _JOINED and bool(node.args) and not isinstance(node.args[0], ast.Starred)


def summed_names(body: list[ast.stmt]) -> dict[str, bool]:
    """Names that a body only adds to → whether by `n += e`; else by `n = n + e`."""
    found: dict[str, list[bool]] = {}
    for s in own_nodes(body):
        sum_ = sum_of(s)
        if sum_ is not None:
            found.setdefault(sum_[0], []).append(isinstance(s, ast.AugAssign))
    named = [n.id for s in body for n in ast.walk(s) if isinstance(n, ast.Name)]
    return {
        name: by[0]
        for name, by in found.items()
        if len({*by}) == 1 and named.count(name) == len(by) * (1 if by[0] else 2)
    }


def sum_of(s: ast.AST) -> tuple[str, ast.expr] | None:
    """The name that a statement adds to, and the summand."""
    name, added = None, None
    if isinstance(s, ast.AugAssign) and isinstance(s.op, ast.Add):
        name, added = getattr(s.target, "id", None), s.value
    elif isinstance(s, ast.Assign) and len(s.targets) == 1 and isinstance(s.value, ast.BinOp):
        name, left, right = getattr(s.targets[0], "id", None), s.value.left, s.value.right
        others = [e for e in (left, right) if getattr(e, "id", None) != name]
        if isinstance(s.value.op, ast.Add) and len(others) == 1:
            added = others[0]
    return (name, added) if name and added is not None and name not in reads(added) else None


def named_in_functions(body: list[ast.stmt], loop: ast.For) -> set[str]:
    """The names used by functions that are defined outside of a loop's body."""
    inside = {id(n) for s in loop.body for n in ast.walk(s)}
    functions = [
        n
        for n in own_nodes(body)
        if isinstance(n, (*FUNCTIONS, ast.ClassDef)) and id(n) not in inside
    ]
    return set().union(*map(free_names, functions))


def seen_call(body: list[ast.stmt]) -> str:
    """A call with an effect that a user sees; a scan would not repeat it in each iteration."""
    for n in own_nodes(body):
        if isinstance(n, ast.Call):
            name = getattr(n.func, "attr", getattr(n.func, "id", ""))
            root = root_of(n.func) or ""
            if name in _SEEN or (name in _LOGGED and "log" in root.lower()):
                return f"an iteration calls {name}, which a scan would not do each time"
    return ""
