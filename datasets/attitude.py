"""Whether a gyro turns as the recorded attitudes do: noisy packets and swapped axes are noticed.

An OXTS unit integrates its gyro to roll, pitch and yaw, and a packet has both. Where they disagree,
somebody changed one of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.matched import MatchedImu
from datasets.text import DataError
from ekf.preintegration import preintegrate
from liegroups import so3

MAX_RATE = 0.03
"""The median disagreement that passes [rad/s].

Between two images, a tenth of a second apart, it moves an image 640 wide by a pixel. Of synthetic
drives with the noise of the real unit it is 0.002, with the default noise of `datasets.add_noise`
0.006, and with five times that 0.025.
"""

MAX_SHARE = 0.5
"""The median disagreement that passes about one axis, as a share of the turn about it.

With the gyro of GTSAM's KITTI recording it is 0.06 for the default noise and 0.17 for attitudes
that are 50 ms late. A swapped axis has 1 or more, and a negated one has 2.
"""

TURNING = 0.05  # [rad/s] about one axis: what a turn is compared at
MIN_TURNS = 5  # intervals; of fewer a median says little

_ADVICE = (
    "a noisy variant, or another axis convention; --avoid_quat_check trains on it all the same"
)


def check_attitude(imu: MatchedImu, file: Path) -> None:
    """Compare the gyro with the change of the recorded attitude, over all intervals of a drive.

    A drive that goes straight says little of its axes, and passes.

    Args:
        imu: of the drive
        file: what it was read from, for the message

    Raises:
        DataError: they disagree; it says by how much
    """
    if not imu.valid.any():
        return
    measured, recorded, seconds = _turns(imu)
    R_error = so3.exp(recorded).mT @ so3.exp(measured)
    rate = float(np.median(so3.angle(R_error, check=False) / seconds))
    if rate > MAX_RATE:
        raise DataError(
            f"{file}: gyro and recorded attitude disagree by {np.rad2deg(rate):.2g} deg/s, more "
            f"than {np.rad2deg(MAX_RATE):.2g} (median of {len(seconds)} intervals): {_ADVICE}"
        )
    for axis, name in enumerate("xyz"):
        turn, error = recorded[:, axis].abs(), (measured - recorded)[:, axis].abs()
        turning = turn / seconds > TURNING
        if (turns := int(turning.sum())) < MIN_TURNS:
            continue
        share = float(np.median(error[turning] / turn[turning]))
        if share > MAX_SHARE:
            raise DataError(
                f"{file}: gyro and recorded attitude disagree about {name} by {100 * share:.0f} % "
                f"of the turn, more than {100 * MAX_SHARE:.0f} % (median of {turns} "
                f"intervals): {_ADVICE}"
            )


def _turns(imu: MatchedImu) -> tuple[Tensor, Tensor, Tensor]:
    """Return how the body turns in each valid interval: by gyro and by attitude, and how long.

    Returns:
        Rotation vectors (N, 3) in the axes of b0 [rad], the same again, (N,) [s]
    """
    samples, valid = imu.padded(), imu.valid
    dt, gyro = (torch.from_numpy(x[valid]) for x in (samples.dt, samples.gyro))
    motion = preintegrate(dt, gyro, torch.zeros_like(gyro))
    first, last = imu.offsets[:-1][valid], imu.offsets[1:][valid] - 1
    R_w_b0, R_w_b1 = (
        so3.from_rpy(torch.from_numpy(imu.packets.rpy[places])) for places in (first, last)
    )
    recorded = so3.log(R_w_b0.mT @ R_w_b1, check=False)
    return so3.log(motion.R_b0_b1, check=False), recorded, motion.duration
