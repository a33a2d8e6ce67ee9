"""The motion that the IMU says, to every frame of a window, and its fusion with the camera's."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.batch import ImuInterval
from ekf.filter import ROT, TRANS, EKFModel, Fusion
from ekf.noise import preset, vision_covariance
from ekf.preintegration import camera_motion, carry, carry_back
from liegroups import se3, so3
from networks.factory import vision_form
from training.prediction import Prediction, neighbours_of, pair_of

RECORDED_VELOCITY_STD = 0.03
"""What the recorded velocity may be wrong by [m/s]; the data sheet of the speed says 0.1 km/h.

Were it as uncertain as a network's, the camera would learn to be believed in its place, and then
nothing would hold the scale: with the calibrated noise a camera at its most certain is within 6 mm.
The direction, which a network says, is held as firmly: more firmly than it deserves.
"""

Vectors = dict[int, Tensor]
"""By frame: (B, 3) in the axes of the camera at that frame."""


@dataclass(frozen=True)
class Motion:
    """The motions between the images of each pair, by source; see `training.prediction`."""

    inertial: dict[int, Tensor]  # (B, 4, 4) T_first_second by the IMU [m]
    used: dict[int, Tensor]  # (B, 4, 4) the one that views are warped by: this, or the fused one
    velocity: Vectors  # of the body at the first images of the pairs next to the target [m/s]
    carried: Tensor | None  # (B, 3) that at the target, by the IMU from the image before [m/s]
    fusion: Fusion | None  # of all pairs, source after source: (n * B, ...)


def fuse(
    imu: dict[int, ImuInterval],
    prediction: Prediction,
    options: Namespace,
    ekf_model: EKFModel | None,
) -> Motion:
    """Integrate the IMU from the predicted velocities, and correct it by the camera if asked.

    Args:
        imu: the intervals of the window, by first frame
        prediction: of the networks
        options: of `options.train`
        ekf_model: the filter, or None while it warms up or where there is none
    """
    if not options.use_inertial_motion:
        return Motion({}, {}, prediction.velocity, None, None)
    near_velocity, near_gravity = prediction.velocity, prediction.gravity
    if options.velocity_source == "camera":
        # One gravity for all of the window: what is fitted is one motion.
        near_gravity = {0: prediction.gravity[0]}
        near_velocity = {0: fitted_velocity(imu, prediction.T_first_second, near_gravity[0])}
    elif options.velocity_source == "recorded":
        near_velocity = {
            first: imu[first].speed.unsqueeze(-1) * F.normalize(velocity, dim=-1)
            for first, velocity in near_velocity.items()
        }
    velocity, gravity = spread(imu, near_velocity, near_gravity)
    near = {first: velocity[first] for first in (-1, 0) if first in velocity}
    carried = None
    if -1 in imu and 0 in near:
        before = imu[-1]
        carried, _ = carry(before.preintegrated, before.T_c_b, velocity[-1], gravity[-1])
    sources = neighbours_of(options)
    inertial = inertial_motions(imu, velocity, gravity, sources)
    if ekf_model is None:
        return Motion(inertial, inertial, near, carried, None)
    recorded = options.velocity_source == "recorded"
    velocity_std = RECORDED_VELOCITY_STD if recorded else None
    fusion = _filtered(imu, velocity, gravity, prediction, sources, ekf_model, velocity_std)
    fused = fusion.fused.T_c0_c1.chunk(len(sources))
    return Motion(inertial, dict(zip(sources, fused, strict=True)), near, carried, fusion)


def said_velocity(prediction: Prediction, motion: Motion, options: Namespace) -> Vectors:
    """Return by first frame the velocity that recorded speeds are compared with."""
    return motion.velocity if options.velocity_source == "camera" else prediction.velocity


def fitted_velocity(
    imu: dict[int, ImuInterval], T_first_second: dict[int, Tensor], gravity: Tensor
) -> Tensor:
    """Return the velocity (B, 3) at the target that brings the IMU nearest to where the camera was.

    The IMU says where the camera is at frame k up to the velocity v: p_k = u_k + t_k v, with the
    time t_k from the target. Least squares over all frames of the window give v.

    Args:
        imu: the intervals of the window, by first frame
        T_first_second: (B, 4, 4) the camera's motions, by source
        gravity: (B, 3) at the target, pointing up, in its axes [m/s^2]
    """
    still = torch.zeros_like(gravity)
    at_rest = inertial_motions(imu, *spread(imu, {0: still}, {0: gravity}), list(T_first_second))
    numerator, denominator = still, still[:, :1]
    for source, T in T_first_second.items():
        first, second = pair_of(source)
        time = sum(imu[frame].duration for frame in range(first, second)).unsqueeze(-1)  # (B, 1)
        time = time if source > 0 else -time
        missing = _position_of(source, T) - _position_of(source, at_rest[source])  # (B, 3)
        numerator = numerator + time * missing
        denominator = denominator + time.square()
    return numerator / denominator


def _position_of(source: int, T_first_second: Tensor) -> Tensor:
    """Return where the camera was at a source (B, 3), in the axes of the target."""
    T_c0_source = se3.inverse(T_first_second) if source < 0 else T_first_second
    return T_c0_source[:, :3, 3]


def inertial_motions(
    imu: dict[int, ImuInterval], velocity: Vectors, gravity: Vectors, sources: Sequence[int]
) -> dict[int, Tensor]:
    """Return T_first_second (B, 4, 4) by source, from velocity and gravity at every interval."""
    steps = {
        first: camera_motion(
            interval.preintegrated, interval.T_c_b, velocity[first], gravity[first]
        )
        for first, interval in imu.items()
    }
    return {source: _composed(steps, source) for source in sources}


def spread(
    imu: dict[int, ImuInterval], velocity: Vectors, gravity: Vectors
) -> tuple[Vectors, Vectors]:
    """Carry velocity and gravity from the frames next to the target to the first of every interval.

    What the networks say of frames -1 and 0 stays; from there the IMU says how it changes.
    """
    velocity, gravity = dict(velocity), dict(gravity)
    for frame in sorted(imu):
        if frame not in velocity and frame - 1 in velocity:
            before = imu[frame - 1]
            velocity[frame], gravity[frame] = carry(
                before.preintegrated, before.T_c_b, velocity[frame - 1], gravity[frame - 1]
            )
    for frame in sorted(imu, reverse=True):
        if frame not in velocity:
            interval = imu[frame]
            velocity[frame], gravity[frame] = carry_back(
                interval.preintegrated, interval.T_c_b, velocity[frame + 1], gravity[frame + 1]
            )
    return velocity, gravity


def sample_camera_motions(prediction: Prediction, options: Namespace) -> dict[int, Tensor]:
    """Draw the camera's motions (B, 4, 4) from what the pose network says of their uncertainty."""
    drawn = {}
    for source, T_first_second in prediction.T_first_second.items():
        variance = vision_covariance(
            prediction.uncertainty[source], preset(options.noise_preset), vision_form(options)
        ).diagonal(dim1=-2, dim2=-1)  # (B, 6)
        # A deviation of zero, of weights that know no uncertainty, has no slope to learn from.
        deviation = variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt()
        error = deviation * torch.randn_like(variance)
        turned = T_first_second[:, :3, :3] @ so3.exp(error[:, ROT])
        drawn[source] = se3.from_rt(turned, T_first_second[:, :3, 3] + error[:, TRANS])
    return drawn


def join_intervals(intervals: Sequence[ImuInterval]) -> tuple[Tensor, Tensor, Tensor]:
    """Return dt (B, S), gyro and accel (B, S + 1, 3) of intervals that follow each other.

    Where two meet there is a step of no time from the last sample of one to the first of the next.
    """
    gap = torch.zeros_like(intervals[0].dt[:, :1])
    dt = [part for interval in intervals for part in (gap, interval.dt)][1:]
    gyro = [interval.gyro for interval in intervals]
    accel = [interval.accel for interval in intervals]
    return torch.cat(dt, 1), torch.cat(gyro, 1), torch.cat(accel, 1)


def _composed(steps: dict[int, Tensor], source: int) -> Tensor:
    """Return T_first_second of a pair from the motions T_k_k+1 in between."""
    return reduce(torch.matmul, [steps[frame] for frame in range(*pair_of(source))])


def _filtered(
    imu: dict[int, ImuInterval],
    velocity: Vectors,
    gravity: Vectors,
    prediction: Prediction,
    sources: Sequence[int],
    ekf_model: EKFModel,
    velocity_std: float | None,
) -> Fusion:
    """Filter all pairs in one call: each from its first image, over all intervals to its second."""
    joined = [join_intervals([imu[k] for k in range(*pair_of(source))]) for source in sources]
    longest = max(dt.shape[1] for dt, _, _ in joined)
    dt, gyro, accel = (
        torch.cat([_padded(part, longest + is_samples) for part in parts])
        for parts, is_samples in zip(zip(*joined, strict=True), (0, 1, 1), strict=True)
    )
    first = [pair_of(source)[0] for source in sources]
    return ekf_model(
        dt,
        gyro,
        accel,
        torch.cat([imu[k].T_c_b for k in first]),
        torch.cat([velocity[k] for k in first]),
        torch.cat([gravity[k] for k in first]),
        torch.cat([prediction.T_first_second[source] for source in sources]),
        torch.cat([prediction.uncertainty[source] for source in sources]),
        velocity_std,
    )


def _padded(samples: Tensor, length: int) -> Tensor:
    """Lengthen (B, n) or (B, n, 3) by zeros: steps of no time, which change nothing."""
    missing = length - samples.shape[1]
    return torch.cat([samples, samples.new_zeros(len(samples), missing, *samples.shape[2:])], 1)
