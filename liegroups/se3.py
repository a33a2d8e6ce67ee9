"""Rigid motions SE(3): 4x4 matrices and their twists.

Leading dimensions are free, float32 and float64 on any device. A twist xi is ordered translation
first, then rotation: xi = [rho, phi], so that exp(xi) = [[exp(phi), J_l(phi) rho], [0, 1]].
T_a_b takes b-coordinates to a: p_a = T_a_b p_b.
"""

from __future__ import annotations

import torch
from torch import Tensor

from liegroups import coefficients, so3
from liegroups.checks import check_batch, check_rotation, check_tensor
from liegroups.coefficients import Angle


def hat(xi: Tensor) -> Tensor:
    """Map twists (..., 6) to matrices (..., 4, 4) whose matrix exponential is `exp`."""
    check_tensor("xi", xi, 6)
    rho, phi = xi.split(3, -1)
    top = torch.cat([so3.hat(phi), rho.unsqueeze(-1)], -1)
    return torch.cat([top, torch.zeros_like(top[..., :1, :])], -2)


def vee(Xi: Tensor) -> Tensor:
    """Map matrices (..., 4, 4) to twists (..., 6): the inverse of `hat`."""
    check_tensor("Xi", Xi, 4, 4)
    return torch.cat([Xi[..., :3, 3], so3.vee(Xi[..., :3, :3])], -1)


def from_rt(R: Tensor, t: Tensor) -> Tensor:
    """Build motions (..., 4, 4) from rotations (..., 3, 3) and translations (..., 3)."""
    check_tensor("R", R, 3, 3)
    check_tensor("t", t, 3)
    batch = check_batch("t", t.shape[:-1], "R", R.shape[:-2])
    top = torch.cat([R.expand(*batch, 3, 3), t.expand(*batch, 3).unsqueeze(-1)], -1)
    bottom = torch.eye(4, dtype=top.dtype, device=top.device)[3:].expand(*batch, 1, 4)
    return torch.cat([top, bottom], -2)


def exp(xi: Tensor) -> Tensor:
    """Map twists (..., 6) to motions (..., 4, 4)."""
    check_tensor("xi", xi, 6)
    rho, phi = xi.split(3, -1)
    return from_rt(so3.exp(phi), _apply(so3.left_jacobian(phi), rho))


def log(T: Tensor, *, check: bool = True) -> Tensor:
    """Map motions (..., 4, 4) to twists (..., 6) with rotation angles 0 to pi.

    Args:
        T: (..., 4, 4) motions
        check: refuse what is not a motion; on a GPU that makes the host wait
    """
    check_tensor("T", T, 4, 4)
    if check:
        check_rotation("T[..., :3, :3]", T[..., :3, :3])
        _check_last_row(T)
    phi = so3.log(T[..., :3, :3], check=False)
    return torch.cat([_apply(so3.left_jacobian_inverse(phi), T[..., :3, 3]), phi], -1)


def inverse(T: Tensor) -> Tensor:
    """Invert motions (..., 4, 4) exactly, without solving: T_b_a from T_a_b."""
    check_tensor("T", T, 4, 4)
    R_inverse = T[..., :3, :3].mT
    return from_rt(R_inverse, -_apply(R_inverse, T[..., :3, 3]))


def transform(T_a_b: Tensor, points_b: Tensor) -> Tensor:
    """Take points from frame b to frame a.

    Args:
        T_a_b: (..., 4, 4) motions
        points_b: (..., N, 3) point sets, one for each motion; leading dimensions broadcast

    Returns:
        (..., N, 3) the same points in frame a
    """
    check_tensor("T_a_b", T_a_b, 4, 4)
    check_tensor("points_b", points_b, 3)
    if points_b.ndim < 2:
        raise ValueError(f"points_b: expected shape (..., N, 3), got {tuple(points_b.shape)}")
    check_batch("points_b", points_b.shape[:-2], "T_a_b", T_a_b.shape[:-2])
    return points_b @ T_a_b[..., :3, :3].mT + T_a_b[..., None, :3, 3]


def adjoint(T: Tensor) -> Tensor:
    """Return Ad (..., 6, 6) with exp(Ad xi) = T exp(xi) T^-1."""
    check_tensor("T", T, 4, 4)
    R = T[..., :3, :3]
    return _block_triangular(R, so3.hat(T[..., :3, 3]) @ R)


def left_jacobian(xi: Tensor) -> Tensor:
    """Return J_l (..., 6, 6) with exp(xi + d) = exp(J_l d) exp(xi) to first order in d."""
    check_tensor("xi", xi, 6)
    rho, phi = xi.split(3, -1)
    return _block_triangular(so3.left_jacobian(phi), _jacobian_coupling(rho, phi))


def left_jacobian_inverse(xi: Tensor) -> Tensor:
    """Return the inverse of J_l (..., 6, 6), for rotation angles below 2 pi."""
    check_tensor("xi", xi, 6)
    rho, phi = xi.split(3, -1)
    J_inverse = so3.left_jacobian_inverse(phi)
    return _block_triangular(J_inverse, -J_inverse @ _jacobian_coupling(rho, phi) @ J_inverse)


def _jacobian_coupling(rho: Tensor, phi: Tensor) -> Tensor:
    """Return the block Q (..., 3, 3) of J_l that a rotation adds to the translation.

    Barfoot, State Estimation for Robotics (2017), equation 7.86.
    """
    angle = Angle.of(phi)
    P, F = so3.hat(rho), so3.hat(phi)
    FP, PF = F @ P, P @ F
    FPF, FFP, PFF = FP @ F, F @ FP, PF @ F

    def scaled(coefficient: Tensor, matrix: Tensor) -> Tensor:
        return coefficient[..., None, None] * matrix

    return (
        P / 2
        + scaled(coefficients.sine_rest(angle), FP + PF + FPF)
        + scaled(coefficients.versine_rest(angle), FFP + PFF - 3 * FPF)
        + scaled(coefficients.fifth(angle), FPF @ F + F @ FPF)
    )


def _block_triangular(A: Tensor, B: Tensor) -> Tensor:
    """Return [[A, B], [0, A]] (..., 6, 6)."""
    return torch.cat([torch.cat([A, B], -1), torch.cat([torch.zeros_like(A), A], -1)], -2)


def _apply(A: Tensor, x: Tensor) -> Tensor:
    """Multiply matrices (..., n, m) with vectors (..., m)."""
    return (A @ x.unsqueeze(-1)).squeeze(-1)


def _check_last_row(T: Tensor) -> None:
    row = T.detach()[..., 3, :]
    wrong = (row - torch.eye(4, dtype=T.dtype, device=T.device)[3]).abs().amax(-1) > 0
    if wrong.any():
        index = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(
            f"T: expected the last row 0 0 0 1, got at index {index} {row[index].tolist()}"
        )
