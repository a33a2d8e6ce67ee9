"""One camera of a drive, ready to be read: its images, its calibration at the network's size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from datasets.calibration import KeyedFile, projects, read_calibration, sideways
from datasets.data_options import DataOptions
from datasets.images import EXTENSIONS, image_size, read_resized, resized_intrinsics
from datasets.layouts import LEFT, RIGHT, DriveFiles, MissingError, NumberedFiles, list_files
from datasets.text import DataError, parse_numbers, read_lines

FIXED_K = np.array([[0.58, 0, 0.5], [0, 1.92, 0.5], [0, 0, 1]])
"""The published intrinsics of an image of width 1 and height 1, the same for all drives."""

FIXED_BASELINE_M = 0.54
"""The published distance between the colour cameras."""


class Images(Protocol):
    """Where the images of a folder come from: their files, or a cache."""

    def read(self, number: int) -> Tensor:
        """Return an image (3, H, W) uint8 at the network's size."""


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """The images of a folder, from their files."""

    images: NumberedFiles
    recorded_size: tuple[int, int]
    size: tuple[int, int]

    def read(self, number: int) -> Tensor:
        return read_resized(self.images.path(number), self.size, self.recorded_size)


class Mounting(NamedTuple):
    """How a camera sees, and where it sits."""

    recorded_size: tuple[int, int]  # width and height of its images [px]
    K: np.ndarray | None  # (3, 3) of these images [px]
    P_px_v: np.ndarray | None = None  # (3, 4) velodyne to homogeneous pixels of these images
    T_c_v: np.ndarray | None = None  # (4, 4)
    T_c_b: np.ndarray | None = None  # (4, 4)


@dataclass(frozen=True, eq=False)
class RecordedCamera:
    """One camera of a drive.

    Attributes:
        files: where everything lies
        images: which images there are
        mounting: what the calibration says of the images as recorded
        K: (3, 3) float32 at the network's size [px]; None where each image has its own
    """

    files: DriveFiles
    images: NumberedFiles
    mounting: Mounting
    K: Tensor | None

    def K_of(self, number: int, size: tuple[int, int]) -> Tensor:
        """Return the intrinsics (3, 3) of an image of the recorded size at the network's [px]."""
        if self.K is not None:
            return self.K
        path = self.files.intrinsics / f"{number:0{self.files.digits}d}.txt"
        lines = read_lines(path)
        try:
            K = np.reshape(parse_numbers(" ".join(lines), 9), (3, 3))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        return torch.from_numpy(resized_intrinsics(K, self.mounting.recorded_size, size)).float()


def open_camera(files: DriveFiles, camera: int, options: DataOptions) -> RecordedCamera:
    """List the images of a camera and read its calibration.

    Raises:
        MissingError: the images or the calibration are not there
        DataError: the calibration is broken, or there is no such camera
    """
    if camera not in files.images:
        raise DataError(f"{files.name}: has no camera {camera}")
    folder = files.images[camera]
    if not folder.exists():
        absent = next(path for path in (folder, *folder.parents) if path.parent.exists())
        raise MissingError(f"{absent}: no such folder", files.archive)
    kinds = EXTENSIONS[::-1] if options.png else EXTENSIONS
    images = list_files(folder, files.digits, kinds)
    if not len(images.numbers):
        raise MissingError(f"{folder}: no images here", files.archive)
    mounting = _mounting(files, images, camera, options)
    return RecordedCamera(files, images, mounting, _network_intrinsics(mounting, options))


def _network_intrinsics(mounting: Mounting, options: DataOptions) -> Tensor | None:
    if options.intrinsics == "fixed":
        K = np.diag([*options.size, 1]) @ FIXED_K
    elif mounting.K is None:
        return None
    else:
        K = resized_intrinsics(mounting.K, mounting.recorded_size, options.size)
    return torch.from_numpy(K).float()


def _mounting(
    files: DriveFiles, images: NumberedFiles, camera: int, options: DataOptions
) -> Mounting:
    uses_pixels = options.intrinsics == "calibrated" or options.use_depth
    if files.calibration is None or not (uses_pixels or options.use_imu):
        return Mounting(_first_size(images), None)
    if files.calibration.suffix != ".txt":
        with _brought_by(files.calibration_archive):
            of_day = read_calibration(files.calibration)[camera]
        return Mounting(of_day.image_size, of_day.K, of_day.P_px_v, of_day.T_c_v, of_day.T_c_b)
    return _sequence_mounting(files, images, camera, options)


@contextmanager
def _brought_by(archive: str) -> Iterator[None]:
    """Say of a file that is not there which archive has it."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingError(str(error), archive) from None


def _first_size(images: NumberedFiles) -> tuple[int, int]:
    """Return the size of the first image that can be read; the error of the last, if none can."""
    for number in images.numbers[:-1].tolist():
        with suppress(DataError, FileNotFoundError):
            return image_size(images.path(number))
    return image_size(images.path(int(images.numbers[-1])))


def _sequence_mounting(
    files: DriveFiles, images: NumberedFiles, camera: int, options: DataOptions
) -> Mounting:
    """Read the `calib.txt` of an odometry sequence; where the IMU sits, its raw drive knows."""
    with _brought_by(files.calibration_archive):
        file = KeyedFile(files.calibration)
    P = file.checked(f"P{camera}", 12, projects, "a focal length above zero").reshape(3, 4)
    if "Tr" not in file.lines:  # the file that comes with the images has the cameras alone
        raise MissingError(f"{file.path}: no line `Tr: ...`", files.calibration_archive)
    T_cam0_v = np.eye(4)
    T_cam0_v[:3] = file.numbers("Tr", 12).reshape(3, 4)
    T_c_b = None
    if options.use_imu and files.imu is not None:
        with _brought_by(f"{files.imu.parent.name}_calib.zip"):
            T_c_b = read_calibration(files.imu.parent)[camera].T_c_b
    size = _first_size(images)
    return Mounting(size, P[:, :3].copy(), P @ T_cam0_v, sideways(P) @ T_cam0_v, T_c_b)


def other_side(camera: int) -> int:
    """Return the other camera of the stereo pair."""
    return RIGHT if camera == LEFT else LEFT


def stereo_motion(camera: int, own: Mounting, other: Mounting, options: DataOptions) -> Tensor:
    """Return T_s_c0 (4, 4) float32 [m]: this camera's coordinates to those of the other."""
    if options.intrinsics == "fixed":
        T_s_c0 = np.eye(4)
        # A camera further right sees what is in front of this one further left.
        T_s_c0[0, 3] = -FIXED_BASELINE_M if camera == LEFT else FIXED_BASELINE_M
    else:
        T_s_c0 = other.T_c_v @ np.linalg.inv(own.T_c_v)
    return torch.from_numpy(T_s_c0).float()
