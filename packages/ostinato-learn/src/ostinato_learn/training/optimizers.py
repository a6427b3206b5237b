"""The optimisers: PyTorch's own, and RMSProp as TensorFlow 1 had it."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ostinato_learn.training.plan import Plan


class RMSProp(torch.optim.Optimizer):
    """RMSProp as `tf.train.RMSPropOptimizer(learning_rate)`, which the notebook uses.

        s ← decay · s + (1 − decay) · g²
        m ← momentum · m + lr · g / √(s + eps)
        p ← p − m

    It differs from `torch.optim.RMSprop` in four things: s begins at one instead of zero (so the
    first steps are small instead of large), decay is 0.9 instead of 0.99, eps is 1e-10 and inside
    the root, and the learning rate is inside the momentum.

    Source: Tieleman and Hinton, lecture 6.5 of Neural Networks for Machine Learning, 2012.

    Args:
        params: parameters, as every optimiser of PyTorch takes them.
        lr: step size.
        decay: the factor of the old mean square.
        momentum: the factor of the old step.
        eps: added to the mean square.
        weight_decay: the factor with which a parameter is added to its gradient.

    Example:
        >>> p = torch.nn.Parameter(torch.zeros(1))
        >>> optimizer = RMSProp([p], lr=0.1)
        >>> p.grad = torch.ones(1)
        >>> optimizer.step()  # s = 0.9 · 1 + 0.1 · 1² = 1
        >>> p.item()
        -0.10000000149011612
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        decay: float = 0.9,
        momentum: float = 0.0,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
    ):
        defaults = {
            "lr": lr,
            "decay": decay,
            "momentum": momentum,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update. Parameters without a gradient are left alone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(group, params)
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        gradients: Any = [p.grad for p in params]
        squares = [self._state_of(p, "square", torch.ones_like) for p in params]
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, params, alpha=group["weight_decay"])
        torch._foreach_mul_(squares, group["decay"])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["decay"])
        roots = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(roots)
        if group["momentum"]:
            steps = [self._state_of(p, "step_before", torch.zeros_like) for p in params]
            torch._foreach_mul_(steps, group["momentum"])
            torch._foreach_addcdiv_(steps, gradients, roots, group["lr"])
            torch._foreach_sub_(params, steps)
        else:
            torch._foreach_addcdiv_(params, gradients, roots, -group["lr"])

    def _state_of(self, p: Tensor, name: str, start: Callable[[Tensor], Tensor]) -> Tensor:
        """The state `name` of a parameter; `start` makes it at the first update."""
        state = self.state[p]
        if name not in state:
            state[name] = start(p)
        return state[name]


def build(plan: Plan, net: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a plan, for all parameters of a net."""
    params = list(net.parameters())
    lr, decay = plan.learning_rate, plan.weight_decay
    if plan.optimizer == "rmsprop":
        return RMSProp(params, lr=lr, momentum=plan.momentum, weight_decay=decay)
    if plan.optimizer == "sgd":
        sgd = _stepping_plainly(torch.optim.SGD)
        return sgd(params, lr=lr, momentum=plan.momentum, weight_decay=decay)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[plan.optimizer]
    # fused: 36 µs an update of the notebook's network instead of 107
    return _stepping_plainly(kind)(params, lr=lr, weight_decay=decay, fused=True)


@functools.cache
def _stepping_plainly(kind: Any) -> Any:
    """An optimiser whose step runs under no_grad, and in no other wrapper.

    PyTorch's wrapper does the same, but imports torch._dynamo to register itself with
    torch.compile.
    """
    return type(kind.__name__, (kind,), {"step": torch.no_grad()(inspect.unwrap(kind.step))})


def without_dynamo() -> None:
    """Let optimisers of this process do without torch._dynamo, whose import takes a second.

    For a process that compiles nothing. PyTorch hides some methods of its optimisers from
    torch.compile: their first call imports torch._dynamo and stores a replacement as an attribute
    of the function. Here the function is stored as its own replacement.
    """
    if "torch._dynamo" in sys.modules:
        return
    for method in vars(torch.optim.Optimizer).values():
        function = getattr(method, "__wrapped__", None)
        if function is not None:
            function.__dynamo_disable = function
