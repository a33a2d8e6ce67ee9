"""From a split's list to what is read: the usable samples, their cameras and their IMU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.attitude import check_attitude
from datasets.cameras import RecordedCamera, open_camera, other_side
from datasets.data_options import DataOptions
from datasets.files import describe
from datasets.image_cache import CacheJob, cache_job
from datasets.layouts import (
    SCAN_EXTENSION,
    DriveFiles,
    MissingError,
    NumberedFiles,
    list_files,
    locate,
)
from datasets.matched import FOLDER, MatchedImu, Reason, read_matched
from datasets.selection import (
    NO_PUBLIC_IMU,
    UNREADABLE,
    Rows,
    Selection,
    need_depth,
    need_images,
    need_imu,
)
from datasets.splits import Split, list_of, read_split, split_folder
from datasets.text import DataError, at_line

MAX_INTERVAL_S = 1.0
"""Images come ten times a second, and one long interval makes those of every batch as long."""


@dataclass(eq=False)
class Inventory:
    """What there is of a list of samples.

    Attributes:
        split: the list
        selection: which of its samples can be used
        cameras: by the drive's place in `split.folders` and the camera's number
        imu: by the drive's place; nothing longer than MAX_INTERVAL_S is valid
    """

    split: Split
    selection: Selection
    cameras: dict[tuple[int, int], RecordedCamera] = field(default_factory=dict)
    imu: dict[int, MatchedImu] = field(default_factory=dict)


def take_inventory(options: DataOptions, part: str) -> Inventory:
    """Look at the drives of a split: which samples can be used, and what is needed to read them.

    Args:
        options: which data, and what of it makes a sample
        part: `train`, `val` or `test`

    Raises:
        DataError, OSError: the first file that is missing or broken; with `skip_broken`, samples
            that need it are left out and counted
    """
    if not options.data_path.is_dir():
        raise FileNotFoundError(
            f"{options.data_path}: {'not a' if options.data_path.exists() else 'no such'} folder, "
            "name the root of the data: --data_path"
        )
    # A list of its own is for tests alone: trained on, it would be validated on as well.
    file = list_of(options.split, part) if part == "test" else None
    split = read_split(file or split_folder(options.split) / f"{part}_files.txt")
    inventory = Inventory(split, Selection(split.path, np.ones(len(split), bool)))
    for drive, folder in enumerate(split.folders):
        of_drive = np.flatnonzero(split.drive == drive)
        for camera in np.unique(split.camera[of_drive]).tolist():
            places = of_drive[split.camera[of_drive] == camera]
            try:
                files = _located(options, split, drive, folder)
                rows = Rows(places, split.frame[places])
                _take_camera(inventory, options, files, drive, camera, rows)
            except (DataError, OSError) as error:
                if not options.skip_broken:
                    raise
                if describe(error) not in map(describe, inventory.selection.faults):
                    inventory.selection.faults.append(error)
                inventory.selection.leave_out(places, np.ones(len(places), bool), UNREADABLE)
    return inventory


def _located(options: DataOptions, split: Split, drive: int, folder: str) -> DriveFiles:
    """Return where a drive's files lie; a name that is none is of the line that has it first."""
    try:
        return locate(options.dataset, options.data_path, folder)
    except DataError as error:
        line = int(split.line[split.drive == drive][0])
        raise at_line(split.path, line, str(error)) from None


def _take_camera(
    inventory: Inventory,
    options: DataOptions,
    files: DriveFiles,
    drive: int,
    camera: int,
    rows: Rows,
) -> None:
    """Open a camera of a drive and leave out the samples that lack something."""
    selection, skip = inventory.selection, options.skip_broken
    if options.use_imu and files.imu is None:
        # Looked at first: where there are no `sequences`, its images are not public either.
        selection.leave_out(rows.places, np.ones(len(rows.places), bool), NO_PUBLIC_IMU)
        return
    opened = _opened(inventory, options, files, drive, camera)
    offsets = np.array(sorted(options.frame_ids, key=abs))  # the target first
    targets = rows.frames + files.shift  # (n,)
    need_images(selection, rows, targets[:, None] + offsets, opened.images, files.archive, skip)
    if options.use_stereo:
        other = _opened(inventory, options, files, drive, other_side(camera))
        need_images(selection, rows, targets[:, None], other.images, files.archive, skip)
    if options.use_depth:
        need_depth(selection, rows, targets, depth_files(files, camera, options))
    if options.use_imu:
        _take_imu(inventory, options, files, drive, rows)


def _opened(
    inventory: Inventory, options: DataOptions, files: DriveFiles, drive: int, camera: int
) -> RecordedCamera:
    if (drive, camera) not in inventory.cameras:
        inventory.cameras[drive, camera] = open_camera(files, camera, options)
    return inventory.cameras[drive, camera]


def _take_imu(
    inventory: Inventory, options: DataOptions, files: DriveFiles, drive: int, rows: Rows
) -> None:
    if drive not in inventory.imu:
        inventory.imu[drive] = read_imu(files, options)
    first, last = options.window
    intervals = rows.frames[:, None] + files.imu_shift + np.arange(first, last)
    file = files.imu / FOLDER / options.imu_filename
    need_imu(inventory.selection, rows, intervals, inventory.imu[drive], file)


def matched_folder(files: DriveFiles) -> Path:
    """Return where the matched IMU of a drive is, or raise a `MissingError`."""
    folder = files.imu / FOLDER
    if not folder.exists():
        extract = files.imu.with_name(f"{files.imu.name.removesuffix('_sync')}_extract")
        archive = "" if extract.is_dir() else files.imu_archive
        raise MissingError(f"{folder}: no such folder; make it with match_kitti_imu.py", archive)
    return folder


def read_imu(files: DriveFiles, options: DataOptions) -> MatchedImu:
    """Read the matched IMU of a drive, without intervals that are too long."""
    folder = matched_folder(files)
    matched = read_matched(files.imu, options.imu_filename)
    matched = matched.without(matched.durations_s > MAX_INTERVAL_S, Reason.TOO_LONG)
    if options.check_attitude:
        check_attitude(matched, folder / options.imu_filename)
    return matched


def depth_files(files: DriveFiles, camera: int, options: DataOptions) -> NumberedFiles:
    """List the ground truth of a camera: improved depth, or the LiDAR scans."""
    if options.dataset == "kitti_depth":
        folder, extension, archive = files.depth[camera], ".png", files.depth_archive
    elif files.scans is None:
        raise DataError(f"{files.name}: these images have no ground-truth depth")
    else:
        folder, extension, archive = files.scans, SCAN_EXTENSION, files.scans_archive
    if folder.exists():
        return list_files(folder, files.digits, (extension,))
    if options.dataset == "kitti_depth" and any(f.exists() for f in files.depth.values()):
        # Of synthetic drives, only the left camera has it.
        return NumberedFiles(folder, extension, files.digits, np.zeros(0, np.int64))
    raise MissingError(f"{folder}: no such folder", archive)


def cache_job_of(camera: RecordedCamera, options: DataOptions) -> CacheJob:
    """Return what a cache of this camera's images needs."""
    recorded_size = camera.mounting.recorded_size
    root, cache_dir = options.data_path, options.cache_dir
    return cache_job(cache_dir, root, camera.images, recorded_size, options.size)
