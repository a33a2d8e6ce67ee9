"""The IMU of all drives of a dataset: every interval at one length, preintegrated, in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datasets.batch import ImuInterval
from datasets.matched import MatchedImu
from ekf.preintegration import preintegrate

# Larger pieces do not stay in memory that is used again: see benchmarks/inertial.py.
_BLOCK = 8192


class ImuTable:
    """Intervals of several drives, one after the other, each in one row.

    Attributes:
        first_row: (drives,) the row of each drive's first interval
    """

    def __init__(self, drives: Sequence[MatchedImu]) -> None:
        steps = max(drive.steps for drive in drives)
        samples = [drive.padded(steps) for drive in drives]
        dt, gyro, accel, speed = (
            torch.from_numpy(np.concatenate([getattr(drive, name) for drive in samples]))
            for name in ("dt", "gyro", "accel", "speed")
        )
        blocks = zip(*(x.split(_BLOCK) for x in (dt, gyro, accel)), strict=True)
        motions = [preintegrate(*block) for block in blocks]
        integrals = (
            torch.cat([getattr(motion, name) for motion in motions])
            for name in ("rotation", "position", "velocity", "duration")
        )
        self.first_row = np.cumsum([0, *map(len, drives[:-1])])
        # Integrated in float64, then rounded once.
        self._columns = [x.float() for x in (dt, gyro, accel, *integrals, speed)]

    def interval(self, row: int, T_c_b: Tensor) -> ImuInterval:
        """Return an interval, for a camera with these extrinsics (4, 4)."""
        return ImuInterval(*(column[row] for column in self._columns), T_c_b)
