"""KITTI's drives as samples: raw data, odometry, improved depth, and synthetic drives alike."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from datasets.batch import STEREO, Frame, Sample
from datasets.cameras import (
    DecodedImages,
    Images,
    RecordedCamera,
    other_side,
    stereo_motion,
)
from datasets.data_options import DataOptions
from datasets.files import describe
from datasets.image_cache import CacheJob, build_all, open_cached
from datasets.images import read_image
from datasets.imu_table import ImuTable
from datasets.inventory import Inventory, cache_job_of, depth_files, take_inventory
from datasets.layouts import NumberedFiles
from datasets.lidar import DepthAxis, depth_map, read_depth_png, read_scan, resize_depth
from datasets.splits import CAMERA_OF_SIDE
from datasets.text import DataError

_log = logging.getLogger(__name__)
# Options that say what a sample has; what it is made of is in a fingerprint by itself.
_SHAPING = ("dataset", "width", "height", "use_stereo", "use_imu", "use_depth")
_Key = tuple[int, int]  # the drive's place in the split, and the camera's number


class KittiDataset(Dataset[Sample]):
    """The samples of a split that can be used.

    Args:
        options: which data, and what of it makes a sample
        part: `train`, `val` or `test`: which list of the split

    Attributes:
        selection: how many samples of the list were left out, and why

    Raises:
        FileNotFoundError: there is no such list
        DataError: the first file that is missing or broken, unless `skip_broken`; or no sample
            can be used
    """

    def __init__(self, options: DataOptions, part: str) -> None:
        self.options = options
        inventory = take_inventory(options, part)
        self.selection = inventory.selection
        for fault in self.selection.faults:
            _log.warning("left out: %s", describe(fault))
        kept = self.selection.kept
        if not kept.any():
            reasons = ", ".join(f"{n} {reason}" for reason, n in self.selection.left_out.items())
            raise DataError(f"{self.selection.file}: no sample of it can be used: {reasons}")
        _log.info("%s", self.selection)
        split = inventory.split
        self._drive, self._frame, self._camera = (
            column[kept] for column in (split.drive, split.frame, split.camera)
        )
        targets = set(zip(self._drive.tolist(), self._camera.tolist(), strict=True))
        others = {key: (key[0], other_side(key[1])) for key in targets if options.use_stereo}
        used = sorted(targets.union(others.values()))
        self._cameras = {key: inventory.cameras[key] for key in used}
        self._T_s_c0 = {
            key: stereo_motion(
                key[1], self._cameras[key].mounting, self._cameras[other].mounting, options
            )
            for key, other in others.items()
        }
        self._depth: dict[_Key, NumberedFiles] = {}
        self._folders = split.folders
        self._images = dict(_open_images(self._cameras, options))
        # One size for a batch: that of most of KITTI's drives, which is the largest.
        self._depth_size = max(self._cameras[key].mounting.recorded_size for key in targets)
        self._place_imu(inventory, sorted({drive for drive, _ in targets}))
        self._broken: set[int] = set()

    def _place_imu(self, inventory: Inventory, drives: list[int]) -> None:
        """Integrate the IMU of these drives, and note where the intervals of a target begin."""
        if not self.options.use_imu:
            return
        self._imu = ImuTable([inventory.imu[drive] for drive in drives], self.options.imu_clip)
        first_row = dict(zip(drives, self._imu.first_row.tolist(), strict=True))
        shift = {drive: camera.files.imu_shift for (drive, _), camera in self._cameras.items()}
        begins = np.array([first_row[d] + shift[d] for d in self._drive.tolist()])
        self._interval = begins + self._frame  # (n,) row of the one that begins at the target
        self._T_c_b = {
            key: torch.from_numpy(camera.mounting.T_c_b).float()
            for key, camera in self._cameras.items()
        }

    def __len__(self) -> int:
        return len(self._frame)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample; with `skip_broken`, the next one that can be read.

        Raises:
            IndexError: there are not so many
            FileNotFoundError, DataError: a file of it is missing or broken
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} samples")
        for skipped in range(len(self)):
            place = (index + skipped) % len(self)
            try:
                return self._load(place, skipped)
            except (DataError, OSError) as error:
                if not self.options.skip_broken:
                    raise
                if place not in self._broken:
                    self._broken.add(place)
                    _log.warning("left out: %s", describe(error))
        raise DataError(f"{self.selection.file}: none of its samples can be read")

    def _load(self, place: int, skipped: int) -> Sample:
        options, key = self.options, self._key(place)
        camera, number = self._cameras[key], self._number(place)
        image: dict[Frame, Tensor] = {
            offset: self._images[key].read(number + offset) for offset in options.frame_ids
        }
        T_source_c0: dict[Frame, Tensor] = {}
        if options.use_stereo:
            image[STEREO] = self._images[key[0], other_side(key[1])].read(number)
            T_source_c0[STEREO] = self._T_s_c0[key]
        imu = {}
        if options.use_imu:
            row, T_c_b = int(self._interval[place]), self._T_c_b[key]
            imu = {k: self._imu.interval(row + k, T_c_b) for k in range(*options.window)}
        depth: dict[Frame, Tensor] = {}
        if options.use_depth:
            recorded = self.depth(place)
            depth[0] = torch.from_numpy(resize_depth(recorded, self._depth_size)).unsqueeze(0)
        return Sample(
            image=image,
            K=camera.K_of(number, options.size),
            imu=imu,
            T_source_c0=T_source_c0,
            depth=depth,
            index=torch.tensor(place),
            skipped=torch.tensor(skipped),
        )

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that are others if the samples or their order are others.

        They stand for the lines, the calibration, the IMU and the options that make a sample what
        it is, not for where the data lie and how they are read. What images and ground truth show
        is not looked at: that would take as long as an epoch.
        """
        options, size = self.options, self.options.size
        asked = {name: getattr(options, name) for name in _SHAPING} | {
            "frame_ids": sorted(options.frame_ids),
            "lines": [self.line(i) for i in range(len(self))],
        }
        arrays: list[np.ndarray | Tensor] = []
        for (_, number), camera in self._cameras.items():
            mounting = camera.mounting
            kind = [camera.images.extension, mounting.recorded_size]
            asked[f"camera {camera.files.name} {number}"] = kind
            K_and_lidar = [camera.K, mounting.P_px_v if options.use_depth else None]
            arrays += [matrix for matrix in K_and_lidar if matrix is not None]
        for i in range(len(self)):
            if (camera := self.camera(i)).K is None:  # each image has its own
                arrays.append(camera.K_of(self._number(i), size))
        arrays += self._T_s_c0.values()
        if options.use_imu:
            arrays += [*self._T_c_b.values(), *self._imu.measured]
        digest = hashlib.sha256(json.dumps(asked).encode())
        for array in map(np.asarray, arrays):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()[:16]

    def line(self, index: int) -> str:
        """Return the line of the list that a sample comes from, `folder frame side`."""
        folder = self._folders[self._drive[index]]
        side_of = {camera: side for side, camera in CAMERA_OF_SIDE.items()}
        return f"{folder} {self._frame[index]} {side_of[self._camera[index]]}"

    def camera(self, index: int) -> RecordedCamera:
        """Return the camera of a target: its calibration and its files, as recorded."""
        return self._cameras[self._key(index)]

    def depth(self, index: int, axis: DepthAxis = "z") -> np.ndarray:
        """Return the ground truth of a target as recorded, whether or not samples have it.

        Args:
            index: place in the dataset
            axis: of a LiDAR depth: `z` of the camera, or `x` of the velodyne as for the Eigen split

        Returns:
            (h, w) float32 [m], zero where there is none

        Raises:
            DataError, OSError: there is none of this kind, it is broken, or no calibration was read
        """
        camera = self.camera(index)
        path = self._depth_files(index).path(self._number(index))
        if self.options.dataset == "kitti_depth":
            return read_depth_png(path)
        mounting = camera.mounting
        if mounting.P_px_v is None:
            raise DataError(f"{path}: no calibration was read: use_depth, or calibrated intrinsics")
        return depth_map(read_scan(path), mounting.P_px_v, mounting.recorded_size, axis)

    def has_depth(self, index: int) -> bool:
        """Return whether there is a file with the ground truth of a target.

        Raises:
            DataError: there is none of any target of this camera
        """
        return bool(self._depth_files(index).has(np.array(self._number(index))))

    def target(self, index: int) -> Tensor:
        """Return the image of a target alone, (3, H, W) uint8 at the network's size."""
        return self._images[self._key(index)].read(self._number(index))

    def recorded(self, index: int) -> np.ndarray:
        """Return the image of a target as recorded, RGB (h, w, 3) uint8."""
        return read_image(self.camera(index).images.path(self._number(index)))

    def _number(self, index: int) -> int:
        """Return the number of a target's files."""
        return int(self._frame[index]) + self.camera(index).files.shift

    def _depth_files(self, index: int) -> NumberedFiles:
        key = self._key(index)
        if key not in self._depth:
            self._depth[key] = depth_files(self._cameras[key].files, key[1], self.options)
        return self._depth[key]

    def _key(self, index: int) -> _Key:
        return int(self._drive[index]), int(self._camera[index])


def _open_images(
    cameras: dict[_Key, RecordedCamera], options: DataOptions
) -> Iterator[tuple[_Key, Images]]:
    """Yield where the images of each camera are read from; caches that are lacking are built."""
    jobs: dict[_Key, CacheJob] = {}
    if options.cache_dir is not None:
        jobs = {key: cache_job_of(camera, options) for key, camera in cameras.items()}
        new = [job for job in jobs.values() if not job.file.exists()]
        results = build_all(new, options.cache_workers)
        for _ in tqdm(results, "cache", len(new), unit="folder", disable=None if new else True):
            pass
    for key, camera in cameras.items():
        cached = open_cached(jobs[key]) if key in jobs else None
        recorded_size = camera.mounting.recorded_size
        yield key, cached or DecodedImages(camera.images, recorded_size, options.size)
