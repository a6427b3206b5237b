"""An example: `torchsde.sdeint` with a fixed step, the noise first, then all steps in one loop.

torchsde asks its Brownian motion for an increment within each step, and the motion searches a tree
of Python objects for it. Here the increments of all steps are asked for first, in the same order,
so that the same seed gives the same numbers; the steps are then a loop over elements, which the
engine plays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torchsde
from torch import Tensor
from torchsde._core import methods
from torchsde._core.sdeint import check_contract, parse_return

from ostinato import loop


def sdeint(
    sde: Any,
    y0: Tensor,
    ts: Any,
    bm: Any = None,
    method: str | None = None,
    dt: Any = 1e-3,
    adaptive: bool = False,
    options: dict[str, Any] | None = None,
    names: dict[str, str] | None = None,
    logqp: bool = False,
    extra: bool = False,
    extra_solver_state: Any = None,
    **others: Any,
) -> Any:
    """Integrate a stochastic differential equation: arguments and results of `torchsde.sdeint`.

    With `adaptive=True`, it calls `torchsde.sdeint`.

    Args:
        sde: with methods f(t, y) and g(t, y).
        y0: `[B, D]`.
        ts: `[T]`, increasing times; also a list of floats.
        others: as of `torchsde.sdeint`.

    Returns:
        `[T, B, D]`; with `logqp` or `extra` what `torchsde.sdeint` returns.

    Raises:
        ValueError: the arguments do not fit, as `torchsde.sdeint`.

    Example:
        >>> from torchsde_fixed_step import sdeint                                # doctest: +SKIP
        >>> ys = sdeint(sde, y0, torch.linspace(0, 1, 100), dt=1e-2)      # doctest: +SKIP
    """
    if adaptive:
        return torchsde.sdeint(
            sde,
            y0,
            ts,
            bm,
            method,
            dt,
            adaptive,
            options=options,
            names=names,
            logqp=logqp,
            extra=extra,
            extra_solver_state=extra_solver_state,
            **others,
        )
    fixed = {"rtol": 1e-5, "atol": 1e-4, "dt_min": 1e-5, **others}
    made = check_contract(sde, y0, ts, bm, method, adaptive, options, names, logqp)
    sde, y0, ts, bm, method, options = made
    solver = methods.select(method=method, sde_type=sde.sde_type)(
        sde=sde, bm=bm, dt=dt, adaptive=False, options=options, **fixed
    )
    if extra_solver_state is None:
        extra_solver_state = solver.init_extra_solver_state(ts[0], y0)
    ys, extra_solver_state = _integrated(solver, y0, ts, extra_solver_state)
    return parse_return(y0, ys, extra_solver_state, extra, logqp)


def _integrated(solver: Any, y0: Tensor, ts: Tensor, extra: Any) -> tuple[Tensor, Any]:
    """What `solver.integrate(y0, ts, extra)` returns."""
    times, ends = _grid(ts, solver.dt)
    t0, t1 = times[:-1], times[1:]
    first = _Asking(solver)
    y, extra = _step(solver)(first, t0[0], t1[0], y0, extra)
    noise = [first.asked(a, b) for a, b in zip(t0[1:], t1[1:], strict=True)]
    columns = [torch.stack(column) for column in zip(*noise, strict=True)]
    ys, extra = _steps(solver, _step(solver), t0[1:], t1[1:], columns, y, extra)
    states = torch.stack([y0, y, *ys])
    at = torch.tensor(ends)
    shape = (-1, *[1] * (states.dim() - 1))
    a, b, t = (of.view(shape) for of in (times[at - 1], times[at], ts[1:]))
    interpolated = (b - t) / (b - a) * states[at - 1] + (t - a) / (b - a) * states[at]
    return torch.cat([y0.unsqueeze(0), interpolated]), extra


def _grid(ts: Tensor, dt: Any) -> tuple[Tensor, list[int]]:
    """The times of the steps, and for each of ts[1:] the number of the first that reaches it."""
    times, ends = [ts[0]], []
    for t in ts[1:]:
        while times[-1] < t:
            times.append(min(times[-1] + dt, ts[-1]))
        ends.append(len(times) - 1)
    return torch.stack(times), ends


def _step(solver: Any) -> Any:
    """The method of a solver that makes a step, as a function of the solver."""
    return solver.step.__func__


class _Asking:
    """A solver that notes how a step asks for its increment."""

    def __init__(self, solver: Any):
        self._solver = solver
        self.answer: Sequence[Tensor] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._solver, name)

    def bm(self, a: Any, b: Any, **how: Any) -> Any:
        if self.answer:
            raise NotImplementedError("a step that asks for two increments")
        self.how = how
        found = self._solver.bm(a, b, **how)
        self.is_one = isinstance(found, Tensor)
        self.answer = (found,) if self.is_one else tuple(found)
        return found

    def asked(self, a: Tensor, b: Tensor) -> Sequence[Tensor]:
        found = self._solver.bm(a, b, **self.how)
        return (found,) if isinstance(found, Tensor) else tuple(found)


class _Given:
    """A solver in a step, whose increment is given."""

    def __init__(self, solver: Any, increment: Sequence[Tensor]):
        self._solver, self._increment = solver, increment

    def __getattr__(self, name: str) -> Any:
        return getattr(self._solver, name)

    def bm(self, a: Any, b: Any, **how: Any) -> Any:
        return self._increment[0] if len(self._increment) == 1 else self._increment


@loop
def _steps(
    solver: Any, step: Any, t0: Tensor, t1: Tensor, noise: list[Tensor], y: Tensor, extra: Any
) -> tuple[list[Tensor], Any]:
    ys = []
    for a, b, *increment in zip(t0, t1, *noise, strict=True):
        y, extra = step(_Given(solver, increment), a, b, y, extra)
        ys.append(y)
    return ys, extra
