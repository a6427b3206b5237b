"""JAX: lax.scan under jit, in the fastest of several forms."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from benchmarks.harness import seconds
from benchmarks.problem import Answer, Entrant, Maker, NotHereError, Problem

Run = TypeVar("Run", bound=Callable[[], Any])

# (unroll, whether x is projected for all steps ahead of the loop)
FORMS = ((1, False), (4, False), (8, False), (4, True))
TRIES = 2  # timed calls of each form, to choose the fastest


def peers(problem: Problem, quick: bool) -> list[Maker]:
    if problem.cell.name not in STEPS:
        return []
    return [Maker("JAX lax.scan, jit", lambda: _make(problem, FORMS[:1] if quick else FORMS))]


def require_jax() -> Any:
    """JAX, set to the CPU.

    Raises:
        NotHereError: it is not installed.
    """
    if importlib.util.find_spec("jax") is None:
        raise NotHereError("not installed")
    import jax

    jax.config.update("jax_platforms", "cpu")
    return jax


def _rnn(gates: Any, recur: Callable[[Any], Any], carry: Any) -> Any:
    import jax.numpy as jnp

    (h,) = carry
    h = jnp.tanh(gates + recur(h))
    return (h,), h


def _gru(gates: Any, recur: Callable[[Any], Any], carry: Any) -> Any:
    import jax
    import jax.numpy as jnp

    (h,) = carry
    x_r, x_z, x_n = jnp.split(gates, 3, axis=1)
    h_r, h_z, h_n = jnp.split(recur(h), 3, axis=1)
    r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * h_n)
    h = n + z * (h - n)
    return (h,), h


def _lstm(gates: Any, recur: Callable[[Any], Any], carry: Any) -> Any:
    import jax
    import jax.numpy as jnp

    h, c = carry
    i, f, g, o = jnp.split(gates + recur(h), 4, axis=1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


# (projection of x, function that projects h, carry) → (carry, y)
STEPS = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}


def recurrence(name: str, unroll: int, hoist: bool) -> Callable[[Any, Any, Any], Any]:
    """A function (weights, init, xs) → ys; weights are `[F, G·H]`, `[H, G·H]` and two biases.

    Args:
        name: of the cell.
        unroll: as for lax.scan.
        hoist: whether x is projected for all time steps before the loop, in one product.
    """
    from jax import lax

    cell = STEPS[name]

    def play(weights: Any, init: Any, xs: Any) -> Any:
        w_x, w_h, b_x, b_h = weights

        def step(carry: Any, x: Any) -> Any:
            return cell(x if hoist else x @ w_x + b_x, lambda h: h @ w_h + b_h, carry)

        return lax.scan(step, init, xs @ w_x + b_x if hoist else xs, unroll=unroll)[1]

    return play


def _make(problem: Problem, forms: tuple[tuple[int, bool], ...]) -> Entrant:
    """Compile every form, and take the fastest."""
    jax = require_jax()
    jax.config.update("jax_enable_x64", problem.xs.itemsize == 8)
    w_ih, w_hh, b_ih, b_hh = problem.params.values()
    weights = tuple(map(jax.numpy.asarray, (w_ih.T.copy(), w_hh.T.copy(), b_ih, b_hh)))
    init, xs, d_ys = jax.tree.map(jax.numpy.asarray, (problem.init, problem.xs, problem.d_ys))

    def form(unroll: int, hoist: bool) -> Callable[[], Any]:
        play = recurrence(problem.cell.name, unroll, hoist)

        @jax.jit
        def train(weights: Any, init: Any, xs: Any, d_ys: Any) -> Any:
            ys, pull = jax.vjp(lambda w, h: play(w, h, xs), weights, init)
            return ys, pull(d_ys)

        return lambda: jax.block_until_ready(train(weights, init, xs, d_ys))

    run, note = fastest(forms, form)
    return Entrant(run, lambda ran: _answer(problem, ran), note)


def fastest(
    forms: tuple[tuple[int, bool], ...], form: Callable[[int, bool], Run]
) -> tuple[Run, str]:
    """The run of the fastest form, compiled, and a note that describes the form."""
    runs = [form(*f) for f in forms]
    for run in runs:
        run()
    times = [min(seconds(run) for _ in range(TRIES)) for run in runs]
    best = times.index(min(times))
    unroll, hoist = forms[best]
    return runs[best], f"unroll {unroll}, x projected {'before' if hoist else 'in'} the loop"


def _answer(problem: Problem, ran: Any) -> Answer:
    ys, ((w_x, w_h, b_x, b_h), init) = ran
    grads = (w_x.T, w_h.T, b_x, b_h, *init)
    found = {"ys": ys, **dict(zip(problem.names, grads, strict=True))}
    return {name: np.asarray(a) for name, a in found.items()}
