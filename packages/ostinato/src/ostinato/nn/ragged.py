"""Lengths, resets and restart of a forward pass, checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ostinato.eager import as_tensor, is_integer
from ostinato.nn.common import Hidden


class EndToEnd(Protocol):
    """Sequences of different lengths, end to end: sequence i is `[T_i, F]`."""

    values: np.ndarray  # [ΣT, F]
    offsets: np.ndarray  # [N + 1]

    def __iter__(self) -> Iterator[np.ndarray]: ...


def expand_restart(restart: Hidden, hx: Hidden) -> Hidden:
    """restart, expanded to the shape of hx.

    Raises:
        ValueError: it does not broadcast to that shape.
    """
    given = (restart,) if isinstance(restart, Tensor) else tuple(restart)
    wanted = (hx,) if isinstance(hx, Tensor) else hx
    try:
        leaves = [r.to(h.dtype).expand_as(h) for r, h in zip(given, wanted, strict=True)]
    except (RuntimeError, ValueError):
        raise ValueError(
            f"restart has the shape {_shapes(given)}; wanted that of the hidden state, "
            f"{_shapes(wanted)}, or one that broadcasts to it"
        ) from None
    return leaves[0] if isinstance(hx, Tensor) else tuple(leaves)


def _shapes(leaves: tuple[Tensor, ...]) -> str:
    return ", ".join(str(list(leaf.shape)) for leaf in leaves)


def check_resets(resets: Any, shape: torch.Size, xs: Tensor) -> Tensor:
    """The resets as a tensor on the device of xs.

    Args:
        resets: anything that becomes a tensor.
        shape: the shape that they must have.
        xs: the input.

    Raises:
        ValueError: it is not bool, or of another shape.
    """
    given = as_tensor("resets", resets, f"bool of shape {list(shape)}")
    if given.dtype != torch.bool or given.shape != shape:
        raise ValueError(
            f"resets is {given.dtype} of shape {list(given.shape)}; wanted torch.bool of shape "
            f"{list(shape)}, one for each step of the input"
        )
    return given.to(xs.device)


def check_lengths(lengths: Any, xs: Tensor) -> Tensor:
    """lengths as `[B]` int64 on the CPU, where torch's packing functions want them.

    Raises:
        TypeError, ValueError: they are not B integers from 0 to T.
    """
    n_steps, n_rows = xs.shape[:2]
    given = as_tensor("lengths", lengths, f"{n_rows} integers, one for each row of the batch")
    if not is_integer(given.dtype) or given.numel() != n_rows:
        raise ValueError(
            f"lengths is {given.dtype} of shape {list(given.shape)}; wanted {n_rows} integers, "
            "one for each row of the batch"
        )
    given = given.reshape(n_rows).long()
    wrong = ((given < 0) | (given > n_steps)).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"lengths[{row}] is {int(given[row])}; wanted 0 to {n_steps}, the steps of the input"
        )
    return given
