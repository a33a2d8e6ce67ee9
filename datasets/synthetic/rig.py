"""The sensors on the vehicle and where they sit: KITTI's calibration files of 2011_09_26.

Extrinsics, baselines and focal length are the real ones, so that every transform is exercised. The
images are born rectified: there is no distortion, and all four cameras share one orientation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from datasets.calibration import Calibration, read_calibration

REAL_SIZE = 1242, 375  # [px]
FOCAL_PX = 721.5377
CENTRE_PX = 609.5593, 172.854
# P_rect[0, 3] of cameras 0 to 3 [px m]: the focal length times how far each is to the left.
OFFSETS_PX_M = 0.0, -387.5744, 44.85728, -339.5242

R_V_B = (
    *(9.999976e-01, 7.553071e-04, -2.035826e-03),
    *(-7.854027e-04, 9.998898e-01, -1.482298e-02),
    *(2.024406e-03, 1.482454e-02, 9.998881e-01),
)
POSITION_V_B = -8.086759e-01, 3.195559e-01, -7.997231e-01  # [m]
R_CAM0_V = (
    *(7.533745e-03, -9.999714e-01, -6.166020e-04),
    *(1.480249e-02, 7.280733e-04, -9.998902e-01),
    *(9.998621e-01, 7.523790e-03, 1.480755e-02),
)
POSITION_CAM0_V = -4.069766e-03, -7.631618e-02, -2.717806e-01  # [m]
R_RECT = (
    *(9.999239e-01, 9.837760e-03, -7.445048e-03),
    *(-9.869795e-03, 9.999421e-01, -4.278459e-03),
    *(7.402527e-03, 4.351614e-03, 9.999631e-01),
)
CORNER_DISTANCE_M = 9.95e-2  # of the pattern that the real cameras were calibrated with

_TIME = "calib_time: 01-Jan-2011 12:00:00"


def intrinsics(size: tuple[int, int]) -> np.ndarray:
    """Return K (3, 3) of images of this width and height [px].

    Focal lengths and centre scale by the ratio of the sizes, as all readers of KITTI resize K. They
    are not equal along x and y where the ratio of width to height is another than the real one.
    """
    x, y = size[0] / REAL_SIZE[0], size[1] / REAL_SIZE[1]
    return np.array(
        [[x * FOCAL_PX, 0, x * CENTRE_PX[0]], [0, y * FOCAL_PX, y * CENTRE_PX[1]], [0, 0, 1]]
    )


def write_calibration(date_folder: Path, size: tuple[int, int]) -> Calibration:
    """Write the three calibration files of a recording day and return what they say.

    Args:
        date_folder: exists
        size: width and height [px] of all images
    """
    texts = {
        "imu_to_velo": _keyed(R=_rotation(R_V_B), T=POSITION_V_B),
        "velo_to_cam": _keyed(
            R=_rotation(R_CAM0_V), T=POSITION_CAM0_V, delta_f=(0, 0), delta_c=(0, 0)
        ),
        "cam_to_cam": _cameras(size),
    }
    for name, text in texts.items():
        path = date_folder / f"calib_{name}.txt"
        path.write_text(f"{_TIME}\n{text}", encoding="utf-8", newline="\n")
    return read_calibration(date_folder)


def _cameras(size: tuple[int, int]) -> str:
    K, R_rect = intrinsics(size), _rotation(R_RECT)
    text = _keyed(corner_dist=[CORNER_DISTANCE_M])
    for camera, offset in enumerate(OFFSETS_PX_M):
        offset_px_m = offset * size[0] / REAL_SIZE[0]
        # Along y and z the real P has some millimetres, which KITTI's development kit and most
        # readers leave out. They are zero here, so that those who do not leave them out agree.
        P = np.column_stack([K, [offset_px_m, 0, 0]])
        keys = {
            "S": size,
            "K": K,
            "D": np.zeros(5),
            "R": np.eye(3),
            "T": R_rect.T @ [offset_px_m / K[0, 0], 0, 0],
            "S_rect": size,
            "R_rect": R_rect,
            "P_rect": P,
        }
        text += _keyed(**{f"{key}_{camera:02d}": numbers for key, numbers in keys.items()})
    return text


def _rotation(seven_digits: tuple[float, ...]) -> np.ndarray:
    """Return the nearest rotation (3, 3)."""
    return Rotation.from_matrix(np.reshape(seven_digits, (3, 3))).as_matrix()


def _keyed(**numbers: ArrayLike) -> str:
    return "".join(
        f"{key}: {' '.join(map(_digits, np.ravel(values).tolist()))}\n"
        for key, values in numbers.items()
    )


def _digits(number: float) -> str:
    # All that it has, where the real files have seven: products of these matrices are then motions
    # to the last digit, and it does not matter who multiplies or normalises them in which order.
    return np.format_float_scientific(number, min_digits=6, exp_digits=2)
