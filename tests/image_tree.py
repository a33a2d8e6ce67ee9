"""Small drives that a dataset can be made of: images, scans, calibration, matched IMU, a split."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from pykitti.utils import read_calib_file

from datasets.data_options import DataOptions
from datasets.drives import Drive, MatchOptions, match_drive
from datasets.synthetic.rig import write_calibration
from tests.kitti_tree import DATE, Tree, make_tree

SIZE = 124, 38  # a tenth of the real one [px]
NETWORK_SIZE = 64, 32
SINGLE = "depth_selection/test_depth_prediction_anonymous"  # a folder of single images
DRIVES = (f"{DATE}_drive_0001", f"{DATE}_drive_0002")


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return a smooth BGR image (H, W, 3) uint8 that is another for each number."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    waves = [np.sin(2 * np.pi * ((k + 1) * x + 0.3 * k * y) + number) for k in range(3)]
    return np.rint(127 + 100 * np.stack(waves, -1)).astype(np.uint8)


def make_image_tree(
    root: Path,
    *,
    drives: Sequence[str] = DRIVES,
    frames: int = 6,
    size: tuple[int, int] = SIZE,
    extension: str = ".png",
) -> list[Tree]:
    """Write drives with all that a dataset reads, and `root/splits`, whose lists are all alike.

    Image i of camera c shows `picture(10 * i + c)`.
    """
    trees = [make_tree(root, drive=drive, frames=frames) for drive in drives]
    for date in {tree.date for tree in trees}:
        write_calibration(root / date, size)
    for tree in trees:
        for camera in (2, 3):
            folder = tree.sync / f"image_{camera:02d}" / "data"
            folder.mkdir()
            for i in range(frames):
                path = folder / f"{i:010d}{extension}"
                cv2.imwrite(str(path), picture(10 * i + camera, size))
        write_scans(tree.sync / "velodyne_points" / "data", frames)
        match_drive(Drive.parse(tree.drive), MatchOptions(root, root))
    lines = [
        f"{tree.date}/{tree.drive}_sync {i} {side}"
        for tree in trees
        for i in range(1, frames - 1)
        for side in "lr"
    ]
    for part in ("train", "val", "test"):
        write_list(root / "splits" / f"{part}_files.txt", lines)
    return trees


def write_list(path: Path, lines: Iterable[str]) -> None:
    """Write a list of a split."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def write_scans(folder: Path, frames: int) -> None:
    """Write scans of points ahead of the vehicle."""
    folder.mkdir(parents=True)
    for i in range(frames):
        generator = np.random.default_rng(i)
        points = generator.uniform((4, -8, -1.5, 0), (40, 8, 1, 1), (500, 4))
        points.astype(np.float32).tofile(folder / f"{i:010d}.bin")


def options_of(root: Path, **changes: object) -> DataOptions:
    """Return what a small dataset of such a tree is asked for."""
    width, height = NETWORK_SIZE
    asked = {"split": root / "splits", "width": width, "height": height} | changes
    return DataOptions(root, **asked)


def tell_apart(tree: Tree, number: int, size: tuple[int, int] = SIZE) -> None:
    """Give a drive other contents than the first has: of images, scans and IMU.

    Image i of camera c shows `picture(10 * i + c + number)`, and the intervals are in reverse.
    """
    for path in tree.sync.glob("image_*/data/*"):
        camera = int(path.parts[-3][-2:])
        cv2.imwrite(str(path), picture(10 * int(path.stem) + camera + number, size))
    for path in tree.sync.glob("velodyne_points/data/*.bin"):
        points = np.fromfile(path, np.float32).reshape(-1, 4)
        (points * np.float32(1 + 0.01 * number)).tofile(path)
    for name in ("matched_oxts.txt", "matched_timestamps.txt"):
        path = tree.sync / "matched_oxts" / name
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))


def write_sequence(tree: Tree, number: str, frames: range) -> Path:
    """Write `sequences/NUMBER` from these frames of a raw drive, as KITTI's odometry data has it.

    Images and scans are counted from 0 with six digits, and `calib.txt` has rectified matrices.
    """
    sequence = tree.root / "sequences" / number
    folders = {
        "image_2": tree.sync / "image_02" / "data",
        "image_3": tree.sync / "image_03" / "data",
        "velodyne": tree.sync / "velodyne_points" / "data",
    }
    for name, source in folders.items():
        (sequence / name).mkdir(parents=True)
        for i, frame in enumerate(frames):
            (path,) = source.glob(f"{frame:010d}.*")
            shutil.copy(path, sequence / name / f"{i:06d}{path.suffix}")
    day = tree.root / tree.date
    cameras = read_calib_file(day / "calib_cam_to_cam.txt")
    velodyne = read_calib_file(day / "calib_velo_to_cam.txt")
    T_cam0_v = np.column_stack([velodyne["R"].reshape(3, 3), velodyne["T"]])  # not yet rectified
    lines = {f"P{camera}": cameras[f"P_rect_0{camera}"] for camera in range(4)}
    lines["Tr"] = (cameras["R_rect_00"].reshape(3, 3) @ T_cam0_v).ravel()
    text = (f"{key}: {' '.join(f'{x:.17e}' for x in values)}\n" for key, values in lines.items())
    (sequence / "calib.txt").write_text("".join(text))
    return sequence


def write_improved_depth(drive: Path, frames: Iterable[int], size: tuple[int, int] = SIZE) -> None:
    """Write `proj_depth` into a drive; that of frame i and camera c has 10 * i + c + 1/2 m."""
    for camera in (2, 3):
        folder = drive / "proj_depth" / "groundtruth" / f"image_{camera:02d}"
        folder.mkdir(parents=True)
        for i in frames:
            depth = np.zeros(size[::-1], np.uint16)
            depth[1::2] = 256 * (10 * i + camera) + 128
            cv2.imwrite(str(folder / f"{i:010d}.png"), depth)


def write_single_images(folder: Path, count: int) -> np.ndarray:
    """Write images with intrinsics of their own, and return those (count, 3, 3) [px].

    Image i shows `picture(10 * i)`.
    """
    K = np.array([[[70.0 + i, 0, 60 - i], [0, 71 + i, 18.5], [0, 0, 1]] for i in range(count)])
    for name in ("image", "intrinsics"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        cv2.imwrite(str(folder / "image" / f"{i:010d}.png"), picture(10 * i))
        text = " ".join(map(str, K[i].ravel().tolist()))
        (folder / "intrinsics" / f"{i:010d}.txt").write_text(f"{text}\n")
    return K
