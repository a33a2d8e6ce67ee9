"""What travels from files to the training step: a `Sample` from a worker, a `Batch` on the device.

Both are NamedTuples of tensors and of dictionaries of tensors, which PyTorch collates, pins and
sends between processes as they are. The dictionaries are keyed by frame: the offset from the target
image, or STEREO; what is absent is not in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from ekf.preintegration import Preintegrated

STEREO = "s"
"""The frame that the other camera took at the time of the target."""

Frame = int | str


class ImuInterval(NamedTuple):
    """The IMU between two neighbouring images, raw and preintegrated; b0 is the body at the first.

    Shapes are those of a batch of intervals that are padded to S steps.
    """

    dt: Tensor  # (B, S) [s], zero where padded
    gyro: Tensor  # (B, S+1, 3) angular rates in the body frame [rad/s]
    accel: Tensor  # (B, S+1, 3) specific forces in the body frame [m/s^2]
    rotation: Tensor  # (B, S+1, 3, 3) R_b0_bi
    position: Tensor  # (B, 3) alpha, in the axes of b0 [m]
    velocity: Tensor  # (B, 3) beta, in the axes of b0 [m/s]
    duration: Tensor  # (B,) [s]
    speed: Tensor  # (B,) at the first image, by GPS and IMU [m/s]
    T_c_b: Tensor  # (B, 4, 4) extrinsics of the target's camera

    @property
    def preintegrated(self) -> Preintegrated:
        """The motion that the samples integrate to, with biases of zero."""
        return Preintegrated(self.rotation, self.position, self.velocity, self.duration)


class Sample(NamedTuple):
    """A target image and what belongs to it, as recorded. Collated, each tensor begins with B."""

    image: dict[Frame, Tensor]  # (B, 3, H, W) uint8, RGB, at the network's resolution
    K: Tensor  # (B, 3, 3) of these images [px]
    imu: dict[int, ImuInterval]  # by the first frame of each interval
    T_source_c0: dict[Frame, Tensor]  # (B, 4, 4) [m] where calibration knows it: STEREO
    depth: dict[Frame, Tensor]  # (B, 1, h, w) of the target [m], zero where there is none
    index: Tensor  # (B,) int64 place in the dataset; stays on the CPU
    skipped: Tensor  # (B,) int64 how many broken samples this one stands in for; on the CPU


class Batch(NamedTuple):
    """What the training step sees: on its device, mirrored, with images from 0 to 1."""

    image: dict[Frame, Tensor]  # (B, 3, H, W) what the losses compare
    augmented: dict[Frame, Tensor]  # (B, 3, H, W) the same with other colours, for the networks
    pyramid: dict[int, dict[Frame, Tensor]]  # by scale: (B, 3, H / 2^scale, W / 2^scale)
    K: Tensor  # (B, 3, 3) [px]
    imu: dict[int, ImuInterval]
    T_source_c0: dict[Frame, Tensor]
    depth: dict[Frame, Tensor]
    index: Tensor  # (B,) on the CPU
    skipped: Tensor  # (B,) on the CPU


def map_tensors(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return the same NamedTuples and dictionaries with a function of all else that is in them."""
    if isinstance(tree, dict):
        return {key: map_tensors(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return type(tree)(*(map_tensors(function, value) for value in tree))
    return function(tree)
