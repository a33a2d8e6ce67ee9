"""What there is of one drive, what is missing, and which of KITTI's archives brings it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.cameras import open_camera
from datasets.data_options import DataOptions
from datasets.files import describe
from datasets.images import check_size, read_image
from datasets.inventory import depth_files, matched_folder, read_imu
from datasets.layouts import DriveFiles, MissingError, NumberedFiles, locate
from datasets.lidar import read_depth_png, read_scan
from datasets.oxts import read_oxts
from datasets.text import DataError

STANDING_M = 0.02
"""A car that drives less than this between two images stands: the GPS wanders as much."""

_SHOWN_FAULTS = 3  # of the files of one folder


@dataclass
class DriveSurvey:
    """What was found of a drive.

    Attributes:
        name: of the drive
        images: how many, by camera
        depth: how many files of ground truth, by camera
        intervals: how many intervals have IMU, and how many there are; None if it is not matched
        intrinsics: of each camera's images, as text
        steps_m: (N,) how far the car drives from an image to the next
        faults: what is missing or broken, one line each
        archives: what brings what is missing
    """

    name: str
    images: dict[int, int] = field(default_factory=dict)
    depth: dict[int, int] = field(default_factory=dict)
    intervals: tuple[int, int] | None = None
    intrinsics: dict[int, str] = field(default_factory=dict)
    steps_m: np.ndarray = field(default_factory=lambda: np.zeros(0))
    faults: list[str] = field(default_factory=list)
    archives: set[str] = field(default_factory=set)

    @property
    def group(self) -> str:
        """The recording day; a sequence, or images of unknown days, by themselves."""
        return self.name.partition("_drive_")[0]


@dataclass(frozen=True)
class SurveyJob:
    """A drive to look at.

    Attributes:
        folder: as a split names it
        cameras: those whose images are needed
        options: what is asked of the data
        deep: read every file, too
    """

    folder: str
    cameras: tuple[int, ...]
    options: DataOptions
    deep: bool


def survey(job: SurveyJob) -> DriveSurvey:
    """Look at one drive; what is wrong with it becomes a part of the result."""
    options = job.options
    try:
        files = locate(options.dataset, options.data_path, job.folder)
    except DataError as error:
        return DriveSurvey(job.folder, faults=[str(error)])
    found = DriveSurvey(files.name)
    if not any(folder.exists() for folder in files.images.values()):
        if options.use_imu and files.imu is None:
            return found  # its samples cannot be used, whether its images are there or not
        _guarded(found, lambda: open_camera(files, job.cameras[0], options))
        needed = [_imu_archive(files) if options.use_imu else ""]
        if files.calibration is not None and not _is_calibrated(files.calibration):
            needed.append(files.calibration_archive)
        found.archives |= set(filter(None, needed))
        return found
    for camera in job.cameras:
        _guarded(found, lambda camera=camera: _survey_camera(found, files, camera, job))
    if files.imu is not None:
        if options.use_imu:
            _guarded(found, lambda: _survey_imu(found, files, options))
        if (files.imu / "oxts").is_dir():  # training itself needs no synced packets
            _guarded(found, lambda: _survey_motion(found, files.imu / "oxts"))
    return found


def _guarded(found: DriveSurvey, look: Callable[[], None]) -> None:
    """Take down what cannot be looked at, once."""
    try:
        look()
    except (DataError, OSError) as error:
        if describe(error) not in found.faults:
            found.faults.append(describe(error))
        if isinstance(error, MissingError) and error.archive:
            found.archives.add(error.archive)


def _survey_camera(found: DriveSurvey, files: DriveFiles, camera: int, job: SurveyJob) -> None:
    opened = open_camera(files, camera, job.options)
    found.images[camera] = len(opened.images.numbers)
    size, K = opened.mounting.recorded_size, opened.mounting.K
    if K is not None:
        numbers = f"fx {K[0, 0]:.1f} fy {K[1, 1]:.1f} cx {K[0, 2]:.1f} cy {K[1, 2]:.1f}"
        found.intrinsics[camera] = f"{size[0]}x{size[1]} {numbers}"
    if files.intrinsics is not None and not files.intrinsics.exists():
        raise MissingError(f"{files.intrinsics}: no such folder", files.archive)
    if job.deep:
        _read_all(found, opened.images, lambda path: _check_image(path, size))
        if files.intrinsics is not None:
            _read_all(found, opened.images, lambda path: opened.K_of(int(path.stem), size))
    if job.options.use_depth:
        depth = depth_files(files, camera, job.options)
        found.depth[camera] = len(depth.numbers)
        shared = depth.folder == files.scans and camera != job.cameras[0]
        if job.deep and not shared:
            _read_all(found, depth, read_depth_png if depth.extension == ".png" else read_scan)


def _check_image(path: Path, size: tuple[int, int]) -> None:
    height, width = read_image(path).shape[:2]
    check_size(path, (width, height), size)


def _read_all(found: DriveSurvey, files: NumberedFiles, read: Callable[[Path], object]) -> None:
    """Read every file of a folder; take down the first of those that are broken."""
    faults = []
    for number in files.numbers.tolist():
        try:
            read(files.path(number))
        except (DataError, OSError) as error:
            faults.append(describe(error))
    found.faults += faults[:_SHOWN_FAULTS]
    if len(faults) > _SHOWN_FAULTS:
        found.faults.append(f"{files.folder}: {len(faults) - _SHOWN_FAULTS} more files are broken")


def _is_calibrated(calibration: Path) -> bool:
    """Say whether the file of a sequence, or the three of a day, are there."""
    if calibration.suffix == ".txt":
        return calibration.exists()
    return len([*calibration.glob("calib_*_to_*.txt")]) == 3  # the folder alone says nothing


def _imu_archive(files: DriveFiles) -> str:
    """Return what brings the packets of a drive, empty if they are there."""
    try:
        matched_folder(files)
    except MissingError as error:
        return error.archive
    return ""


def _survey_imu(found: DriveSurvey, files: DriveFiles, options: DataOptions) -> None:
    matched = read_imu(files, options)
    found.intervals = int(matched.valid.sum()), len(matched)


def _survey_motion(found: DriveSurvey, oxts: Path) -> None:
    packets = read_oxts(oxts).packets
    seconds = np.diff(packets.stamps_ns) / 1e9
    found.steps_m = (packets.speed[1:] + packets.speed[:-1]) / 2 * seconds
