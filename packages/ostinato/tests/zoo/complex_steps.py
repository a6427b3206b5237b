"""Steps of complex numbers, as their authors write them, and one of each operation on them.

`COMPLEX[name](Kit(dtype))` makes a `Case`; `EXPRESSIONS` are functions of the carry h `[B, N]`,
complex, of u = x U, real, and of z = h W.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.steps import Case, Kit

IN, N = 5, 6
Expression = Callable[[Tensor, Tensor, Tensor], Tensor]
COMPLEX: dict[str, Callable[[Kit], Case]] = {}


def complex_step(make: Callable[[Kit], Case]) -> Callable[[Kit], Case]:
    COMPLEX[make.__name__] = make
    return make


def _normal(kit: Kit, *shape: int) -> Tensor:
    return torch.complex(kit.normal(*shape), kit.normal(*shape)) * 0.4


def _parameter(kit: Kit, *shape: int) -> nn.Parameter:
    return nn.Parameter(_normal(kit, *shape))


def _inputs(kit: Kit) -> Callable[[int], Tensor]:
    return lambda B: kit.normal(B, IN) * 0.7


@complex_step
def lru(kit: Kit) -> Case:
    """The linear recurrent unit: Orvieto et al. 2023, arXiv:2303.06349; with 1j."""
    nu, theta, gamma, D = kit.weight(N), kit.weight(N), kit.weight(N), kit.weight(IN)
    B_re, B_im, C_re, C_im = (kit.weight(*s) for s in ((N, IN), (N, IN), (IN, N), (IN, N)))

    def step(h: Tensor, u: Tensor) -> Any:
        eigenvalues = torch.exp(-torch.exp(nu) + 1j * torch.exp(theta))
        B = (B_re + 1j * B_im) * torch.exp(gamma).unsqueeze(-1)
        h = eigenvalues * h + u.to(B.dtype) @ B.T
        return h, (h @ (C_re + 1j * C_im).T).real + D * u

    return Case(
        step,
        [nu, theta, gamma, D, B_re, B_im, C_re, C_im],
        lambda B: _normal(kit, B, N),
        _inputs(kit),
    )


@complex_step
def s4d(kit: Kit) -> Case:
    """Gu et al. 2022, arXiv:2206.11893; a complex parameter, one in real pairs, and einsum."""
    log_dt, B = kit.weight(IN), kit.weight(IN, 3)
    A, C = _parameter(kit, IN, 3), nn.Parameter(kit.normal(IN, 3, 2))

    def step(h: Tensor, u: Tensor) -> Any:
        dt_A = torch.exp(log_dt).unsqueeze(-1) * (A - 1)
        by = torch.exp(dt_A)
        h = torch.einsum("hn,bhn->bhn", by, h) + (by - 1.0) / (A - 1) * B * u[..., None]
        y = 2 * torch.einsum("hn,bhn->bh", torch.view_as_complex(C), h).real
        return h, F.gelu(y)

    return Case(step, [log_dt, B, A, C], lambda B: _normal(kit, B, IN, 3), _inputs(kit))


@complex_step
def unitary_rnn(kit: Kit) -> Case:
    """Arjovsky et al. 2016, arXiv:1511.06464: rotations and modReLU, on a carry of real pairs."""
    phase, V, b = kit.weight(N), kit.weight(IN, 2 * N), kit.weight(N)

    def step(pairs: Tensor, x: Tensor) -> Tensor:
        h = torch.view_as_complex(pairs) * torch.polar(torch.ones_like(phase), phase)
        h = h + torch.view_as_complex((x @ V).view(-1, N, 2))
        size = h.abs()
        return torch.view_as_real(h * (F.relu(size + b) / (size + 1e-5)))

    return Case(step, [phase, V, b], lambda B: kit.normal(B, N, 2), _inputs(kit))


@complex_step
def complex_and_real_leaves(kit: Kit) -> Case:
    """A dict of a complex and a real leaf, and a complex output beside a real one."""
    eigenvalues, B, C = _parameter(kit, N), _parameter(kit, IN, N), _parameter(kit, N, 3)

    def step(carry: Any, x: Tensor) -> Any:
        h = eigenvalues * carry["h"] + x.to(B.dtype) @ B
        return {"h": h, "sizes": 0.5 * carry["sizes"] + h.abs()}, (h, (h @ C).imag)

    return Case(
        step,
        [eigenvalues, B, C],
        lambda B: {"h": _normal(kit, B, N), "sizes": kit.normal(B, N)},
        _inputs(kit),
    )


@complex_step
def rotations_of_complex_inputs(kit: Kit) -> Case:
    W = _parameter(kit, N)
    return Case(
        lambda h, x: W * h + x.conj(),
        [W],
        lambda B: _normal(kit, B, N),
        lambda B: _normal(kit, B, N),
    )


EXPRESSIONS: dict[str, Expression] = {
    "div": lambda h, u, z: h / (z + 3) + u / (z - 2) + 1j / (h + 4) + z / (2 + 1j),
    "exp": lambda h, u, z: torch.exp(0.1 * z) - 1j * h + u,
    "conj": lambda h, u, z: h.conj() * z + z.conj() + (h.real + u) * 1j,
    "polar, angle": lambda h, u, z: torch.polar(z.abs(), h.angle() + u),
    "powers": lambda h, u, z: z**2 + (h + 4) ** -1 + (z + 3) ** 0.5 + u,
    "real, imag": lambda h, u, z: torch.complex(z.imag, h.real + u) + z.conj().imag,
    "stack, cat, flip": lambda h, u, z: (
        torch.stack([h, z], 1).sum(1) + torch.cat([h[:, :2], z[:, 2:]], 1) + u - h.flip(-1)
    ),
    "where, masked_fill": lambda h, u, z: (
        torch.where(h.abs() > 0.5, z, h) + z.masked_fill(u > 0, 0.5) + h.masked_fill(u < 0, 2j)
    ),
    "tanh": lambda h, u, z: torch.tanh(0.5 * z) + u,
    "sin, cos": lambda h, u, z: torch.sin(0.5 * z) + torch.cos(0.5 * h) + u,
    "sinh, cosh": lambda h, u, z: torch.sinh(0.3 * z) + torch.cosh(0.3 * h) + u,
    "log, sqrt": lambda h, u, z: torch.log(z + 4) + torch.sqrt(h + 4) + u,
    "sgn": lambda h, u, z: torch.sgn(z) + u,
    "products": lambda h, u, z: (
        torch.einsum("bi,bj->bij", h, z).sum(1) + (h[:, None] @ z[:, :, None])[:, 0] + u
    ),
    "in place": lambda h, u, z: (z * 1).mul_(h).add_(u),
    "through real pairs": lambda h, u, z: (
        torch.view_as_complex(torch.tanh(torch.view_as_real(z))) + 1j * u
    ),
}


def expression(kit: Kit, f: Expression) -> Case:
    W, U = _parameter(kit, N, N), kit.weight(IN, N)

    def step(h: Tensor, x: Tensor) -> Tensor:
        return 0.5 * f(h, x @ U, h @ W)

    return Case(step, [W, U], lambda B: _normal(kit, B, N), _inputs(kit))


for _name, _f in EXPRESSIONS.items():
    COMPLEX[_name] = lambda kit, f=_f: expression(kit, f)
