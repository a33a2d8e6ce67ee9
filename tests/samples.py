"""Samples as a DataLoader collates them, of random numbers that belong together."""

from __future__ import annotations

import torch
from torch import Tensor

from datasets.batch import STEREO, Frame, ImuInterval, Sample
from ekf.preintegration import preintegrate
from liegroups import se3

FRAMES = 0, -1, 1, STEREO
SIZE = 48, 32  # width, height [px]

# The camera looks ahead, 1 m before the IMU: its right, down and ahead in the axes of the body.
_T_C_B = torch.tensor([[0, -1, 0, 0.3], [0, 0, -1, 0.8], [1, 0, 0, -1], [0, 0, 0, 1]]).double()


def make_sample(
    batch: int = 3,
    frames: tuple[Frame, ...] = FRAMES,
    dtype: torch.dtype = torch.float32,
    size: tuple[int, int] = SIZE,
) -> Sample:
    """Return a sample whose intervals are preintegrated in float64.

    Args:
        batch: B
        frames: the images that there are; neighbours in time have an interval between them
        dtype: of all but the images
        size: width and height [px]
    """
    width, height = size
    offsets = sorted(frame for frame in frames if frame != STEREO)
    firsts = [frame for frame in offsets if frame + 1 in offsets]
    K = torch.tensor([[28.0, 0, 25.25], [0, 30.5, 14.5], [0, 0, 1]], dtype=dtype)
    T_stereo_c0 = torch.eye(4, dtype=dtype).repeat(batch, 1, 1)
    T_stereo_c0[:, 0, 3] = -0.54
    return Sample(
        image={
            frame: torch.randint(256, (batch, 3, height, width), dtype=torch.uint8)
            for frame in frames
        },
        K=K.repeat(batch, 1, 1),
        imu={first: make_interval(batch, dtype) for first in firsts},
        T_source_c0={STEREO: T_stereo_c0} if STEREO in frames else {},
        depth={0: (5 + 20 * torch.rand(batch, 1, height, width)).to(dtype)},
        index=torch.arange(batch) + 7,
        skipped=torch.zeros(batch, dtype=torch.int64),
    )


def make_interval(batch: int, dtype: torch.dtype = torch.float32) -> ImuInterval:
    """Return an interval of twelve steps in which a car brakes and turns."""
    dt = torch.full((batch, 12), 0.01, dtype=torch.float64)
    gyro, accel = torch.randn(2, batch, 13, 3, dtype=torch.float64)
    accel = accel + torch.tensor([-1, 0, 9.81])
    motion = preintegrate(dt, gyro, accel)
    T_c_b = _T_C_B @ se3.exp(0.05 * torch.randn(batch, 6, dtype=torch.float64))
    speed = 10 + torch.rand(batch, dtype=torch.float64)
    rotation, position, velocity, duration = vars(motion).values()
    tensors = dt, gyro, accel, rotation, position, velocity, duration, speed, T_c_b
    return ImuInterval(*(tensor.to(dtype) for tensor in tensors))


def tensors(tree) -> list[Tensor]:
    """Return all tensors of NamedTuples and dictionaries."""
    if isinstance(tree, Tensor):
        return [tree]
    branches = tree.values() if isinstance(tree, dict) else tree
    return [tensor for branch in branches for tensor in tensors(branch)]
