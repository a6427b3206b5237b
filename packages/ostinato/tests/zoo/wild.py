"""Steps that do something odd: the loop may play them, and says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import ostinato
from zoo.steps import Case, Kit, inputs, states


def heads(kit: Kit) -> Case:
    """A block-diagonal recurrence, one block a head."""
    n = 2
    U, W = kit.weight(kit.F, kit.H), kit.weight(n, kit.H // n, kit.H // n)
    H = kit.H

    def step(h: Tensor, x: Tensor) -> Tensor:
        by_head = torch.einsum("bni,nio->bno", h.view(-1, n, H // n), W)
        return torch.tanh(x @ U + by_head.reshape(-1, H))

    return Case(step, [U, W], states(kit), inputs(kit))


def _step(name: str, formula: Callable[[Tensor, Tensor, Tensor], Any]) -> Callable[[Kit], Case]:
    """A step that does something odd to `a = tanh(x U + h W)`, given (a, h, x U)."""

    def make_case(kit: Kit) -> Case:
        U, W = kit.weight(kit.F, kit.H), kit.weight(kit.H, kit.H)

        def step(h: Tensor, x: Tensor) -> Any:
            from_x = x @ U
            return formula(torch.tanh(from_x + h @ W), h, from_x)

        # A code object of its own for each, as if each had been written out.
        step.__code__ = step.__code__.replace(co_name=name)
        return Case(step, [U, W], states(kit), inputs(kit))

    return make_case


def _clipped_gradient(a: Tensor) -> Tensor:
    if a.requires_grad:
        a.register_hook(lambda g: g.clamp(-0.1, 0.1))
    return a


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        ctx.save_for_backward(a)
        return a.sign()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (a,) = ctx.saved_tensors
        return grad * (a.abs() < 0.5)


def _overwritten(a: Tensor) -> Tensor:
    a = a.clone()
    a[:, 1:3] = 2 * a[:, 0:2]
    a[0] = 0.5
    return a


def _without_gradient(a: Tensor) -> Tensor:
    with torch.no_grad():
        return 3 * a


def _differentiated(h: Tensor) -> Tensor:
    if h.requires_grad:
        return h - 0.1 * torch.autograd.grad(h.square().sum(), h, create_graph=True)[0]
    return 0.8 * h


def _add(h: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(h + x)


_FORMULAS: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    # the rows of the batch are not independent
    "batch_mean": lambda a, h, x: a - a.mean(0),
    "batch_mean_kept": lambda a, h, x: a - a.mean(0, keepdim=True),
    "batch_std": lambda a, h, x: a / (1 + a.std(0, unbiased=False)),
    "batch_softmax": lambda a, h, x: torch.softmax(a, 0),
    "batch_cumsum": lambda a, h, x: a.cumsum(0) / 4,
    "batch_norm_of_all": lambda a, h, x: a / a.norm(),
    "batch_sum_of_all": lambda a, h, x: a / (1 + a.square().sum()),
    "batch_max_of_all": lambda a, h, x: a / a.abs().max(),
    "batch_flip": lambda a, h, x: a.flip(0),
    "batch_roll": lambda a, h, x: a.roll(1, 0),
    "batch_first_row": lambda a, h, x: a + a[0],
    "batch_last_row": lambda a, h, x: a + a[-1:],
    "batch_gram": lambda a, h, x: (a @ a.t()) @ a / 4,
    "batch_halves": lambda a, h, x: torch.cat(a.chunk(2, 0)[::-1], 0),
    "batch_halves_by_default": lambda a, h, x: torch.cat([a[:1], *a.chunk(2)])[1:],
    "batch_split_by_default": lambda a, h, x: torch.cat(a.split(2)) + torch.stack(list(a.unbind())),
    "batch_in_reshape": lambda a, h, x: a.t().reshape(a.shape),
    # the size of the batch as a number
    "batch_length": lambda a, h, x: a / len(a),
    "batch_shape": lambda a, h, x: a / a.shape[0],
    "batch_numel": lambda a, h, x: a * (a.numel() / 20),
    "batch_arange": lambda a, h, x: a + torch.arange(a.shape[0], dtype=a.dtype)[:, None],
    "batch_branch": lambda a, h, x: a if a.shape[0] < 4 else -a,
    "batch_branch_in_gradient": lambda a, h, x: a if len(a) < 16 else 2 * a - a.detach(),
    "batch_eye": lambda a, h, x: torch.eye(a.shape[0], dtype=a.dtype) @ a,
    "made_of_the_batch": lambda a, h, x: a + a.new_ones(a.shape) + torch.zeros(len(a), 1),
    # outputs that are not rows
    "scalar_output": lambda a, h, x: (a, a.mean()),
    "output_without_rows": lambda a, h, x: (a, a.sum(0)),
    "transposed_output": lambda a, h, x: (a, a.t()),
    "constant_output": lambda a, h, x: (a, (2 * a, torch.ones(3, dtype=a.dtype))),
    "indices_as_output": lambda a, h, x: (a, (2 * a, a.argmax(1))),
    # values that steer
    "item": lambda a, h, x: a * float(a.detach().sum()),
    "branch_on_a_value": lambda a, h, x: a if bool(a.sum() > 0) else -a,
    "branch_on_requires_grad": lambda a, h, x: a if h.requires_grad else 0.5 * a,
    "through_numpy": lambda a, h, x: a + torch.from_numpy(2 * a.detach().numpy()),
    # operations within a row
    "one_column": lambda a, h, x: a + h[:, 1][:, None] * x.select(1, -1).unsqueeze(1),
    "one_of_two": lambda a, h, x: torch.cat([a.view(-1, 2, 4)[:, 1], h.view(-1, 2, 4)[:, 0]], 1),
    "one_of_four": lambda a, h, x: (a, [a.view(-1, 4, 2)[:, i] * (i + 1) for i in (2, 0, -1)]),
    "unflattened": lambda a, h, x: (a, a.unflatten(1, (2, 4)).flatten(1) * h.view(-1, 8)),
    "row_max": lambda a, h, x: a / a.abs().max(1, keepdim=True)[0],
    "row_amax": lambda a, h, x: a - a.amax(1, keepdim=True),
    "row_amin": lambda a, h, x: torch.relu(a) - a.amin(1, keepdim=True) * h.amin(-1, True),
    "ties_in_a_row": lambda a, h, x: torch.relu(a) - torch.relu(x).amax(1, keepdim=True) * a,
    "counts": lambda a, h, x: torch.where((a > 0).sum(1, keepdim=True) > 3, a, x),
    "row_variance": lambda a, h, x: a / (a.var(1, keepdim=True) + 0.1),
    "group_norm": lambda a, h, x: F.group_norm(a, 2),
    "outer_product": lambda a, h, x: (a[:, :, None] * x[:, None, :]).sum(-1) / 4,
    "heads_transposed": lambda a, h, x: a.view(-1, 2, 4).transpose(1, 2).reshape(-1, 8),
    "stack_and_max": lambda a, h, x: torch.stack([a, x], 2).max(2)[0],
    "powers": lambda a, h, x: a**3 + (a.abs() + 0.1) ** 1.5 - 2**a + (a.abs() + 0.1) ** x,
    "ties": lambda a, h, x: (
        torch.maximum(a, a) + torch.relu(a - a) + (x - x).abs() + torch.maximum(a * 0, x * 0)
    ),
    "clamps": lambda a, h, x: a.clamp(min=x.clamp(-0.1, 0.1)) + a.clamp(-0.2) + x.clamp(max=0.3),
    "masks": lambda a, h, x: torch.where((a > 0) & ~(x > 0) | (h == 0), a, x).masked_fill(h > 1, 0),
    "scaled_sums": lambda a, h, x: (
        (
            torch.addcmul(a, h, x, value=0.5)
            + torch.addcdiv(a, h, x.abs() + 1, value=0.3)
            + torch.rsub(a, x, alpha=2)
            - torch.add(a, x, alpha=-1.5)
        )
        / 4
    ),
    # gradients of the user's own
    "straight_through": lambda a, h, x: _StraightThrough.apply(a) + a,
    "rounded": lambda a, h, x: a + (a.round() - a).detach(),
    "clipped_gradient": lambda a, h, x: _clipped_gradient(a),
    "without_gradient": lambda a, h, x: a + _without_gradient(a),
    "data": lambda a, h, x: a + 2 * a.data,
    "overwritten": lambda a, h, x: _overwritten(a),
    "changes_a_copy": lambda a, h, x: a + h.clone().mul_(2),
    "differentiated": lambda a, h, x: h - 0.1 * torch.func.grad(lambda q: (q**3).sum())(h) + x,
    "differentiated_if_it_can_be": lambda a, h, x: _differentiated(h) + x,
    # for which the engine has no rule
    "scan_inside": lambda a, h, x: ostinato.scan(_add, h, torch.stack([x, a]))[0],
    "stack": lambda a, h, x: torch.stack([h, x])[1] * 0.5 + h,
    "stack_mean": lambda a, h, x: torch.stack([h, a]).mean(0),
    "stack_unbind": lambda a, h, x: sum(torch.stack([h, a]).unbind(0)) / 2,
    "new_axis": lambda a, h, x: torch.tanh(h[None][0] + x),
    "new_axis_cat": lambda a, h, x: torch.tanh(torch.cat([h[None], x[None]]).sum(0)),
    "new_full": lambda a, h, x: h.new_full((), 0.5) * h + x,
    "written_into": lambda a, h, x: h / 2 + x + torch.tanh(a.detach(), out=torch.empty_like(a)),
    # other dtypes inside
    "float_inside": lambda a, h, x: (a.float() * 2).to(a.dtype),
    "made_of_numbers": lambda a, h, x: (
        a[:, :3] * torch.tensor([1.0, 2.0, 3.0], dtype=a.dtype) + torch.tensor(2.0)
    ).repeat(1, 3)[:, : a.shape[1]],
}
# One each, over more than the range where they bend.
_ACTIVATIONS: list[Callable[[Tensor], Tensor]] = [
    F.elu, F.selu, F.celu, F.mish, F.relu6, F.softshrink, F.hardshrink, F.hardswish, F.hardsigmoid,
    F.hardtanh, F.tanhshrink, F.softplus, F.softsign, F.logsigmoid, F.gelu, F.silu, F.leaky_relu,
    torch.sigmoid, torch.erf, torch.exp, torch.exp2, torch.expm1, torch.sin, torch.cos, torch.atan,
    torch.sign, torch.square, torch.abs, torch.reciprocal,
]  # fmt: skip
_OF_POSITIVE: list[Callable[[Tensor], Tensor]] = [torch.rsqrt, torch.log1p, torch.log, torch.sqrt]
_FORMULAS |= {
    f"activation_{f.__name__}": lambda a, h, x, f=f: (a, f(torch.cat([3 * x, 5 * a, x * x], 1)))
    for f in _ACTIVATIONS
}
_FORMULAS |= {
    f"activation_{f.__name__}": lambda a, h, x, f=f: (a, f(torch.cat([a * a, x.exp()], 1) + 0.01))
    for f in _OF_POSITIVE
}
_FORMULAS |= {
    f"power_{p}": lambda a, h, x, p=p: (torch.tanh(a.abs() ** p + x), (a * a + 0.1) ** p)
    for p in (0, 1, 2, 3, 0.5, 1.5, -1, -0.5, -2, 1.0, 2.0)
}
_FORMULAS |= {
    f"clamp_{low}_{high}": lambda a, h, x, c=(low, high): (a.clamp(*c), (3 * x).clamp(*c))
    for low, high in ((None, 0.5), (-0.5, None), (-0.25, 0.5), (0.0, None), (None, 0), (0, 6))
}
WILD: dict[str, Callable[[Kit], Case]] = {
    "heads": heads,
    **{name: _step(name, formula) for name, formula in _FORMULAS.items()},
}
