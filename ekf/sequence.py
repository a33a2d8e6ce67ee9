"""The filter over a whole drive: velocity, gravity, biases and covariance go from image to image.

At each image the state is anchored anew: the camera there becomes c0, and velocity, gravity and
covariance are turned into its axes. So every interval is filtered as in training, and what is
carried is what the next interval needs. The covariance of the trajectory since the first image is
not kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ekf.filter import (
    BA,
    BG,
    GRAV,
    INITIAL_VARIANCE,
    PHI,
    POS,
    STATE,
    VEL,
    EKFModel,
    FilterState,
    motion_covariance,
)
from liegroups import se3, so3
from liegroups.matrices import apply, identity, symmetric

UNKNOWN_RATE_DENSITY = 0.25
"""White noise in the rate of a car of which no IMU tells: half a radian in a second [rad^2/s]."""

UNKNOWN_ACCEL_DENSITY = 9.0
"""White noise in its acceleration: 3 m/s in a second [m^2/s^3]."""


@dataclass(frozen=True)
class ImuIntervals:
    """What the IMU measured between N + 1 images."""

    dt: Tensor  # (..., N, S) [s], zero where padded
    gyro: Tensor  # (..., N, S+1, 3) [rad/s]
    accel: Tensor  # (..., N, S+1, 3) [m/s^2]
    valid: Tensor  # (..., N) bool; where false, or not finite, the numbers are not looked at
    duration: Tensor  # (..., N) [s] from image to image; looked at where the IMU is not valid


@dataclass(frozen=True)
class CameraMotions:
    """What the camera saw between N + 1 images."""

    T_c0_c1: Tensor  # (..., N, 4, 4) from each image to the next [m]
    covariance: Tensor  # (..., N, 6, 6) rotation [rad^2], translation [m^2]
    valid: Tensor  # (..., N) bool; where false, or not finite, the numbers are not looked at


@dataclass(frozen=True)
class Track:
    """What the filter made of a drive. The axes of image k are those of the camera there."""

    T_c0_ck: Tensor  # (..., N+1, 4, 4) trajectory, in the camera where the start counts from [m]
    velocity: Tensor  # (..., N+1, 3) of the body, in the axes of image k [m/s]
    gravity: Tensor  # (..., N+1, 3) in the axes of image k [m/s^2]
    gyro_bias: Tensor  # (..., N+1, 3) [rad/s]
    accel_bias: Tensor  # (..., N+1, 3) [m/s^2]
    P: Tensor  # (..., N+1, 18, 18) covariance of the error at each image, after anchoring
    T_c0_c1: Tensor  # (..., N, 4, 4) motion over each interval [m]
    covariance: Tensor  # (..., N, 6, 6) of each interval's motion
    nis: Tensor  # (..., N) surprise at the camera, NaN where it was not used


def run_sequence(
    model: EKFModel, imu: ImuIntervals, camera: CameraMotions, T_c_b: Tensor, start: FilterState
) -> Track:
    """Filter a drive, or several of equal length at once.

    An interval without IMU is bridged by constant velocity, which the camera then corrects; one
    without camera is the IMU's alone; one with neither keeps its velocity and loses certainty.

    Args:
        model: the filter and its noise
        imu: of each interval
        camera: of each interval, with the same leading dimensions
        T_c_b: (..., 4, 4) extrinsics, camera from body, perhaps one for all drives
        start: at the first image, perhaps one for all drives; see `EKFModel.initial_state`
    """
    intervals = imu.dt.shape[-2]
    if intervals == 0 or camera.T_c0_c1.shape[-3] != intervals:
        raise ValueError(
            "imu, camera: expected at least one interval and as many of both, "
            f"got {intervals} and {camera.T_c0_c1.shape[-3]}"
        )
    imu, camera = _without_invalid(imu, camera)
    start = start.expand(imu.dt, camera.covariance[..., 0, :, :], T_c_b)
    densities = model.imu_densities()
    states, ends, surprises = [anchor(start, T_c_b)], [], []
    for k in range(intervals):
        moved = model.propagate(
            states[-1], imu.dt[..., k, :], imu.gyro[..., k, :, :], imu.accel[..., k, :, :], T_c_b
        )
        coasted = coast(states[-1], imu.duration[..., k], T_c_b, densities)
        state = moved.where(imu.valid[..., k], coasted)
        corrected, innovation = model.update(
            state, camera.T_c0_c1[..., k, :, :], camera.covariance[..., k, :, :], T_c_b
        )
        nis = torch.where(camera.valid[..., k], innovation.nis(), torch.nan)
        ends.append(corrected.where(~nis.isnan(), state))  # NaN also where S is not positive
        surprises.append(nis)
        states.append(anchor(ends[-1], T_c_b))
    return _track(start.T_c0_c1, states, ends, surprises, T_c_b)


def anchor(state: FilterState, T_c_b: Tensor) -> FilterState:
    """Let the camera now be the new c0, and turn velocity, gravity and covariance into its axes.

    The rotation's error turns what is seen from the new axes: with R_c0_c1 exp(e), e = R_c_b phi,
    v_c1 = exp(-e) R^T (v + vel), so its error is R^T vel + [v_c1]x e.
    """
    R_c_b, R_c1_c0 = T_c_b[..., :3, :3], state.T_c0_c1[..., :3, :3].mT
    velocity, gravity = (apply(R_c1_c0, x) for x in (state.velocity, state.gravity))
    A = torch.zeros_like(state.P)
    A[..., VEL, VEL], A[..., GRAV, GRAV] = R_c1_c0, R_c1_c0
    A[..., VEL, PHI], A[..., GRAV, PHI] = so3.hat(velocity) @ R_c_b, so3.hat(gravity) @ R_c_b
    one = identity(3, A)
    A[..., BG, BG], A[..., BA, BA] = one, one
    P = A @ state.P @ A.mT
    P[..., PHI, PHI] += INITIAL_VARIANCE * one  # as where a pair begins
    P[..., POS, POS] += INITIAL_VARIANCE * one
    still = identity(4, A).expand_as(state.T_c0_c1)
    return replace(state, T_c0_c1=still, velocity=velocity, gravity=gravity, P=symmetric(P))


def coast(state: FilterState, duration: Tensor, T_c_b: Tensor, densities: Tensor) -> FilterState:
    """Move on for a time (...) [s] without an IMU, at the velocity and with the rotation as is.

    What rate and acceleration do meanwhile is white noise, so that a time in one piece and the same
    time in many lose the same certainty.
    """
    T_c0_b = state.T_c0_c1 @ T_c_b
    time = duration[..., None]  # (..., 1)
    moved = se3.from_rt(T_c0_b[..., :3, :3], T_c0_b[..., :3, 3] + state.velocity * time)
    time = time[..., None]  # (..., 1, 1)
    one = identity(3, time)
    Phi = identity(STATE, time).expand_as(state.P).clone()
    Phi[..., POS, VEL] = time * one
    gyro_bias_density, accel_bias_density = densities[1], densities[3]
    Q = torch.zeros_like(state.P)
    Q[..., PHI, PHI] = UNKNOWN_RATE_DENSITY * time * one
    Q[..., VEL, VEL] = UNKNOWN_ACCEL_DENSITY * time * one
    Q[..., POS, VEL] = Q[..., VEL, POS] = UNKNOWN_ACCEL_DENSITY * time**2 / 2 * one
    Q[..., POS, POS] = UNKNOWN_ACCEL_DENSITY * time**3 / 3 * one
    Q[..., BG, BG] = gyro_bias_density * time * one
    Q[..., BA, BA] = accel_bias_density * time * one
    P = Phi @ state.P @ Phi.mT + Q
    return replace(state, T_c0_c1=moved @ se3.inverse(T_c_b), P=symmetric(P))


def _without_invalid(
    imu: ImuIntervals, camera: CameraMotions
) -> tuple[ImuIntervals, CameraMotions]:
    """Put harmless numbers where something is not valid: NaN would come back through gradients."""
    imu_valid = imu.valid & _finite(imu.dt, 1) & _finite(imu.gyro, 2) & _finite(imu.accel, 2)
    seen = camera.valid & _finite(camera.T_c0_c1, 2) & _finite(camera.covariance, 2)
    no_imu, unseen = ~imu_valid[..., None], ~seen[..., None, None]
    return (
        ImuIntervals(
            dt=imu.dt.masked_fill(no_imu, 0),
            gyro=imu.gyro.masked_fill(no_imu[..., None], 0),
            accel=imu.accel.masked_fill(no_imu[..., None], 0),
            valid=imu_valid,
            duration=imu.duration.masked_fill(imu_valid, 0),
        ),
        CameraMotions(
            T_c0_c1=_identity_where(unseen, camera.T_c0_c1),
            covariance=_identity_where(unseen, camera.covariance),
            valid=seen,
        ),
    )


def _finite(x: Tensor, dimensions: int) -> Tensor:
    """Say where all numbers of the last dimensions are finite."""
    return x.isfinite().flatten(-dimensions).all(-1)


def _identity_where(broken: Tensor, x: Tensor) -> Tensor:
    return torch.where(broken, identity(x.shape[-1], x), x)


def _track(
    T_c0_start: Tensor,
    states: list[FilterState],
    ends: list[FilterState],
    surprises: list[Tensor],
    T_c_b: Tensor,
) -> Track:
    trajectory = [T_c0_start]
    for end in ends:
        trajectory.append(trajectory[-1] @ end.T_c0_c1)
    return Track(
        T_c0_ck=torch.stack(trajectory, -3),
        velocity=torch.stack([state.velocity for state in states], -2),
        gravity=torch.stack([state.gravity for state in states], -2),
        gyro_bias=torch.stack([state.gyro_bias for state in states], -2),
        accel_bias=torch.stack([state.accel_bias for state in states], -2),
        P=torch.stack([state.P for state in states], -3),
        T_c0_c1=torch.stack([end.T_c0_c1 for end in ends], -3),
        covariance=torch.stack([motion_covariance(end, T_c_b) for end in ends], -3),
        nis=torch.stack(surprises, -1),
    )
