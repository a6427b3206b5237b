"""`Stack`: layers of a person's own cell, with the interface of torch.nn's recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ostinato._scan import scan
from ostinato.arguments import bytes_in
from ostinato.compiler.play.segments import BudgetError
from ostinato.hyperparameters import Architecture

Cell = Callable[[int, int], torch.nn.Module]  # (n_features, hidden_size) -> the cell


class Stack(torch.nn.Module):
    """Layers of a cell, in one direction or two, played by `scan`.

    A cell is a module whose forward is a step: `cell(carry, x)` takes the carry and x `[B, F]`, and
    returns the new carry, which is then the output too, or a pair (new carry, output `[B, H]`). The
    carry begins as zeros `[B, H]`, or as `cell.initial(x)` gives it, if the cell has such a method.

    Args:
        model: `cell`, which makes one: `cell(n_features, hidden_size)`; sizes, directions, dropout.
        n_features: F.

    Example:
        >>> class Leaky(torch.nn.Module):
        ...     def __init__(self, n_features, hidden_size):
        ...         super().__init__()
        ...         self.into = torch.nn.Linear(n_features, hidden_size)
        ...     def forward(self, h, x):
        ...         return 0.9 * h + torch.tanh(self.into(x))
        >>> stack = Stack(Architecture(cell=Leaky, hidden_size=8, num_layers=2), n_features=3)
        >>> outputs, last = stack(torch.randn(5, 7, 3))
        >>> outputs.shape, bool((last[-1] == outputs[:, -1]).all())
        (torch.Size([5, 7, 8]), True)
    """

    memory_budget: int | str | None = None  # of a forward pass in training, all cells together
    gradient_steps: int | None = None  # in training, after which a gradient ends: scan's truncate

    def __init__(self, model: Architecture, n_features: int):
        super().__init__()
        self.hidden_size = model.hidden_size
        self.n_directions = 2 if model.bidirectional else 1
        inputs = [n_features, *[self.n_directions * model.hidden_size] * (model.num_layers - 1)]
        make: Cell = model.cell  # type: ignore[assignment]  # a name has layers of its own
        self.cells = torch.nn.ModuleList(
            _made(make, size, model.hidden_size)
            for size in inputs
            for _ in range(self.n_directions)
        )
        self.dropout = torch.nn.Dropout(model.dropout)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The top layer's outputs, and every layer's last.

        Args:
            x: `[B, T, F]`.
            lengths: `[B]` integers, the valid steps of each row; by default all.

        Returns:
            `[B, T, directions · H]`, zeros beyond the lengths; and `[layers · directions, B, H]`.

        Raises:
            ValueError: the cell's output is not `[B, H]`.
        """
        last = []
        for layer in range(0, len(self.cells), self.n_directions):
            if layer:
                x = self.dropout(x)
            played = []
            for direction in range(self.n_directions):
                cell = self.cells[layer + direction]
                outputs = self._play(cell, x, lengths, reverse=direction == 1)
                played.append(outputs)
                last.append(_last(outputs, lengths, reverse=direction == 1))
            x = torch.cat(played, dim=2)
        return x, torch.stack(last)

    def _play(
        self, cell: torch.nn.Module, x: Tensor, lengths: Tensor | None, reverse: bool
    ) -> Tensor:
        """The cell's outputs, `[B, T, H]`."""
        if hasattr(cell, "initial"):
            init: Any = cell.initial(x[:, 0])  # type: ignore[operator]
        else:
            init = x.new_zeros(len(x), self.hidden_size)
        memory = None
        if self.memory_budget is not None and self.training:
            memory = max(1, bytes_in(self.memory_budget) // len(self.cells))
        try:
            _, outputs = scan(
                cell, init, x, dim=1, reverse=reverse, lengths=lengths, memory=memory,
                truncate=self.gradient_steps if self.training else None,
            )  # fmt: skip
        except BudgetError as error:
            assert self.memory_budget is not None
            raise error.shared(bytes_in(self.memory_budget), len(self.cells)) from None
        if not isinstance(outputs, Tensor) or outputs.shape != (*x.shape[:2], self.hidden_size):
            came = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ValueError(
                f"the outputs of the cell {type(cell).__name__} are {came}; wanted a tensor "
                f"[{x.shape[0]}, {self.hidden_size}] at each step: return (carry, output)"
            )
        return outputs


def _made(make: Cell, n_features: int, hidden_size: int) -> torch.nn.Module:
    cell = make(n_features, hidden_size)
    if not isinstance(cell, torch.nn.Module):
        raise TypeError(
            f"cell({n_features}, {hidden_size}) gave {type(cell).__name__}; wanted a "
            "torch.nn.Module whose forward is a step"
        )
    return cell


def _last(outputs: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
    """The output of the step that was played last, `[B, H]`."""
    if reverse:
        return outputs[:, 0]
    if lengths is None:
        return outputs[:, -1]
    rows = torch.arange(len(outputs), device=outputs.device)
    return outputs[rows, lengths.to(outputs.device) - 1]
