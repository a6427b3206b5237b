"""Verification: a model gives the same numbers after its layers and loops were swapped.

The bound. Two correct ways to run a layer differ in the order of their sums. A sum of K = F + H
products of numbers around 1 has a rounding error of about ε √K, and every step of every layer adds
one such error. A recurrence that does not amplify errors passes them on, so that after n steps the
error is at most

    ε √K n · max(1, |y|)

where n counts the steps of all swapped layers, K is that of the widest layer, and y is the output.
A step of a loop adds ε √K for each of its products, and 2 ε for each elementwise operation, which
PyTorch and the engine round once each; n steps of it add n times as much.
A model whose recurrence amplifies errors (a chaotic one) exceeds this bound without a mistake, and
needs a tolerance of its own.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ostinato._explain import Explanation
from ostinato.compiler import torch_private
from ostinato.loops.explained import steps_of_loops

_log = logging.getLogger("ostinato")


class Verification:
    """The results of a model before the swap, to be compared with its results after."""

    def __init__(
        self, model: torch.nn.Module, inputs: tuple[Any, ...], layers: list[torch.nn.Module]
    ) -> None:
        """Run the model, and count the time steps that `layers` run.

        Args:
            inputs: the positional arguments of the model.
            layers: the layers that will be swapped.

        Raises:
            TypeError: inputs is not a tuple.
            ValueError: the model returns no tensor.
        """
        if not isinstance(inputs, tuple):
            raise TypeError(
                f"verify is a {type(inputs).__name__}; wanted a tuple of the model's inputs, "
                "verify=(x,) for a single one"
            )
        self.model = model
        self.inputs = inputs
        self.n_steps = 0
        hooks = [layer.register_forward_hook(self._count, with_kwargs=True) for layer in layers]
        try:
            self.reference = _run(model, inputs)
        finally:
            for hook in hooks:
                hook.remove()
        weights = [p for p in model.parameters() if p.is_floating_point()]
        self.epsilon = max((torch.finfo(w.dtype).eps for w in weights), default=0.0)
        self.of_loops = 0.0  # rounding errors in the loops' steps, in ε
        self.n_terms = max((_width(layer) for layer in layers), default=0)

    def compare(self, tolerance: float | None) -> None:
        """Run the model again and compare.

        Args:
            tolerance: the largest accepted absolute difference; None: the bound derived above.

        Raises:
            ValueError: the number of results differs, or a result differs by more.
        """
        largest = 0.0
        with steps_of_loops() as steps:
            results = _run(self.model, self.inputs)
        self.of_loops = sum(_rounding(step) for _, step in steps)
        if len(results) != len(self.reference):
            raise ValueError(
                f"accelerate: the model gives {len(results)} tensors, before it gave "
                f"{len(self.reference)}; restored"
            )
        for i, (before, after) in enumerate(zip(self.reference, results, strict=True)):
            bound = self._bound(before) if tolerance is None else tolerance
            difference = _largest_difference(before, after)
            if not difference <= bound:
                raise ValueError(
                    f"accelerate: result {i} of the model ({before.dtype}{list(before.shape)}) "
                    f"differs by {difference:.3g}, wanted at most {bound:.3g}; the model is "
                    "restored. If its recurrence amplifies rounding, give a tolerance"
                )
            largest = max(largest, difference)
        _log.info("accelerate: verified, the largest difference is %.3g", largest)

    def _count(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
        x = next(iter((*args, *kwargs.values())))  # a subclass may call it by another name
        if isinstance(x, PackedSequence):
            self.n_steps += layer.num_layers * len(x.batch_sizes)
        else:
            time_dim = 1 if layer.batch_first and x.dim() == 3 else 0
            self.n_steps += layer.num_layers * x.shape[time_dim]

    def _bound(self, reference: Tensor) -> float:
        if not reference.is_floating_point() or not reference.numel():
            return 0.0
        epsilon = max(self.epsilon, torch.finfo(reference.dtype).eps)
        magnitude = max(1.0, float(reference.nan_to_num().abs().max()))
        return epsilon * (self.n_terms**0.5 * self.n_steps + self.of_loops) * magnitude


def _rounding(step: Explanation) -> float:
    """The rounding error of all steps of a loop, in ε."""
    products = sum(p.depth**0.5 for p in (*step.hoisted, *step.loop_products))
    return step.n_steps * (products + 2 * len(step.loop_ops))


def _width(layer: Any) -> int:
    """K of the widest layer in a stack."""
    below = layer.hidden_size * (2 if getattr(layer, "bidirectional", False) else 1)
    return max(layer.input_size, below) + layer.hidden_size


def _run(model: torch.nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    """The tensors that the model returns in eval mode; its modes and the random state stay."""
    modes = [(module, module.training) for module in model.modules()]
    # The model may change its inputs in place.
    copies = torch_private.tree_map_only(Tensor, torch.clone, inputs)
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            result = model(*copies)
    finally:
        for module, training in modes:
            module.training = training
    leaves = torch_private.tree_leaves(result)
    tensors = [leaf.clone() for leaf in leaves if isinstance(leaf, Tensor)]
    if not tensors:
        raise ValueError(
            f"verify: the model returned no tensor to compare, but a {type(result).__name__}"
        )
    return tensors


def _largest_difference(before: Tensor, after: Tensor) -> float:
    """The largest absolute difference.

    It is infinite if shapes or dtypes differ, and NaN if one value alone is NaN.
    """
    if before.shape != after.shape or before.dtype != after.dtype:
        return float("inf")
    if not before.numel():
        return 0.0
    same = (before == after) | (before.isnan() & after.isnan())
    wide = torch.complex128 if before.is_complex() else torch.float64
    return float(torch.where(same, 0.0, (after.to(wide) - before.to(wide)).abs()).max())
