"""Images from files, whole or at the network's resolution. Sizes are width and height [px]."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from datasets.files import read_bytes
from datasets.text import DataError

EXTENSIONS = (".jpg", ".png")

_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_END_WITHIN = 64  # bytes; some writers pad a file after its end
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # of a JPEG, but those within compressed pixels


def read_image(path: Path) -> np.ndarray:
    """Read an image as RGB (H, W, 3) uint8.

    Raises:
        FileNotFoundError: there is no such file
        DataError: it is not an image, or was cut off
    """
    return cv2.cvtColor(_read_bgr(path), cv2.COLOR_BGR2RGB)


def read_resized(path: Path, size: tuple[int, int], recorded_size: tuple[int, int]) -> Tensor:
    """Read an image as RGB (3, H, W) uint8 at another size.

    Args:
        path: of a file with an image of the recorded size
        size: what is wanted
        recorded_size: what the calibration, or the drive's first image, says

    Raises: as `read_image`; an image of another size than recorded is a `DataError`
    """
    image = _read_bgr(path)  # (h, w, 3)
    check_size(path, (image.shape[1], image.shape[0]), recorded_size)
    return resize(torch.from_numpy(image), size).flip(0).contiguous()


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize an image (h, w, 3) uint8 to (3, H, W) uint8 without aliasing.

    Each pixel is a mean with triangular weights that reach over two pixels of the result, as
    Pillow's BILINEAR takes it.
    """
    channels_first = image.permute(2, 0, 1).unsqueeze(0)  # (1, 3, h, w), still channels last
    return torch.nn.functional.interpolate(
        channels_first, size=size[::-1], mode="bilinear", antialias=True, align_corners=False
    ).squeeze(0)


def resized_intrinsics(
    K: np.ndarray, recorded_size: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Return the intrinsics (3, 3) [px] of a resized image.

    A resized image covers the same area, and the centre of the first pixel is (0, 0) in both: it is
    not only the focal lengths and the centre that scale, but the half pixel before the first centre
    too.
    """
    x, y = size[0] / recorded_size[0], size[1] / recorded_size[1]
    scale = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    return scale @ K


def image_size(path: Path) -> tuple[int, int]:
    """Return the size of the image in a file."""
    height, width = _read_bgr(path).shape[:2]
    return width, height


def check_size(path: Path, size: tuple[int, int], recorded_size: tuple[int, int]) -> None:
    """Refuse an image of another size than that of its drive."""
    if size != recorded_size:
        raise DataError(
            f"{path}: {size[0]}x{size[1]} pixels, but the images of this drive have "
            f"{recorded_size[0]}x{recorded_size[1]}"
        )


def _read_bgr(path: Path) -> np.ndarray:
    try:
        data = read_bytes(path)
    except IsADirectoryError:
        raise DataError(f"{path}: a folder, expected an image") from None
    # OpenCV fills what is missing of an image with gray and says nothing to its caller.
    kind = "JPEG" if data.startswith(_JPEG) else "PNG" if data.startswith(_PNG) else None
    end = _JPEG_END if kind == "JPEG" else _PNG_END
    ends = _jpeg_ends if kind == "JPEG" else lambda data: _PNG_END in data
    if kind and end not in data[-_END_WITHIN:] and not ends(data):
        raise DataError(f"{path}: a {kind} image that was cut off after {len(data)} bytes")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:  # of a header that promises more pixels than there may be
        image = None
    if image is None:
        raise DataError(f"{path}: not an image that can be read ({len(data)} bytes)")
    return image


def _jpeg_ends(data: bytes) -> bool:
    """Return whether a JPEG reaches its end, whatever a phone has put behind it."""
    at = len(_JPEG)
    while marker := _MARKER.search(data, at):
        at = marker.end()
        if data[at - 1] == _JPEG_END[1]:
            return True
        # A length, which counts itself; behind the header of a scan, pixels until a marker.
        at += int.from_bytes(data[at : at + 2], "big")
    return False
