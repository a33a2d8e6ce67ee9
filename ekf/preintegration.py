"""Preintegration: what an IMU says about the motion between two images, before v and g are known.

An interval has S steps between S + 1 samples of angular rate and specific force in the body frame
(x forward, y left, z up; at rest the accelerometer reads +9.81 along z). Intervals of a batch have
one length: shorter ones are padded with steps of dt = 0 and any finite samples, which change
nothing.

b0 and b1 are the body at the first and the last sample, bi at sample i; c0 and c1 are the camera at
the same times. Leading dimensions are free and broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from liegroups import se3, so3
from liegroups.checks import check_batch, check_tensor
from liegroups.matrices import apply, identity, symmetric

ROTATION, POSITION, VELOCITY = slice(0, 3), slice(3, 6), slice(6, 9)
"""Rows of a motion in a `Linearization`; the error of the rotation is R_b0_b1 exp(error)."""

GYRO, ACCEL = slice(0, 3), slice(3, 6)
"""Columns of a measurement in a `Linearization`."""


@dataclass(frozen=True)
class Preintegrated:
    """The part of an interval's motion that depends on the IMU alone, in the axes of b0."""

    rotation: Tensor  # (..., S+1, 3, 3) R_b0_bi at each sample
    position: Tensor  # (..., 3) alpha [m]: displacement from rest without gravity
    velocity: Tensor  # (..., 3) beta [m/s]: change of velocity without gravity
    duration: Tensor  # (...) [s]

    @property
    def R_b0_b1(self) -> Tensor:
        """Rotation (..., 3, 3) over the whole interval."""
        return self.rotation[..., -1, :, :]

    def mirrored(self) -> Preintegrated:
        """Return the motion that `mirror`ed measurements integrate to."""
        M = _mirrored(self.position, 3, LEFT)  # (3,)
        return Preintegrated(
            M[:, None] * self.rotation * M, M * self.position, M * self.velocity, self.duration
        )


@dataclass(frozen=True)
class Linearization:
    """How a `Preintegrated` motion follows small changes of the biases, and its uncertainty."""

    rotation_by_gyro_bias: Tensor  # (..., S+1, 3, 3) right perturbation of each R_b0_bi
    bias_jacobian: Tensor  # (..., 9, 6) rows ROTATION, POSITION, VELOCITY, columns GYRO, ACCEL
    covariance: Tensor  # (..., 9, 9) of the same rows


def preintegrate(
    dt: Tensor,
    gyro: Tensor,
    accel: Tensor,
    gyro_bias: Tensor | None = None,
    accel_bias: Tensor | None = None,
) -> Preintegrated:
    """Integrate IMU samples to second order, for all intervals of a batch at once.

    Between two samples the angular rate is their mean, and so is the specific force once it is
    rotated into b0.

    Args:
        dt: (..., S) durations of the steps [s], zero where padded
        gyro: (..., S+1, 3) angular rates w in the body frame [rad/s]
        accel: (..., S+1, 3) specific forces a in the body frame [m/s^2]
        gyro_bias: (..., 3) what the gyro reads too much, zero if not given
        accel_bias: (..., 3) what the accelerometer reads too much, zero if not given
    """
    dt, gyro, accel = unbiased_samples(dt, gyro, accel, gyro_bias, accel_bias)
    rate = mean_of_neighbours(gyro)  # (..., S, 3)
    rotation = _accumulate(so3.exp(rate * dt.unsqueeze(-1)))  # (..., S+1, 3, 3)
    mean_force_b0 = mean_of_neighbours(apply(rotation, accel))  # (..., S, 3)
    # alpha_{i+1} = alpha_i + beta_i dt + a dt^2 / 2, beta_{i+1} = beta_i + a dt, summed up: what a
    # step adds to the velocity moves the body from the middle of that step to the end.
    return Preintegrated(
        rotation=rotation,
        position=((dt * _time_left(dt)).unsqueeze(-1) * mean_force_b0).sum(-2),
        velocity=(dt.unsqueeze(-1) * mean_force_b0).sum(-2),
        duration=dt.sum(-1),
    )


def linearize(
    dt: Tensor,
    gyro: Tensor,
    accel: Tensor,
    gyro_noise: Tensor | float,
    accel_noise: Tensor | float,
    gyro_bias: Tensor | None = None,
    accel_bias: Tensor | None = None,
) -> Linearization:
    """Return the bias Jacobians and the covariance of `preintegrate` at these biases.

    As in Forster et al., On-Manifold Preintegration (2017), section VI and appendix, but derived
    for the trapezoidal rule, so that the Jacobians are those of `preintegrate` itself.

    Args:
        dt, gyro, accel, gyro_bias, accel_bias: as in `preintegrate`
        gyro_noise: (...) white noise density [rad^2/s], which is (rad/s)^2/Hz
        accel_noise: (...) white noise density [m^2/s^3], which is (m/s^2)^2/Hz
    """
    dt, gyro, accel = unbiased_samples(dt, gyro, accel, gyro_bias, accel_bias)
    turn = mean_of_neighbours(gyro) * dt.unsqueeze(-1)  # (..., S, 3)
    rotation = _accumulate(so3.exp(turn))  # (..., S+1, 3, 3)
    force_b0 = apply(rotation, accel)  # (..., S+1, 3)
    # What a gyro error of one step turns all that follows by, per unit of time, in the axes of b0.
    turned_b0 = rotation[..., :-1, :, :] @ so3.left_jacobian(turn)  # (..., S, 3, 3)
    influence = torch.cat(
        [_influence_of_gyro(dt, rotation, force_b0, turned_b0), _influence_of_accel(dt, rotation)],
        -1,
    )  # (..., S, 9, 6)
    step = dt[..., None, None]  # (..., S, 1, 1)
    rotation_b0 = torch.nn.functional.pad((-turned_b0 * step).cumsum(-3), (0, 0, 0, 0, 1, 0))
    density = torch.stack(torch.broadcast_tensors(_like(gyro_noise, dt), _like(accel_noise, dt)))
    variance = density.movedim(0, -1).unsqueeze(-2) * dt.unsqueeze(-1)  # (..., S, 2)
    variance = variance.repeat_interleave(3, -1).flatten(-2).unsqueeze(-2)  # (..., 1, S*6)
    side_by_side = influence.movedim(-3, -2).flatten(-2)  # (..., 9, S*6)
    return Linearization(
        rotation_by_gyro_bias=rotation.mT @ rotation_b0,
        bias_jacobian=-(influence * step).sum(-3),  # a bias is an error that all steps share
        covariance=symmetric((side_by_side * variance) @ side_by_side.mT),
    )


def correct_biases(
    preintegrated: Preintegrated,
    linearization: Linearization,
    gyro_bias_change: Tensor,
    accel_bias_change: Tensor,
) -> Preintegrated:
    """Move a preintegrated motion to other biases, to first order in their changes (..., 3)."""
    check_tensor("gyro_bias_change", gyro_bias_change, 3)
    check_tensor("accel_bias_change", accel_bias_change, 3)
    change = torch.cat([gyro_bias_change, accel_bias_change], -1)  # (..., 6)
    moved = apply(linearization.bias_jacobian, change)  # (..., 9)
    turn = apply(linearization.rotation_by_gyro_bias, gyro_bias_change.unsqueeze(-2))
    return Preintegrated(
        rotation=preintegrated.rotation @ so3.exp(turn),
        position=preintegrated.position + moved[..., POSITION],
        velocity=preintegrated.velocity + moved[..., VELOCITY],
        duration=preintegrated.duration,
    )


def move_body(
    preintegrated: Preintegrated, R_a_b0: Tensor, velocity_a: Tensor, gravity_a: Tensor
) -> tuple[Tensor, Tensor]:
    """Return how far the body moves (..., 3) [m] and its velocity (..., 3) at the end, in axes a.

    Args:
        preintegrated: what the IMU integrated to
        R_a_b0: (..., 3, 3) any axes a from the body at the first sample
        velocity_a: (..., 3) of the body at the first sample [m/s]
        gravity_a: (..., 3) pointing up, as an accelerometer at rest reads it [m/s^2]
    """
    check_tensor("R_a_b0", R_a_b0, 3, 3)
    check_tensor("velocity", velocity_a, 3)
    check_tensor("gravity", gravity_a, 3)
    duration = preintegrated.duration.unsqueeze(-1)  # (..., 1)
    displacement_a = (
        apply(R_a_b0, preintegrated.position)
        + velocity_a * duration
        - 0.5 * gravity_a * duration.square()
    )
    return displacement_a, (
        velocity_a + apply(R_a_b0, preintegrated.velocity) - gravity_a * duration
    )


def camera_motion(
    preintegrated: Preintegrated, T_c_b: Tensor, velocity: Tensor, gravity: Tensor
) -> Tensor:
    """Return the camera's motion T_c0_c1 (..., 4, 4) in metres.

    Args:
        preintegrated: what the IMU integrated to
        T_c_b: (..., 4, 4) extrinsics, camera from body
        velocity: (..., 3) of the body at the first image, in the axes of c0 [m/s]
        gravity: (..., 3) at the first image, pointing up, in the axes of c0 [m/s^2]
    """
    check_tensor("T_c_b", T_c_b, 4, 4)
    R_c_b, t_c_b = T_c_b[..., :3, :3], T_c_b[..., :3, 3]
    displacement_c0, _ = move_body(preintegrated, R_c_b, velocity, gravity)
    T_c0_b1 = se3.from_rt(R_c_b @ preintegrated.R_b0_b1, t_c_b + displacement_c0)
    return T_c0_b1 @ se3.inverse(T_c_b)


def carry(
    preintegrated: Preintegrated, T_c_b: Tensor, velocity: Tensor, gravity: Tensor
) -> tuple[Tensor, Tensor]:
    """Carry velocity and gravity (..., 3) from the first image, in c0, to the second, in c1.

    Args: as in `camera_motion`.
    """
    check_tensor("T_c_b", T_c_b, 4, 4)
    R_c_b = T_c_b[..., :3, :3]
    R_c1_c0 = R_c_b @ preintegrated.R_b0_b1.mT @ R_c_b.mT
    _, velocity_c0 = move_body(preintegrated, R_c_b, velocity, gravity)
    return apply(R_c1_c0, velocity_c0), apply(R_c1_c0, gravity)


def carry_back(
    preintegrated: Preintegrated, T_c_b: Tensor, velocity_c1: Tensor, gravity_c1: Tensor
) -> tuple[Tensor, Tensor]:
    """Carry velocity and gravity (..., 3) from the second image, in c1, to the first, in c0.

    Undoes `carry`: v0 = R_c0_c1 v1 - R_c_b beta + g0 dT with g0 = R_c0_c1 g1.

    Args:
        preintegrated: what the IMU integrated to
        T_c_b: (..., 4, 4) extrinsics, camera from body
        velocity_c1: (..., 3) of the body at the second image, in the axes of c1 [m/s]
        gravity_c1: (..., 3) at the second image, pointing up, in the axes of c1 [m/s^2]
    """
    check_tensor("T_c_b", T_c_b, 4, 4)
    check_tensor("velocity", velocity_c1, 3)
    check_tensor("gravity", gravity_c1, 3)
    R_c_b = T_c_b[..., :3, :3]
    R_c0_c1 = R_c_b @ preintegrated.R_b0_b1 @ R_c_b.mT
    gravity_c0 = apply(R_c0_c1, gravity_c1)
    gained_c0 = (
        apply(R_c_b, preintegrated.velocity) - gravity_c0 * preintegrated.duration[..., None]
    )
    return apply(R_c0_c1, velocity_c1) - gained_c0, gravity_c0


RIGHT, LEFT = 0, 1
"""The axis that a mirrored image flips: of the camera (x right), of the body (y left)."""


def mirror(gyro: Tensor, accel: Tensor, T_c_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the measurements and extrinsics that belong to a horizontally flipped image.

    A flipped image is a photograph of a mirrored world. There the accelerations are mirrored, and
    angular rates, being axial vectors, mirrored and negated. Nothing downstream knows of the flip.

    Args:
        gyro: (..., 3) angular rates in the body frame
        accel: (..., 3) specific forces in the body frame
        T_c_b: (..., 4, 4) extrinsics
    """
    check_tensor("gyro", gyro, 3)
    check_tensor("accel", accel, 3)
    check_tensor("T_c_b", T_c_b, 4, 4)
    M_c, M_b = _mirrored(T_c_b, 4, RIGHT), _mirrored(T_c_b, 4, LEFT)  # (4,)
    M = _mirrored(gyro, 3, LEFT)  # (3,)
    return -M * gyro, M * accel, M_c[:, None] * T_c_b * M_b


def mirror_motion(T_c0_c1: Tensor) -> Tensor:
    """Return the motion (..., 4, 4) that a camera makes in the mirrored world."""
    check_tensor("T_c0_c1", T_c0_c1, 4, 4)
    M = _mirrored(T_c0_c1, 4, RIGHT)  # (4,)
    return M[:, None] * T_c0_c1 * M


def unbiased_samples(
    dt: Tensor, gyro: Tensor, accel: Tensor, gyro_bias: Tensor | None, accel_bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dt, gyro and accel without their biases, all with the same leading dimensions."""
    check_tensor("dt", dt)
    if dt.ndim == 0 or dt.shape[-1] == 0:
        raise ValueError(f"dt: expected shape (..., S) with S >= 1, got {tuple(dt.shape)}")
    samples = dt.shape[-1] + 1
    batch = dt.shape[:-1]
    unbiased = []
    for name, measured, bias in (("gyro", gyro, gyro_bias), ("accel", accel, accel_bias)):
        check_tensor(name, measured, samples, 3)
        batch = check_batch(name, measured.shape[:-2], "dt", batch)
        if bias is not None:
            check_tensor(f"{name}_bias", bias, 3)
            batch = check_batch(f"{name}_bias", bias.shape[:-1], name, batch)
            measured = measured - bias.unsqueeze(-2)
        unbiased.append(measured)
    gyro, accel = (measured.expand(*batch, samples, 3) for measured in unbiased)
    return dt.expand(*batch, samples - 1), gyro, accel


def mean_of_neighbours(samples: Tensor) -> Tensor:
    """Return the mean of each step's two samples: (..., S, 3) from (..., S+1, 3)."""
    return torch.lerp(samples[..., :-1, :], samples[..., 1:, :], 0.5)


def _influence_of_gyro(dt: Tensor, rotation: Tensor, force_b0: Tensor, turned_b0: Tensor) -> Tensor:
    """Return d(motion) / d(gyro error of a step) / dt (..., S, 9, 3).

    An error of step k turns all later forces: half of the mean force of step k itself, and those of
    the steps after it.
    """
    weight_velocity = dt.unsqueeze(-1)  # (..., S, 1)
    weight_position = (dt * _time_left(dt)).unsqueeze(-1)
    mean_force_b0 = mean_of_neighbours(force_b0)  # (..., S, 3)

    def turned_later(weight: Tensor) -> Tensor:
        weighted = weight * mean_force_b0
        later = weighted.sum(-2, keepdim=True) - weighted.cumsum(-2)  # (..., S, 3)
        return later + 0.5 * weight * force_b0[..., 1:, :]

    at_end = rotation[..., -1:, :, :].mT @ turned_b0  # (..., S, 3, 3) right perturbation of R_b0_b1
    position = -so3.hat(turned_later(weight_position)) @ turned_b0
    velocity = -so3.hat(turned_later(weight_velocity)) @ turned_b0
    return torch.cat([at_end, position, velocity], -2)


def _influence_of_accel(dt: Tensor, rotation: Tensor) -> Tensor:
    """Return d(motion) / d(accelerometer error of a step) / dt (..., S, 9, 3)."""
    velocity = (rotation[..., :-1, :, :] + rotation[..., 1:, :, :]) / 2  # (..., S, 3, 3)
    position = _time_left(dt)[..., None, None] * velocity
    return torch.cat([torch.zeros_like(velocity), position, velocity], -2)


def _time_left(dt: Tensor) -> Tensor:
    """Return the time (..., S) from the middle of each step to the end of the interval."""
    return dt.sum(-1, keepdim=True) - dt.cumsum(-1) + dt / 2


def _accumulate(steps: Tensor) -> Tensor:
    """Multiply rotations (..., S, 3, 3) up: I, R_0, R_0 R_1, ... (..., S+1, 3, 3)."""
    rotation = identity(3, steps).expand_as(steps[..., 0, :, :])
    rotations = [rotation]
    for step in steps.unbind(-3):
        rotation = rotation @ step
        rotations.append(rotation)
    return torch.stack(rotations, -3)


def _like(value: Tensor | float, neighbour: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=neighbour.dtype, device=neighbour.device)


def _mirrored(neighbour: Tensor, size: int, axis: int) -> Tensor:
    """Return the diagonal (size) of the mirror that flips one axis."""
    diagonal = neighbour.new_ones(size)
    diagonal[axis] = -1
    return diagonal
