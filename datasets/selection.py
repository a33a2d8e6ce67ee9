"""Which samples of a split can be used, and why the others cannot."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.layouts import MissingError, NumberedFiles
from datasets.matched import MatchedImu
from datasets.text import DataError

BEYOND = "the window reaches beyond the drive"
NO_DEPTH = "no ground-truth depth"
NO_PUBLIC_IMU = "a sequence whose raw drive is not public, so without IMU"
UNREADABLE = "broken: a drive that cannot be read"
NO_IMAGE = "broken: an image that is missing"


@dataclass
class Selection:
    """The samples of a list that are kept, and why the others are not.

    Attributes:
        file: the list
        kept: (N,) bool
        left_out: how many are not, each under its first reason
        faults: what is missing or broken, where that does not stop the program
    """

    file: Path
    kept: np.ndarray
    left_out: Counter[str] = field(default_factory=Counter)
    faults: list[DataError | OSError] = field(default_factory=list)

    def leave_out(self, rows: np.ndarray, failing: np.ndarray, reason: str) -> None:
        """Leave out those of these rows (n,) that fail (n,) bool and are still in."""
        falling = rows[failing & self.kept[rows]]
        self.kept[falling] = False
        if len(falling):
            self.left_out[reason] += len(falling)

    def __str__(self) -> str:
        lines = [f"{self.file}: {self.kept.sum()} of {len(self.kept)} samples can be used"]
        lines += [f"{count:8} {reason}" for reason, count in self.left_out.most_common()]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Rows:
    """The samples of one camera of a drive: their places in the list, and their frames."""

    places: np.ndarray  # (n,)
    frames: np.ndarray  # (n,)


def need_images(
    selection: Selection,
    rows: Rows,
    numbers: np.ndarray,
    images: NumberedFiles,
    archive: str,
    skip: bool,
) -> None:
    """Leave out samples that lack an image.

    A neighbour before the drive's first image or after its last is nobody's fault. Others that are
    missing are, and so is any target.

    Args:
        selection: is changed
        rows: the samples
        numbers: (n, k) of the files that they need, that of the target first
        images: which there are
        archive: what brings them
        skip: count samples that lack a file, instead of stopping
    """
    absent = ~images.has(numbers)
    beyond = (numbers < images.numbers[0]) | (numbers > images.numbers[-1])
    selection.leave_out(rows.places, beyond.any(1) & ~absent[:, 0], BEYOND)
    absent &= selection.kept[rows.places, None]
    if not absent.any():
        return
    first, *others = np.unique(numbers[absent]).tolist()
    more = f", with {len(others)} more of this folder" if others else ""
    fault = MissingError(f"{images.path(first)}: no such image{more}", archive)
    if not skip:
        raise fault
    selection.faults.append(fault)
    selection.leave_out(rows.places, absent.any(1), NO_IMAGE)


def need_imu(
    selection: Selection, rows: Rows, intervals: np.ndarray, matched: MatchedImu, file: Path
) -> None:
    """Leave out samples with an interval that has no IMU.

    Args:
        selection: is changed
        rows: the samples
        intervals: (n, k) that they need
        matched: the IMU of their drive
        file: what it was read from
    """
    kept = selection.kept[rows.places]
    if intervals[kept].max(initial=-1) >= len(matched):
        raise DataError(
            f"{file}: {len(matched)} intervals, but there are images beyond the last: match the "
            "drive again, with match_kitti_imu.py --overwrite"
        )
    reasons = np.array([reason and reason.value for reason in matched.reasons], dtype=object)
    needed = reasons[intervals[kept]]  # (kept, k)
    for reason in dict.fromkeys(needed.ravel().tolist()):
        if reason is not None:
            selection.leave_out(rows.places[kept], (needed == reason).any(1), f"IMU: {reason}")


def need_depth(selection: Selection, rows: Rows, numbers: np.ndarray, depth: NumberedFiles) -> None:
    """Leave out samples whose target, of this number (n,), has no ground truth."""
    selection.leave_out(rows.places, ~depth.has(numbers), NO_DEPTH)
