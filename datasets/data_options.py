"""What a dataset is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from datasets.layouts import LAYOUTS, SINGLE_IMAGES
from datasets.matched import PACKETS_FILE
from datasets.text import DataError

INTRINSICS = ("calibrated", "fixed")
_MULTIPLE = 32  # the encoders halve an image five times


@dataclass(frozen=True)
class DataOptions:
    """Which data, and what of it makes a sample.

    Attributes:
        data_path: root of the data
        split: a name in `splits/`, a folder with `train_files.txt` and others, or a list of tests
        dataset: a key of `layouts.LAYOUTS`
        png: the kind of image to take where there are both
        height, width: of the images that the networks see [px]
        frame_ids: the images of a sample, counted from the target, which is 0
        use_stereo: the other camera's image at the target's time as well
        use_imu: the IMU of every interval between neighbouring images; they then are one run
        imu_filename: the packets in `matched_oxts`, perhaps a noisy variant
        intrinsics: `calibrated`, those of each recording day, or `fixed`, the published ones
        use_depth: the ground-truth depth of the target
        check_attitude: refuse a drive whose gyro does not turn as its recorded attitudes do
        imu_clip: a specific force beyond so many times gravity, or an angular rate beyond so many
            rad/s, is clipped to that; infinite to clip none
        cache_dir: where decoded and resized images are kept
        cache_workers: processes that build the cache when it is first used
        skip_broken: count broken files and go on, instead of stopping at the first
    """

    data_path: str | Path
    split: str | Path = "eigen_zhou"
    dataset: str = "kitti"
    png: bool = False
    height: int = 192
    width: int = 640
    frame_ids: tuple[int, ...] = (0, -1, 1)
    use_stereo: bool = False
    use_imu: bool = True
    imu_filename: str = PACKETS_FILE
    intrinsics: str = "calibrated"
    use_depth: bool = False
    check_attitude: bool = True
    imu_clip: float = 5.0
    cache_dir: str | Path | None = None
    cache_workers: int = 1
    skip_broken: bool = False

    def __post_init__(self) -> None:
        for name in ("data_path", "cache_dir"):
            if isinstance(path := getattr(self, name), str):
                object.__setattr__(self, name, Path(path))
        if self.dataset not in LAYOUTS:
            raise DataError(f"dataset: expected one of {', '.join(LAYOUTS)}, got {self.dataset}")
        if self.intrinsics not in INTRINSICS:
            raise DataError(f"intrinsics: expected {' or '.join(INTRINSICS)}")
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < _MULTIPLE or value % _MULTIPLE:
                raise DataError(f"{name}: expected a multiple of {_MULTIPLE}, got {value}")
        if not self.imu_clip > 0:  # nor NaN
            raise DataError(f"imu_clip: expected more than 0, got {self.imu_clip}")
        self._check_frames()

    def _check_frames(self) -> None:
        offsets = sorted(self.frame_ids)
        alone = not (self.use_imu or self.use_stereo) and offsets == [0]
        if self.dataset == SINGLE_IMAGES and not alone:
            raise DataError(f"{SINGLE_IMAGES}: no IMU, stereo and neighbours there: frame_ids 0")
        if 0 not in offsets or len(set(offsets)) != len(offsets):
            raise DataError(f"frame_ids: expected 0 and other offsets once each, got {offsets}")
        if self.use_imu and offsets != list(range(offsets[0], offsets[-1] + 1)):
            raise DataError(f"frame_ids: with IMU, expected one run like -1 0 1, got {offsets}")
        if self.use_imu and len(offsets) == 1:
            raise DataError("frame_ids: with IMU, expected at least one neighbour of 0")

    def of_tests(self) -> DataOptions:
        """Return what a list of tests has to have: single images, without IMU."""
        return replace(self, use_imu=False, frame_ids=(0,))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the images that the networks see [px]."""
        return self.width, self.height

    @property
    def window(self) -> tuple[int, int]:
        """The first and the last frame of a sample, counted from the target."""
        return min(self.frame_ids), max(self.frame_ids)
