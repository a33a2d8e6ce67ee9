"""Rotations SO(3): the exponential map, its Jacobians, and other ways to write a rotation.

Leading dimensions are free, float32 and float64 on CPU and CUDA. Rotation vectors phi are axis
times angle [rad]; matrices act on column vectors. Values and gradients are right at phi = 0, and
`log` is right up to and at pi.

`log`, `angle`, `to_quaternion` and `to_rpy` refuse a matrix that is not a rotation. To look at the
values makes the host wait for a GPU, and is not possible under vmap or inside of a compiled graph:
there, and in a training step, pass `check=False`. `normalize` waits too, for the SVD.
"""

from __future__ import annotations

import torch
from torch import Tensor

from liegroups import coefficients
from liegroups.checks import check_rotation, check_tensor
from liegroups.coefficients import SMALL_ANGLE, Angle
from liegroups.matrices import apply

_ORDERS = ("wxyz", "xyzw")
_TWICE_ARCSINE = [2, 1 / 3, 3 / 20, 5 / 56, 35 / 576, 63 / 1408]  # 2 arcsin(s) / s in powers of s^2


def hat(phi: Tensor) -> Tensor:
    """Map vectors (..., 3) to skew matrices (..., 3, 3) with hat(a) b = a x b."""
    check_tensor("phi", phi, 3)
    x, y, z = phi.unbind(-1)
    o = torch.zeros_like(x)
    return _matrix(o, -z, y, z, o, -x, -y, x, o)


def vee(Phi: Tensor) -> Tensor:
    """Map matrices (..., 3, 3) to vectors (..., 3): the inverse of `hat` on their skew part."""
    check_tensor("Phi", Phi, 3, 3)
    skew = (Phi - Phi.mT) / 2
    return torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1)


def exp(phi: Tensor) -> Tensor:
    """Map rotation vectors to rotation matrices (Rodrigues).

    Args:
        phi: (..., 3) axis times angle [rad]

    Returns:
        (..., 3, 3) rotations
    """
    check_tensor("phi", phi, 3)
    angle = Angle.of(phi)
    return _quadratic_in_hat(phi, coefficients.sine(angle), coefficients.versine(angle))


def log(R: Tensor, *, check: bool = True) -> Tensor:
    """Map rotation matrices to rotation vectors of angle 0 to pi.

    The way leads over the quaternion, whose vector part is well conditioned near pi too, where the
    skew part of R vanishes. At pi itself, phi and -phi are the same rotation: one is returned.

    Args:
        R: (..., 3, 3) rotations
        check: refuse what is not a rotation

    Returns:
        (..., 3) axis times angle [rad]
    """
    w, v = _half_angle(R, check)
    sine2 = (v * v).sum(-1)  # (...) sin^2(theta/2)
    small = sine2 < (SMALL_ANGLE / 2) ** 2
    series = coefficients.horner(_TWICE_ARCSINE, sine2)
    sine = torch.where(small, 1, sine2).sqrt()
    theta_over_sine = torch.where(small, series, 2 * torch.atan2(sine, w) / sine)
    return (theta_over_sine.unsqueeze(-1) * v).to(R.dtype)


def angle(R: Tensor, *, check: bool = True) -> Tensor:
    """Return the angles (...) in [0, pi] by which rotations (..., 3, 3) turn [rad].

    At the identity, where the angle has a kink, its gradient is zero.
    """
    w, v = _half_angle(R, check)
    return (2 * torch.atan2(torch.linalg.vector_norm(v, dim=-1), w)).to(R.dtype)


def left_jacobian(phi: Tensor) -> Tensor:
    """Return J_l (..., 3, 3) with exp(phi + d) = exp(J_l d) exp(phi) to first order in d."""
    check_tensor("phi", phi, 3)
    angle = Angle.of(phi)
    return _quadratic_in_hat(phi, coefficients.versine(angle), coefficients.sine_rest(angle))


def left_jacobian_inverse(phi: Tensor) -> Tensor:
    """Return the inverse of J_l (..., 3, 3), for angles below 2 pi, where J_l is singular."""
    check_tensor("phi", phi, 3)
    minus_half = torch.full_like(phi[..., 0], -0.5)
    return _quadratic_in_hat(phi, minus_half, coefficients.cotangent(Angle.of(phi)))


def right_jacobian(phi: Tensor) -> Tensor:
    """Return J_r (..., 3, 3) with exp(phi + d) = exp(phi) exp(J_r d) to first order in d."""
    return left_jacobian(-phi)


def right_jacobian_inverse(phi: Tensor) -> Tensor:
    """Return the inverse of J_r (..., 3, 3), for angles below 2 pi, where J_r is singular."""
    return left_jacobian_inverse(-phi)


def from_quaternion(q: Tensor, order: str = "wxyz") -> Tensor:
    """Map Hamilton quaternions (..., 4) of any length but zero to rotations (..., 3, 3).

    A quaternion of length zero is no rotation and gives NaN.
    """
    check_tensor("q", q, 4)
    # The result does not depend on the length, whose square could overflow or vanish.
    q = q / q.detach().abs().amax(-1, keepdim=True)
    w, v = (q[..., 0], q[..., 1:]) if _scalar_first(order) else (q[..., 3], q[..., :3])
    s = 2 / (q * q).sum(-1)
    return _quadratic_in_hat(v, s * w, s)


def to_quaternion(R: Tensor, order: str = "wxyz", *, check: bool = True) -> Tensor:
    """Map rotations (..., 3, 3) to Hamilton quaternions (..., 4) of length one with w >= 0."""
    w, v = _half_angle(R, check)
    w = w.unsqueeze(-1)
    return torch.cat([w, v] if _scalar_first(order) else [v, w], -1).to(R.dtype)


def from_rpy(rpy: Tensor) -> Tensor:
    """Map roll, pitch, yaw (..., 3) [rad] to Rz(yaw) Ry(pitch) Rx(roll) (..., 3, 3), as in OXTS."""
    check_tensor("rpy", rpy, 3)
    (sr, sp, sy), (cr, cp, cy) = rpy.sin().unbind(-1), rpy.cos().unbind(-1)
    return _matrix(
        *(cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr),
        *(sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr),
        *(-sp, cp * sr, cp * cr),
    )


def to_rpy(R: Tensor, *, check: bool = True) -> Tensor:
    """Map rotations (..., 3, 3) to roll, pitch, yaw (..., 3) [rad] with pitch in [-pi/2, pi/2].

    At pitch +-pi/2 roll and yaw turn about the same axis, and how they share the turn is left to
    rounding. `from_rpy` still returns R, but their gradients mean nothing there.
    """
    R = _checked_rotation(R, check)
    roll = torch.atan2(R[..., 2, 1], R[..., 2, 2])  # (...)
    s, c = roll.sin(), roll.cos()
    # Undo the roll, R Rx(roll)^T = Rz(yaw) Ry(pitch): what is left is well conditioned at the lock.
    pitch = torch.atan2(-R[..., 2, 0], s * R[..., 2, 1] + c * R[..., 2, 2])
    yaw = torch.atan2(s * R[..., 0, 2] - c * R[..., 0, 1], c * R[..., 1, 1] - s * R[..., 1, 2])
    return torch.stack([roll, pitch, yaw], -1)


def normalize(M: Tensor) -> Tensor:
    """Return the rotations (..., 3, 3) nearest to matrices M in the Frobenius norm.

    Differentiable once, by one Newton step from the solution: the gradient of the SVD itself is
    infinite at a rotation, where the singular values are equal. Where the nearest rotation is not
    unique (det M < 0 with equal least singular values, or rank below 2), it is one of them.
    """
    check_tensor("M", M, 3, 3)
    dtype, M = M.dtype, M.double()  # the SVD of a float32 rotation is less of a rotation
    with torch.no_grad():
        R0, V, s = _polar_decomposition(M.detach())  # no forward gradient either
        # The rotation nearest to M + dM is R0 exp(w) with (tr(S) I - S) w = 2 vee(R0^T dM) to first
        # order, where S = R0^T M = V diag(s) V^T. An ambiguous direction gets no gradient.
        sums = s.sum(-1, keepdim=True) - s  # (..., 3) of pairs of singular values
        inverse = torch.where(sums > 1e-6 * s[..., :1], 1 / sums, 0)
        solve = V * inverse.unsqueeze(-2) @ V.mT  # (..., 3, 3) inverse of tr(S) I - S
    w = apply(solve, 2 * vee(R0.mT @ M))  # (..., 3) zero but for its gradient
    return (R0 @ exp(w)).to(dtype)


def _polar_decomposition(M: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return R, V (..., 3, 3), s (..., 3): M = R V diag(s) V^T, R a rotation, s[2] with a sign."""
    # LAPACK raises on NaN, so those matrices are taken out and come back as NaN.
    finite = M.isfinite().all(-1).all(-1)[..., None, None]
    U, s, Vt = torch.linalg.svd(torch.where(finite, M, 0))
    # A reflection becomes a rotation by its direction of least singular value.
    sign = torch.ones_like(s)
    sign[..., 2] = torch.linalg.det(U @ Vt).sign()
    R = torch.where(finite, U * sign.unsqueeze(-2) @ Vt, torch.nan)
    return R, Vt.mT, s * sign


def _checked_rotation(R: Tensor, check: bool) -> Tensor:
    """Return rotations (..., 3, 3) in which one entry that is not finite makes all of them NaN."""
    check_tensor("R", R, 3, 3)
    if check:
        check_rotation("R", R)
    return torch.where(R.isfinite().all(-1).all(-1)[..., None, None], R, torch.nan)


def _half_angle(R: Tensor, check: bool) -> tuple[Tensor, Tensor]:
    """Return cos(theta/2) >= 0 (...) and axis times sin(theta/2) (..., 3): the unit quaternion.

    4 q q^T is linear in R. Of its rows, all of them multiples of q, the longest is normalised.
    Always in float64: in float32 the roundings from here to `log` add up to 8e-7 rad near pi.
    """
    R = _checked_rotation(R, check).double()
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = R.flatten(-2).unbind(-1)
    diagonal = torch.stack(
        [1 + r00 + r11 + r22, 1 + r00 - r11 - r22, 1 - r00 + r11 - r22, 1 - r00 - r11 + r22], -1
    )
    wx, wy, wz = r21 - r12, r02 - r20, r10 - r01
    xy, xz, yz = r01 + r10, r02 + r20, r12 + r21
    ww, xx, yy, zz = diagonal.unbind(-1)
    rows = torch.stack([ww, wx, wy, wz, wx, xx, xy, xz, wy, xy, yy, yz, wz, xz, yz, zz], -1)
    longest = diagonal.argmax(-1)[..., None, None].expand(*diagonal.shape[:-1], 1, 4)
    q = rows.unflatten(-1, (4, 4)).gather(-2, longest).squeeze(-2)  # (..., 4)
    q = q / torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    q = torch.where(q[..., :1] < 0, -q, q)
    return q[..., 0], q[..., 1:]


def _quadratic_in_hat(phi: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return I + a hat(phi) + b hat(phi)^2 (..., 3, 3) for coefficients (...).

    Written out, because nine sums are faster than a product of many 3x3 matrices, and its diagonal
    is exact where 1 - b theta^2 + b x^2 would cancel.
    """
    x, y, z = phi.unbind(-1)
    ax, ay, az = a * x, a * y, a * z
    bx, by, bz = b * x, b * y, b * z
    xx, yy, zz = bx * x, by * y, bz * z
    xy, xz, yz = bx * y, bx * z, by * z
    return _matrix(
        *(1 - (yy + zz), xy - az, xz + ay),
        *(xy + az, 1 - (xx + zz), yz - ax),
        *(xz - ay, yz + ax, 1 - (xx + yy)),
    )


def _matrix(*entries: Tensor) -> Tensor:
    """Build (..., 3, 3) from nine entries (...) in row order."""
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def _scalar_first(order: str) -> bool:
    if order not in _ORDERS:
        raise ValueError(f"order: expected one of {', '.join(_ORDERS)}, got {order!r}")
    return order == "wxyz"
