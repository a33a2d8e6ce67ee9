"""A whole drive, or a part of it: images in a row, the IMU between them, and where they truly were.

Frames are counted from the first of the drive, or of the sequence that is cut from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.cameras import DecodedImages, RecordedCamera, open_camera
from datasets.data_options import DataOptions
from datasets.drives import Drive
from datasets.imu_table import GRAVITY
from datasets.inventory import matched_folder, read_imu
from datasets.layouts import LEFT, DriveFiles, MissingError, locate
from datasets.matched import FOLDER, PACKETS_FILE, MatchedImu
from datasets.oxts import Packets, read_oxts, read_stamps
from datasets.splits import ODOMETRY
from datasets.text import DataError, at_line, parse_numbers, read_lines
from ekf.sequence import ImuIntervals
from evaluation.true_poses import TruePoses, poses_file, read_truth

USUAL_PERIOD_S = 0.1
"""Between two images of KITTI, where nothing else is known."""


@dataclass(frozen=True)
class Wanted:
    """Which part of which data.

    Attributes:
        data_path: root of the data
        size: width and height of the network's images [px]
        frames: first and last; None for all
        png: the kind of image to take where there are both
        imu_filename: the packets in `matched_oxts`
        truth: of `true_poses.CHOICES`
        imu_clip: of `DataOptions`
    """

    data_path: Path
    size: tuple[int, int]
    frames: tuple[int, int] | None = None
    png: bool = False
    imu_filename: str = PACKETS_FILE
    truth: str = "auto"
    imu_clip: float = DataOptions.imu_clip


@dataclass(frozen=True, eq=False)
class DriveFrames:
    """N images in a row, and what belongs to them.

    Attributes:
        name: like `2011_09_26_drive_0001` or `sequence 09`
        short: the same as the name of a folder: `09`
        drive: the raw drive; None for a sequence of which nobody knows it
        images: (3, H, W) uint8 RGB each, at the network's size
        frames: which they are
        stamps_s: (N,) since the first of them [s], rising
        imu: of the N - 1 intervals, float64; a line that says why where there is none
        T_c_b: (4, 4) float64, body to camera; None where nothing is known of a body
        first_packet: one OXTS packet at the first image; None where there is none
        truth: of these images; a line that says why where there is none
    """

    name: str
    short: str
    drive: Drive | None
    images: Dataset[Tensor]
    frames: range
    stamps_s: np.ndarray
    imu: ImuIntervals | str
    T_c_b: Tensor | None
    first_packet: Packets | None
    truth: TruePoses | str

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def durations_s(self) -> np.ndarray:
        """From each image to the next (N - 1,) [s]."""
        return np.diff(self.stamps_s)


class FrameImages(Dataset[Tensor]):
    """Some images of a camera in a row, for workers to read."""

    def __init__(self, camera: RecordedCamera, frames: range, size: tuple[int, int]) -> None:
        self._decoded = DecodedImages(camera.images, camera.mounting.recorded_size, size)
        self._numbers = range(frames.start + camera.files.shift, frames.stop + camera.files.shift)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> Tensor:
        return self._decoded.read(self._numbers[place])


def open_drive(wanted: Wanted, folder: str) -> DriveFrames:
    """Open a raw drive, or a sequence of KITTI's odometry.

    Args:
        wanted: which part of it
        folder: like `2011_09_26_drive_0001`, or the number of a sequence

    Raises:
        DataError, OSError: something of it is missing or broken; the IMU and the truth may be
            missing
    """
    sequence = f"{int(folder):02d}" if folder.isascii() and folder.isdigit() else None
    dataset = "kitti" if sequence is None else "kitti_odom"
    files = locate(dataset, wanted.data_path, folder)
    options = _options(wanted, dataset, files)
    camera = open_camera(files, LEFT, options)
    whole = _whole(camera, sequence)
    frames = _part(files, whole, wanted.frames)
    _check_complete(camera, frames)
    stamps_s = _stamps(files, frames)
    matched = _matched(files, options, frames)
    imu = matched
    if isinstance(matched, MatchedImu):
        imu = _intervals(matched, frames, files.imu_shift, stamps_s, options.imu_clip)
    T_c_b = camera.mounting.T_c_b
    poses = poses_file(files, wanted.data_path, sequence)
    return DriveFrames(
        name=files.name,
        short=sequence or files.name,
        drive=_raw_drive(folder, sequence),
        images=FrameImages(camera, frames, wanted.size),
        frames=frames,
        stamps_s=stamps_s,
        imu=imu,
        T_c_b=None if T_c_b is None else torch.from_numpy(T_c_b),
        first_packet=_first_packet(matched, files, frames),
        truth=read_truth(wanted.truth, files, poses, whole.stop, frames, T_c_b),
    )


def _options(wanted: Wanted, dataset: str, files: DriveFiles) -> DataOptions:
    """Return what is asked for: the IMU's place in the car too, where there is an IMU."""
    has_body = files.imu is not None and any(
        (files.imu / name).is_dir() for name in (FOLDER, "oxts")
    )
    width, height = wanted.size
    return DataOptions(
        wanted.data_path,
        dataset=dataset,
        png=wanted.png,
        width=width,
        height=height,
        use_imu=has_body,
        imu_filename=wanted.imu_filename,
        imu_clip=wanted.imu_clip,
        check_attitude=False,  # how noise or another convention shows is what may be looked for
    )


def _raw_drive(folder: str, sequence: str | None) -> Drive | None:
    if sequence is None:
        return Drive.parse(folder)
    return Drive.parse(ODOMETRY[sequence].drive) if sequence in ODOMETRY else None


def _whole(camera: RecordedCamera, sequence: str | None) -> range:
    """Return the frames of the whole drive, of which the last is there, and perhaps not all."""
    numbers = camera.images.numbers - camera.files.shift
    last = int(numbers[-1])
    if sequence in ODOMETRY and camera.files.digits == 10:  # cut from a raw drive
        run = ODOMETRY[sequence]
        last = min(last, run.last - run.first)
    return range(last + 1)


def _part(files: DriveFiles, whole: range, wanted: tuple[int, int] | None) -> range:
    first, last = (0, whole.stop - 1) if wanted is None else wanted
    if wanted is not None and not 0 <= first < last < whole.stop:
        raise DataError(
            f"{files.name}: --frames {first} {last}, but there are 0 to {whole.stop - 1}, and a "
            "motion is between two"
        )
    if last - first < 1:
        raise DataError(f"{files.name}: {len(whole)} image, but a motion is between two")
    return range(first, last + 1)


def _check_complete(camera: RecordedCamera, frames: range) -> None:
    numbers = np.arange(frames.start, frames.stop) + camera.files.shift
    absent = numbers[~camera.images.has(numbers)].tolist()
    if absent:
        more = f", with {len(absent) - 1} more" if absent[1:] else ""
        raise MissingError(
            f"{camera.images.path(absent[0])}: no such image{more}; --frames takes a part without",
            camera.files.archive,
        )


def _stamps(files: DriveFiles, frames: range) -> np.ndarray:
    """Return when the frames were taken [s], counted from the first.

    Intervals that the stamps do not tell, or that do not rise, are as long as the others are on
    average.
    """
    stamps_s = _recorded_stamps(files, frames)
    steps_s = np.diff(stamps_s)
    good = steps_s > 0  # nor NaN
    usual_s = steps_s[good].mean() if good.any() else USUAL_PERIOD_S
    return np.concatenate([[0], np.cumsum(np.where(good, steps_s, usual_s))])


def _recorded_stamps(files: DriveFiles, frames: range) -> np.ndarray:
    """Return the recorded stamps (N,) [s] from any time on, NaN where there is none."""
    times = files.images[LEFT].parent / "times.txt"  # of a sequence
    stamps = files.images[LEFT].parent / "timestamps.txt"
    found = np.full(len(frames), np.nan)
    if times.exists():
        recorded_s = _read_times(times)[frames.start : frames.stop]
        found[: len(recorded_s)] = recorded_s
    elif stamps.exists():
        recorded = read_stamps(stamps).resized(frames.stop + files.shift)
        part = slice(frames.start + files.shift, None)
        ns, present = recorded.ns[part], recorded.present[part]
        if present.any():
            found[present] = (ns[present] - ns[present][0]) / 1e9
    return found


def _read_times(path: Path) -> np.ndarray:
    seconds = []
    for line, text in enumerate(read_lines(path), start=1):
        try:
            seconds += parse_numbers(text, 1)
        except DataError as error:
            raise at_line(path, line, str(error)) from None
    return np.array(seconds)


def _matched(files: DriveFiles, options: DataOptions, frames: range) -> MatchedImu | str:
    """Return the IMU of the whole raw drive, or say why there is none."""
    if files.imu is None:
        return f"{files.name}: the IMU of this sequence is not public"
    try:
        matched_folder(files)
    except MissingError as error:
        return str(error)
    matched = read_imu(files, options)
    if frames.stop - 1 + files.imu_shift > len(matched):
        raise DataError(
            f"{files.imu / FOLDER / options.imu_filename}: {len(matched)} intervals, but there are "
            "images beyond the last: match the drive again, with match_kitti_imu.py --overwrite"
        )
    return matched


def _intervals(
    matched: MatchedImu, frames: range, shift: int, stamps_s: np.ndarray, clip: float
) -> ImuIntervals:
    """Return the intervals between the frames, clipped as for a training."""
    part = slice(frames.start + shift, frames.stop - 1 + shift)
    samples = matched.padded()
    dt, gyro, accel, valid = (
        torch.from_numpy(x[part]) for x in (samples.dt, samples.gyro, samples.accel, samples.valid)
    )
    return ImuIntervals(
        dt=dt,
        gyro=gyro.clamp(-clip, clip),
        accel=accel.clamp(-clip * GRAVITY, clip * GRAVITY),
        valid=valid,
        duration=torch.from_numpy(np.diff(stamps_s)),
    )


def _first_packet(matched: MatchedImu | str, files: DriveFiles, frames: range) -> Packets | None:
    """Return the packet that the first interval begins with, or else the synced one."""
    number = frames.start + files.imu_shift
    if isinstance(matched, MatchedImu) and matched.valid[number]:
        return matched.interval(number).select(slice(0, 1))
    if files.imu is None or not (files.imu / "oxts").is_dir():
        return None
    recording = read_oxts(files.imu / "oxts")
    row = np.flatnonzero(recording.frames == number)
    return recording.packets.select(row) if len(row) else None
