"""The test set of Make3D: upright photographs with a coarse grid of laser depths.

Only a band across the middle is evaluated, twice as wide as high, as published results have it.
"""

from __future__ import annotations

import io
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from datasets import images
from datasets.files import read_bytes
from datasets.text import DataError

FOLDERS = ("Test134", "Gridlaserdata")
"""What the archives unpack to: images, depths."""

COUNT = 134
GRID_SHAPE = (55, 305, 4)
"""Of the laser's grid: rows, columns, and x, y, z, depth [m]."""

GRID_ROWS = slice(17, 38)
"""The middle 21 of 55 rows, which the band of the image covers."""

_SOURCE = "http://make3d.cs.cornell.edu/data.html"
_KEY, _DEPTH = "Position3DGrid", 3
_IMAGE_NAME = re.compile(r"img-(.+)\.jpg")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Make3dPair:
    """A photograph and its laser scan: what their names have in common, and where they are."""

    name: str
    image: Path
    depth: Path


def find_test_images(root: Path) -> list[Make3dPair]:
    """List the test images with their depths, by name.

    Args:
        root: holds the files, or the folders that the archives unpack to

    Raises:
        DataError: there is no image, or one without its depth
    """
    folders = [root, *(root / name for name in FOLDERS)]
    paths = {path.name: path for folder in folders if folder.is_dir() for path in folder.iterdir()}
    matches = [match for name in sorted(paths) if (match := _IMAGE_NAME.fullmatch(name))]
    places = f"{root}, its {FOLDERS[0]} or its {FOLDERS[1]}"
    if not matches:
        raise DataError(
            f"no img-*.jpg in {places}: unpack Test134.tar.gz and Test134Depth.tar.gz of Make3D "
            f"there, from {_SOURCE}"
        )
    pairs = []
    for match in matches:
        depth = f"depth_sph_corr-{match[1]}.mat"
        if depth not in paths:
            raise DataError(
                f"no {depth}, the depth of {match[0]}, in {places}: unpack Test134Depth.tar.gz of "
                f"Make3D there, from {_SOURCE}"
            )
        pairs.append(Make3dPair(match[1], paths[match[0]], paths[depth]))
    if len(pairs) != COUNT:
        _log.warning("%s: %d test images, but Make3D has %d", root, len(pairs), COUNT)
    return pairs


def read_image(pair: Make3dPair) -> np.ndarray:
    """Read the band of an image that is evaluated, RGB (852, 1704, 3) uint8.

    The size is that of the published images; of others it is half as high as wide, too.

    Raises:
        FileNotFoundError: there is no such file
        DataError: it cannot be read, or is not upright
    """
    image = images.read_image(pair.image)  # (2272, 1704, 3)
    height, width = image.shape[:2]
    if height < width:  # the grid's rows would be columns
        raise DataError(f"{pair.image}: {width}x{height} pixels, expected an upright image")
    rows = width // 2
    top = (height - rows) // 2
    return np.ascontiguousarray(image[top : top + rows])


def read_depth(pair: Make3dPair) -> np.ndarray:
    """Read the depths of that band, (21, 305) float32 [m].

    Raises:
        FileNotFoundError: there is no such file
        DataError: it cannot be read, or holds something else
    """
    data = read_bytes(pair.depth)
    try:
        grid = loadmat(io.BytesIO(data), variable_names=[_KEY]).get(_KEY)
    except Exception:  # of any kind: SciPy trusts the lengths and types that a file gives
        raise DataError(
            f"{pair.depth}: not a .mat file that can be read ({len(data)} bytes)"
        ) from None
    if grid is None:
        raise DataError(f"{pair.depth}: no {_KEY} in it")
    if not isinstance(grid, np.ndarray) or grid.dtype.kind not in "fiu" or grid.shape != GRID_SHAPE:
        found = f"{grid.dtype} {grid.shape}" if isinstance(grid, np.ndarray) else type(grid)
        raise DataError(f"{pair.depth}: {_KEY} is {found}, expected numbers {GRID_SHAPE}")
    return grid[GRID_ROWS, :, _DEPTH].astype(np.float32)
