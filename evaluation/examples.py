"""Images with their true depth, from a list of KITTI's or from Make3D: what is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets import make3d
from datasets.data_options import DataOptions
from datasets.images import resize
from datasets.kitti import KittiDataset
from datasets.lidar import DepthAxis
from datasets.splits import SPLITS
from datasets.text import DataError
from evaluation.truth_file import TruthFile

VALIDATION = "val"
"""The validation list of the training, as the training itself validates on it."""


@dataclass(frozen=True)
class EvalSplit:
    """A list that depth is evaluated on.

    Attributes:
        dataset: of `layouts.LAYOUTS`: what kind of truth there is
        split: a name in `splits/` or the file of a list; None for DATA_PATH/splits
        protocol: of `metrics.PROTOCOLS`
        truth: what its truth is, in words
        axis: of a LiDAR depth
    """

    dataset: str
    split: str | Path | None
    protocol: str
    truth: str
    axis: DepthAxis = "z"


_SCANS = "single LiDAR scans, depth along the velodyne's x as in the customary export"

EVAL_SPLITS = {
    "eigen": EvalSplit("kitti", "eigen", "eigen", _SCANS, "x"),
    "eigen_benchmark": EvalSplit(
        "kitti_depth", "eigen_benchmark", "eigen_benchmark", "KITTI's improved depth maps"
    ),
    "benchmark": EvalSplit("kitti_test", "benchmark", "benchmark", "not public"),
    "odom_9": EvalSplit("kitti_odom", SPLITS / "odom" / "test_files_09.txt", "eigen", _SCANS, "x"),
    "odom_10": EvalSplit("kitti_odom", SPLITS / "odom" / "test_files_10.txt", "eigen", _SCANS, "x"),
    "synthetic": EvalSplit(
        "kitti_depth",
        None,
        "synthetic",
        "dense depth of the renderer, which left images alone have",
    ),
}
"""By the names of `--eval_split`."""


class Examples(Protocol):
    """N images with their truth; reading one does not depend on the others."""

    names: Sequence[str]
    drives: Sequence[str]  # (N) what the images are drawn from

    def image(self, i: int) -> Tensor:
        """Return an image (3, H, W) uint8 at the network's size."""

    def has_truth(self, i: int) -> bool:
        """Return whether an image has a truth at all."""

    def truth(self, i: int) -> np.ndarray | None:
        """Return its true depth (h, w) float32 [m], zero where unknown, None if there is none."""

    def recorded(self, i: int) -> np.ndarray:
        """Return the image (h, w, 3) uint8 as it was recorded."""


class Example(NamedTuple):
    """What was read of one image; what was not asked for, or is not there, is None."""

    place: int
    image: Tensor | None  # (3, H, W) uint8
    truth_m: np.ndarray | None  # (h, w) float32, zero where there is none


class Reading(Dataset[Example]):
    """Examples as items for worker processes.

    Args:
        examples: where they come from
        images: whether images are wanted
        truths: whether their truth is
    """

    def __init__(self, examples: Examples, images: bool = True, truths: bool = True) -> None:
        self._examples, self._images, self._truths = examples, images, truths

    def __len__(self) -> int:
        return len(self._examples.names)

    def __getitem__(self, i: int) -> Example:
        image = self._examples.image(i) if self._images else None
        return Example(i, image, self._examples.truth(i) if self._truths else None)


class KittiExamples:
    """The images of a list, with LiDAR or improved depth.

    Args:
        options: of the dataset; samples are single images
        axis: of a LiDAR depth
        truth_file: has depths of this kind for the same list, in place of the tree
    """

    def __init__(
        self, options: DataOptions, axis: DepthAxis = "z", truth_file: Path | None = None
    ) -> None:
        if truth_file is not None:  # then nothing asks for calibration
            options = replace(options, intrinsics="fixed")
        self._dataset = KittiDataset(options.of_tests(), "test")
        self._axis: DepthAxis = axis
        self.names = [self._dataset.line(i) for i in range(len(self._dataset))]
        self.drives = [name.split()[0] for name in self.names]
        self.kind = truth_kind(options.dataset, axis)
        self._truth_file = None
        if truth_file is not None:
            self._truth_file = TruthFile(truth_file, self.names, self.kind)

    def image(self, i: int) -> Tensor:
        return self._dataset.target(i)

    def has_truth(self, i: int) -> bool:
        if self._truth_file is not None:
            return self._truth_file.has(i)
        return self._dataset.has_depth(i)

    def truth(self, i: int) -> np.ndarray | None:
        if not self.has_truth(i):
            return None
        if self._truth_file is not None:
            return self._truth_file.depth(i)
        return self._dataset.depth(i, self._axis)

    def recorded(self, i: int) -> np.ndarray:
        return self._dataset.recorded(i)


class ValidationExamples:
    """The validation list of a training: the samples and the truth that `validate` sees.

    Args:
        options: of the training's dataset
    """

    def __init__(self, options: DataOptions) -> None:
        self._dataset = KittiDataset(replace(options, use_depth=True), "val")
        self.names = [self._dataset.line(i) for i in range(len(self._dataset))]
        self.drives = [name.split()[0] for name in self.names]

    def image(self, i: int) -> Tensor:
        return self._dataset.target(i)

    def has_truth(self, i: int) -> bool:
        return True  # what has none is not in this dataset

    def truth(self, i: int) -> np.ndarray:
        return self._dataset[i].depth[0][0].numpy()

    def recorded(self, i: int) -> np.ndarray:
        return self._dataset.recorded(i)


class Make3dExamples:
    """The test images of Make3D: the band across their middle, and its laser depths.

    Args:
        root: see `make3d.find_test_images`
        size: width and height of the network's images [px]
    """

    def __init__(self, root: Path, size: tuple[int, int]) -> None:
        self._pairs = make3d.find_test_images(root)
        self._size = size
        self.names = [pair.name for pair in self._pairs]
        self.drives = self.names  # each is a place of its own

    def image(self, i: int) -> Tensor:
        return resize(torch.from_numpy(self.recorded(i)), self._size)

    def has_truth(self, i: int) -> bool:
        return True

    def truth(self, i: int) -> np.ndarray:
        return make3d.read_depth(self._pairs[i])

    def recorded(self, i: int) -> np.ndarray:
        return make3d.read_image(self._pairs[i])


def open_eval_split(
    name: str, options: DataOptions, truth_file: Path | None = None
) -> KittiExamples:
    """Open one of `EVAL_SPLITS`.

    Args:
        name: of it
        options: where the data are and what size images have; the list and its kind of truth are
            put in
        truth_file: of `export_gt_depth.py`, in place of the tree

    Raises:
        DataError, OSError: images, calibration or lists are missing or broken
    """
    chosen = EVAL_SPLITS[name]
    split = chosen.split
    if split is None:
        split = options.data_path / "splits"
        if not (split / "test_files.txt").is_file():
            raise DataError(
                f"{split}: no test_files.txt there; --eval_split synthetic is for drives that "
                "make_synthetic_kitti.py made, name their folder: --data_path"
            )
    intrinsics = "fixed" if name == "benchmark" else "calibrated"
    wanted = replace(options.of_tests(), dataset=chosen.dataset, split=split, intrinsics=intrinsics)
    return KittiExamples(wanted, chosen.axis, truth_file)


def truth_kind(dataset: str, axis: DepthAxis) -> str:
    """Return what a file of true depths says they were made of."""
    if dataset == "kitti_depth":
        return "depth maps of 16 bits"
    return f"LiDAR scans, {'x of the velodyne' if axis == 'x' else 'z of the camera'}"
