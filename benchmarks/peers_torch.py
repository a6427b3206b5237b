"""The ways of PyTorch to train a recurrence, and that of ostinato."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import ostinato
from benchmarks.problem import Entrant, Maker, NotHereError, Problem, loop

LAYERS = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
CELLS = {"rnn": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}
# The largest T for PyTorch's scan. It is the slowest by far, since its eager form traces the step
# again at every call.
SCAN_STEPS = 100


def ours(problem: Problem) -> Maker:
    def make() -> Entrant:
        params, init = problem.tensors(problem.dtype)
        bare = problem.cell.step

        def step(carry: Any, x: Any) -> Any:
            return bare(params, carry, x)

        def play(xs: Tensor) -> Tensor:
            return ostinato.scan(step, init, xs)[1]

        return _entrant(problem, play, (*params, *init))

    return Maker("ostinato.scan", make)


def peers(problem: Problem, compiled: bool) -> list[Maker]:
    """PyTorch's layer, scan and loop; layer and scan under torch.compile, too, if `compiled`."""
    name = problem.cell.name
    makers = []
    if name in LAYERS:
        layer = f"PyTorch nn.{LAYERS[name].__name__}"
        makers.append(Maker(layer, lambda: _layer(problem)))
        if compiled:
            makers.append(Maker(f"{layer}, compiled", lambda: _compiled(_layer, problem, False)))
    makers.append(Maker("PyTorch scan", lambda: _scan(problem)))
    if compiled:
        torch._dynamo.reset()  # earlier rows would count towards its limit of recompilations
        makers.append(Maker("PyTorch scan, compiled", lambda: _compiled(_scan, problem, True)))
    makers.append(Maker("PyTorch loop", lambda: _loop(problem)))
    return makers


def flushing(maker: Maker) -> Maker:
    """A contender that runs under torch.set_flush_denormal(True)."""

    def make() -> Entrant:
        entrant = maker.make()

        def run() -> Any:
            torch.set_flush_denormal(True)
            try:
                return entrant.run()
            finally:
                torch.set_flush_denormal(False)

        return replace(entrant, run=run)

    return Maker(f"{maker.name}, set_flush_denormal", make)


def _entrant(
    problem: Problem, play: Callable[[Tensor], Tensor], leaves: Any, note: str = ""
) -> Entrant:
    """An entrant that trains.

    Args:
        play: xs `[T, B, F]` → ys `[T, B, H]`.
        leaves: the tensors whose gradients are wanted, in the order of `problem.names`.
    """
    xs, d_ys = torch.tensor(problem.xs), torch.tensor(problem.d_ys)

    def run() -> Any:
        ys = play(xs)
        return ys, torch.autograd.grad(ys, leaves, d_ys)

    return Entrant(run, problem.answer, note)


def _layer(problem: Problem, through: Callable[[Any], Any] = lambda f: f) -> Entrant:
    """torch.nn's layer, time-major, without a gradient of x; through: wraps the played function."""
    _, init = problem.tensors(problem.dtype)
    layer = LAYERS[problem.cell.name](problem.shape.F, problem.shape.H, dtype=problem.dtype)
    _copy(layer, problem, "_l0")
    weights = [layer.get_parameter(n) for n in _torch_names(problem, "_l0")]

    def play(xs: Tensor) -> Tensor:
        hx = tuple(h.unsqueeze(0) for h in init)
        return layer(xs, hx if len(hx) > 1 else hx[0])[0]

    return _entrant(problem, through(play), (*weights, *init))


def _loop(problem: Problem) -> Entrant:
    """A Python loop over torch.nn's cell if there is one, else over the step."""
    params, init = problem.tensors(problem.dtype)
    kind = CELLS.get(problem.cell.name)
    if kind is None:
        return _entrant(problem, lambda xs: loop(problem.cell, params, init, xs), (*params, *init))
    cell = kind(problem.shape.F, problem.shape.H, dtype=problem.dtype)
    _copy(cell, problem, "")
    weights = [cell.get_parameter(n) for n in _torch_names(problem, "")]
    pair = len(init) > 1

    def play(xs: Tensor) -> Tensor:
        state: Any = init if pair else init[0]
        ys = []
        for x in xs.unbind(0):
            state = cell(x, state)
            ys.append(state[0] if pair else state)
        return torch.stack(ys)

    return _entrant(problem, play, (*weights, *init))


def _scan(problem: Problem, through: Callable[[Any], Any] = lambda f: f) -> Entrant:
    """PyTorch's own prototype of scan.

    The step returns clones, and init requires gradients. Otherwise the compiled form refuses a
    carry that is also an output, or one computed by tanh (pytorch issue 195977).
    """
    from torch._higher_order_ops.scan import scan

    if problem.shape.T > SCAN_STEPS:
        raise NotHereError(f"not tried beyond {SCAN_STEPS} steps: see the shorter rows")
    params, init = problem.tensors(problem.dtype)
    bare = problem.cell.step

    def play(params: Any, init: Any, xs: Tensor) -> Tensor:
        def step(carry: Any, x: Any) -> Any:
            carry, y = bare(params, carry, x)
            return tuple(h.clone() for h in carry), y.clone()

        return scan(step, init, xs)[1]

    passed = through(play)
    return _entrant(problem, lambda xs: passed(params, init, xs), (*params, *init))


def _compiled(make: Callable[..., Entrant], problem: Problem, whole: bool) -> Entrant:
    """`make`, its played function compiled by torch.compile for this shape alone.

    Args:
        whole: whether it must become one graph. scan compiles only as one graph. nn.RNN, GRU and
            LSTM never do: torch.compile breaks the graph at them and leaves their kernels as they
            are.
    """
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        raise NotHereError("torch.compile needs a C++ compiler")
    return make(problem, lambda play: torch.compile(play, dynamic=False, fullgraph=whole))


def _torch_names(problem: Problem, suffix: str) -> list[str]:
    """torch.nn's names of the parameters, such as weight_ih_l0 for w_ih."""
    long = {"w": "weight", "b": "bias"}
    return [f"{long[p[0]]}{p[1:]}{suffix}" for p in problem.params]


def _copy(module: torch.nn.Module, problem: Problem, suffix: str) -> None:
    """Load the problem's parameters into a layer or cell of torch.nn."""
    names = _torch_names(problem, suffix)
    module.load_state_dict(
        {n: torch.tensor(p) for n, p in zip(names, problem.params.values(), strict=True)}
    )
