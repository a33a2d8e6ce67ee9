"""Drives whose truth is known in closed form, and the measurements that a filter model expects.

The motion is a sum of sinusoids, so position, velocity, acceleration, attitude and angular rate are
exact at any time; nothing here integrates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ekf.filter import EKFModel, FilterState
from ekf.sequence import CameraMotions, ImuIntervals
from liegroups import se3, so3
from liegroups.matrices import apply, like_leading

GRAVITY = 9.808679801065017
"""[m/s^2] at Karlsruhe."""

KITTI_T_C_B = (
    (0.0089, -0.9999, -0.0119, -0.3224),
    (0.0112, 0.0120, -0.9999, 0.7299),
    (0.9999, 0.0088, 0.0113, -1.0960),
)
"""Camera from body in a car like KITTI's, rounded; `extrinsics` makes it a motion."""


def extrinsics() -> Tensor:
    """Return T_c_b (4, 4) of a car like KITTI's, float64."""
    T = torch.tensor(KITTI_T_C_B, dtype=torch.float64)
    return se3.from_rt(so3.normalize(T[:, :3]), T[:, 3])


@dataclass(frozen=True)
class Wave:
    """x(t) = start + rate t + sum_k amplitude_k sin(2 pi f_k t + phase_k), of any shape (...)."""

    start: Tensor  # (...)
    rate: Tensor  # (...) per second
    amplitude: Tensor  # (..., K)
    frequency: Tensor  # (..., K) [Hz]
    phase: Tensor  # (..., K) [rad]

    def at(self, time: Tensor, derivative: int = 0) -> Tensor:
        """Return the value or a time derivative at (T): (T, ...)."""
        time = time.reshape(-1, *[1] * self.start.ndim)  # (T, 1, ...)
        angular = 2 * math.pi * self.frequency
        angle = angular * time.unsqueeze(-1) + self.phase + derivative * math.pi / 2
        line = (self.start + self.rate * time, self.rate + 0 * time, 0 * time)[derivative]
        return line + (self.amplitude * angular**derivative * angle.sin()).sum(-1)


@dataclass(frozen=True)
class Drive:
    """The smooth motion of a vehicle in a world with z up; a batch of them when waves have one."""

    position: Wave  # (..., 3) p_w_b [m]
    roll_pitch_yaw: Wave  # (..., 3) [rad]

    def T_w_b(self, time: Tensor) -> Tensor:
        """Return the pose of the body at times (T): (T, ..., 4, 4)."""
        return se3.from_rt(self.R_w_b(time), self.position.at(time))

    def R_w_b(self, time: Tensor) -> Tensor:
        """Return the attitude of the body at times (T): (T, ..., 3, 3)."""
        return so3.from_rpy(self.roll_pitch_yaw.at(time))

    def velocity_w(self, time: Tensor) -> Tensor:
        """Return the velocity of the body at times (T): (T, ..., 3) [m/s]."""
        return self.position.at(time, 1)

    def gyro(self, time: Tensor) -> Tensor:
        """Return the angular rate in the body frame at times (T): (T, ..., 3) [rad/s]."""
        roll, pitch, _ = self.roll_pitch_yaw.at(time).unbind(-1)
        d_roll, d_pitch, d_yaw = self.roll_pitch_yaw.at(time, 1).unbind(-1)
        sr, cr, sp, cp = roll.sin(), roll.cos(), pitch.sin(), pitch.cos()
        return torch.stack(
            [d_roll - d_yaw * sp, d_pitch * cr + d_yaw * sr * cp, d_yaw * cr * cp - d_pitch * sr],
            -1,
        )

    def accel(self, time: Tensor) -> Tensor:
        """Return the specific force in the body frame at times (T): (T, ..., 3) [m/s^2]."""
        up = torch.tensor([0, 0, GRAVITY], dtype=time.dtype)
        force_w = self.position.at(time, 2) + up
        return apply(self.R_w_b(time).mT, force_w)


def random_drive(*batch: int) -> Drive:
    """Make drives that are as fast as a car in town, and turn, brake and sway as much, float64.

    They do not steer: where the nose points and where the body moves are drawn apart, so that
    nothing that is tested can rely on it.
    """

    def wave(mean_rate: Tensor, amplitude: list[float], slowest: float, fastest: float) -> Wave:
        shape = (*batch, 3, 3)  # three axes, three sinusoids each
        frequency = slowest + (fastest - slowest) * torch.rand(shape, dtype=torch.float64)
        scale = torch.tensor(amplitude, dtype=torch.float64).unsqueeze(-1) / frequency
        return Wave(
            start=torch.zeros(*batch, 3, dtype=torch.float64),
            rate=mean_rate,
            amplitude=scale * torch.rand(shape, dtype=torch.float64),
            frequency=frequency,
            phase=2 * math.pi * torch.rand(shape, dtype=torch.float64),
        )

    speed = 5 + 7 * torch.rand(batch, dtype=torch.float64)
    forward = torch.stack([speed, torch.zeros_like(speed), torch.zeros_like(speed)], -1)
    return Drive(
        position=wave(forward, [0.4, 0.3, 0.02], 0.05, 0.5),
        roll_pitch_yaw=wave(torch.zeros_like(forward), [0.01, 0.01, 0.1], 0.05, 0.8),
    )


@dataclass(frozen=True)
class Simulation:
    """A drive as a filter sees it, and the truth."""

    imu: ImuIntervals  # (..., N, ...)
    camera: CameraMotions
    T_c_b: Tensor  # (4, 4)
    start: FilterState  # what the filter is told
    T_c0_c1: Tensor  # (..., N, 4, 4) true motion over each interval
    velocity: Tensor  # (..., N+1, 3) true, of the body, in the axes of the camera at image k
    gravity: Tensor  # (..., N+1, 3) true, in the axes of the camera at image k
    gyro_bias: Tensor  # (..., N+1, 3) true
    accel_bias: Tensor  # (..., N+1, 3) true


def simulate(
    model: EKFModel, drive: Drive, intervals: int, covariance_vis: Tensor, rate_hz: int = 100
) -> Simulation:
    """Draw measurements and a start from the filter's own model, at 10 images per second.

    Args:
        model: whose densities and initial deviations the noise is drawn from
        drive: one or a batch of drives
        intervals: N
        covariance_vis: (6, 6) of the camera's motion
        rate_hz: of the IMU
    """
    steps, dt = rate_hz // 10, 1 / rate_hz
    time = torch.arange(intervals * steps + 1, dtype=torch.float64) * dt
    T_w_b = drive.T_w_b(time[::steps]).movedim(0, -3)  # (..., N+1, 4, 4)
    T_c_b = extrinsics()
    T_w_c = T_w_b @ se3.inverse(T_c_b)
    T_c0_c1 = se3.inverse(T_w_c[..., :-1, :, :]) @ T_w_c[..., 1:, :, :]
    R_c_w = T_w_c[..., :3, :3].mT
    up = torch.tensor([0, 0, GRAVITY], dtype=torch.float64)
    velocity_w = drive.velocity_w(time[::steps]).movedim(0, -2)  # (..., N+1, 3)
    velocity, gravity = apply(R_c_w, velocity_w), R_c_w @ up

    initial_std = model.init_covar_diag_sqrt.detach().double().unflatten(0, (6, 3))
    batch = velocity.shape[:-2]
    error = torch.randn(*batch, 6, 3, dtype=torch.float64) * initial_std
    start = model.initial_state(
        velocity[..., 0, :] - error[..., 2, :], gravity[..., 0, :] - error[..., 3, :]
    )
    gyro_density, gyro_walk, accel_density, accel_walk = model.imu_densities().detach().tolist()
    gyro, gyro_bias = _measure(drive.gyro(time), error[..., 4, :], gyro_density, gyro_walk, dt)
    accel, accel_bias = _measure(drive.accel(time), error[..., 5, :], accel_density, accel_walk, dt)
    gyro, accel = (x.unfold(-2, steps + 1, steps).mT for x in (gyro, accel))  # (..., N, S+1, 3)
    noise = torch.randn(*batch, intervals, 6, 1, dtype=torch.float64)
    seen = (torch.linalg.cholesky(covariance_vis) @ noise).squeeze(-1)
    everywhere = torch.ones(*batch, intervals, dtype=torch.bool)
    return Simulation(
        imu=ImuIntervals(
            dt=torch.full((*batch, intervals, steps), dt, dtype=torch.float64),
            gyro=gyro,
            accel=accel,
            valid=everywhere,
            duration=torch.full((*batch, intervals), steps * dt, dtype=torch.float64),
        ),
        camera=CameraMotions(
            T_c0_c1=disturb(T_c0_c1, seen),
            covariance=covariance_vis.expand(*batch, intervals, 6, 6),
            valid=everywhere,
        ),
        T_c_b=T_c_b,
        start=start,
        T_c0_c1=T_c0_c1,
        velocity=velocity,
        gravity=gravity,
        gyro_bias=gyro_bias[..., ::steps, :],
        accel_bias=accel_bias[..., ::steps, :],
    )


def _measure(
    true: Tensor, first_bias: Tensor, density: float, walk: float, dt: float
) -> tuple[Tensor, Tensor]:
    """Add a wandering bias and white noise to (T, ..., 3); return it and the bias (..., T, 3)."""
    true = true.movedim(0, -2)
    drift = math.sqrt(walk * dt) * torch.randn_like(true)
    drift[..., 0, :] = first_bias
    bias = drift.cumsum(-2)
    return true + bias + math.sqrt(density / dt) * torch.randn_like(true), bias


def disturb(T_c0_c1: Tensor, noise: Tensor) -> Tensor:
    """Apply camera noise (..., 6) as the filter means it: rotation in c1, translation in c0."""
    R = T_c0_c1[..., :3, :3] @ so3.exp(noise[..., :3])
    return se3.from_rt(R, T_c0_c1[..., :3, 3] + noise[..., 3:])


def motion_error(T_true: Tensor, T: Tensor) -> Tensor:
    """Return the error (..., 6) of a motion, in the same terms as `disturb`."""
    turned = so3.log(T[..., :3, :3].mT @ T_true[..., :3, :3], check=False)
    return torch.cat([turned, T_true[..., :3, 3] - T[..., :3, 3]], -1)


def nees(error: Tensor, covariance: Tensor) -> Tensor:
    """Return the normalised estimation error squared (...): error^T covariance^-1 error."""
    solved = torch.linalg.solve(covariance, error.unsqueeze(-1)).squeeze(-1)
    return (error * solved).sum(-1)


def without(simulation: Simulation, imu: list[int], camera: list[int]) -> Simulation:
    """Take IMU or camera away from some intervals and leave NaN in their place."""

    def holes(valid: Tensor, where: list[int], *measured: Tensor) -> list[Tensor]:
        valid = valid.clone()
        valid[..., where] = False
        return [valid, *(_nan_where(~valid, x) for x in measured)]

    i, c = simulation.imu, simulation.camera
    imu_valid, dt, gyro, accel = holes(i.valid, imu, i.dt, i.gyro, i.accel)
    camera_valid, T_c0_c1, covariance = holes(c.valid, camera, c.T_c0_c1, c.covariance)
    return replace(
        simulation,
        imu=ImuIntervals(dt, gyro, accel, imu_valid, i.duration),
        camera=CameraMotions(T_c0_c1, covariance, camera_valid),
    )


def _nan_where(broken: Tensor, x: Tensor) -> Tensor:
    return x.masked_fill(like_leading(broken, x), torch.nan)
