"""Where the left camera truly was: KITTI's poses, those of a synthetic drive, or GPS and INS."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.calibration import KeyedFile, projects, read_calibration, sideways
from datasets.layouts import LEFT, DriveFiles
from datasets.oxts import poses_w_b, read_oxts
from datasets.text import DataError
from evaluation.trajectory_files import read_kitti

CHOICES = ("auto", "poses", "oxts")
"""What may be asked for; `auto` is poses where there are some, else GPS and INS."""


@dataclass(frozen=True, eq=False)
class TruePoses:
    """The truth of N images.

    Attributes:
        T_w_c: (N, 4, 4) of the left colour camera, in any world [m]
        known: (N,) bool, where there is one
        source: what it was read from, in words
        note: why it is not the better one, where that is missing
    """

    T_w_c: np.ndarray
    known: np.ndarray
    source: str
    note: str = ""


def poses_file(files: DriveFiles, root: Path, sequence: str | None) -> Path | None:
    """Return where the poses of camera 0 are, or would be; None for drives that have none.

    Those of a sequence are in `poses`, or where KITTI's archive unpacks to; synthetic drives have
    their own.
    """
    if sequence is not None:
        places = [root / folder / f"{sequence}.txt" for folder in ("poses", "dataset/poses")]
        return next((path for path in places if path.exists()), places[0])
    truth = None if files.imu is None else files.imu / "truth"
    return truth / "poses.txt" if truth is not None and truth.is_dir() else None


def read_truth(
    choice: str,
    files: DriveFiles,
    poses: Path | None,
    count: int,
    frames: range,
    T_c_b: np.ndarray | None,
) -> TruePoses | str:
    """Return the truth of some frames of a drive, or a line that says why there is none.

    Args:
        choice: of `CHOICES`
        files: of the drive
        poses: of `poses_file`
        count: images of the whole drive, of which the poses must be
        frames: those that are wanted
        T_c_b: (4, 4) body to camera; None where nothing is known of a body

    Raises:
        DataError: a file is broken, or is of another drive; or what was asked for is not there
    """
    oxts = None if files.imu is None else files.imu / "oxts"
    if choice != "oxts" and poses is not None and poses.exists():
        return _of_poses(files, poses, count, frames)
    if choice == "poses":
        where = "KITTI has none of raw drives" if poses is None else f"{poses}: no such file"
        raise DataError(f"{files.name}: {where}; --truth oxts takes GPS and INS")
    if oxts is not None and oxts.is_dir() and T_c_b is not None:
        truth = _of_oxts(files, oxts, frames, T_c_b)
        if choice == "oxts" or poses is None:
            return truth
        return replace(truth, note=f"there is no {poses}, so the truth is GPS and INS")
    absent = [str(path) for path in (oxts, poses) if path is not None and path.parent.exists()]
    said = f"no {' and no '.join(absent)}" if absent else "no poses, and no GPS and INS"
    if choice == "oxts":
        raise DataError(f"{files.name}: {said}; --truth oxts needs the synced raw drive")
    return said


def _of_poses(files: DriveFiles, path: Path, count: int, frames: range) -> TruePoses:
    T_w_c0 = read_kitti(path)
    if len(T_w_c0) != count:
        raise DataError(
            f"{path}: {len(T_w_c0)} poses, but {files.name} has {count} images: they are not of "
            "the same drive, or some images are missing"
        )
    T_w_c = T_w_c0[frames.start : frames.stop] @ np.linalg.inv(_T_c_c0(files))
    return TruePoses(T_w_c, np.ones(len(frames), bool), str(path))


def _T_c_c0(files: DriveFiles) -> np.ndarray:
    """Return rectified camera 0 to the left colour camera (4, 4)."""
    if files.calibration.suffix == ".txt":  # of a sequence
        P = KeyedFile(files.calibration).checked(
            f"P{LEFT}", 12, projects, "a focal length above zero"
        )
        return sideways(P.reshape(3, 4))
    of_day = read_calibration(files.calibration)
    return of_day[LEFT].T_c_v @ np.linalg.inv(of_day[0].T_c_v)


def _of_oxts(files: DriveFiles, folder: Path, frames: range, T_c_b: np.ndarray) -> TruePoses:
    recording = read_oxts(folder)
    numbers = np.arange(frames.start, frames.stop) + files.imu_shift
    known = np.isin(numbers, recording.frames)
    if not known.any():
        raise DataError(f"{folder}: no packet of the images that are asked for")
    rows = np.searchsorted(recording.frames, numbers[known])
    T_w_c = np.tile(np.eye(4), (len(frames), 1, 1))
    T_w_c[known] = poses_w_b(recording.packets.select(rows)) @ np.linalg.inv(T_c_b)
    return TruePoses(T_w_c, known, f"{folder}: GPS and INS")
