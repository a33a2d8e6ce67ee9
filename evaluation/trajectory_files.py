"""Trajectories in files: KITTI's twelve numbers a line, and TUM's stamped quaternions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from datasets.text import DataError, at_line, parse_numbers, read_lines
from liegroups import se3, so3
from utils import written_whole

_TUM_NAMES = ("time", "x", "y", "z", "qx", "qy", "qz", "qw")
_ROTATION_TOLERANCE = 1e-4  # as of calibrations: what deviates more is not a rotation at all


def write_kitti(path: Path, T_w_c: np.ndarray) -> None:
    """Write poses (N, 4, 4) as KITTI's odometry has them: their first three rows on a line."""
    rows = T_w_c[:, :3].reshape(-1, 12).tolist()
    _write(path, (" ".join(f"{x:.12e}" for x in row) for row in rows))


def write_tum(path: Path, stamps_s: np.ndarray, T_w_c: np.ndarray) -> None:
    """Write poses as the RGB-D benchmark of TUM has them: `time x y z qx qy qz qw` on a line.

    Args:
        path: of the file
        stamps_s: (N,) [s]
        T_w_c: (N, 4, 4) [m]; their rotations may have a rounded file's errors
    """
    R = so3.normalize(torch.from_numpy(np.ascontiguousarray(T_w_c[:, :3, :3])))
    q = so3.to_quaternion(R, order="xyzw").numpy()
    lines = zip(stamps_s.tolist(), T_w_c[:, :3, 3].tolist(), q.tolist(), strict=True)
    _write(path, (" ".join([f"{t:.9f}", *map(repr, xyz), *map(repr, q)]) for t, xyz, q in lines))


def read_kitti(path: Path) -> np.ndarray:
    """Read poses (N, 4, 4) of twelve numbers a line, exactly as the file has them.

    Raises:
        FileNotFoundError: there is no such file
        DataError: names file and line
    """
    poses = []
    for line, text in enumerate(read_lines(path), start=1):
        try:
            T = np.vstack([np.reshape(parse_numbers(text, 12), (3, 4)), [0, 0, 0, 1]])
        except DataError as error:
            raise at_line(path, line, str(error)) from None
        R = T[:3, :3]
        if np.abs(R.T @ R - np.eye(3)).max() > _ROTATION_TOLERANCE or np.linalg.det(R) < 0:
            raise at_line(path, line, "its 3x3 part is not a rotation")
        poses.append(T)
    if not poses:
        raise DataError(f"{path}: no poses in it")
    return np.stack(poses)


def read_tum(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read stamps (N,) [s] and poses (N, 4, 4) that TUM's tools read; `#` begins a comment.

    Raises:
        FileNotFoundError: there is no such file
        DataError: names file and line
    """
    rows = []
    for line, text in enumerate(read_lines(path), start=1):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        try:
            rows.append(parse_numbers(text, len(_TUM_NAMES), _TUM_NAMES))
        except DataError as error:
            raise at_line(path, line, str(error)) from None
        if not any(rows[-1][4:]):
            raise at_line(path, line, "its quaternion is zero")
    if not rows:
        raise DataError(f"{path}: no poses in it")
    numbers = torch.tensor(rows, dtype=torch.float64)
    R = so3.from_quaternion(numbers[:, 4:], order="xyzw")
    return numbers[:, 0].numpy(), se3.from_rt(R, numbers[:, 1:4]).numpy()


def _write(path: Path, lines: Iterable[str]) -> None:
    with written_whole(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)
