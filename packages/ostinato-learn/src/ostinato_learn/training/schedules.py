"""The learning rate as a function of the iteration: it has no state to save."""

from __future__ import annotations

import math

from ostinato_learn.training.plan import Plan


def learning_rate(plan: Plan, iteration: int, total: int) -> float:
    """The learning rate of the update number `iteration` (from 0) of `total`.

    With r the plan's learning rate and w its warm-up:

        constant   r
        step       r · gamma^⌊iteration / step_size⌋
        cosine     r · (1 + cos(π · (iteration − w) / (total − w))) / 2      from w on
        warm-up    times (iteration + 1) / w                                 before w

    Source of the cosine: Loshchilov and Hutter, SGDR, 2017 (without restarts).

    Example:
        >>> plan = Plan(learning_rate=1.0, schedule="cosine", warmup=2)
        >>> [round(learning_rate(plan, i, total=6), 2) for i in range(6)]
        [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    """
    rate = plan.learning_rate
    if plan.schedule == "step":
        rate *= plan.step_gamma ** (iteration // plan.step_size)
    if iteration < plan.warmup:
        return rate * (iteration + 1) / plan.warmup
    if plan.schedule == "cosine":
        progress = (iteration - plan.warmup) / max(1, total - plan.warmup)
        rate *= (1 + math.cos(math.pi * progress)) / 2
    return rate
