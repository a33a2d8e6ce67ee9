"""Rigid motions SE(3): 4x4 matrices and their twists.

Leading dimensions are free, float32 and float64 on CPU and CUDA. A twist xi is ordered translation
first, then rotation: xi = [rho, phi], so that exp(xi) = [[exp(phi), J_l(phi) rho], [0, 1]].
T_a_b takes b-coordinates to a: p_a = T_a_b p_b.
"""

from __future__ import annotations

import torch
from torch import Tensor

from liegroups import coefficients, so3
from liegroups.checks import check_batch, check_motion, check_tensor
from liegroups.coefficients import Angle
from liegroups.matrices import apply, identity


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
    bottom = identity(4, top)[3:].expand(*batch, 1, 4)
    return torch.cat([top, bottom], -2)


def exp(xi: Tensor) -> Tensor:
    """Map twists (..., 6) to motions (..., 4, 4)."""
    check_tensor("xi", xi, 6)
    rho, phi = xi.split(3, -1)
    return from_rt(so3.exp(phi), apply(so3.left_jacobian(phi), rho))


def log(T: Tensor, *, check: bool = True) -> Tensor:
    """Map motions (..., 4, 4) to twists (..., 6) with rotation angles 0 to pi.

    Args:
        T: (..., 4, 4) motions
        check: refuse what is not a motion; see `so3` for where not to
    """
    check_tensor("T", T, 4, 4)
    if check:
        check_motion("T", T)
    phi = so3.log(T[..., :3, :3], check=False)
    xi = torch.cat([apply(so3.left_jacobian_inverse(phi), T[..., :3, 3]), phi], -1)
    return torch.where(T[..., 3, :].isnan().any(-1, keepdim=True), torch.nan, xi)


def inverse(T: Tensor) -> Tensor:
    """Invert motions (..., 4, 4) exactly, without solving: T_b_a from T_a_b."""
    check_tensor("T", T, 4, 4)
    R_inverse = T[..., :3, :3].mT
    t_inverse = -apply(R_inverse, T[..., :3, 3])
    return torch.cat([torch.cat([R_inverse, t_inverse.unsqueeze(-1)], -1), T[..., 3:, :]], -2)


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

    It is the derivative of so3's J_l = I + b Phi + c Phi^2 at phi in the direction rho, the same
    as equation 7.86 of Barfoot, State Estimation for Robotics (2017), with fewer products.
    """
    angle = Angle.of(phi)
    P, Phi = so3.hat(rho), so3.hat(phi)  # (..., 3, 3)
    b, c = coefficients.versine(angle), coefficients.sine_rest(angle)
    half_dtheta2 = (rho * phi).sum(-1)  # (...) theta^2 = phi . phi changes by 2 phi . rho
    db = coefficients.versine_slope(angle) * half_dtheta2
    dc = coefficients.sine_rest_slope(angle) * half_dtheta2
    b, c, db, dc = (x[..., None, None] for x in (b, c, db, dc))
    return b * P + c * (Phi @ P + P @ Phi) + db * Phi + dc * (Phi @ Phi)


def _block_triangular(A: Tensor, B: Tensor) -> Tensor:
    """Return [[A, B], [0, A]] (..., 6, 6)."""
    return torch.cat([torch.cat([A, B], -1), torch.cat([torch.zeros_like(A), A], -1)], -2)
