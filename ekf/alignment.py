"""The scale of a camera's motion from the IMU, in closed form.

A camera by itself knows its way up to one factor s, metres for each of its units. The IMU knows
how the velocity changes, in metres, up to the velocity v0 and the gravity g that it began with. In
the axes of the body at the first image, the camera moves by x_k units a second between images k and
k + 1, and the body by

    s x_k = v0 + y_k - g t_k,

where y_k is what the specific force adds to the mean velocity of the interval and t_k the time of
its middle. What is uncertain is x, so it is x that is explained: x_k = q y_k + a - b t_k with
q = 1 / s. Least squares with an a and a b for each segment give q without the bias towards zero
that noise in the regressor would bring. What errs alike in all segments, a gyro's bias or a camera
whose speeds differ too little, is in q and not in its deviation. What changes as fast at all times,
a constant acceleration, says nothing: it could be gravity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ekf.preintegration import Preintegrated
from liegroups.matrices import apply, identity

LEAST_CHANGE = 0.05
"""Root mean square over the components of y in a segment below which they say nothing [m/s]."""

_UNKNOWNS = 2  # of each axis of a segment: a and b


class Alignment(NamedTuple):
    """What several segments say of the scale together.

    Attributes:
        scale: s, to be multiplied with the camera's translations; NaN where nothing is known
        relative_std: of it, from how the segments differ; infinite with fewer than two
        segments: how many had a say
    """

    scale: float
    relative_std: float
    segments: int


class Segment(NamedTuple):
    """N intervals of a drive, one after the other."""

    imu: Preintegrated  # of N intervals
    T_c_b: Tensor  # (4, 4) extrinsics, camera from body [m]
    translation: Tensor  # (N, 3) of T_c0_c1 of each, in the camera's unit


def align(segments: Sequence[Segment]) -> Alignment:
    """Return the factor that the IMU asks of the camera's translations."""
    products, squares = [], []
    for segment in segments:
        seen, felt = velocities(segment)
        if len(seen) > _UNKNOWNS and felt.square().mean().sqrt() > LEAST_CHANGE:
            products.append((seen * felt).sum())
            squares.append(felt.square().sum())
    if not squares:
        return Alignment(float("nan"), float("inf"), 0)
    product, square = torch.stack(products), torch.stack(squares)
    q = float(product.sum() / square.sum())
    if not q > 0:
        return Alignment(float("nan"), float("inf"), len(squares))
    return Alignment(1 / q, _relative_std(product, square), len(squares))


def velocities(segment: Segment) -> tuple[Tensor, Tensor]:
    """Return x and y (N, 3) of a segment, without what v0 and g can explain; float64."""
    imu = segment.imu
    rotation, alpha, beta, duration = (
        part.double() for part in (imu.R_b0_b1, imu.position, imu.velocity, imu.duration)
    )
    R_c_b, t_c_b = segment.T_c_b[:3, :3].double(), segment.T_c_b[:3, 3].double()
    R_b0_bk = [identity(3, rotation)]
    for R in rotation[:-1]:
        R_b0_bk.append(R_b0_bk[-1] @ R)
    R_b0_bk = torch.stack(R_b0_bk)  # (N, 3, 3)
    R_b0_ck = R_b0_bk @ R_c_b.mT
    length = duration.unsqueeze(-1)  # (N, 1)
    seen = apply(R_b0_ck, segment.translation.double()) / length
    # The camera swings about the body: its way is not the body's.
    swing_c = apply(R_c_b @ rotation @ R_c_b.mT, t_c_b) - t_c_b
    gained = apply(R_b0_bk, beta).cumsum(0) - apply(R_b0_bk, beta)  # (N, 3) before the interval
    felt = gained + (apply(R_b0_bk, alpha) - apply(R_b0_ck, swing_c)) / length
    middle = length.cumsum(0) - length / 2
    explained = torch.cat([torch.ones_like(middle), middle], 1)  # (N, 2)
    basis, _ = torch.linalg.qr(explained)
    return tuple(x - basis @ (basis.mT @ x) for x in (seen, felt))


def _relative_std(product: Tensor, square: Tensor) -> float:
    """Return the relative deviation of q by leaving out one segment after the other."""
    count = len(square)
    if count < 2:
        return float("inf")
    without = (product.sum() - product) / (square.sum() - square)
    q = product.sum() / square.sum()
    variance = (count - 1) / count * (without - without.mean()).square().sum()
    return float(variance.sqrt() / q)
