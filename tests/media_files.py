"""Images and videos as a user may have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from evaluation.media import quiet
from tests.image_tree import picture


def write_image(path: Path, size: tuple[int, int] = (60, 40), number: int = 0) -> Path:
    """Write `picture(number)` of this width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(number, size))
    return path


def write_video(
    path: Path, frames: int = 7, size: tuple[int, int] = (96, 64), fps: float = 12.5
) -> Path:
    """Write a video whose frames get brighter: frame i is of the gray 20 i all over."""
    with quiet():  # which a process has to be from its first video on
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 20 * i, np.uint8))
    writer.release()
    return path


def read_video(path: Path) -> tuple[list[np.ndarray], float]:
    """Return the frames (H, W, 3) RGB of a video, and its frames of a second."""
    with quiet():
        capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1][..., ::-1])
    fps = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return frames, fps


def files_in(folder: Path) -> list[str]:
    """Return the names of what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return points (N, 3) and colours (N, 3) of a binary PLY, read by its own header."""
    header, _, data = path.read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    (count,) = [int(line.split()[2]) for line in lines if line.startswith("element vertex ")]
    kinds: Sequence[list[str]] = [line.split()[1:] for line in lines if line[:8] == "property"]
    types = {"float": "<f4", "uchar": "u1"}
    vertices = np.frombuffer(data, [(name, types[kind]) for kind, name in kinds])
    assert len(vertices) == count
    return (
        np.stack([vertices[name] for name in "xyz"], 1),
        np.stack([vertices[name] for name in ("red", "green", "blue")], 1),
    )
