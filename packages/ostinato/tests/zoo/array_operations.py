"""Operations on the small matrices and images of each row, one expression each.

`MATRICES[name]` is a function of A `[B, N, N]`, positive definite, and of h `[B, N]`; `IMAGES` are
functions of h `[B, 2, 4, 4]`, and the parameters are made by the kit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.steps import Case, Kit

Expression = Callable[[Tensor, Tensor], Tensor]


def _both_triangles(A: Tensor, h: Tensor) -> Tensor:
    L = torch.linalg.cholesky(A)
    lower = torch.linalg.solve_triangular(L, h[..., None], upper=False)
    upper = torch.linalg.solve_triangular(L.mT, h[:, None], upper=True, left=False)
    return lower[..., 0] + upper[:, 0]


def _through_cholesky(A: Tensor, h: Tensor) -> Tensor:
    return torch.cholesky_solve(h[..., None], torch.linalg.cholesky(A))[..., 0]


def _lower_triangle(A: Tensor, h: Tensor) -> Tensor:
    """Of a matrix whose triangles differ: the lower one is read, and both have a gradient."""
    L = torch.linalg.cholesky(A * (1 + 0.1 * torch.tanh(h))[:, None])
    return (L @ h[..., None])[..., 0]


def _skewed(A: Tensor) -> Tensor:
    return A + 0.5 * torch.triu(A, 1)


# name → the expression, and the sizes N to try: each has code of its own, or straddles one that has
MATRICES: dict[str, tuple[Expression, tuple[int, ...]]] = {
    "linalg.inv": (lambda A, h: (torch.linalg.inv(A) @ h[..., None])[..., 0], (1, 2, 3, 4, 5)),
    "linalg.solve": (
        lambda A, h: torch.linalg.solve(A, h) + torch.linalg.solve(A.mT, A, left=False).sum(-1),
        (1, 2, 3, 4),
    ),
    "linalg.solve, of no symmetry": (
        lambda A, h: (
            torch.linalg.solve(_skewed(A), h)
            + torch.linalg.solve(_skewed(A).mT, h)
            + torch.linalg.solve(_skewed(A), A, left=False).sum(-1)
            + torch.linalg.solve(_skewed(A).mT, A, left=False).sum(-1)
        ),
        (1, 2, 3, 4),
    ),
    "linalg.det, logdet, slogdet": (
        lambda A, h: h * (0.1 * A.det() + A.logdet() - torch.linalg.slogdet(A)[1])[:, None],
        (1, 2, 3, 4),
    ),
    "linalg.cholesky": (_lower_triangle, (1, 2, 4)),
    "cholesky_solve": (_through_cholesky, (3,)),
    "linalg.solve_triangular": (_both_triangles, (1, 3)),
    "linalg.cross": (lambda A, h: torch.linalg.cross(A[:, 0], h), (3,)),
    "cdist": (lambda A, h: torch.cdist(A, 2 * h[:, None] + A).mean(-1), (4,)),
}


def matrix_case(kit: Kit, f: Expression, N: int) -> Case:
    U, W = kit.weight(3, N * N), kit.weight(N, N)

    def step(h: Tensor, x: Tensor) -> Tensor:
        root = (x @ U).view(-1, N, N)
        A = root @ root.mT + torch.eye(N, dtype=h.dtype)
        return torch.tanh(f(A, h @ W) + x[:, :1])

    return Case(step, [U, W], lambda B: kit.normal(B, N) * 0.5, lambda B: kit.normal(B, 3))


def _adaptive(h: Tensor, w: Tensor) -> Tensor:
    return h * F.adaptive_max_pool2d(h, 1) + h * F.adaptive_avg_pool2d(h, 1)


def _shuffled(h: Tensor, w: Tensor) -> Tensor:
    return F.pixel_shuffle(F.pixel_unshuffle(h, 2) * w.view(-1)[:8, None, None], 2)


# functions of h and of a parameter w [2, 2, 2, 2]
IMAGES: dict[str, Expression] = {
    "max_pool1d": lambda h, w: F.max_pool1d(h.flatten(2), 3, stride=1, padding=1).view(h.shape),
    "max_pool3d": lambda h, w: F.max_pool3d(
        h[:, None].repeat(1, 1, 2, 1, 1), (2, 1, 1), 1, dilation=(2, 1, 1)
    ).view(h.shape),
    "max_pool2d": lambda h, w: F.interpolate(F.max_pool2d(h, 2), scale_factor=2),
    "max_pool2d(stride, padding, dilation)": lambda h, w: (
        F.max_pool2d(h, 3, stride=1, padding=1)
        + F.max_pool2d(F.pad(h, (1, 1, 1, 1)), 2, stride=1, dilation=2)
    ),
    "adaptive_max_pool2d, adaptive_avg_pool2d": _adaptive,
    "interpolate(bilinear)": lambda h, w: (
        F.interpolate(F.avg_pool2d(h, 2), scale_factor=2, mode="bilinear")
        + F.interpolate(h, size=(4, 4), mode="bilinear", align_corners=True)
    ),
    "conv_transpose1d": lambda h, w: F.conv_transpose1d(
        h.flatten(2)[..., ::2], w[..., 0], w[0, 0, 0], stride=2
    ).view(h.shape),
    "conv_transpose2d": lambda h, w: (
        F.conv_transpose2d(F.conv2d(h, w, stride=2), w, stride=2)
        + F.conv_transpose2d(h, w, padding=1, dilation=2)
    ),
    "pixel_shuffle, pixel_unshuffle": _shuffled,
}


def image_case(kit: Kit, f: Expression) -> Case:
    w, conv = kit.weight(2, 2, 2, 2), kit.module(nn.Conv2d, 3, 2, 3, padding=1)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(f(conv(torch.cat([x, h], 1)), w) + 0.5 * h)

    return Case(
        step,
        [w, *conv.parameters()],
        lambda B: kit.normal(B, 2, 4, 4) * 0.5,
        lambda B: kit.normal(B, 1, 4, 4),
    )
