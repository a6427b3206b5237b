"""Many runs: workers, trials, and the comparison of runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostinato_learn.cli.many.workers import Team


def team(n: int, threads: int | None, ray: bool) -> AbstractContextManager[Team]:
    """A team of n workers.

    Args:
        threads: the threads of each, as given by the user; None: a share of the cores.
        ray: whether Ray places and runs them.
    """
    from ostinato_learn.cli.many import on_ray, workers

    if ray:
        return on_ray.team(n, threads)
    return nullcontext(workers.Processes(n, workers.threads_of_a_job(n, threads)))
