"""Where the files of a drive lie, in each of the trees that KITTI comes in.

raw          DATE/DATE_drive_NNNN_sync/image_02/data/0000000000.png, velodyne_points/data, ...
odometry     sequences/NN/image_2/000000.png, velodyne; where a tree has no `sequences`, the raw
             drives that the sequences were cut from
benchmark    FOLDER/image/0000000000.png and FOLDER/intrinsics/0000000000.txt: single images
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.drives import Drive
from datasets.splits import LEFT, ODOMETRY, RIGHT, RawRun
from datasets.text import DataError

SCAN_EXTENSION = ".bin"

SINGLE_IMAGES = "kitti_test"
"""The dataset of images without neighbours, IMU and ground truth."""


DAYS = ("2011_09_26", "2011_09_28", "2011_09_29", "2011_09_30", "2011_10_03")
"""When KITTI was recorded; drives of other days are of the user's own."""

_COLOUR_SEQUENCES = "data_odometry_color.zip"
_ADDRESS = "https://s3.eu-central-1.amazonaws.com/avg-kitti"


class MissingError(DataError):
    """Something is not there.

    Attributes:
        archive: the one of KITTI's that brings it, empty if none does
    """

    def __init__(self, message: str, archive: str = "") -> None:
        super().__init__(f"{message}; {archive} brings it" if archive else message)
        self.archive = archive


def address(archive: str) -> str:
    """Return where KITTI offers an archive."""
    folder = ""
    if archive.startswith(DAYS):
        drive = "_".join(archive.split("_")[:5])
        folder = "raw_data/" if archive.endswith("_calib.zip") else f"raw_data/{drive}/"
    return f"{_ADDRESS}/{folder}{archive}"


@dataclass(frozen=True)
class DriveFiles:
    """The files that belong to one folder of a split.

    Attributes:
        name: what messages call the drive
        images: the folder of each camera's images
        digits: how many a file's number has
        shift: number of the files of frame 0
        calibration: the folder of the recording day, or the `calib.txt` of a sequence
        intrinsics: the folder with K of each image, where every image has its own
        scans: the folder of LiDAR scans
        depth: the folder of each camera's improved ground truth
        imu: the synced raw drive, which holds `matched_oxts`
        imu_shift: the interval that begins at frame 0
        archive: the file of KITTI's that brings the images; empty for drives of other days
        calibration_archive: the one that brings the calibration
        scans_archive: the one that brings the scans
        depth_archive: the one that brings the improved ground truth
        imu_archive: the one that brings all packets of the IMU
    """

    name: str
    images: dict[int, Path]
    archive: str
    calibration_archive: str
    scans_archive: str = ""
    depth_archive: str = ""
    imu_archive: str = ""
    digits: int = 10
    shift: int = 0
    calibration: Path | None = None
    intrinsics: Path | None = None
    scans: Path | None = None
    depth: dict[int, Path] | None = None
    imu: Path | None = None
    imu_shift: int = 0


def locate(dataset: str, root: Path, folder: str) -> DriveFiles:
    """Return where the files of a split's folder lie; whether they exist is not looked at.

    Raises:
        DataError: the folder's name is not one of this dataset
    """
    return LAYOUTS[dataset](root, folder)


def _raw(root: Path, folder: str) -> DriveFiles:
    drive = Drive.parse(folder)
    sync, offered = drive.sync(root), drive.date in DAYS
    return DriveFiles(
        name=str(drive),
        images={camera: sync / f"image_{camera:02d}" / "data" for camera in (LEFT, RIGHT)},
        archive=f"{drive}_sync.zip" if offered else "",
        calibration_archive=f"{drive.date}_calib.zip" if offered else "",
        scans_archive=f"{drive}_sync.zip" if offered else "",
        depth_archive="data_depth_annotated.zip" if offered else "",
        imu_archive=f"{drive}_extract.zip" if offered else "",
        calibration=root / drive.date,
        scans=sync / "velodyne_points" / "data",
        depth=_improved_depth(root, sync),
        imu=sync,
    )


def _improved_depth(root: Path, sync: Path) -> dict[int, Path]:
    """Return its folders: in the drive, or as the archive `data_depth_annotated.zip` unpacks."""
    inside = Path("proj_depth") / "groundtruth"
    unpacked = [root / part / sync.name for part in ("train", "val")]
    drive = next((path for path in (sync, *unpacked) if (path / inside).is_dir()), sync)
    return {camera: drive / inside / f"image_{camera:02d}" for camera in (LEFT, RIGHT)}


def _odometry(root: Path, folder: str) -> DriveFiles:
    number = f"{int(folder):02d}" if folder.isascii() and folder.isdigit() else folder
    sequence = root / "sequences" / number
    if (root / "sequences").is_dir():
        run = ODOMETRY.get(number)  # of sequences 11 to 21 nobody knows the raw drives
        return DriveFiles(
            name=f"sequence {number}",
            images={camera: sequence / f"image_{camera}" for camera in (LEFT, RIGHT)},
            archive=_COLOUR_SEQUENCES,
            calibration_archive="data_odometry_calib.zip",
            digits=6,
            calibration=sequence / "calib.txt",
            scans=sequence / "velodyne",
            scans_archive="data_odometry_velodyne.zip",
            imu_archive=f"{run.drive}_extract.zip" if run and run.public else "",
            imu=_raw_drive(root, run) if run and run.public else None,
            imu_shift=run.first if run else 0,
        )
    if number not in ODOMETRY:
        raise DataError(
            f"expected a sequence from 00 to {max(ODOMETRY)}, got {folder!r}; "
            f"others would be in {sequence}"
        )
    run = ODOMETRY[number]
    cut_out = replace(
        _raw(root, run.drive), name=f"sequence {number}", shift=run.first, imu_shift=run.first
    )
    if run.public:
        return cut_out
    return replace(cut_out, archive=_COLOUR_SEQUENCES, imu=None, imu_archive="", scans_archive="")


def _raw_drive(root: Path, run: RawRun) -> Path:
    return Drive.parse(run.drive).sync(root)


def _benchmark(root: Path, folder: str) -> DriveFiles:
    return DriveFiles(
        name=folder,
        images={LEFT: root / folder / "image"},
        archive="data_depth_selection.zip",
        calibration_archive="data_depth_selection.zip",
        intrinsics=root / folder / "intrinsics",
    )


LAYOUTS: dict[str, Callable[[Path, str], DriveFiles]] = {
    "kitti": _raw,
    "kitti_odom": _odometry,
    "kitti_depth": _raw,
    SINGLE_IMAGES: _benchmark,
}
"""How to find the files, by the name of the dataset."""


@dataclass(frozen=True, eq=False)
class NumberedFiles:
    """The files of one kind in a folder, by the number in their names."""

    folder: Path
    extension: str
    digits: int
    numbers: np.ndarray  # (N,) int64, rising

    def path(self, number: int) -> Path:
        """Return where the file of a number is, or would be."""
        return self.folder / f"{number:0{self.digits}d}{self.extension}"

    def has(self, numbers: np.ndarray) -> np.ndarray:
        """Return which of these numbers (...) there are, as booleans."""
        return np.isin(numbers, self.numbers)


def list_files(folder: Path, digits: int, extensions: Sequence[str]) -> NumberedFiles:
    """List the files of a folder: of the first of these kinds that there is."""
    named = re.compile(rf"(\d{{{digits}}})({'|'.join(map(re.escape, extensions))})", re.ASCII)
    found: dict[str, list[int]] = {extension: [] for extension in extensions}
    # Not by a glob: that passes over a folder that may not be read as if it were empty.
    for path in folder.iterdir():
        if match := named.fullmatch(path.name):
            found[match[2]].append(int(match[1]))
    extension = next((kind for kind in extensions if found[kind]), extensions[0])
    return NumberedFiles(folder, extension, digits, np.array(sorted(found[extension]), np.int64))
