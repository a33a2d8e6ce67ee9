"""What is written of predicted depth: 16-bit PNG, NumPy arrays, pictures, videos, point clouds."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from datasets.lidar import UNITS_PER_M, encode_depth_png
from evaluation.colour_map import nearest_of, side_by_side
from evaluation.media import Frame, Source, Video, quiet
from evaluation.point_cloud import Pinhole, backproject, write_ply
from utils import UserError, written_whole

SUFFIX_OF = {"png16": "_depth.png", "npy": "_depth.npy", "colour": "_colour.png", "ply": ".ply"}
"""What the names of files end in; they begin with that of the image."""

VIDEO_SUFFIX = "_colour.mp4"

LARGEST_PNG_M = np.iinfo(np.uint16).max / UNITS_PER_M
"""The largest depth that 16 bits can say, which all larger ones become [m]."""

_LEAST_PNG_M = 1 / UNITS_PER_M  # zero says that there is no depth
_NUMBERED = re.compile(r"(.+)_[0-9]{6,}", re.DOTALL)  # a frame of a video
_SHOWN = 3  # names that an error repeats
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What is to be written, and where.

    Attributes:
        folder: of all files; made if missing
        kinds: some of `SUFFIX_OF`
        pinhole: the camera, for point clouds
        max_distance_m: points further away are left out of them
        nearest_m: has the brightest colour; None lets each image decide, and of a video the first
            frame for all, so that its colours do not flicker
        overwrite: replace files that are there
    """

    folder: Path
    kinds: tuple[str, ...] = ("png16", "colour")
    pinhole: Pinhole | None = None
    max_distance_m: float = 80.0
    nearest_m: float | None = None
    overwrite: bool = False


def prepare(wanted: Wanted, sources: Sequence[Source]) -> None:
    """Make the folder, unless something would be lost in it.

    Raises:
        UserError: two inputs would write the same file, a file is there already, or is an input
    """
    _refuse_equal_names(sources)
    there = _files_there(wanted, sources)
    inputs = {path.resolve() for source in sources for path in _paths_of(source)}
    lost = [path for path in there if path.resolve() in inputs]
    if lost:
        raise UserError(f"{lost[0]}: an input would be overwritten: name another folder with --out")
    if there and not wanted.overwrite:
        shown = ", ".join(path.name for path in there[:_SHOWN]) + ", ..." * (len(there) > _SHOWN)
        raise UserError(
            f"{wanted.folder}: has {shown} already: name another folder with --out, or replace "
            "them with --overwrite"
        )
    for path in there:
        if _is_of_a_frame(path.name, _image_names(sources)):
            path.unlink()  # the video may have had more frames than it will have
    wanted.folder.mkdir(parents=True, exist_ok=True)


def of_size(wanted: Wanted, frame: Frame) -> Wanted:
    """Return what is wanted, with a camera whose images are known to have the size of this one.

    Raises:
        UserError: they have another
    """
    height, width = frame.image.shape[:2]
    if wanted.pinhole is None or wanted.pinhole.image_size == (width, height):
        return wanted
    if wanted.pinhole.image_size is None:
        cx, cy = wanted.pinhole.K[:2, 2]
        if not (0 <= cx < width and 0 <= cy < height):  # as of an image cut out of another
            _log.warning(
                "%s: %dx%d pixels, but the centre of the intrinsics is at %g, %g, outside of it: "
                "they are in pixels of the input",
                *(frame.name, width, height, cx, cy),
            )
        return replace(wanted, pinhole=replace(wanted.pinhole, image_size=(width, height)))
    raise UserError(
        f"{frame.name}: {width}x{height} pixels, but the intrinsics are those of images of "
        "{}x{}: give images of one camera at a time".format(*wanted.pinhole.image_size)
    )


def write_image(wanted: Wanted, frame: Frame, inverse_depth: np.ndarray) -> None:
    """Write all that is wanted of one image.

    Args:
        wanted: says what
        frame: the image
        inverse_depth: (H, W) float32 [1/m], above zero, at the size of the image
    """
    write_depth(wanted, frame, inverse_depth)
    if "colour" in wanted.kinds:
        nearest_m = wanted.nearest_m or nearest_of(inverse_depth)
        picture = side_by_side(frame.image.numpy(), inverse_depth, nearest_m)
        done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        assert done
        _write(wanted, frame, "colour", data.tobytes())


def write_depth(wanted: Wanted, frame: Frame, inverse_depth: np.ndarray) -> None:
    """Write all but pictures; the arguments are those of `write_image`."""
    depth_m = 1 / inverse_depth
    if "png16" in wanted.kinds:
        in_range = depth_m.clip(_LEAST_PNG_M, LARGEST_PNG_M)
        _write(wanted, frame, "png16", encode_depth_png(in_range))
    if "npy" in wanted.kinds:
        with written_whole(_path(wanted, frame, "npy")) as file:
            np.save(file, depth_m, allow_pickle=False)
    if "ply" in wanted.kinds:
        points, kept = backproject(depth_m, wanted.pinhole.K, wanted.max_distance_m)
        with written_whole(_path(wanted, frame, "ply")) as file:
            write_ply(file, points, frame.image.numpy()[kept])


class PictureVideo:
    """Images with their depths that become a video; see `picture_video`."""

    def __init__(self, path: Path, unfinished: Path, fps: float, nearest_m: float | None) -> None:
        self._path, self._unfinished, self._fps = path, unfinished, fps
        self._nearest_m = nearest_m
        self._size: tuple[int, int] | None = None
        self._writer: cv2.VideoWriter | None = None
        self.frames = 0

    def write(self, image: np.ndarray, inverse_depth: np.ndarray) -> None:
        """Add an image (H, W, 3) uint8 RGB, as large as the first, and its depth (H, W) [1/m]."""
        if self._nearest_m is None:
            self._nearest_m = nearest_of(inverse_depth)
        picture = side_by_side(image, inverse_depth, self._nearest_m)
        size = picture.shape[1], picture.shape[0]
        if self._writer is None:
            self._size, self._writer = size, self._open(size)
        if size != self._size:  # OpenCV would leave it out without a word
            raise UserError(f"{self._path}: the video's frames change their size in the middle")
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self.frames += 1

    def _open(self, size: tuple[int, int]) -> cv2.VideoWriter:
        with quiet():
            # Where the height is odd, it leaves out the last row.
            code = cv2.VideoWriter_fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(self._unfinished), code, self._fps, size)
        if not writer.isOpened():
            raise UserError(
                f"{self._path}: OpenCV cannot write an MP4 of {size[0]}x{size[1]} pixels there: is "
                "the folder writable, and not full? --save png16 does without"
            )
        return writer

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()


@contextmanager
def picture_video(path: Path, fps: float, nearest_m: float | None = None) -> Iterator[PictureVideo]:
    """Open an MP4 that is at its place when it is whole, and not before.

    Args:
        path: of the file, `.mp4`; without a frame there is none
        fps: frames of a second
        nearest_m: as in `Wanted`

    Raises:
        UserError: it cannot be written, or not all of it could be
    """
    unfinished = path.with_name(f"{path.stem}.{os.getpid()}.tmp.mp4")
    video = PictureVideo(path, unfinished, fps, nearest_m)
    try:
        yield video
        video.close()
        if video.frames:
            # A full disk is nothing that OpenCV tells.
            if _frames_in(unfinished) != video.frames:
                raise UserError(f"{path}: could not be written whole: is the disk full?")
            unfinished.replace(path)
    finally:
        video.close()
        with suppress(OSError):  # where nothing can be written, nothing can be removed either
            unfinished.unlink(missing_ok=True)


def _frames_in(path: Path) -> int:
    with quiet():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
    capture.release()
    return int(frames)


def _path(wanted: Wanted, frame: Frame, kind: str) -> Path:
    return wanted.folder / f"{frame.name}{SUFFIX_OF[kind]}"


def _write(wanted: Wanted, frame: Frame, kind: str, content: bytes) -> None:
    with written_whole(_path(wanted, frame, kind)) as file:
        file.write(content)


def _paths_of(source: Source) -> tuple[Path, ...]:
    if isinstance(source, Video):
        return () if source.is_camera else (source.origin,)
    return source.paths


def _refuse_equal_names(sources: Sequence[Source]) -> None:
    """Refuse inputs whose files would have equal names."""
    videos: dict[str, object] = {}
    images: dict[str, object] = {}
    for source in sources:
        if isinstance(source, Video):
            _claim(videos, source.name, source)
            continue
        for path in source.paths:
            _claim(images, path.stem, path)
    for stem, path in images.items():
        frame = _NUMBERED.fullmatch(stem)
        if frame and frame[1] in videos:
            _claim({stem: videos[frame[1]]}, stem, path)


def _claim(names: dict[str, object], name: str, origin: object) -> None:
    if name in names:
        raise UserError(
            f"{names[name]} and {origin}: what is written of both would have one name, {name}: "
            "give one of them at a time, with different --out"
        )
    names[name] = origin


def _files_there(wanted: Wanted, sources: Sequence[Source]) -> list[Path]:
    """Return which of the files that would be written are there."""
    if not wanted.folder.is_dir():
        return []
    videos = {source.name for source in sources if isinstance(source, Video)}
    images = _image_names(sources)
    paths = sorted(wanted.folder.iterdir())
    return [path for path in paths if _is_written(path.name, wanted.kinds, images, videos)]


def _image_names(sources: Sequence[Source]) -> set[str]:
    return {
        path.stem for source in sources if not isinstance(source, Video) for path in source.paths
    }


def _is_of_a_frame(name: str, images: set[str]) -> bool:
    """Return whether a file that would be written is of a numbered frame, and of no image."""
    stems = {name.removesuffix(suffix) for suffix in SUFFIX_OF.values()} - {name}
    return any(_NUMBERED.fullmatch(stem) and stem not in images for stem in stems)


def _is_written(name: str, kinds: Sequence[str], images: set[str], videos: set[str]) -> bool:
    if "colour" in kinds and name.removesuffix(VIDEO_SUFFIX) in videos - {name}:
        return True
    for kind in kinds:
        stem = name.removesuffix(SUFFIX_OF[kind])
        frame = None if kind == "colour" else _NUMBERED.fullmatch(stem)
        if stem != name and (stem in images or (frame and frame[1] in videos)):
            return True
    return False
