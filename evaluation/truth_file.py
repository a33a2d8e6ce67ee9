"""`gt_depths.npz`: the true depths of a list in one file, each of its own size, without pickles.

The archive has one array for each line of the list, `000000` and on, so that reading one does not
read the others; `lines`, which says whose they are; and `kind`, which says of what they were made:
lists share images, and LiDAR scans are another truth than improved depth.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from datasets.text import DataError, shown
from utils import UserError, written_whole

LINES, KIND = "lines", "kind"
_PUBLISHED = "data"  # an array of objects, which is a pickle
_LEVEL = 1  # of compression: most of a scan is zeros, which any level takes out


def write_truth(path: Path, lines: Sequence[str], depths: Iterable[np.ndarray], kind: str) -> None:
    """Write true depths; only one of them is in memory at a time.

    Args:
        path: of the file
        kind: of truth, for `TruthFile`
        lines: of the list, `folder frame side`
        depths: (h, w) float32 [m] for each line, zero where there is none
    """
    packing = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": _LEVEL}
    with written_whole(path) as file, zipfile.ZipFile(file, "w", **packing) as archive:
        _add(archive, LINES, np.array(lines))
        _add(archive, KIND, np.array(kind))
        for i, depth in enumerate(depths):
            _add(archive, _key(i), np.ascontiguousarray(depth, np.float32))


class TruthFile:
    """The depths in such a file, read one by one; each process opens it for itself.

    Args:
        path: of the file
        names: the lines that depths are wanted of, in the order of their places
        kind: of truth that is wanted

    Raises:
        UserError: there is no such file, it holds something else, another kind of truth, or none of
            these lines
    """

    def __init__(self, path: Path, names: Sequence[str], kind: str) -> None:
        self._path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        if not path.is_file():
            raise UserError(f"{path}: no such file; make it with export_gt_depth.py")
        keys = self._archive().namelist()
        if not {f"{LINES}.npy", f"{KIND}.npy"} <= set(keys):
            pickled = f"{_PUBLISHED}.npy" in keys
            raise UserError(
                f"{path}: holds "
                + ("pickled objects, which are not read" if pickled else "no true depths of ours")
                + ": make it anew with export_gt_depth.py"
            )
        lines = self._read(LINES)
        if lines.dtype.kind != "U" or lines.ndim != 1 or len(lines) != len(keys) - 2:
            raise UserError(f"{path}: damaged, {len(keys) - 2} depths of {lines.size} lines")
        found = str(self._read(KIND))
        if found != kind:
            raise UserError(f"{path}: its truth is {shown(found)}, but {shown(kind)} is asked for")
        place = {line: i for i, line in enumerate(lines.tolist())}
        self._places = [place.get(name) for name in names]
        if not any(place is not None for place in self._places):
            raise UserError(
                f"{path}: has {len(lines)} true depths, but none of these {len(names)} images "
                f"(first {shown(names[0])}): it is of another list"
            )

    def has(self, i: int) -> bool:
        """Return whether the name at a place has a depth."""
        return self._places[i] is not None

    def depth(self, i: int) -> np.ndarray:
        """Return the depth (h, w) float32 [m] of the name at a place."""
        key = _key(self._places[i])
        depth = self._read(key)
        if depth.ndim != 2 or depth.dtype != np.float32 or not np.isfinite(depth).all():
            raise DataError(f"{self._path}: entry {key} is no depth map")
        return depth

    def _read(self, key: str) -> np.ndarray:
        try:
            with self._archive().open(f"{key}.npy") as entry:
                return np.lib.format.read_array(entry, allow_pickle=False)
        except Exception as error:  # of any kind: a damaged archive may raise what it likes
            raise DataError(f"{self._path}: entry {key} cannot be read ({error})") from None

    def _archive(self) -> zipfile.ZipFile:
        # A copy of it in another process would share its place in the file.
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                self._opened = os.getpid(), zipfile.ZipFile(self._path)
            except zipfile.BadZipFile:
                raise UserError(f"{self._path}: not an archive of true depths (.npz)") from None
        return self._opened[1]

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | {"_opened": None}


def _key(i: int) -> str:
    return f"{i:06d}"


def _add(archive: zipfile.ZipFile, key: str, array: np.ndarray) -> None:
    with archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, array, allow_pickle=False)
