"""A set of synthetic drives: made in a folder beside, and moved into place when all is there."""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from datasets.drives import Drive
from datasets.processes import in_processes
from datasets.synthetic import faults
from datasets.synthetic.contact_sheet import contact_sheet
from datasets.synthetic.recording import DATE, Block, Recipe, write_frames, write_records
from datasets.synthetic.rig import write_calibration
from datasets.text import DataError, shown

try:
    import fcntl
except ImportError:  # not on every platform; there, nobody looks after two runs at once
    fcntl = None

FORMATS = ("png", "jpg")
MIN_FRAMES = 3  # one image with both its neighbours
MARGIN = 5  # frames between train and val, so that they share little
LEAST_MARGIN = 2  # with fewer, they would share an image
SPLITS = ("train", "val", "test")
README, CONTACT_SHEET = "README.txt", "contact_sheet.png"

_NEW, _DONE = ".synthetic_kitti.new.tmp", ".synthetic_kitti.done.tmp"
_OLD = ".old"  # ends the name of what was replaced, until it is removed
_LOCK = ".synthetic_kitti.lock"
_TALLY = "tally"
_POLL_S = 0.2
# Each option with the least and the most that it can be.
_RANGES = {
    "drives": (1, 9999),  # their numbers have four digits
    "frames": (MIN_FRAMES, 100_000),
    "seed": (0, 2**63 - 1),
    "moving_cars": (0, 100),
    "imu_noise": (0, 100),
    "illumination": (0, 3),
}
_SIDES_PX = 16, 8192
_SIDE_DIGITS = 5


@dataclass(frozen=True)
class SyntheticOptions:
    """What to make, and where.

    Attributes:
        out: a folder, which becomes a root of KITTI's raw data
        drives, frames: how many, and how long
        size: width, height [px]
        seed: of all random numbers
        moving_cars: in each drive
        imu_noise: 0 is none, 1 that of the real unit
        illumination: 0 is constant, 1 changes strongly
        faults: plant the known troubles
        format: of images, one of FORMATS
        overwrite: replace the drives that are there
        workers: processes, of which the result does not depend; as many as make sense if None
    """

    out: Path
    drives: int = 4
    frames: int = 120
    size: tuple[int, int] = (1242, 375)
    seed: int = 0
    moving_cars: int = 0
    imu_noise: float = 1.0
    illumination: float = 0.0
    faults: bool = False
    format: str = "png"
    overwrite: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise DataError(f"{name}: expected a number from {least} to {most}, got {value}")
        least, most = _SIDES_PX
        if not all(least <= side <= most for side in self.size):
            size = "x".join(map(str, self.size))
            raise DataError(f"size: expected sides from {least} to {most} pixels, got {size}")
        if self.format not in FORMATS:
            raise DataError(f"format: expected one of {', '.join(FORMATS)}, got {self.format!r}")
        if self.workers is not None and self.workers < 1:
            raise DataError(f"workers: expected at least 1, got {self.workers}")
        if self.faults:
            faults.check_frames(self.frames)

    @property
    def processes(self) -> int:
        return self.workers or min(self.drives, os.cpu_count() or 1)

    @property
    def command(self) -> str:
        """The command line that makes the same again."""
        options = ("drives", "frames", "seed", "moving_cars", "format")
        words = ["python make_synthetic_kitti.py --out FOLDER"]
        words += [f"--{name} {getattr(self, name)}" for name in options]
        words.append(f"--size {self.size[0]}x{self.size[1]}")
        # With all their digits: a rounded scale makes other bytes.
        words.append(f"--imu_noise {float(self.imu_noise)}")
        words.append(f"--illumination {float(self.illumination)}")
        return " ".join(words) + " --faults" * self.faults

    def recipes(self) -> list[Recipe]:
        """Return what each drive is made from."""
        return [
            Recipe(
                self.seed,
                number,
                self.frames,
                self.size,
                self.moving_cars,
                self.imu_noise,
                self.illumination,
                self.faults,
                self.format,
            )
            for number in range(1, self.drives + 1)
        ]


@dataclass(frozen=True)
class Made:
    """What was made: metres driven in all drives, and lines of each split."""

    metres: float
    split_lines: dict[str, int]


def parse_size(text: str) -> tuple[int, int]:
    """Read `1242x375` as width and height."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(map(_is_side, parts)):
        raise DataError(f"size: expected WIDTHxHEIGHT like 1242x375, got {shown(text)}")
    return int(parts[0]), int(parts[1])


def _is_side(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _SIDE_DIGITS


def write_synthetic_kitti(
    options: SyntheticOptions, progress: Callable[[int], object] = lambda frames: None
) -> Made:
    """Make all drives, whole or not at all.

    Args:
        options: what to make
        progress: is called now and then with how many more frames are done, from another thread
    """
    out = options.out
    with _claimed(out):
        _refuse_other_kinds(out)
        tidy(out)
        if not options.overwrite:
            _refuse_existing(out)
        new, done = out / _NEW, out / _DONE
        new.mkdir()
        try:
            made = _make(new, options, progress)
            new.rename(done)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)  # a full disk does not stay full
            raise
        _install(done, out)
    return made


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Have a folder to oneself; made if it is missing, and gone again if nothing came into it."""
    if os.path.lexists(out) and not out.is_dir():
        raise DataError(f"{out}: not a folder")
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(out):
            yield
    finally:
        with suppress(OSError):  # it has something in it now
            for folder in missing:
                folder.rmdir()


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Refuse a folder that another run is writing into; the lock of a killed one is no more."""
    if fcntl is None:
        yield
        return
    path = out / _LOCK
    with path.open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The run before this one may have ended, and taken the file away, since it was opened.
            mine = os.path.samestat(path.stat(), os.fstat(lock.fileno()))
        except (BlockingIOError, FileNotFoundError):
            mine = False
        except OSError:  # a file system that has no locks
            mine = True
        if not mine:
            raise DataError(f"{out}: another run is writing here")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # still locked: nobody else can have made it theirs


def _ours(out: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the files that a run makes; others may share the folder of splits."""
    files = [out / README, out / CONTACT_SHEET]
    files += [out / "splits" / f"{split}_files.txt" for split in SPLITS]
    return [out / DATE, out / "splits"], files


def _refuse_other_kinds(out: Path) -> None:
    """Find before hours of work what could not be replaced after them."""
    folders, files = _ours(out)
    for path in folders:
        if os.path.lexists(path) and not path.is_dir():
            raise DataError(f"{path}: is in the way, expected a folder or nothing")
    for path in files:
        if path.is_dir():
            raise DataError(f"{path}: is in the way, expected a file or nothing")


def _refuse_existing(out: Path) -> None:
    _, files = _ours(out)
    for path in (out / DATE, *files):
        if os.path.lexists(path):
            raise DataError(
                f"{path}: is there already; --overwrite replaces all drives of {DATE}, "
                "or choose another --out"
            )


def _make(root: Path, options: SyntheticOptions, progress: Callable[[int], object]) -> Made:
    recipes = options.recipes()
    (root / DATE).mkdir()
    calibration = write_calibration(root / DATE, options.size)
    blocks, metres = [], 0.0
    tally = root / _TALLY
    for recipe in recipes:
        records = write_records(root, recipe, calibration)
        metres += records.metres
        blocks += [
            Block(root, recipe, calibration, first, end, records.missing_scans, tally)
            for first, end in frame_blocks(options.drives, options.frames, options.processes)
        ]
    with _followed(tally, progress):
        for _ in in_processes(write_frames, blocks, options.processes):
            pass
    tally.unlink()
    drives = [recipe.drive for recipe in recipes]
    lines = split_lines(drives, options.frames)
    (root / "splits").mkdir()
    for split, texts in lines.items():
        _write(root / "splits" / f"{split}_files.txt", "".join(text + "\n" for text in texts))
    _write(root / README, _readme(options))
    (root / CONTACT_SHEET).write_bytes(contact_sheet(root, drives))
    return Made(metres, {split: len(texts) for split, texts in lines.items()})


def frame_blocks(drives: int, frames: int, workers: int) -> list[tuple[int, int]]:
    """Return the ranges of frames that a drive is split into, so that all workers have one.

    They are as long as can be: a renderer builds its world as it goes on.
    """
    parts = min(max(1, math.ceil(workers / drives)), frames)
    edges = [frames * part // parts for part in range(parts + 1)]
    return list(zip(edges, edges[1:], strict=False))


@contextmanager
def _followed(tally: Path, progress: Callable[[int], object]) -> Iterator[None]:
    """Report the growth of a file to which all processes append a byte for each frame."""
    # A queue that processes share would be served by one more, with all that it imports.
    tally.touch()
    over = threading.Event()

    def follow() -> None:
        seen, last = 0, False
        while not last:
            last = over.wait(_POLL_S)
            with suppress(FileNotFoundError):  # somebody clears the folder: a writer will say so
                size = tally.stat().st_size
                progress(size - seen)
                seen = size

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()


def split_lines(drives: list[Drive], frames: int) -> dict[str, list[str]]:
    """Return the lines of each split; only frames with both neighbours are in one.

    The last drives are for tests: their streets are others. A drive by itself is not held out. Of
    the others, the last tenth is for validation, at some distance from what is for training; of
    drives that are too short for that, nothing.
    """
    held_out = max(1, len(drives) // 5) if len(drives) > 1 else 0
    usable = frames - 2
    val, margin = max(1, round(usable / 10)), max(LEAST_MARGIN, min(MARGIN, usable // 4))
    if val + margin >= usable:
        val = margin = 0
    ranges = {
        "train": range(1, 1 + usable - val - margin),
        "val": range(1 + usable - val, 1 + usable),
    }
    lines = {
        split: [line for drive in drives[: len(drives) - held_out] for line in _lines(drive, kept)]
        for split, kept in ranges.items()
    }
    test = drives[len(drives) - held_out :]
    lines["test"] = [line for drive in test for line in _lines(drive, range(1, 1 + usable))]
    return lines


def _lines(drive: Drive, frames: range) -> Iterator[str]:
    for frame in frames:
        for side in "lr":
            yield f"{drive.date}/{drive}_sync {frame} {side}"


def tidy(out: Path) -> None:
    """Clear what a killed run left behind; what it had completed moves into place."""
    if (out / _DONE).exists():
        _install(out / _DONE, out)
    if (out / _NEW).exists():
        shutil.rmtree(out / _NEW)


def _install(done: Path, out: Path) -> None:
    """Move all that is complete into place; may be interrupted, and then called again."""
    for path in sorted(done.iterdir()):
        if path.suffix == _OLD:
            continue
        final = out / path.name
        if path.name == "splits":  # the folder may have splits of the reader's own
            final.mkdir(exist_ok=True)
            for file in sorted(path.iterdir()):
                file.replace(final / file.name)
        elif path.is_dir():
            if final.exists():
                final.rename(done / f"{path.name}{_OLD}")
            path.rename(final)
        else:
            path.replace(final)
    shutil.rmtree(done)


def _readme(options: SyntheticOptions) -> str:
    return _README.format(
        date=DATE,
        command=options.command,
        width=options.size[0],
        height=options.size[1],
        scale=float(options.imu_noise),
    )


_README = """\
Synthetic drives in the layout of KITTI's raw data
===================================================

Nothing here was recorded: streets, motion and sensors were made by the program, from a seed.

  {command}

makes the same again, byte by byte. No drive of KITTI is of the day {date}, so that this
folder may be the root of real drives as well.

{date}/calib_*.txt           extrinsics, baselines and focal length of KITTI's 2011_09_26,
                                 scaled to images of {width} x {height}; rectified, no distortion
{date}/*_sync/image_02, 03   left and right colour camera; both expose at the same time
  velodyne_points                64 beams, all cast at the exposure (no rolling shutter), ordered
                                 by azimuth and then from low to high, noise 1 cm along the ray
  oxts                           of the packets below, the one nearest to each exposure
  proj_depth/groundtruth         true depth of image_02: metres x 256 in 16 bits, 0 is none
                                 (the sky, or beyond 255.99 m)
  truth/poses.txt                poses of camera 0 (rectified) as in KITTI's odometry:
                                 the camera at each image to the camera at the first
  truth/imu_bias.txt             biases of the IMU, one row for each packet at 100 Hz
  truth/moving/image_02          255 where something moves by itself, 0 elsewhere
  truth/faults.json              with --faults: what was planted, and where. Its invalid
                                 intervals are those of --align packet; with camera, no_twin
                                 spoils none, and step_back and gap may spoil one more beside
{date}/*_extract/oxts        all packets at 100 Hz. Position, attitude and velocity are the
                                 truth; rates and forces have noise and slowly drifting biases,
                                 {scale} times those of the real unit
splits/                          train, val, test: frames with both neighbours; the drives of
                                 test are on streets of their own; val shares no image with
                                 train, and is empty where drives are too short for that
contact_sheet.png                what it looks like
"""


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
