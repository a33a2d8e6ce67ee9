"""Ground truth of depth: LiDAR scans projected into an image, and KITTI's improved depth maps.

Projected depths agree to the last bit with the customary export, monodepth2's, but in the first and
the last column: the export takes the last pixel of a row and the first of the next for one, and
gives the nearer of their depths to one of them. Here two points share a pixel if it is the same.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from PIL import Image

from datasets.files import read_bytes
from datasets.text import DataError

UNITS_PER_M = 256  # of the 16 bits of a depth map in a file

DepthAxis = Literal["z", "x"]

_BLOCK = 16_384  # points
_POINT_BYTES = 16  # x, y, z and reflectance as float32
# 16 bits in one channel. What older versions of Pillow call I has no other source in a PNG.
_ONE_CHANNEL_OF_16_BITS = "I;16", "I"


def read_scan(path: Path) -> np.ndarray:
    """Read a scan of `velodyne_points`.

    Returns:
        (N, 4) float32: x forward, y left, z up in velodyne axes [m], and reflectance in 0..1

    Raises:
        FileNotFoundError: there is no such file
        DataError: it is empty, or was cut off within a point
    """
    data = read_bytes(path)
    if len(data) == 0 or len(data) % _POINT_BYTES:
        raise DataError(
            f"{path}: {len(data)} bytes, a scan has {_POINT_BYTES} for each point: fetch it again"
        )
    return np.frombuffer(data, "<f4").reshape(-1, 4)


def depth_map(
    points_v: np.ndarray,
    P_px_v: np.ndarray,
    image_size: tuple[int, int],
    depth: DepthAxis = "z",
) -> np.ndarray:
    """Project a scan into an image, where the nearest point of a pixel hides the others.

    Args:
        points_v: (N, 4) float32, the first three are velodyne axes [m]; those behind the sensor
            are left out
        P_px_v: (3, 4) velodyne to homogeneous pixels, `Camera.P_px_v`
        image_size: width, height [px]
        depth: "z" of the camera, or "x" of the velodyne as in the Eigen export

    Returns:
        (H, W) float32 [m], zero where there is no point, or one behind the camera: the export lets
        those hide others too
    """
    if depth not in get_args(DepthAxis):
        raise ValueError(f"depth: expected one of {get_args(DepthAxis)}, got {depth!r}")
    width, height = image_size
    # Of a whole scan the product would be shared out between threads, which wait for each other
    # longer than it takes, above all in a worker among others; and blocks stay in the cache.
    blocks = (points_v[i : i + _BLOCK] for i in range(0, len(points_v), _BLOCK))
    placed = [_place(block, P_px_v, width, height, depth) for block in blocks]
    result = np.zeros(height * width, np.float32)
    if placed:
        at, values = map(np.concatenate, zip(*placed, strict=True))
        result[at] = values  # whichever of a pixel's points, so that the zero is not the minimum
        np.minimum.at(result, at, values)
    return result.reshape(height, width)


def _place(
    points_v: np.ndarray, P_px_v: np.ndarray, width: int, height: int, depth: DepthAxis
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel (M,), counted along the rows, and the depth (M,) of points in the image."""
    ahead = points_v.take(np.flatnonzero(points_v[:, 0] >= 0), axis=0)  # a copy
    ahead[:, 3] = 1
    # A point in the camera's plane, or that is not a number, is at no pixel: nothing compares.
    with np.errstate(divide="ignore", invalid="ignore"):
        # The product of these two as the export takes it: another may round the last bit otherwise.
        projected = np.dot(P_px_v, ahead.T)  # (3, M)
        column = np.round(projected[0] / projected[2]) - 1
        between = np.flatnonzero((column >= 0) & (column < width))  # few: scans go all around
        row = np.round(projected[1].take(between) / projected[2].take(between)) - 1
        within = np.flatnonzero((row >= 0) & (row < height))
    seen = between.take(within)
    at = row.take(within).astype(np.intp) * width + column.take(seen).astype(np.intp)
    values = (projected[2] if depth == "z" else ahead[:, 0]).take(seen)
    return at, np.maximum(values, 0).astype(np.float32)


def read_depth_png(path: Path) -> np.ndarray:
    """Read a depth map of KITTI's improved ground truth.

    Returns:
        (H, W) float32 [m], zero where there is none

    Raises:
        FileNotFoundError: there is no such file
        DataError: it is not a PNG of 16 bits in one channel, or was cut off
    """
    data = read_bytes(path)
    try:
        # Reading alone passes over checksums: some broken files would be other depths.
        _open(data).verify()
        image = _open(data)
        numbers = np.asarray(image)
    except Exception:  # of any kind: Pillow trusts the lengths that a file gives
        raise DataError(
            f"{path}: not a PNG image that can be read ({len(data)} bytes): fetch it again"
        ) from None
    if image.mode not in _ONE_CHANNEL_OF_16_BITS:
        raise DataError(
            f"{path}: an image of mode {image.mode}, a depth map has 16 bits in one channel"
        )
    return numbers.astype(np.float32) / UNITS_PER_M


def encode_depth_png(depth_m: np.ndarray) -> bytes:
    """Return depth (H, W) [m] as such a PNG; zero is none, and what is beyond 255.99 m is cut."""
    numbers = np.rint(depth_m * UNITS_PER_M).clip(0, np.iinfo(np.uint16).max).astype(np.uint16)
    done, data = cv2.imencode(".png", numbers)
    assert done
    return data.tobytes()


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=["PNG"])


def resize_depth(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a depth map by taking the nearest pixel, so that no two depths are mixed.

    The pixels are those that scikit-image takes with order 0 and no anti-aliasing.

    Args:
        depth: (H, W)
        size: width, height [px] of the result
    """
    rows, columns = (
        _nearest(length, wanted) for length, wanted in zip(depth.shape, size[::-1], strict=True)
    )
    return depth[rows[:, None], columns]


def _nearest(length: int, wanted: int) -> np.ndarray:
    """Return which of `length` pixels is nearest to each of `wanted` centres (wanted,)."""
    centres = (np.arange(wanted) + 0.5) * (length / wanted) - 0.5
    # In floating point and step by step as scikit-image does it: halfway between two pixels the
    # last bit decides.
    return np.floor(centres + 0.5).astype(np.intp)
