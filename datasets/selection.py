"""Which samples of a split can be used, and why the others cannot."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.layouts import NumberedFiles
from datasets.matched import MatchedImu
from datasets.text import DataError

BEYOND = "the window reaches beyond the drive"
NO_DEPTH = "no ground-truth depth"
NO_PUBLIC_IMU = "a sequence whose raw drive is not public, so without IMU"
UNREADABLE = "broken: a drive that cannot be read"
NO_IMAGE = "broken: an image that is missing"


@dataclass
class Selection:
    """The samples of a list that are kept, and a count of the others under their first reason."""

    file: Path
    kept: np.ndarray  # (N,) bool
    left_out: Counter[str] = field(default_factory=Counter)

    def leave_out(self, rows: np.ndarray, failing: np.ndarray, reason: str) -> None:
        """Leave out those of these rows (n,) that fail (n,) bool and are still in."""
        falling = rows[failing & self.kept[rows]]
        self.kept[falling] = False
        if len(falling):
            self.left_out[reason] += len(falling)

    @property
    def broken(self) -> int:
        """How many were left out because something is missing or broken."""
        return self.left_out[UNREADABLE] + self.left_out[NO_IMAGE]

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
    selection: Selection, rows: Rows, numbers: np.ndarray, images: NumberedFiles, skip: bool
) -> None:
    """Leave out samples that lack an image.

    A neighbour before the drive's first image or after its last is nobody's fault. Others that are
    missing are.

    Args:
        selection: is changed
        rows: the samples
        numbers: (n, k) of the files that they need, that of the target first
        images: which there are
        skip: count samples that lack a file, instead of stopping at the first
    """
    beyond = (numbers < images.numbers[0]) | (numbers > images.numbers[-1])
    beyond[:, 0] = False
    selection.leave_out(rows.places, beyond.any(1), BEYOND)
    missing = ~images.has(numbers) & selection.kept[rows.places, None]
    if missing.any() and not skip:
        absent = np.unique(numbers[missing])
        others = f", nor are {len(absent) - 1} others" if len(absent) > 1 else ""
        raise FileNotFoundError(
            f"{images.path(int(absent[0]))}: an image that {selection.file} needs is not there"
            f"{others}; --skip_broken goes on without"
        )
    selection.leave_out(rows.places, missing.any(1), NO_IMAGE)


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
            "drive again"
        )
    reasons = np.array([reason and reason.value for reason in matched.reasons], dtype=object)
    needed = reasons[intervals[kept]]  # (kept, k)
    for reason in dict.fromkeys(needed.ravel().tolist()):
        if reason is not None:
            selection.leave_out(rows.places[kept], (needed == reason).any(1), f"IMU: {reason}")


def need_depth(selection: Selection, rows: Rows, numbers: np.ndarray, depth: NumberedFiles) -> None:
    """Leave out samples whose target, of this number (n,), has no ground truth."""
    selection.leave_out(rows.places, ~depth.has(numbers), NO_DEPTH)
