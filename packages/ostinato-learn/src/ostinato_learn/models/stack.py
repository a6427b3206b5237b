"""`Stack`: layers of a user's own cell, with the interface of torch.nn's recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ostinato import scan
from ostinato.internal import BudgetError, bytes_in, tree
from ostinato_learn.hyperparameters import Architecture

Cell = Callable[[int, int], torch.nn.Module]  # (n_features, hidden_size) -> the cell
Carry = Tensor | tuple[Tensor, ...]


class Stack(torch.nn.Module):
    """Layers of a cell, in one direction or two, computed by `scan`.

    A cell is a module whose forward is a step: `cell(carry, x)` takes the carry and x `[B, F]`, and
    returns the new carry, which is then the output too, or a pair (new carry, output `[B, H]`). The
    carry begins as zeros `[B, H]`, or as `cell.initial(x)` gives it, if the cell has such a method.

    Args:
        model: `cell`, called as `cell(n_features, hidden_size)` for each layer; sizes, directions,
            dropout.
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

    memory_budget: int | str | None = None  # for a forward pass in training, all cells together
    gradient_steps: int | None = None  # scan's truncate, in training

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
        """The top layer's outputs, and every layer's last output.

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
                cell, reverse = self.cells[layer + direction], direction == 1
                init = self._first(cell, x[:, 0])
                _, outputs = self._one_cell(cell, init, x, lengths=lengths, reverse=reverse)
                played.append(outputs)
                last.append(_last(outputs, lengths, reverse))
            x = torch.cat(played, dim=2)
        return x, torch.stack(last)

    def read_on(
        self, x: Tensor, carry: Carry | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, Carry]:
        """The top layer's outputs for a piece of each sequence, from the carry before it.

        Args:
            x: `[B, T, F]`.
            carry: the carry after the piece before, as this method returns it; by default the first
                carries.
            resets: `[B, T]` bool, the steps before which a row restarts from the first carries.

        Returns:
            `[B, T, H]`; and the carry after the last step, the leaves of the carries of all layers
            from the bottom up, each `[1, B, …]`: a tensor, or a tuple if there are several.

        Raises:
            ValueError: the layers read in two directions; the cell's first carry has no rows or
                depends on values of x; or its output is not `[B, H]`.

        Example:
            >>> from ostinato import nn
            >>> class Gru(nn.GRUCell):
            ...     def forward(self, h, x):
            ...         return super().forward(x, h)
            >>> stack = Stack(Architecture(cell=Gru, hidden_size=8), n_features=3)
            >>> x = torch.randn(5, 7, 3)
            >>> outputs, carry = stack.read_on(x[:, :4])
            >>> rest, _ = stack.read_on(x[:, 4:], carry)
            >>> bool((torch.cat([outputs, rest], 1) == stack(x)[0]).all()), carry.shape
            (True, torch.Size([1, 5, 8]))
        """
        if self.n_directions == 2:
            raise ValueError("read_on: the layers read in two directions; wanted one")
        given = iter([carry] if isinstance(carry, Tensor) else carry or ())
        after = []
        for i, cell in enumerate(self.cells):
            if i:
                x = self.dropout(x)
            init = first = self._first(cell, x[:, 0])
            leaves, spec = tree.flatten(first)
            if carry is None:
                other = self._first(cell, 1 - 2 * x[:, 0])
                _check_first(cell, leaves, tree.leaves(other), len(x))
            else:
                init = tree.unflatten([next(given).squeeze(0) for _ in leaves], spec)
            marks: dict[str, Any] = {}
            if resets is not None:
                marks = {"resets": resets.T, "restart": first}
            end, x = self._one_cell(cell, init, x, **marks)
            after += [leaf.unsqueeze(0) for leaf in tree.leaves(end)]
        return x, after[0] if len(after) == 1 else tuple(after)

    def _first(self, cell: torch.nn.Module, x: Tensor) -> Any:
        """The carry before a first input `[B, F]`."""
        if hasattr(cell, "initial"):
            return cell.initial(x)  # type: ignore[operator]
        return x.new_zeros(len(x), self.hidden_size)

    def _one_cell(
        self, cell: torch.nn.Module, init: Any, x: Tensor, **how: Any
    ) -> tuple[Any, Tensor]:
        """The cell's last carry and its outputs, `[B, T, H]`; `how` is for `scan`."""
        memory = None
        if self.memory_budget is not None and self.training:
            memory = max(1, bytes_in(self.memory_budget) // len(self.cells))
        try:
            carry, outputs = scan(
                cell,
                init,
                x,
                dim=1,
                memory=memory,
                truncate=self.gradient_steps if self.training else None,
                **how,
            )
        except BudgetError as error:
            assert self.memory_budget is not None
            raise error.shared(bytes_in(self.memory_budget), len(self.cells)) from None
        if not isinstance(outputs, Tensor) or outputs.shape != (*x.shape[:2], self.hidden_size):
            came = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ValueError(
                f"the outputs of the cell {type(cell).__name__} are {came}; wanted a tensor "
                f"[{x.shape[0]}, {self.hidden_size}] at each step: return (carry, output)"
            )
        return carry, outputs


def _made(make: Cell, n_features: int, hidden_size: int) -> torch.nn.Module:
    if isinstance(make, type) and not issubclass(make, torch.nn.Module):
        raise TypeError(f"cell={make!r}: wanted a torch.nn.Module whose forward is a step")
    cell = make(n_features, hidden_size)
    if not isinstance(cell, torch.nn.Module):
        raise TypeError(
            f"cell({n_features}, {hidden_size}) gave {type(cell).__name__}; wanted a "
            "torch.nn.Module whose forward is a step"
        )
    return cell


def _check_first(
    cell: torch.nn.Module, first: list[Tensor], other: list[Tensor], n_rows: int
) -> None:
    """Raise ValueError if a first carry of two inputs cannot begin a sequence within a row."""
    if not first or any(leaf.shape[:1] != (n_rows,) for leaf in first):
        came = ", ".join(str(list(leaf.shape)) for leaf in first) or "no tensor"
        raise ValueError(
            f"the first carry of the cell {type(cell).__name__} is {came}; wanted tensors "
            f"[{n_rows}, …], a row for each sequence"
        )
    if not all(torch.equal(a, b) for a, b in zip(first, other, strict=True)):
        raise ValueError(
            f"the first carry of the cell {type(cell).__name__} depends on its first input, and a "
            "state that is carried on restarts within a sequence; wanted an initial(x) that "
            "reads no value of x: let the step read it"
        )


def _last(outputs: Tensor, lengths: Tensor | None, reverse: bool) -> Tensor:
    """The output of the last step, `[B, H]`."""
    if reverse:
        return outputs[:, 0]
    if lengths is None:
        return outputs[:, -1]
    rows = torch.arange(len(outputs), device=outputs.device)
    return outputs[rows, lengths.to(outputs.device) - 1]
