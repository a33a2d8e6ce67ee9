"""The IMU of all drives of a dataset: every interval at one length, preintegrated, in memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datasets.batch import ImuInterval
from datasets.matched import MatchedImu
from ekf.preintegration import preintegrate

GRAVITY = 9.81
"""The unit of the specific forces at which they are clipped [m/s^2]."""

_log = logging.getLogger(__name__)
# Larger pieces do not stay in memory that is used again: see benchmarks/inertial.py.
_BLOCK = 8192


class ImuTable:
    """Intervals of several drives, one after the other, each in one row.

    Args:
        drives: their matched IMU
        clip: specific forces beyond so many times GRAVITY, and angular rates beyond so many rad/s,
            are clipped to that, each component by itself: no car reaches them, a broken packet does

    Attributes:
        first_row: (drives,) the row of each drive's first interval
    """

    def __init__(self, drives: Sequence[MatchedImu], clip: float = math.inf) -> None:
        steps = max(drive.steps for drive in drives)
        samples = [drive.padded(steps) for drive in drives]
        dt, gyro, accel, speed = (
            torch.from_numpy(np.concatenate([getattr(drive, name) for drive in samples]))
            for name in ("dt", "gyro", "accel", "speed")
        )
        # Before the integration, so that one broken packet does not spoil all that follows it.
        gyro, accel = gyro.clamp(-clip, clip), accel.clamp(-clip * GRAVITY, clip * GRAVITY)
        _report_clipped(drives, clip)
        blocks = zip(*(x.split(_BLOCK) for x in (dt, gyro, accel)), strict=True)
        motions = [preintegrate(*block) for block in blocks]
        integrals = (
            torch.cat([getattr(motion, name) for motion in motions])
            for name in ("rotation", "position", "velocity", "duration")
        )
        self.first_row = np.cumsum([0, *map(len, drives[:-1])])
        # Integrated in float64, then rounded once.
        self._columns = [x.float() for x in (dt, gyro, accel, *integrals, speed)]

    @property
    def measured(self) -> tuple[Tensor, ...]:
        """What was measured, of all rows, without what was integrated: dt, gyro, accel, speed."""
        *samples, speed = self._columns
        return *samples[:3], speed

    def interval(self, row: int, T_c_b: Tensor) -> ImuInterval:
        """Return an interval, for a camera with these extrinsics (4, 4)."""
        return ImuInterval(*(column[row] for column in self._columns), T_c_b)


def _report_clipped(drives: Sequence[MatchedImu], clip: float) -> None:
    """Say how many packets are clipped; one that two intervals share counts once."""
    count = 0
    for drive in drives:
        packets = drive.packets
        beyond = (np.abs(packets.gyro) > clip) | (np.abs(packets.accel) > clip * GRAVITY)
        count += len(np.unique(packets.stamps_ns[beyond.any(1)]))
    if count:
        _log.warning(
            "%d IMU packets are beyond %g m/s^2 or %g rad/s and were clipped: --k_imu_clip",
            *(count, clip * GRAVITY, clip),
        )
