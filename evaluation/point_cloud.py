"""Depth as points in space, and files of them that viewers open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from datasets.calibration import KeyedFile, projects
from datasets.text import DataError

_VERTEX = np.dtype([("point", "<f4", 3), ("colour", "u1", 3)])


@dataclass(frozen=True, eq=False)
class Pinhole:
    """A camera without distortion.

    Attributes:
        K: (3, 3) intrinsics [px]; the centre of the first pixel is (0, 0)
        image_size: width, height [px] that they are for; None if nothing says it
    """

    K: np.ndarray
    image_size: tuple[int, int] | None = None

    @classmethod
    def of(cls, fx: float, fy: float, cx: float, cy: float) -> Pinhole:
        """Return the camera with these intrinsics [px]."""
        return cls(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]))


def read_pinhole(path: Path) -> Pinhole:
    """Read the left colour camera of KITTI: `calib_cam_to_cam.txt`, or a sequence's `calib.txt`.

    Raises:
        FileNotFoundError: there is no such file
        DataError: it holds no such camera
    """
    file = KeyedFile(path)
    key = next((key for key in ("P_rect_02", "P2") if key in file.lines), None)
    if key is None:
        raise DataError(
            f"{path}: neither a line `P_rect_02: ...` of calib_cam_to_cam.txt nor a line `P2: ...` "
            "of an odometry sequence's calib.txt"
        )
    P = file.checked(key, 12, projects, "a focal length above zero").reshape(3, 4)
    size = None
    if key == "P_rect_02" and "S_rect_02" in file.lines:
        width, height = file.numbers("S_rect_02", 2)
        size = int(width), int(height)
    return Pinhole(P[:, :3].copy(), size)


def backproject(
    depth_m: np.ndarray, K: np.ndarray, max_distance_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the points that pixels show, as far as their depth is known and not too large.

    Args:
        depth_m: (H, W) along the camera's z; zero and what is no number is not known
        K: (3, 3) intrinsics [px]
        max_distance_m: depths beyond it are left out

    Returns:
        (N, 3) float32 in the camera's axes, x right, y down, z forward [m]; and which pixels they
        are of, (H, W) bool, by rows
    """
    kept = (depth_m > 0) & (depth_m <= max_distance_m) & np.isfinite(depth_m)
    v, u = np.nonzero(kept)  # (N,) row and column
    pixels = np.stack([u, v, np.ones_like(u)])  # (3, N)
    points = (np.linalg.inv(K) @ pixels) * depth_m[kept]  # (3, N)
    return points.T.astype(np.float32), kept


def write_ply(file: BinaryIO, points: np.ndarray, colours: np.ndarray) -> None:
    """Write points as a binary PLY.

    Args:
        file: to write to
        points: (N, 3) [m]
        colours: (N, 3) uint8 RGB
    """
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        "comment metres in the axes of the camera: x right, y down, z forward\n"
        f"element vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    )
    vertices = np.empty(len(points), _VERTEX)
    vertices["point"], vertices["colour"] = points, colours
    file.write(header.encode("ascii"))
    file.write(vertices.tobytes())
