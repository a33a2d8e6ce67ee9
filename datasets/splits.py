"""Which frames are for training, validation and tests: lists of lines `folder frame side`.

The folder is that of a drive under the root of the data, `2011_09_26/2011_09_26_drive_0001_sync`,
or the number of an odometry sequence, `09`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.text import DataError, at_line, read_lines, shown

LEFT, RIGHT = 2, 3
"""The colour cameras."""

SPLITS = Path(__file__).parent.parent / "splits"
PARTS = ("train", "val", "test")
CAMERA_OF_SIDE = {"l": LEFT, "r": RIGHT}
DEPTH_SELECTION = "depth_selection/"  # begins the folders of single images, of drives unknown
# Ten digits are those of KITTI's file names. Lists of others have them, or leave out the zeros.
_LINE = re.compile(r"\s*(\S+)\s+([0-9]{1,10})\s+([lr])\s*")
_NOT_PUBLIC = frozenset({"2011_09_26_drive_0067"})


class RawRun(NamedTuple):
    """The part of a raw drive that an odometry sequence is; its frame 0 is `first` there."""

    drive: str
    first: int
    last: int  # included

    @property
    def public(self) -> bool:
        """Whether KITTI offers the raw drive, and with it the IMU of the sequence."""
        return self.drive not in _NOT_PUBLIC


ODOMETRY = {
    "00": RawRun("2011_10_03_drive_0027", 0, 4540),
    "01": RawRun("2011_10_03_drive_0042", 0, 1100),
    "02": RawRun("2011_10_03_drive_0034", 0, 4660),
    "03": RawRun("2011_09_26_drive_0067", 0, 800),
    "04": RawRun("2011_09_30_drive_0016", 0, 270),
    "05": RawRun("2011_09_30_drive_0018", 0, 2760),
    "06": RawRun("2011_09_30_drive_0020", 0, 1100),
    "07": RawRun("2011_09_30_drive_0027", 0, 1100),
    "08": RawRun("2011_09_30_drive_0028", 1100, 5170),
    "09": RawRun("2011_09_30_drive_0033", 0, 1590),
    "10": RawRun("2011_09_30_drive_0034", 0, 1200),
}


@dataclass(frozen=True, eq=False)
class Split:
    """The N lines of a list.

    Attributes:
        path: the file, for messages
        folders: the first column, each folder once, in order of first appearance; sequences have
            two digits
        drive: (N,) int32, which of `folders`
        frame: (N,) int64
        camera: (N,) int8, 2 for the left colour camera, 3 for the right one
        line: (N,) int32, counted from 1, for messages
    """

    path: Path
    folders: tuple[str, ...]
    drive: np.ndarray
    frame: np.ndarray
    camera: np.ndarray
    line: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)


def split_folder(split: str | Path) -> Path:
    """Return the folder of a split: a name in `splits/`, or else a folder of the user's own.

    Raises:
        DataError: neither; it lists the names
    """
    if not str(split):
        raise DataError("expected a split, got ''")
    names = sorted({path.parent.name for path in SPLITS.glob("*/*_files.txt")})
    if str(Path(split)) in names:
        return SPLITS / split
    if Path(split).is_dir():
        return Path(split)
    raise DataError(f"{split}: no such split, expected a folder or one of {', '.join(names)}")


def list_of(split: str | Path, part: str) -> Path:
    """Return the file of one of a split's lists.

    Args:
        split: a name in `splits/`, a folder of the user's own, or the file of a list itself
        part: of PARTS; a file has no parts

    Raises:
        DataError: there is no such split
    """
    if str(split) and Path(split).is_file():
        return Path(split)
    return split_folder(split) / f"{part}_files.txt"


def parts_of(folder: Path) -> list[str]:
    """Return which of PARTS a split has: those whose list is there and not empty.

    Raises:
        DataError: it has none
    """
    lists = {part: folder / f"{part}_files.txt" for part in PARTS}
    parts = [part for part, file in lists.items() if file.exists() and read_lines(file)]
    if not parts:
        names = ", ".join(file.name for file in lists.values())
        raise DataError(f"{folder}: no lists of frames here, expected some of {names}")
    return parts


def read_split(file: Path, *, may_be_empty: bool = False) -> Split:
    """Read a list of frames; blank lines are passed over.

    Args:
        file: like `train_files.txt` in the folder of a split
        may_be_empty: whether a list without lines is right, too

    Raises:
        FileNotFoundError: there is no such file
        DataError: names the file, and the line that is no line of a list
    """
    folders: dict[str, int] = {}
    drives, frames, sides, numbers = [], [], [], []
    for number, text in enumerate(read_lines(file), start=1):
        match = _LINE.fullmatch(text)
        if match is None:
            if not text.strip():
                continue
            raise at_line(file, number, _fault(text))
        folder, frame, side = match.groups()
        if folder.isdecimal():
            folder = folder.zfill(2)  # 9 and 09 are one sequence
        drives.append(folders.setdefault(folder, len(folders)))
        frames.append(int(frame))
        sides.append(CAMERA_OF_SIDE[side])
        numbers.append(number)
    if not numbers and not may_be_empty:
        raise DataError(f"{file}: empty, expected lines `folder frame side`")
    return Split(
        file,
        tuple(folders),
        np.array(drives, np.int32),
        np.array(frames, np.int64),
        np.array(sides, np.int8),
        np.array(numbers, np.int32),
    )


def _fault(text: str) -> str:
    fields = text.split()
    if len(fields) != 3:
        return f"expected `folder frame side`, got {shown(text)}"
    _, frame, side = fields
    if side not in CAMERA_OF_SIDE:
        return f"side: expected l or r, got {shown(side)}"
    return f"frame: expected a whole number of at most ten digits, got {shown(frame)}"
