"""Random layers with their input, and how two of them are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils import _pytree as pytree

import ostinato

KINDS = ["RNN", "GRU", "LSTM"]
FORMS = ("padded", "unbatched", "packed", "packed_sorted")


@dataclass(frozen=True)
class Case:
    """A layer's options and the shape of its input."""

    kind: str  # RNN, GRU or LSTM
    options: dict[str, Any]
    form: str  # one of FORMS
    n_steps: int
    lengths: list[int]  # one a row
    has_hx: bool
    seed: int

    def layers(self, dtype: torch.dtype) -> tuple[torch.nn.Module, torch.nn.Module]:
        """torch's and ours, with the same weights."""
        torch.manual_seed(self.seed)
        theirs = getattr(torch.nn, self.kind)(**self.options, dtype=dtype)
        ours = getattr(ostinato.nn, self.kind)(**self.options, dtype=dtype)
        ours.load_state_dict(theirs.state_dict())
        return theirs, ours

    def x(self, dtype: torch.dtype) -> Tensor:
        """`[T, B, F]` in the layout that the form and batch_first ask for."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        shape = (self.n_steps, len(self.lengths), self.options["input_size"])
        x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        if self.form == "unbatched":
            return x[:, 0].clone()
        return x.transpose(0, 1).clone() if self.options["batch_first"] else x

    def hx(self, dtype: torch.dtype) -> Any:
        if not self.has_hx:
            return None
        generator = torch.Generator().manual_seed(self.seed + 2)
        options = self.options
        n_states = options["num_layers"] * (2 if options["bidirectional"] else 1)
        rows = () if self.form == "unbatched" else (len(self.lengths),)
        hidden = options["hidden_size"]
        sizes = [options.get("proj_size") or hidden, hidden][: 2 if self.kind == "LSTM" else 1]
        leaves = [
            torch.randn((n_states, *rows, size), generator=generator, dtype=torch.float64).to(dtype)
            for size in sizes
        ]
        return tuple(leaves) if self.kind == "LSTM" else leaves[0]

    def packed(self, x: Tensor) -> Tensor | PackedSequence:
        """x as the layer takes it."""
        if not self.form.startswith("packed"):
            return x
        return pack_padded_sequence(
            x,
            self.lengths,
            batch_first=self.options["batch_first"],
            enforce_sorted=self.form == "packed_sorted",
        )


@st.composite
def cases(draw: st.DrawFn, forms: tuple[str, ...] = FORMS, shortest: int = 1) -> Case:
    kind = draw(st.sampled_from(KINDS))
    form = draw(st.sampled_from(forms))
    n_rows = 1 if form == "unbatched" else draw(st.integers(1, 5))
    lengths = draw(st.lists(st.integers(shortest, 7), min_size=n_rows, max_size=n_rows))
    if form == "packed_sorted":
        lengths.sort(reverse=True)
    hidden_size = draw(st.integers(1, 5))
    options = {
        "input_size": draw(st.integers(1, 4)),
        "hidden_size": hidden_size,
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
    }
    if kind == "LSTM" and hidden_size > 1:
        options["proj_size"] = draw(st.integers(0, hidden_size - 1))
    if kind == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    n_steps = max([1, *lengths]) + (draw(st.integers(0, 2)) if form == "padded" else 0)
    return Case(
        kind, options, form, n_steps, lengths, draw(st.booleans()), draw(st.integers(0, 99))
    )


def tensors(tree: Any) -> list[Tensor]:
    """All floating tensors of a result; of a PackedSequence its data."""
    leaves = pytree.tree_leaves(tree, lambda part: isinstance(part, PackedSequence))
    leaves = [leaf.data if isinstance(leaf, PackedSequence) else leaf for leaf in leaves]
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def gradients(results: Any, inputs: list[Tensor]) -> list[Tensor]:
    """Of a fixed, uneven weighting of all results."""
    total = torch.zeros((), dtype=inputs[0].dtype)
    for result in tensors(results):
        weights = torch.arange(result.numel(), dtype=result.dtype).reshape(result.shape)
        total = total + (result * torch.cos(weights)).sum()
    grads = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
    return list(grads)


def assert_near(ours: list[Tensor], theirs: list[Tensor], relative: float) -> None:
    """Largest difference against the largest value, tensor by tensor.

    Beside it the rounding of terms: a sum that cancels is small, its terms are not. They are taken
    to be as large as the largest value of all.
    """
    assert len(ours) == len(theirs)
    largest = max((float(t.detach().abs().max()) for t in theirs if t.numel()), default=0.0)
    rounding = 8 * torch.finfo(theirs[0].dtype).eps * largest if theirs else 0.0
    for mine, wanted in zip(ours, theirs, strict=True):
        assert mine.shape == wanted.shape and mine.dtype == wanted.dtype
        if wanted.numel():
            difference = (mine - wanted).abs().max()
            bound = relative * wanted.abs().max() + rounding
            assert difference <= bound, (difference, wanted.abs().max(), largest)
