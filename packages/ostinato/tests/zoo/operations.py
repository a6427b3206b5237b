"""Operations of ordinary steps, one expression each: what docs/semantics.md says the engine plays.

`OPERATIONS[group][name]` is a function of z `[B, 6]`, which needs gradients, and of the carry
h `[B, 6]`; `LOSSES` are functions of a prediction and a target, both `[B, 5]`; `PARAMETRIC` have
parameters of their own; `WHOLE` are steps that read whole numbers. `cases()` has all of them as
cases of the zoo.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.array_operations import IMAGES, MATRICES, image_case, matrix_case
from zoo.steps import Case, Kit
from zoo.suites import TORCH

H, FEATURES, WORDS = 6, 5, 11
Expression = Callable[[Tensor, Tensor], Tensor]

COLUMNS = torch.tensor([3, 1, 0, 5, 2, 4])
CHOSEN = torch.tensor([True, False, True, True, False, False])
EDGES = torch.tensor([0, 2, 2, 1])
CLASS_WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 0.5, 2.0])
NUMBERS = np.arange(6) * 0.5
OPEN = torch.tensor([[True, False, True], [False, False, False], [True, True, False]])


def _attention(z: Tensor, h: Tensor, mask: Tensor | None = None) -> Tensor:
    """Of 3 elements to 3; with the mask, of one to none."""
    q, k = z.view(-1, 3, 2), h.view(-1, 3, 2)
    return F.scaled_dot_product_attention(q, k, q * k, attn_mask=mask)


def _of_shared_heads(z: Tensor, h: Tensor) -> Tensor:
    """Two heads of a query to one of keys."""
    heads = z.view(-1, 2, 3, 1), *[t[:, :3].view(-1, 1, 3, 1) for t in (h, z)]
    return F.scaled_dot_product_attention(*heads, enable_gqa=True).movedim(1, -1).flatten(-2)


def _halves_exchanged(z: Tensor, h: Tensor) -> Tensor:
    out = torch.zeros_like(z)
    out[:, :3] = z[:, 3:]
    out[:, 3:] = h[:, :3]
    return out


def _changed_in_place(z: Tensor, h: Tensor) -> Tensor:
    out = h.clone()
    out[:, 0] = z[:, 1]
    out[:, 2:4] += 1
    out[:, 4].mul_(z[:, 0])
    out[..., 5] = 0.25
    return out


def _filled_one_by_one(z: Tensor, h: Tensor) -> Tensor:
    out = torch.empty_like(z)
    out[:, 0] = z[:, 0]
    for i in range(1, H):
        out[:, i] = out[:, i - 1] * 0.5 + z[:, i]
    return out


def _every_second_set(z: Tensor, h: Tensor) -> Tensor:
    out = h.clone()
    out[:, ::2] = z[:, 1::2]
    return out


def _listed_columns_set(z: Tensor, h: Tensor) -> Tensor:
    out = h.clone()
    out[:, [0, 2]] = z[:, [1, 3]]
    return out


def _numbers_set(z: Tensor, h: Tensor) -> Tensor:
    out = torch.tanh(z + h).clone()
    out[:, [0, 2]] = torch.tensor([0.5, 2.0], dtype=z.dtype)
    return torch.cat([out[:, 1:], torch.tensor([3.0], dtype=z.dtype).expand(len(z), 1)], 1)


def _masked_set(z: Tensor, h: Tensor) -> Tensor:
    out = z.clone()
    out[out > 0.5] = 0.0
    return out


def _standardised(z: Tensor, h: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(z, -1, keepdim=True)
    return (z - mean) / (deviation + 0.1)


def _straight_through(z: Tensor, h: Tensor) -> Tensor:
    soft = z.softmax(-1)
    hard = F.one_hot(soft.argmax(-1), H).to(soft.dtype)
    return hard - soft.detach() + soft


OPERATIONS: dict[str, dict[str, Expression]] = {
    "activations": {
        "celu": lambda z, h: F.celu(z, 1.3),
        "glu": lambda z, h: torch.cat([F.glu(z, -1)] * 2, -1),
        "hardshrink": lambda z, h: F.hardshrink(z, 0.2),
        "hardsigmoid": lambda z, h: F.hardsigmoid(4 * z),
        "hardswish": lambda z, h: F.hardswish(3 * z),
        "mish": lambda z, h: F.mish(z),
        "selu": lambda z, h: F.selu(z),
        "softshrink": lambda z, h: F.softshrink(z, 0.2),
        "softsign": lambda z, h: F.softsign(z),
        "tanhshrink": lambda z, h: F.tanhshrink(z),
        "threshold": lambda z, h: F.threshold(z, 0.1, -0.3),
    },
    "rounding and division": {
        "ceil": lambda z, h: z * (z * 3).ceil(),
        "div(rounding_mode)": lambda z, h: (
            z + torch.div(z, h.exp(), rounding_mode="floor")
            + torch.div(z, 0.3, rounding_mode="trunc")),
        "floor": lambda z, h: z * (z * 3).floor(),
        "fmod": lambda z, h: torch.fmod(z, 0.7) + torch.fmod(z, h.exp()),
        "frac": lambda z, h: (z * 3).frac(),
        "remainder, %": lambda z, h: z % 0.7 + torch.remainder(z, h.exp()),
        "round": lambda z, h: z * (z * 3).round() + torch.round(z, decimals=1),
        "trunc": lambda z, h: z * (z * 3).trunc(),
    },
    "functions": {
        "acos, asin": lambda z, h: (z * 0.5).tanh().asin() + (h * 0.5).tanh().acos(),
        "acosh, asinh, atanh": lambda z, h: (
            (z.abs() + 1.1).acosh() + h.asinh() + (z.tanh() * 0.9).atanh()),
        "atan, atan2": lambda z, h: torch.atan(z) + torch.atan2(z, h),
        "copysign, signbit": lambda z, h: torch.where(h.signbit(), z, torch.copysign(z, h)),
        "erfc": lambda z, h: torch.erfc(z),
        "special.erfcx, log_ndtr": lambda z, h: (
            torch.special.erfcx(z) + torch.special.log_ndtr(3 * h)),
        "fmax, fmin": lambda z, h: torch.fmax(z, h) + torch.fmin(z, 2 * h),
        "hypot": lambda z, h: torch.hypot(z, h),
        "isnan, isinf, isfinite": lambda z, h: torch.where(
            z.isnan() | z.isinf() | ~h.isfinite(), h, z),
        "log2, log10": lambda z, h: torch.log2(z.abs() + 1) + torch.log10(h.abs() + 1),
        "logaddexp, logaddexp2": lambda z, h: torch.logaddexp(z, h) + torch.logaddexp2(z, h),
        "logit": lambda z, h: torch.logit(z.sigmoid()) + torch.logit(h.sigmoid(), 1e-2),
        "nan_to_num": lambda z, h: torch.nan_to_num(z) + torch.nan_to_num(h, 0.0, 1.0, -1.0),
        "sinc": lambda z, h: torch.sinc(z),
        "sinh, cosh, tan": lambda z, h: z.sinh() + h.cosh() + torch.tan(z * 0.3),
        "xlogy": lambda z, h: torch.xlogy(z, h.exp()) + torch.xlogy(0.3, z.exp()),
    },
    "over the features": {
        "any, all": lambda z, h: torch.where(
            (z > 1).any(-1, keepdim=True) | (z > -1).all(-1, keepdim=True), h, z),
        "cosine_similarity": lambda z, h: z * F.cosine_similarity(z, h, dim=-1)[:, None],
        "cumprod": lambda z, h: z.cumprod(-1),
        "cumsum": lambda z, h: z.cumsum(-1),
        "logcumsumexp": lambda z, h: torch.logcumsumexp(z, -1),
        "logsumexp": lambda z, h: z - torch.logsumexp(z, -1, keepdim=True),
        "norm": lambda z, h: (
            z / z.norm(1, dim=-1, keepdim=True) + h / h.norm(math.inf, dim=-1, keepdim=True)
            + F.normalize(z, dim=-1)),
        "prod": lambda z, h: z * z.prod(-1, keepdim=True),
        "rms_norm": lambda z, h: F.rms_norm(z, (H,)),
        "aminmax": lambda z, h: z / torch.aminmax(
            z if TORCH >= (2, 13) else z.detach(), dim=-1, keepdim=True).max.exp(),
        "scaled_dot_product_attention": lambda z, h: (
            _attention(z, h) + _attention(h, z, OPEN) + _of_shared_heads(z, h)).flatten(1),
        "std_mean, var_mean": _standardised,
    },
    "moving columns": {
        "diff": lambda z, h: torch.cat([z[:, :1], z.diff(dim=-1)], -1),
        "flip": lambda z, h: z.flip(-1),
        "index_copy, index_add": lambda z, h: (
            z.index_copy(1, torch.tensor([4, 1]), h[:, :2]).index_add(1, EDGES, h[:, :4])),
        "index_select": lambda z, h: z.index_select(1, COLUMNS),
        "index_select, index_add along an axis of an array": lambda z, h: (
            torch.zeros_like(h.view(-1, 3, 2)).index_add(
                1, EDGES, z.view(-1, 3, 2)[:, EDGES.flip(0)]).flatten(1)),
        "pad": lambda z, h: (
            F.pad(z, (1, 0))[:, :H] + F.pad(h, (-1, 1), value=0.5)
            + F.pad(z[:, None], (1, 1), mode="circular")[:, 0, 2:]
            + F.pad(z[:, None], (1, 1), mode="replicate")[:, 0, :H]
            + F.pad(z[:, None], (2, 1), mode="reflect")[:, 0, :H]),
        "roll": lambda z, h: torch.roll(z, 1, -1) + h.roll(-2, dims=1),
        "x[:, ::2]": lambda z, h: torch.cat([z[:, ::2], z[:, 1::2]], -1),
        "x[:, rows, columns]": lambda z, h: (
            h * z.view(-1, 2, 3)[:, [0, 1, 1, 1, 0, 0], [1, 0, 0, 1, 2, 2]]),
        "x[:, columns]": lambda z, h: z[:, COLUMNS] + h[:, [3, 1, 0, 5, 2, 2]],
    },
    "changes of tensors that the step made": {
        "x[:, :3] = y": _halves_exchanged,
        "x[:, 2:4] += 1": _changed_in_place,
        "x[:, i] = … in a loop": _filled_one_by_one,
        "x[:, ::2] = y": _every_second_set,
        "x[:, [0, 2]] = y": _listed_columns_set,
        "x[:, [0, 2]] = torch.tensor([…])": _numbers_set,
        "x[mask] = 0.0": _masked_set,
        "F.relu(x, inplace=True)": lambda z, h: F.relu((z + h).clone(), inplace=True) + z,
    },
    "constants made in the step": {
        "torch.arange(n) * 0.5": lambda z, h: z * torch.arange(H) * 0.5,
        "torch.eye(n)": lambda z, h: z @ torch.eye(H, dtype=z.dtype) + z,
        "torch.from_numpy(a)": lambda z, h: z * torch.from_numpy(NUMBERS).to(z.dtype),
        "torch.linspace(0, 1, n)": lambda z, h: z * torch.linspace(0, 1, H, dtype=z.dtype),
        "torch.tensor([…])": lambda z, h: (
            z * torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0, 3.0], dtype=z.dtype)),
        "torch.where(captured mask, …)": lambda z, h: torch.where(CHOSEN, z, h),
        "torch.zeros_like(x)": lambda z, h: z + torch.zeros_like(z),
        "x.new_full(size, 0.5)": lambda z, h: z * z.new_full(z.shape, 0.5),
        "x @ torch.ones(n, n)": lambda z, h: z + h.detach() @ torch.ones(H, H, dtype=z.dtype),
        "x @ torch.zeros(n, n)": lambda z, h: (
            z * (h.detach() @ torch.zeros(H, H, dtype=z.dtype)).exp()),
    },
    "indices of each row": {
        "argsort, take_along_dim": lambda z, h: (
            torch.take_along_dim(z, h.argsort(-1), 1) + z.gather(1, h.argsort(-1).argsort(-1))),
        "argmax, argmin": lambda z, h: z + (z.argmax(-1) - h.argmin(-1))[:, None],
        "bucketize": lambda z, h: z + torch.bucketize(h, torch.linspace(-1, 1, 5)).to(z.dtype),
        "gather": lambda z, h: z + z.gather(1, h.argmax(-1, keepdim=True)),
        "max(dim), min(dim)": lambda z, h: (
            (z - z.max(-1, keepdim=True).values) * (1 + h.min(-1, keepdim=True).indices)),
        "one_hot": lambda z, h: z * F.one_hot(h.argmax(-1), H) + _straight_through(z, h),
        "scatter": lambda z, h: z * torch.zeros_like(z).scatter(1, z.topk(2, -1).indices, 1.0),
        "median, kthvalue": lambda z, h: (
            z - z.median(-1, keepdim=True).values + h.kthvalue(2, -1, keepdim=True).values),
        "sort": lambda z, h: z.sort(-1).values + h.sort(-1, descending=True).values,
        "topk": lambda z, h: torch.where(z >= z.topk(3, -1).values[:, -1:], z, 0.0),
        "x[torch.arange(B), i]": lambda z, h: z + z[torch.arange(len(z)), h.argmax(-1)][:, None],
        "x[torch.arange(B), i] of an array": lambda z, h: z + 2 * z.view(len(z), 2, -1)[
            torch.arange(len(z)), (h[:, 0] > 0).long()].repeat(1, 2),
    },
}  # fmt: skip

LOSSES: dict[str, Expression] = {
    "binary_cross_entropy": lambda p, x: F.binary_cross_entropy(
        p.sigmoid(), x.sigmoid(), reduction="none"
    ).mean(-1),
    "binary_cross_entropy_with_logits": lambda p, x: F.binary_cross_entropy_with_logits(
        p, x.sigmoid(), reduction="none", pos_weight=torch.full((FEATURES,), 2.0, dtype=p.dtype)
    ).mean(-1),
    "cross_entropy (classes)": lambda p, x: F.cross_entropy(
        p, x.argmax(-1), reduction="none", label_smoothing=0.1
    ),
    "cross_entropy (probabilities)": lambda p, x: F.cross_entropy(
        p, x.softmax(-1), reduction="none"
    ),
    "gaussian_nll_loss": lambda p, x: F.gaussian_nll_loss(
        p, x, x.exp(), full=True, reduction="none"
    ).mean(-1),
    "huber_loss": lambda p, x: F.huber_loss(p, x, reduction="none", delta=0.7).mean(-1),
    "kl_div": lambda p, x: F.kl_div(p.log_softmax(-1), x.softmax(-1), reduction="none").sum(-1),
    "l1_loss": lambda p, x: F.l1_loss(p, x, reduction="none").mean(-1),
    "mse_loss": lambda p, x: F.mse_loss(p, x, reduction="none").mean(-1),
    "nll_loss": lambda p, x: F.nll_loss(p.log_softmax(-1), x.argmax(-1), reduction="none"),
    "poisson_nll_loss": lambda p, x: F.poisson_nll_loss(p, x.abs(), reduction="none").mean(-1),
    "smooth_l1_loss": lambda p, x: F.smooth_l1_loss(p, x, reduction="none", beta=0.5).mean(-1),
    "soft_margin_loss": lambda p, x: F.soft_margin_loss(
        p, x.sign().detach(), reduction="none"
    ).mean(-1),
    "triplet_margin_loss": lambda p, x: F.triplet_margin_loss(p, x, 2 * x, reduction="none"),
}


def _weights_of(x: Tensor) -> Tensor:
    """Of each row, without a gradient; 0 in some, but not where a row is alone."""
    weights = x[:, 0].detach().abs()
    return torch.where(weights > 1.5, 0.0, weights)


# Outputs without a batch: sums and means over it, and what is linear in them.
TOTALS: dict[str, Expression] = {
    "binary_cross_entropy_with_logits": lambda p, x: F.binary_cross_entropy_with_logits(
        p, x.sigmoid()
    ),
    "cross_entropy (classes)": lambda p, x: F.cross_entropy(
        p, x.argmax(-1).masked_fill(x[:, 0] > 1.5, -100)
    ),
    "cross_entropy (classes, weight)": lambda p, x: F.cross_entropy(
        p, x.argmax(-1), weight=CLASS_WEIGHTS.to(p.dtype)
    ),
    "nll_loss": lambda p, x: F.nll_loss(p.log_softmax(-1), x.argmax(-1)),
    "(loss * weights).sum() / weights.sum()": lambda p, x: (
        ((p - x).square().sum(-1) * _weights_of(x)).sum() / _weights_of(x).sum()
    ),
    "cross_entropy(reduction='sum')": lambda p, x: F.cross_entropy(
        p, x.argmax(-1), reduction="sum", ignore_index=1
    ),
    "cross_entropy (probabilities)": lambda p, x: F.cross_entropy(p, x.softmax(-1)),
    "gaussian_nll_loss": lambda p, x: F.gaussian_nll_loss(p, x, x.exp()),
    "huber_loss": lambda p, x: F.huber_loss(p, x),
    "kl_div": lambda p, x: F.kl_div(p.log_softmax(-1), x.softmax(-1), reduction="batchmean"),
    "l1_loss": lambda p, x: F.l1_loss(p, x),
    "mse_loss": lambda p, x: 0.5 * F.mse_loss(p, x) + 0.1 * (p**2).mean(),
    "smooth_l1_loss": lambda p, x: F.smooth_l1_loss(p, x, reduction="sum"),
    "x.mean()": lambda p, x: -(p * x).mean() / 2,
    "x.mean(0)": lambda p, x: p.mean(0),
    "x.sum(0) / len(x)": lambda p, x: (p * x).sum(0) / x.shape[0] / len(x),
    "(x.mean(0) - a) * b": lambda p, x: (p.mean(0) - 2).neg() * 3 + 1,
    "x.sum(0) - y.sum(0)": lambda p, x: 0.5 * p.sum(0) - (p * x).sum(0) / 4,
    "x.sum() in other shapes": lambda p, x: p.sum().view(1).clone().squeeze(),
    "x.sum() / (x > 0).sum()": lambda p, x: p.sum() / (p.detach() > 0).to(p.dtype).sum(),
}


def _words(kit: Kit) -> Callable[[int], Tensor]:
    return lambda B: torch.randint(0, WORDS, (B,), generator=kit.random)


def _state(kit: Kit) -> Callable[[int], Tensor]:
    return lambda B: kit.normal(B, H) * 0.3


def expression(kit: Kit, f: Expression) -> Case:
    """tanh(f(z, h)) with z = x U + h W."""
    U, W = kit.weight(FEATURES, H), kit.weight(H, H)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(f(x @ U + h @ W, h))

    return Case(step, [U, W], _state(kit), lambda B: kit.normal(B, FEATURES))


def loss(kit: Kit, f: Expression) -> Case:
    """An RNN whose output is the loss of its prediction, for each row."""
    U, W, V = kit.weight(FEATURES, H), kit.weight(H, H), kit.weight(H, FEATURES)

    def step(h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(x @ U + h @ W)
        return h, f(h @ V, x)

    return Case(step, [U, W, V], _state(kit), lambda B: kit.normal(B, FEATURES))


def _reads_words(kit: Kit, f: Callable[..., Any]) -> Case:
    E, W = kit.weight(WORDS, H), kit.weight(H, H)
    return Case(lambda h, x: f(E, W, h, x), [E, W], _state(kit), _words(kit))


def _padded_embedding(kit: Kit) -> Case:
    embedding, W = nn.Embedding(WORDS, H, padding_idx=0, dtype=kit.dtype), kit.weight(H, H)
    embedding.weight.data = kit.normal(WORDS, H)
    return Case(
        lambda h, x: torch.tanh(embedding(x) + h @ W),
        [embedding.weight, W],
        _state(kit),
        _words(kit),
    )


def _counter(kit: Kit) -> Case:
    E, W = kit.weight(WORDS, H), kit.weight(H, H)

    def step(carry: Any, x: Tensor) -> Any:
        h, n, seen = carry
        h = torch.where(seen[:, None], h, torch.tanh(E[x] + h @ W))
        return (h, n + 1, seen | (x == 3)), (h / (n + 1)[:, None], n % 3)

    def init(B: int) -> Any:
        return kit.normal(B, H), torch.zeros(B, dtype=torch.int64), torch.zeros(B) > 0

    return Case(step, [E, W], init, _words(kit))


def _flags(kit: Kit) -> Case:
    """One of each unit, and one of each row."""
    W = kit.weight(H, H)

    def step(carry: Any, x: Tensor) -> Any:
        h, each, all_ = carry
        h = torch.where(each & all_, torch.tanh(h @ W + x), h)
        return (h, (x > 0) & each, all_ | (x[:, :1] > 1)), (h, each, all_)

    def init(B: int) -> Any:
        return kit.normal(B, H), kit.normal(B, H) > 0, kit.normal(B, 1) > 0

    return Case(step, [W], init, lambda B: kit.normal(B, H))


def _feedback(kit: Kit) -> Case:
    """The word that the output finds most likely is the next input."""
    E, W, U = kit.weight(WORDS, H), kit.weight(H, H), kit.weight(FEATURES, H)

    def step(carry: Any, x: Tensor) -> Any:
        h, word = carry
        h = torch.tanh(E[word] + h @ W + x @ U)
        scores = h @ E.t()
        return (h, scores.argmax(-1)), scores

    def init(B: int) -> Any:
        return kit.normal(B, H), torch.zeros(B, dtype=torch.int64)

    return Case(step, [E, W, U], init, lambda B: kit.normal(B, FEATURES))


def _pairs(kit: Kit) -> Case:
    table, W = kit.weight(WORDS, WORDS), kit.weight(H, H)
    return Case(
        lambda h, x: torch.tanh(h @ W + table[x[:, 0], x[:, 1]][:, None]),
        [table, W],
        _state(kit),
        lambda B: torch.randint(0, WORDS, (B, 2), generator=kit.random),
    )


def _bags(kit: Kit) -> Case:
    table, W = kit.weight(WORDS, H), kit.weight(H, H)
    return Case(
        lambda h, x: torch.tanh(F.embedding_bag(x, table, mode="mean") + h @ W),
        [table, W],
        _state(kit),
        lambda B: torch.randint(0, WORDS, (B, 3), generator=kit.random),
    )


def _truths(kit: Kit) -> Case:
    W = kit.weight(H, H)
    return Case(
        lambda h, x: torch.where(x[:, None], torch.tanh(h @ W), h),
        [W],
        _state(kit),
        lambda B: torch.rand(B, generator=kit.random) > 0.5,
    )


def _only_whole(kit: Kit) -> Case:
    return Case(
        lambda n, x: (n + x // 2 - x % 3, n * 2), [], lambda B: torch.arange(B), _words(kit)
    )


WHOLE: dict[str, Callable[[Kit], Case]] = {
    "F.embedding(x, W)": lambda kit: _reads_words(
        kit, lambda E, W, h, x: torch.tanh(F.embedding(x, E) + h @ W)
    ),
    "nn.Embedding(padding_idx=0)": _padded_embedding,
    "W[x]": lambda kit: _reads_words(kit, lambda E, W, h, x: torch.tanh(E[x] + E[x - 1] + h @ W)),
    "W[:, x]": lambda kit: _reads_words(
        kit, lambda E, W, h, x: torch.tanh(E.t()[:, x].t() + h @ W)
    ),
    "W[x, y]": _pairs,
    "one_hot(x) @ W": lambda kit: _reads_words(
        kit, lambda E, W, h, x: torch.tanh(F.one_hot(x, WORDS).to(h.dtype) @ E + h @ W)
    ),
    "EmbeddingBag": lambda kit: _bags(kit),
    "cross_entropy(scores, x)": lambda kit: _reads_words(
        kit,
        lambda E, W, h, x: (
            torch.tanh(h @ W),
            F.cross_entropy(h @ E.t(), x, reduction="none", ignore_index=2),
        ),
    ),
    "whole numbers as features": lambda kit: _reads_words(
        kit, lambda E, W, h, x: torch.tanh(h @ W + x.to(h.dtype)[:, None] * 0.1 + E[x])
    ),
    "counters and flags in the carry": _counter,
    "flags of units in the carry": _flags,
    "words that are fed back": _feedback,
    "bool xs": _truths,
    "nothing but whole numbers": _only_whole,
}


def _with(kit: Kit, parameters: list[Tensor], f: Expression) -> Case:
    """As `expression`, with parameters of its own."""
    case = expression(kit, f)
    return Case(case.step, [*case.parameters, *parameters], case.init, case.x)


def _prelu(kit: Kit) -> Case:
    of_all, of_each = kit.weight(1), kit.weight(H)
    return _with(kit, [of_all, of_each], lambda z, h: F.prelu(z, of_all) + F.prelu(h, of_each))


def _batch_norm(kit: Kit) -> Case:
    norm = nn.BatchNorm1d(H, dtype=kit.dtype).eval()
    norm.weight.data, norm.bias.data = kit.normal(H), kit.normal(H)
    norm.running_mean, norm.running_var = kit.normal(H), kit.normal(H).exp()
    return _with(kit, [norm.weight, norm.bias], lambda z, h: norm(z))


def _linear_algebra(kit: Kit) -> Case:
    A = kit.weight(H, H)

    def f(z: Tensor, h: Tensor) -> Tensor:
        eye = torch.eye(H, dtype=z.dtype)
        z = z @ torch.linalg.inv(A + 3 * eye) + h @ torch.linalg.solve(A + 3 * eye, A)
        return z @ torch.matrix_exp(A - A.t()) + h @ torch.linalg.cholesky(A @ A.t() + eye)

    return _with(kit, [A], f)


def _of_weights(kit: Kit) -> Case:
    A = kit.weight(H, H)

    def f(z: Tensor, h: Tensor) -> Tensor:
        z = z @ torch.tril(A) + h @ A.triu(1) + z @ A.softmax(-1)
        return z @ torch.block_diag(A[:3, :3], A[3:, 3:]) + z @ torch.diag(A[0]) + z * A.det()

    return _with(kit, [A], f)


PARAMETRIC: dict[str, Callable[[Kit], Case]] = {
    "prelu": _prelu,
    "batch_norm in eval mode": _batch_norm,
    "linalg.inv, solve, cholesky, matrix_exp of captured tensors": _linear_algebra,
    "tril, softmax, block_diag, det, … of captured tensors": _of_weights,
}


# What plays the loop, and what may be written instead. Functions of z and h, as above.
FOR_THE_LOOP: dict[str, tuple[Expression, str]] = {
    "multinomial, poisson, randperm": (
        lambda z, h: z + torch.poisson(z.exp()),
        "draw before, pass through `xs`",
    ),
    "x - x.mean(0), BatchNorm while training": (
        lambda z, h: z - z.mean(0),
        "compute each row independently of the others",
    ),
    "x[mask], torch.nonzero": (lambda z, h: z + z[z > 0].sum(), "`torch.where(mask, x, 0)`"),
    "x.item(), x.tolist()": (lambda z, h: z * z.sum().item(), "tensors"),
    "F.one_hot(i) without num_classes": (
        lambda z, h: z + F.one_hot((h > 0).long()).sum(-1),
        "`F.one_hot(i, n)`",
    ),
    "i & j of whole numbers": (
        lambda z, h: z + (h.argmax(-1, keepdim=True) & 1),
        "`i % 2`, `i // 2`",
    ),
    "linear algebra and Fourier transforms of complex rows": (
        lambda z, h: torch.fft.rfft(z).abs().sum(-1, keepdim=True) * h,
        "a product with the matrix of the transform",
    ),
    "lgamma, digamma, erfinv, cummax": (lambda z, h: torch.lgamma(z.exp()), "—"),
}


def table() -> str:
    """What plays, and what does not, for docs/semantics.md."""
    groups: dict[str, list[str]] = {}
    for group, name, _ in cases():
        names = groups.setdefault(group, [])
        if name not in names:  # one of several sizes
            names.append(name)
    lines = ["| group | native |", "|---|---|"]
    for group, names in groups.items():
        lines.append(f"| {group} | {', '.join(f'`{name}`' for name in names)} |")
    lines += ["", "| runs in the Python loop | write instead |", "|---|---|"]
    lines += [f"| `{name}` | {instead} |" for name, (_, instead) in FOR_THE_LOOP.items()]
    return "\n".join(lines)


def cases(dtype: torch.dtype = torch.float64) -> Iterator[tuple[str, str, Callable[[], Case]]]:
    """(group, name, maker of the case)."""
    for group, expressions in OPERATIONS.items():
        for name, f in expressions.items():
            yield group, name, lambda f=f: expression(Kit(dtype), f)
    for name, f in LOSSES.items():
        yield "losses of each row", name, lambda f=f: loss(Kit(dtype), f)
    for name, (f, sizes) in MATRICES.items():
        for N in sizes:
            yield (
                "small matrices of each row",
                name,
                lambda f=f, N=N: matrix_case(Kit(dtype), f, N),
            )
    for name, f in IMAGES.items():
        yield "small images", name, lambda f=f: image_case(Kit(dtype), f)
    for name, make in PARAMETRIC.items():
        yield "with parameters", name, lambda make=make: make(Kit(dtype))
    for name, make in WHOLE.items():
        yield "whole numbers and truth values", name, lambda make=make: make(Kit(dtype))
