"""Findings about the code of steps, by which later calls begin with the form that fits.

Few steps have any, so that a call looks here and imports the form only if necessary.
"""

from __future__ import annotations

from typing import Any

from ostinato.compiler import cache
from ostinato.compiler.steps import Recent, code_key

answers = Recent()  # of answers.py
numbers = Recent()  # of batch_numbers.py
one_row = Recent()  # of shared.py: the shapes of calls whose batch is one row
folds = Recent()  # of shared.py: sizes of batches that are one row of columns


def forget(step: Any) -> None:
    """Record `step` anew at its next call of `scan`.

    Guards notice changes of values that the step's own code read. For changes that they cannot see
    (docs/semantics.md), call this function.

    Args:
        step: the function, or another one with the same code.

    Example:
        >>> import ctypes, torch, ostinato
        >>> scale = ctypes.c_double(1.0)  # in C: nobody sees it change
        >>> step = lambda h, x: (h + x) * scale.value
        >>> _ = ostinato.scan(step, torch.zeros(2, 3), torch.ones(4, 2, 3))
        >>> scale.value = 0.5
        >>> ostinato.forget(step)
    """
    code = code_key(step)
    for found in (answers, numbers, one_row, folds):
        found.pop(code, None)
    cache.forget(code)
