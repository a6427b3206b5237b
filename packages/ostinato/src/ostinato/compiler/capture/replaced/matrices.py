"""Linear algebra of the small matrices of each row: `[…, N, N]`, N up to `LARGEST`.

A single matrix `[N, N]` is captured, and PyTorch solves it once a scan. Values are not checked: the
inverse of a singular matrix is infinite, where PyTorch raises an error.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ostinato.compiler.capture.replaced.elementwise import named
from ostinato.compiler.capture.wrapped import is_wrapped

LARGEST = 8  # N at most: the number of operations grows with N²
LARGEST_DETERMINANT = 4  # N at most: by minors


def _of_rows(A: Tensor, largest: int = LARGEST) -> bool:
    has_rows = A.dim() > 2 or (A.dim() == 2 and is_wrapped(A))  # vmap hides the axis of the rows
    return has_rows and A.shape[-1] == A.shape[-2] <= largest and A.is_floating_point()


# ---- below autograd, which has formulas for the gradients


def inverse(A: Tensor) -> Tensor:
    """Up to 3 × 3 by cofactors, which lose no more digits than the condition number says."""
    N = A.shape[-1]
    if N == 1:
        return 1 / A
    if N > 3:
        return _eliminated(A)
    if N == 2:
        cofactors = A.flip(-1, -2) * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=A.dtype)
    else:
        a, b, c = A.unbind(-2)
        cofactors = torch.stack([cross(b, c), cross(c, a), cross(a, b)], -2)
    determinant = (A[..., 0, :] * cofactors[..., 0, :]).sum(-1)
    return cofactors.transpose(-1, -2) / determinant[..., None, None]


@named("linalg_cross")
def cross(a: Tensor, b: Tensor, *, dim: int = -1) -> Tensor:
    """a × b = (a₁b₂ − a₂b₁, …)."""
    return a.roll(-1, dim) * b.roll(-2, dim) - a.roll(-2, dim) * b.roll(-1, dim)


def _eliminated(A: Tensor) -> Tensor:
    """Gauss-Jordan: [A, 1] becomes [1, A⁻¹]; the pivot is the largest element of each column.

    Finished rows come first; the row of the pivot is exchanged with the first of the others.
    """
    N = A.shape[-1]
    M = torch.cat([A, torch.eye(N, dtype=A.dtype).expand(A.shape)], -1)
    for k in range(N):
        rest = M[..., k:, :]
        place = rest[..., k].abs().argmax(-1, keepdim=True)
        here = (torch.arange(N - k) == place).unsqueeze(-1)
        largest = torch.where(here, rest, 0).sum(-2, keepdim=True)
        row = largest / largest[..., k : k + 1]
        others = [M[..., :k, :]] if k else []
        if k < N - 1:
            others.append(torch.where(here[..., 1:, :], rest[..., :1, :], rest[..., 1:, :]))
        others = [part - part[..., k : k + 1] * row for part in others]
        M = torch.cat([*others[: k > 0], row, *others[k > 0 :]], -2)
    return M[..., N:]


def _nothing(A: Tensor) -> tuple[Tensor, Tensor]:
    """Pivots `[…, 0]`, which mark factors for `_lu_solve`, and 0: no matrix was singular."""
    shape = A.shape[:-2]
    return A.new_zeros((*shape, 0), dtype=torch.int32), A.new_zeros(shape, dtype=torch.int32)


@named("linalg_inv_ex")
def _inv(A: Tensor, check_errors: bool = False) -> Any:
    return (inverse(A), _nothing(A)[1]) if _of_rows(A) else NotImplemented


@named("_linalg_solve_ex")
def _solve(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    """A⁻¹ B. Autograd gets A⁻¹ in place of the factors of A; `_lu_solve` expects it."""
    if _of_rows(A):
        inv = inverse(A)
    elif A.dim() == 2 and B.dim() > 2:
        inv = torch.linalg.inv_ex(A)[0]
    else:
        return NotImplemented
    vector = B.dim() == A.dim() - 1
    right = B.unsqueeze(-1) if vector else B
    X = inv @ right if left else right @ inv
    return X.squeeze(-1) if vector else X, inv, *_nothing(A)


@named("linalg_lu_solve")
def _lu_solve(
    inv: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False
) -> Any:
    """A⁻ᵀ B: the gradient of `_solve`, whether autograd takes the factors to be of A or of Aᵀ."""
    if pivots.shape[-1]:  # factors that PyTorch made
        return NotImplemented
    inv = inv.transpose(-1, -2)
    return inv @ B if left else B @ inv


# ---- above autograd, which differentiates these formulas


def determinant(A: Tensor) -> Any:
    """By minors of two rows."""
    N = A.shape[-1]
    if not _of_rows(A, LARGEST_DETERMINANT):
        return NotImplemented
    if N == 1:
        return A[..., 0, 0]
    if N == 2:
        return A[..., 0, 0] * A[..., 1, 1] - A[..., 0, 1] * A[..., 1, 0]
    if N == 3:
        return (A[..., 0, :] * cross(A[..., 1, :], A[..., 2, :])).sum(-1)
    pairs, others = [0, 0, 0, 1, 1, 2], [1, 2, 3, 2, 3, 3]
    a, b, c, d = A.unbind(-2)
    upper = a[..., pairs] * b[..., others] - a[..., others] * b[..., pairs]
    lower = c[..., pairs] * d[..., others] - c[..., others] * d[..., pairs]
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0], dtype=A.dtype)
    return (upper * lower.flip(-1) * signs).sum(-1)


def logdet(A: Tensor) -> Any:
    """log det A; NotImplemented as for `determinant`."""
    found = determinant(A)
    return found if found is NotImplemented else found.log()


def slogdet(A: Tensor) -> Any:
    """The sign of det A and log |det A|; NotImplemented as for `determinant`."""
    found = determinant(A)
    if found is NotImplemented:
        return found
    both = found.sign(), found.abs().log()
    return torch.return_types.linalg_slogdet(both)  # type: ignore[attr-defined]


def cholesky(A: Tensor, *, upper: bool = False) -> Any:
    """A = L Lᵀ, column by column: Golub and Van Loan, section 4.2.

    The lower triangle is read. PyTorch shares the gradient of an element between the two that are
    equal in a symmetric A; so does the second term, which is 0.
    """
    if not _of_rows(A):
        return NotImplemented
    half = 0.5 * (A.transpose(-1, -2) - A)
    A = A + (half - half.detach())
    columns: list[Tensor] = []  # each from the diagonal on
    for j in range(A.shape[-1]):
        column = A[..., j:, j]
        for k, before in enumerate(columns):
            column = column - before[..., j - k :] * before[..., j - k : j - k + 1]
        columns.append(column / column[..., :1].sqrt())
    L = torch.stack([torch.nn.functional.pad(c, (j, 0)) for j, c in enumerate(columns)], -1)
    return L.transpose(-1, -2) if upper else L


def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Any:
    """A⁻¹ B by substitution, row by row; without `left`, B A⁻¹."""
    if not _of_rows(A) or B.dim() != A.dim():
        return NotImplemented
    if not left:
        turned = solve_triangular(
            A.transpose(-1, -2), B.transpose(-1, -2), upper=not upper, unitriangular=unitriangular
        )
        return turned.transpose(-1, -2)
    N = A.shape[-1]
    solved: dict[int, Tensor] = {}
    for i in reversed(range(N)) if upper else range(N):
        row = B[..., i, :]
        for k, x in solved.items():
            row = row - A[..., i, k : k + 1] * x
        solved[i] = row if unitriangular else row / A[..., i, i : i + 1]
    return torch.stack([solved[i] for i in range(N)], -2)


def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Any:
    """(L Lᵀ)⁻¹ B."""
    if not _of_rows(L) or B.dim() != L.dim():
        return NotImplemented
    L = L.transpose(-1, -2) if upper else L
    half = solve_triangular(L, B, upper=False)
    return solve_triangular(L.transpose(-1, -2), half, upper=True)


FUNCTIONS: dict[Any, Any] = {
    torch.cholesky_solve: cholesky_solve,
    Tensor.cholesky_solve: cholesky_solve,
    torch.det: determinant,
    torch.linalg.cholesky: cholesky,
    torch.linalg.det: determinant,
    torch.linalg.slogdet: slogdet,
    torch.linalg.solve_triangular: solve_triangular,
    torch.logdet: logdet,
    torch.slogdet: slogdet,
    Tensor.det: determinant,
    Tensor.logdet: logdet,
    Tensor.slogdet: slogdet,
}
