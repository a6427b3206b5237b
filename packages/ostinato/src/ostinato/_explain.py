"""`explain`: the products and operations that were recorded of a step, and their cost."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ostinato.arguments import Arguments, add_shapes
from ostinato.compiler.errors import SideEffect, Unsupported
from ostinato.compiler.lower.spec import Lowered
from ostinato.compiler.play.autograd import ScanCall
from ostinato.compiler.play.segmented import memory_plan
from ostinato.compiler.play.segments import SegmentPlan
from ostinato.compiler.play.step import CompiledStep
from ostinato.engine import native
from ostinato.engine.program import (
    Buffer,
    Code,
    Instruction,
    Kind,
    Operand,
    Program,
    Weight,
    WeightBlock,
)
from ostinato.forms import compiled


@dataclass(frozen=True)
class Product:
    """One matrix product of a step: `[rows, depth] @ [depth, width]`."""

    depth: int
    width: int


@dataclass(frozen=True)
class Explanation:
    """How `scan` runs a step.

    Attributes:
        native: whether the step runs in the engine.
        reason: why it does not, or "".
        operation: the operation that the engine does not have, or "".
        advice: a change of the step that would help, or "".
        hoisted: products taken out of the time loop, forward.
        loop_products: products in the time loop, forward.
        loop_ops: elementwise operations in the time loop, forward, by name, in order.
        backward_loop_products, backward_loop_ops: the same for the backward pass.
        saved_bytes: bytes kept for the backward pass: saved values and carries, without xs.
        engine_bytes: bytes of the engine's workspace, for whichever pass needs more: packed
            weights, values of a few time steps, accumulators of weight gradients. The workspace is
            kept for the next pass of any step.
        flops: floating-point operations of the matrix products, forward and backward; a
            multiply-add counts 2.
        isa: the instruction set.
        threads: the number of threads in use.
        expected_ms: the time of `flops` at the rate at which the engine multiplies large matrices
            on this machine: a lower bound. A step that is mostly elementwise takes longer.
        n_steps, n_rows: T and B of the call.
        forms: what was made of the call so that its step could be recorded, in order; see
            `ostinato/forms/`.
        draws: the random numbers of a step, which are drawn before the engine begins, in order,
            each with its shape, such as "normal [B, 8]".
        memory: how the run keeps within the budget; None without one.
        played_as: pass → "interpreter", "register code" (few rows of few numbers) or "machine
            code", and why it is not machine code if the engine asked for it. The backward pass
            from its first use on.
        transforms: transform of torch.func → how the engine plays it, and what was recorded for it.
    """

    native: bool
    reason: str = ""
    operation: str = ""
    advice: str = ""
    hoisted: tuple[Product, ...] = ()
    loop_products: tuple[Product, ...] = ()
    loop_ops: tuple[str, ...] = ()
    backward_loop_products: tuple[Product, ...] = ()
    backward_loop_ops: tuple[str, ...] = ()
    saved_bytes: int = 0
    engine_bytes: int = 0
    flops: int = 0
    isa: str = ""
    threads: int = 0
    expected_ms: float = 0.0
    n_steps: int = 0
    n_rows: int = 0
    forms: tuple[str, ...] = ()
    draws: tuple[str, ...] = ()
    memory: SegmentPlan | None = None
    played_as: dict[str, str] = dataclasses.field(default_factory=dict)
    transforms: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain values: numbers, strings, tuples and dicts."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        if not self.native:
            lines = ["not native: this step runs in the Python loop", f"  why     {self.reason}"]
            lines += [f"  at      {self.operation}"] if self.operation else []
            lines += [f"  change  {self.advice}"] if self.advice else []
            return "\n".join(lines)
        drawn = [f"  drawn before        {', '.join(self.draws)}"] if self.draws else []
        forms = [f"  in the form         {', '.join(self.forms)}"] if self.forms else []
        within = [] if self.memory is None else [f"  within a budget     {self.memory}"]
        return "\n".join(
            [
                f"native: {self.isa}, {self.threads} threads, T={self.n_steps}, B={self.n_rows}",
                f"  before the loop     {_products(self.hoisted)}",
                f"  in the loop         {_products(self.loop_products)}; {_ops(self.loop_ops)}",
                f"  backward, in it     {_products(self.backward_loop_products)}; "
                f"{_ops(self.backward_loop_ops)}",
                f"  saved for backward  {self.saved_bytes / 1e6:.2f} MB",
                f"  engine's own        {self.engine_bytes / 1e6:.2f} MB",
                f"  products            {self.flops / 1e6:.1f} MFLOP forward and backward",
                f"  at the least        {self.expected_ms:.3f} ms, at this machine's multiply rate",
                *[f"  {name:<20}{how}" for name, how in self.played_as.items()],
                *forms,
                *drawn,
                *within,
                *[f"  under {name:<14}{how}" for name, how in self.transforms.items()],
            ]
        )


def explained(
    arguments: Arguments, with_state: Callable[[Arguments], Explanation | None] | None = None
) -> Explanation:
    """How `scan` runs a call with these arguments: natively and at what cost, or why not.

    Args:
        with_state: gives the explanation of a step that keeps state in attributes, if it is native.
    """
    try:
        call = compiled(arguments)
    except Unsupported as refusal:
        found = None
        if with_state is not None and isinstance(refusal, SideEffect):
            found = with_state(arguments)
        return found or Explanation(False, refusal.reason, refusal.op or "", advice(refusal))
    except Exception as error:
        add_shapes(error, arguments)
        raise
    found = _explained(call.compiled, arguments.ragged.n_steps, call.n_rows)
    leaves, xs_leaves = call.arguments.rows
    tensors = [*call.captured, *leaves, *call.per_row, *xs_leaves, *call.numbers]
    plan = memory_plan(call, call.played(tensors))
    forms = tuple([form.name for form in call.arguments.forms])
    return dataclasses.replace(found, memory=plan, forms=forms, transforms=_transforms(call))


def advice(refusal: Unsupported) -> str:
    """A change of the step that would help, or ""."""
    text = f"{refusal.reason} {refusal.op or ''}"
    for word, advice in _ADVICE.items():
        if word in text:
            return advice
    if refusal.op is None:
        return ""
    return "write the step with operations the engine has (docs/scan.md lists them)"


_ADVICE = {
    "changes what it reaches": "return it in the carry",
    "keeps a tensor": "compute it before the scan, or return it in the carry",
    "takes an element": "take the elements before the scan, and pass them in xs",
    "no shape yet": "call the module once before the scan",
    "random": "draw the random numbers before the scan and pass them in xs",
    "Python value": "replace if and .item() by torch.where or a multiplication with a mask",
    "another way at others": "replace if by torch.where or a multiplication with a mask",
    "gradient graph": "read grad_fn, is_leaf and grad before or after the loop",
    "batch statistics": "eval(), or a norm over each row, such as nn.LayerNorm",
    "sum over the batch": "rows must not read each other: compute statistics before the loop",
    "in place": "compute a new tensor instead of changing one that comes from outside",
    "batch size": "compute each row independently of the others and of their number",
    "truncate= would": "put it into xs, or into init, where truncate= also ends its gradient",
    "cuda": "move the tensors to the CPU; on a GPU, PyTorch's own layers use cuDNN",
    "torch.func": "call scan outside of this transform (docs/transforms.md)",
    "first axis": "give every tensor the rows of the batch as its first axis, as many as init has",
    "beside": "give carry, xs and parameters one floating-point type",
    "engine plays": "give carry, xs and parameters one of these types",
    "depends on other values": "torch.where(mask, a, b) instead of a[mask] = b[mask]",
    "vector kernel": "nothing: this processor has no kernel yet, and PyTorch's own path is used",
}


def _explained(compiled: CompiledStep, n_steps: int, n_rows: int) -> Explanation:
    planner = compiled.planner
    scale = planner.scale(n_rows)
    forward = planner.forward(True, False, scale)
    f = planner.graph.forward
    x_wanted = tuple(n is not None for n in planner.recording.d_xs)
    backward = planner.backward(
        (True,) * len(f.ys), planner.all_leaves, x_wanted, planner.all_leaves, forward
    )
    flops = sum(_flops(p, n_steps, n_rows) for p in (forward.lowered, backward.lowered))
    element = compiled.dtype.itemsize
    width = sum(forward.lowered.tapes.values())
    states = sum(n.width for n, kept in zip(f.states, forward.keeps, strict=True) if kept)
    saved = element * n_rows * (width * n_steps + states * (n_steps + 1))
    threads = native.n_threads(torch.get_num_threads())
    isa, kind = native.best_isa(), np.dtype(str(compiled.dtype).removeprefix("torch."))
    return Explanation(
        native=True,
        hoisted=_found_products(forward.lowered.program.before),
        loop_products=_found_products(forward.lowered.program.loop),
        loop_ops=_found_ops(forward.lowered.program.loop),
        backward_loop_products=_found_products(backward.lowered.program.loop),
        backward_loop_ops=_found_ops(backward.lowered.program.loop),
        saved_bytes=saved,
        engine_bytes=max(
            native.make(p.program, kind).needed_bytes(n_steps, n_rows, threads, isa)
            for p in (forward.lowered, backward.lowered)
        ),
        flops=flops,
        isa=isa,
        threads=threads,
        expected_ms=1e3 * flops / multiply_rate(kind, threads, isa),
        n_steps=n_steps,
        n_rows=n_rows,
        draws=tuple(map(str, planner.recording.draws)),
        played_as=_played_as(compiled, n_steps, n_rows),
    )


def _played_as(compiled: CompiledStep, n_steps: int, n_rows: int) -> dict[str, str]:
    """How each pass of the step is played."""
    if compiled.engine != "native":
        return {}
    forward = compiled.forward_way(True, False, n_rows)
    ways = {"forward pass": forward.bound.program}
    for backward in forward.backward.values():
        ways["backward pass"] = backward.bound.program
    found = {}
    for name, program in ways.items():
        found[name] = program.played_as(n_steps, n_rows, native.best_isa())
        why = getattr(program, "compiling", "")
        if why:
            found[name] += f"; not machine code: {why}"
    return found


def _transforms(call: ScanCall) -> dict[str, str]:
    """How the engine plays each transform of torch.func."""
    compiled, truncated = call.compiled, call.arguments.truncate is not None
    if compiled.planner.recording.runs_python_backward:
        return dict.fromkeys(
            ("grad", "jvp", "vmap"), "the Python loop: its backward pass is Python code"
        )
    found = {"grad": "its forward and backward pass", "jvp": "a scan of its jvp, "}
    plain = sum(_costs(call, compiled))
    recorded = [jvp for jvp in compiled.tangents.values() if isinstance(jvp, CompiledStep)]
    refused = [why for why in compiled.tangents.values() if isinstance(why, Unsupported)]
    if truncated or refused:
        why = "truncate=" if truncated else refused[0].reason
        found["jvp"] = f"the Python loop: {why}"
    elif not recorded or not plain:
        found["jvp"] += "recorded" if recorded else "recorded at its first use"
    else:
        forward, backward = _costs(call, recorded[-1])
        found["jvp"] += (
            f"recorded: {forward / plain:.1f} times the products of grad; of grad "
            f"{(forward + backward) / plain:.1f} times"
        )
    separate = compiled.totals or call.arguments.memory is not None
    found["vmap"] = "a scan for each member" if separate else "one scan of more rows"
    if not separate:
        found["vmap"] += "; over what it captures, a scan for each member"
    if call.drawn is not None:
        found["vmap"] = "the Python loop: it draws random numbers"
    return found


def _costs(call: ScanCall, compiled: CompiledStep) -> tuple[int, int]:
    """The floating-point operations of the products, forward and backward."""
    planner, n_steps = compiled.planner, call.arguments.ragged.n_steps
    forward = planner.forward(True, False, planner.scale(call.n_rows))
    x_wanted = tuple(n is not None for n in planner.recording.d_xs)
    used, leaves = (True,) * len(planner.graph.forward.ys), planner.all_leaves
    backward = planner.backward(used, leaves, x_wanted, leaves, forward)
    lowered = forward.lowered, backward.lowered
    first, second = (_flops(each, n_steps, call.n_rows) for each in lowered)
    return first, second


def _found_products(instructions: tuple[Instruction, ...]) -> tuple[Product, ...]:
    return tuple(Product(x.k, x.n) for x in instructions if x.code == Code.GEMM)


def _found_ops(instructions: tuple[Instruction, ...]) -> tuple[str, ...]:
    names = {
        Code.BROADCAST: "spread",
        Code.ROW_SUM: "row_sum",
        Code.ROW_MAX: "row_max",
        Code.TAKE: "take",
        Code.PRODUCT: "product",
    }
    return tuple(
        x.op if x.code == Code.OP else names[x.code]
        for x in instructions
        if x.code == Code.OP or x.code in names
    )


def _flops(lowered: Lowered, n_steps: int, n_rows: int) -> int:
    program = lowered.program
    products = (x for x in program.instructions if x.code in (Code.GEMM, Code.OUTER))
    a_row = sum(x.k * x.n for x in products)
    small = [program.products[x.weight] for x in program.instructions if x.code == Code.PRODUCT]
    small += [program.products[x.count] for x in program.instructions if x.code == Code.PRODUCT_SUM]
    a_row += sum(p.groups * p.M * p.K * p.N for p in small)
    return 2 * n_steps * n_rows * a_row


@functools.cache
def multiply_rate(kind: np.dtype[Any], threads: int, isa: str) -> float:
    """FLOP per second of the engine on products of `[256, 512] @ [512, 512]`: the best of five.

    Measured once per process, dtype, number of threads and instruction set.
    """
    n_steps, n_rows, width = 8, 256, 512
    program = native.make(
        Program(
            n_arguments=2,
            descending=False,
            buffers=(Buffer(Kind.TIME, width, argument=0), Buffer(Kind.STEP, width)),
            weights=(Weight(width, width, (WeightBlock(1, 0, width, 0, width, 0, 0),)),),
            gradients=(),
            carries=(),
            loop=(Instruction(Code.GEMM, n=width, k=width, d=Operand(1), a=Operand(0)),),
        ),
        kind,
    )
    x = np.random.default_rng(0).standard_normal((n_steps, n_rows, width)).astype(kind)
    w = x[0, :1].repeat(width, 0)
    addresses = native.addresses([x.ctypes.data, n_rows * width, width, w.ctypes.data, width, 1])
    times = []
    for _ in range(6):
        start = time.perf_counter()
        program.play(addresses, n_steps, n_rows, [], [], threads, isa)
        times.append(time.perf_counter() - start)
    return 2 * n_steps * n_rows * width**2 / min(times[1:])


def _products(products: tuple[Product, ...]) -> str:
    if not products:
        return "no product"
    return ", ".join(
        f"{f'{n} times ' if n > 1 else ''}[B, {p.depth}] @ [{p.depth}, {p.width}]"
        for p, n in Counter(products).items()
    )


def _ops(ops: tuple[str, ...]) -> str:
    return (
        f"{len(ops)} elementwise ({', '.join(dict.fromkeys(ops))})" if ops else "none elementwise"
    )
