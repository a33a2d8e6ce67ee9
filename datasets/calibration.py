"""The calibration of a KITTI recording day: `calib_{cam_to_cam,velo_to_cam,imu_to_velo}.txt`.

Cameras are the rectified ones, 0 to 3. Frames: c camera, v velodyne, b body (the IMU).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from datasets.text import DataError, at_line, parse_numbers, read_lines
from liegroups import so3

CAMERAS = range(4)
# Seven digits in the files leave 1e-7; what deviates more than this is not a rotation at all.
_ROTATION_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Camera:
    """One rectified camera.

    Attributes:
        K: (3, 3) intrinsics [px]
        image_size: width, height [px]
        T_c_b: (4, 4) body to camera, a motion: its rotation is the nearest to the product of those
            in the files, which have seven digits
        T_c_v: (4, 4) velodyne to camera, the product of the matrices exactly as the files have
            them, as KITTI's development kit takes it
        P_px_v: (3, 4) velodyne [m] to homogeneous pixels, with all of P_rect: projected LiDAR has
            the same pixels and depths as in the usual exports. It is K T_c_v but for the few
            millimetres along y and z that T_c_v leaves out.
    """

    K: np.ndarray
    image_size: tuple[int, int]
    T_c_b: np.ndarray
    T_c_v: np.ndarray
    P_px_v: np.ndarray

    @property
    def K_normalised(self) -> np.ndarray:
        """Intrinsics (3, 3) of an image of width 1 and height 1."""
        return self.K / np.array([[self.image_size[0]], [self.image_size[1]], [1]])


@dataclass(frozen=True, eq=False)
class Calibration:
    """All cameras of a recording day, by their number."""

    cameras: tuple[Camera, ...]

    def __getitem__(self, camera: int) -> Camera:
        return self.cameras[camera]


def read_calibration(date_folder: Path) -> Calibration:
    """Read the three files in the folder of a recording day.

    Raises:
        FileNotFoundError: one of the files is missing
        DataError: names file and line
    """
    cam_to_cam = KeyedFile(date_folder / "calib_cam_to_cam.txt")
    T_v_b = KeyedFile(date_folder / "calib_imu_to_velo.txt").rigid()
    T_cam0_v = KeyedFile(date_folder / "calib_velo_to_cam.txt").rigid()  # not yet rectified
    T_rect_cam0 = _homogeneous(cam_to_cam.rotation("R_rect_00"), np.zeros(3))
    return Calibration(
        tuple(_camera(cam_to_cam, camera, T_rect_cam0, T_cam0_v, T_v_b) for camera in CAMERAS)
    )


def _camera(
    file: KeyedFile,
    camera: int,
    T_rect_cam0: np.ndarray,
    T_cam0_v: np.ndarray,
    T_v_b: np.ndarray,
) -> Camera:
    P = file.checked(f"P_rect_{camera:02d}", 12, projects, "a focal length above zero")
    P = P.reshape(3, 4)
    size = file.checked(f"S_rect_{camera:02d}", 2, _counts, "whole numbers above zero")
    T_c_v = sideways(P) @ (T_rect_cam0 @ T_cam0_v)
    T_c_b = T_c_v @ T_v_b
    T_c_b[:3, :3] = so3.normalize(torch.from_numpy(T_c_b[:3, :3])).numpy()
    P_px_v = np.dot(np.dot(P, T_rect_cam0), T_cam0_v)  # in the order that the exports multiply in
    return Camera(P[:, :3].copy(), (int(size[0]), int(size[1])), T_c_b, T_c_v, P_px_v)


def sideways(P: np.ndarray) -> np.ndarray:
    """Return T_cN_c0 (4, 4): rectified camera 0 to the one with the projection P (3, 4).

    As in KITTI's development kit, the few millimetres of P along y and z are left out.
    """
    return _homogeneous(np.eye(3), np.array([P[0, 3] / P[0, 0], 0, 0]))


class KeyedFile:
    """A text file of lines `key: numbers`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, tuple[int, str]] = {}  # number and text of each key's line
        for number, line in enumerate(read_lines(path), start=1):
            key, colon, text = line.partition(":")
            if colon:
                self.lines[key.strip()] = number, text
            elif line.strip():
                raise at_line(path, number, "expected `key: numbers`")

    def numbers(self, key: str, count: int) -> np.ndarray:
        if key not in self.lines:
            raise DataError(f"{self.path}: no line `{key}: ...`")
        line, text = self.lines[key]
        try:
            return np.array(parse_numbers(text, count))
        except DataError as error:
            raise at_line(self.path, line, f"{key}: {error}") from None

    def checked(
        self, key: str, count: int, right: Callable[[np.ndarray], bool], expected: str
    ) -> np.ndarray:
        numbers = self.numbers(key, count)
        if not right(numbers):
            raise at_line(self.path, self.lines[key][0], f"{key}: expected {expected}")
        return numbers

    def rotation(self, key: str) -> np.ndarray:
        return self.checked(key, 9, _rotates, "a rotation matrix").reshape(3, 3)

    def rigid(self) -> np.ndarray:
        return _homogeneous(self.rotation("R"), self.numbers("T", 3))


def projects(P: np.ndarray) -> bool:
    """Return whether these twelve numbers can be a camera's projection."""
    return P[0] > 0 and P[5] > 0


def _counts(size: np.ndarray) -> bool:
    return bool((size > 0).all() and (size == size.round()).all())


def _rotates(numbers: np.ndarray) -> bool:
    R = numbers.reshape(3, 3)
    near = np.abs(R.T @ R - np.eye(3)).max() < _ROTATION_TOLERANCE
    return bool(near and np.linalg.det(R) > 0)


def _homogeneous(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t
    return T
