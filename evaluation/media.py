"""Where a user's images come from: files, folders, patterns, videos and cameras."""

from __future__ import annotations

import glob
import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import cv2
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.files import describe
from datasets.images import read_image, resize
from datasets.loading import read_in_order
from datasets.text import DataError
from utils import UserError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
VIDEO_EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".3gp", ".ogv"),
)

_USUAL_FPS, _MOST_FPS = 30.0, 1000.0  # of a camera that says nothing, or nonsense
_CAMERA_DIGITS = 4
_log = logging.getLogger(__name__)


class Frame(NamedTuple):
    """An image, and what a network sees of it."""

    name: str  # what is written of it has names that begin so
    image: Tensor  # (H, W, 3) uint8 RGB as recorded
    resized: Tensor  # (3, h, w) uint8 RGB at the network's size


class Broken(NamedTuple):
    """An image that cannot be read, and why: one line that names its file."""

    message: str


@dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
        size: width and height of the network's images [px]
        batch_size: images at once
        workers: processes that read image files ahead; none reads in this one
        skip_broken: go on behind a file that cannot be read
        every: take each so many-th frame of a video or a camera
        max_frames: stop a video or a camera behind so many frames that were taken
    """

    size: tuple[int, int]
    batch_size: int = 1
    workers: int = 0
    skip_broken: bool = False
    every: int = 1
    max_frames: int | None = None


class ImageFiles:
    """Images in files, of whatever sizes.

    Attributes:
        paths: in the order of reading
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)

    def count(self, reading: Reading) -> int:
        """Return how many images there are."""
        return len(self.paths)

    def batches(self, reading: Reading) -> Iterator[list[Frame | Broken]]:
        """Yield lists of images; raise a `DataError` for the first that cannot be read."""
        files = _Files(self.paths, reading)
        return read_in_order(files, reading.batch_size, min(reading.workers, len(self.paths)))


class _Files(Dataset):
    def __init__(self, paths: Sequence[Path], reading: Reading) -> None:
        self._paths, self._reading = paths, reading

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Frame | Broken:
        path = self._paths[index]
        try:
            with quiet():
                image = torch.from_numpy(read_image(path))
        except (DataError, OSError) as error:
            if not self._reading.skip_broken:
                raise DataError(
                    f"{describe(error)}; --skip_broken passes over such files"
                ) from None
            return Broken(describe(error))
        return Frame(path.stem, image, resize(image, self._reading.size))


class Video:
    """A video in a file, or what a camera sees.

    Attributes:
        origin: path of the file, or number of the camera
        name: begins the names of what is written
        fps: frames of a second; a camera's own word
        announced: frames, as the file says; None for a camera, and for a file that does not know
    """

    def __init__(self, origin: Path | int) -> None:
        """Look whether it can be read.

        Raises:
            UserError: it cannot be opened, or gives no frame
        """
        self.origin = origin
        self.name = f"camera{origin}" if self.is_camera else origin.stem
        capture = self._open()
        try:
            if not capture.grab():
                raise UserError(f"{self}: no frame can be read: it is empty, cut off or damaged")
            fps, announced = (
                capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT)
            )
        finally:
            capture.release()
        self.fps = fps if 0 < fps <= _MOST_FPS else _USUAL_FPS  # nan is not in between
        known = not self.is_camera and math.isfinite(announced) and announced >= 1
        self.announced = int(announced) if known else None

    def __str__(self) -> str:
        return f"camera {self.origin}" if self.is_camera else str(self.origin)

    @property
    def is_camera(self) -> bool:
        """Whether it goes on until somebody stops it."""
        return isinstance(self.origin, int)

    def count(self, reading: Reading) -> int | None:
        """Return how many frames will be taken, as far as anybody knows."""
        taken = None if self.announced is None else math.ceil(self.announced / reading.every)
        return min((n for n in (taken, reading.max_frames) if n is not None), default=None)

    def batches(self, reading: Reading) -> Iterator[list[Frame]]:
        """Yield lists of frames: no more than one list is held at a time."""
        frames = islice(self._frames(reading), reading.max_frames)
        while batch := list(islice(frames, reading.batch_size)):
            yield batch

    def _frames(self, reading: Reading) -> Iterator[Frame]:
        capture, number = self._open(), 0
        try:
            while capture.grab():
                if number % reading.every == 0:
                    read, bgr = capture.retrieve()
                    if not read:
                        break
                    image = torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
                    yield Frame(f"{self.name}_{number:06d}", image, resize(image, reading.size))
                number += 1
        finally:
            capture.release()
        # The end and a fault look alike to OpenCV.
        if self.announced is not None and number < self.announced:
            _log.warning("%s: %d of %d frames could be read", self, number, self.announced)

    def _open(self) -> cv2.VideoCapture:
        if not self.is_camera:
            check_name(self.origin)
        with quiet():
            if self.is_camera:
                capture = cv2.VideoCapture(self.origin)
            else:  # by this library alone: another takes image_0.mp4 for one of many images
                capture = cv2.VideoCapture(str(self.origin), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            if self.is_camera:
                raise UserError(f"{self}: cannot be opened: is it there, and free?")
            raise UserError(
                f"{self}: not a video that can be read: it is empty, cut off or damaged"
            )
        return capture


Source = ImageFiles | Video


def find_sources(inputs: Sequence[str]) -> list[Source]:
    """Find what the words of a command line name, in their order.

    Args:
        inputs: each an image, a folder of images, a pattern like `drive/*.png`, a video, or the
            number of a camera; what is there under this very name is not taken for a pattern or a
            number

    Raises:
        UserError: one of them is nothing of this; broken images show when they are read
    """
    found = [source for text in inputs for source in _find(text)]
    sources: list[Source] = []
    for are_files, group in groupby(found, lambda source: isinstance(source, Path)):
        members = list(group)
        sources += [ImageFiles(members)] if are_files else members
    return sources


def check_name(path: Path) -> None:
    """Refuse a name that is no text, at which OpenCV's videos end with the whole program."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{str(path)!a}: a name that is not UTF-8, which videos cannot have: rename it"
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep OpenCV, and the library below it, from writing lines to the user's terminal."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def natural_order(path: Path) -> tuple[list[int | str], str]:
    """Return the key that sorts image2 before image10."""
    parts = re.split(r"([0-9]+)", str(path).lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], str(path)


def _find(text: str) -> list[Path | Video]:
    if not text:
        raise UserError("INPUT is an empty word: expected an image, a folder, a video or a camera")
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        return list(_images_in(path))
    if path.exists():
        source = _of_file(path)
        if source is None:
            raise UserError(
                f"{path}: its name is neither that of an image ({', '.join(IMAGE_EXTENSIONS)}) "
                f"nor that of a video ({', '.join(VIDEO_EXTENSIONS)})"
            )
        return [source]
    if text.isascii() and text.isdigit() and len(text) <= _CAMERA_DIGITS:
        return [Video(int(text))]
    if glob.has_magic(text):
        names = map(Path, glob.glob(str(path), recursive=True))
        matching = sorted(filter(Path.is_file, names), key=natural_order)
        if sources := [source for match in matching if (source := _of_file(match))]:
            return sources
        raise UserError(f"{text}: no image and no video has such a name")
    raise UserError(f"{path}: no such file or folder")


def _images_in(folder: Path) -> list[Path]:
    # Some systems leave hidden files beside images, with their names behind a dot.
    visible = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    images = [path for path in visible if path.suffix.lower() in IMAGE_EXTENSIONS]
    if not images:
        raise UserError(
            f"{folder}: no images in it ({', '.join(IMAGE_EXTENSIONS)}); videos, and folders in "
            "it, are to be named themselves"
        )
    return sorted(images, key=natural_order)


def _of_file(path: Path) -> Path | Video | None:
    extension = path.suffix.lower()
    if extension in VIDEO_EXTENSIONS:
        return Video(path)
    return path if extension in IMAGE_EXTENSIONS else None
