"""The matching of whole drives: which ones there are, what becomes of each, and the report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import torch

from datasets.calibration import read_calibration
from datasets.imu_matching import Matching, check_options, in_order, match
from datasets.matched import FOLDER, tidy, write_matched
from datasets.oxts import (
    Problem,
    Recording,
    Stamps,
    format_stamp,
    packet_files,
    read_oxts,
    read_stamps,
)
from datasets.splits import DEPTH_SELECTION, ODOMETRY, read_split
from datasets.text import DataError, at_line, shown
from datasets.time_offset import TimeOffset, check_range, estimate_time_offset, read_rotations
from liegroups import so3

_DRIVE = re.compile(
    r"(?:(\d{4}_\d\d_\d\d)/)?(\d{4}_\d\d_\d\d)_drive_(\d{4})(?:_(?:sync|extract))?/?", re.ASCII
)
_DATE = re.compile(r"\d{4}_\d\d_\d\d", re.ASCII)
_CAMERAS = ("image_02", "image_03", "image_00", "image_01")  # whose stamps are taken, in this order
_SPLIT_FILES = ("train_files.txt", "val_files.txt", "test_files.txt")
_SHOWN_PROBLEMS = 10


@dataclass(frozen=True, order=True)
class Drive:
    """A drive of KITTI's raw data, wherever it lies."""

    date: str
    number: str

    @staticmethod
    def parse(text: str) -> Drive:
        """Read `2011_09_26_drive_0001`, also with its date's folder, `_sync` or `_extract`."""
        match = _DRIVE.fullmatch(text.strip())
        if match is None or match[1] not in (None, match[2]):
            raise DataError(f"expected a drive like 2011_09_26_drive_0001, got {shown(text)}")
        return Drive(match[2], match[3])

    def __str__(self) -> str:
        return f"{self.date}_drive_{self.number}"

    def sync(self, root: Path) -> Path:
        return root / self.date / f"{self}_sync"

    def extract(self, root: Path) -> Path:
        return root / self.date / f"{self}_extract"


@dataclass(frozen=True)
class Found:
    """The drives under two folders: in both, on one side only, or wanted and in neither."""

    both: tuple[Drive, ...]
    only_raw: tuple[Drive, ...]
    only_sync: tuple[Drive, ...]
    neither: tuple[Drive, ...] = ()

    def among(self, wanted: set[Drive]) -> Found:
        """Return those that are wanted."""
        sides = (self.both, self.only_raw, self.only_sync)
        neither = wanted.difference(*sides)
        sides = (tuple(drive for drive in side if drive in wanted) for side in sides)
        return Found(*sides, tuple(sorted(neither)))


def find_drives(raw_path: Path, sync_path: Path) -> Found:
    """List the drives with an extract under one folder and a synced twin under the other."""
    raw, sync = _drives_in(raw_path, "extract"), _drives_in(sync_path, "sync")
    return Found(*(tuple(sorted(drives)) for drives in (raw & sync, raw - sync, sync - raw)))


def _drives_in(root: Path, kind: str) -> set[Drive]:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    # Not by a glob: that passes over a folder that may not be read as if it were empty.
    dates = [path for path in root.iterdir() if _DATE.fullmatch(path.name) and path.is_dir()]
    found = set()
    for date in dates:
        for path in date.iterdir():
            named = path.name.startswith(date.name) and path.name.endswith(f"_{kind}")
            if named and _DRIVE.fullmatch(path.name) and path.is_dir():
                found.add(Drive.parse(path.name))
    return found


def select_drives(found: Found, names: Sequence[str]) -> Found:
    """Return the drives with these names; each must be there on both sides."""
    wanted = {Drive.parse(name) for name in names}
    for drive in sorted(wanted - set(found.both)):
        lacking = {drive in found.only_raw: "_sync", drive in found.only_sync: "_extract"}.get(
            True, "_sync and no _extract"
        )
        raise DataError(f"{drive}: no {lacking} folder of this drive")
    return found.among(wanted)


def choose_drives(
    raw_path: Path, sync_path: Path, names: Sequence[str] | None, split: Path | None
) -> Found:
    """Return the drives to work on: those named, those of the split in this folder, or all."""
    found = find_drives(raw_path, sync_path)
    if names:
        return select_drives(found, names)
    if split is not None:
        found = found.among(split_drives(split))
    if not found.both:
        which = "no drive" if split is None else f"no drive of {split}"
        raise DataError(
            f"{which} has both an _extract folder in {raw_path} and a _sync folder in {sync_path}"
        )
    return found


def split_drives(folder: Path) -> set[Drive]:
    """Return the drives that the lists of a split are from.

    Odometry sequences are from their raw drive, where that is public. The single images of the
    depth benchmark are from no drive that is known.
    """
    files = [folder / name for name in _SPLIT_FILES if (folder / name).exists()]
    if not files:
        raise FileNotFoundError(f"{folder}: no split here, it would have {', '.join(_SPLIT_FILES)}")
    drives = set()
    for file in files:
        split = read_split(file, may_be_empty=True)
        _, first = np.unique(split.drive, return_index=True)
        for name, line in zip(split.folders, split.line[first].tolist(), strict=True):
            run = ODOMETRY.get(name)
            if name.startswith(DEPTH_SELECTION) or (run and not run.public):
                continue
            try:
                drives.add(Drive.parse(run.drive if run else name))
            except DataError as error:
                raise at_line(file, line, str(error)) from None
    return drives


@dataclass(frozen=True)
class MatchOptions:
    """How to match drives, and what to do with what comes out."""

    raw_path: Path
    sync_path: Path
    max_drift_ms: float = 5.0
    align: str = "packet"
    check: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_options(self.max_drift_ms, self.align)


@dataclass(frozen=True)
class OffsetOptions:
    """How to estimate time offsets.

    Attributes:
        raw_path, sync_path: where the extracts and their synced twins lie
        max_offset_ms: the offset is looked for from minus to plus this
        rotations: a visual trajectory, one pose for each image. Without it, the orientations of
            the synced packets stand for the images: this shows how far the pairing of packets and
            images is off, and nothing of a delay that both have in common.
    """

    raw_path: Path
    sync_path: Path
    max_offset_ms: float = 500.0
    rotations: Path | None = None

    def __post_init__(self) -> None:
        check_range(self.max_offset_ms / 1e3)


class Outcome(Enum):
    """What became of a drive."""

    WRITTEN = "written"
    CHECKED = "checked, nothing written"
    SKIPPED = f"skipped: it has {FOLDER} already, --overwrite replaces it"
    ESTIMATED = "time offset"
    FAILED = "failed"


@dataclass(frozen=True)
class DriveReport:
    """What became of a drive, and why.

    Attributes:
        drive: the drive
        outcome: what became of it
        note: why it failed, or what was estimated: one line
        details: what `report.json` holds; empty if it was not matched
    """

    drive: Drive
    outcome: Outcome
    note: str = ""
    details: dict[str, object] | None = None

    def table(self) -> str:
        """Return the report as lines to print."""
        lines = [f"{self.drive}  {self.outcome.value}{': ' * bool(self.note)}{self.note}"]
        if self.details:
            dropped, problems = self.details["dropped"], self.details["problems"]
            rows = [("intervals", self.details["intervals"], "")]
            rows += [("valid", self.details["valid"], "")]
            rows += [(name.lower(), d["count"], _where(d)) for name, d in dropped.items()]
            rows += [(f"repaired: {k}", n, "") for k, n in self.details["repairs"].items() if n]
            if problems["count"]:
                rows.append(("left out", problems["count"], f"first: {problems['first'][0]}"))
            lines += [f"  {name:28}{count:7}  {note}".rstrip() for name, count, note in rows]
        return "\n".join(lines)


def summary(reports: Sequence[DriveReport], found: Found) -> str:
    """Return what became of all drives, and which had no twin, as lines to print."""
    outcomes = [(outcome, [r.outcome for r in reports].count(outcome)) for outcome in Outcome]
    counts = [f"{count} {outcome.name.lower()}" for outcome, count in outcomes if count]
    lines = [f"{len(reports)} drive{'s' * (len(reports) != 1)}: {', '.join(counts)}"]
    details = [report.details for report in reports if report.details]
    if details:
        valid, intervals = (sum(d[key] for d in details) for key in ("valid", "intervals"))
        lines[0] += f"; {valid} of {intervals} intervals valid"
    for drives, lacking in ((found.only_raw, "_sync"), (found.only_sync, "_extract")):
        if drives:
            lines.append(f"without {lacking}, left out: {len(drives)}, first {drives[0]}")
    if found.neither:
        lines.append(f"in neither folder: {len(found.neither)}, first {found.neither[0]}")
    return "\n".join(lines)


def _where(dropped: dict[str, object]) -> str:
    at = f" at {dropped['stamp']}" if dropped["stamp"] else ""
    return f"{dropped['meaning']}, first{at} in interval {dropped['intervals'][0]}"


def match_drive(drive: Drive, options: MatchOptions) -> DriveReport:
    """Match one drive and write its `matched_oxts`; a fault of its files becomes the report."""
    folder = drive.sync(options.sync_path)
    try:
        if not options.check:
            tidy(folder)
            if (folder / FOLDER).exists() and not options.overwrite:
                return DriveReport(drive, Outcome.SKIPPED)
        raw = read_oxts(drive.extract(options.raw_path) / "oxts")
        ends, problems = _read_ends(folder, options.align)
        matching = match(ends, raw, max_drift_ms=options.max_drift_ms, align=options.align)
        details = _details(drive, options, matching, (*problems, *map(_line, raw.problems)))
        if not matching.imu.valid.any():
            note = "no interval is valid, nothing was written"
            return DriveReport(drive, Outcome.FAILED, note, details)
        if not options.check:
            write_matched(folder, matching.imu, details)
    except (DataError, OSError) as error:
        return DriveReport(drive, Outcome.FAILED, str(error))
    return DriveReport(
        drive, Outcome.CHECKED if options.check else Outcome.WRITTEN, details=details
    )


def _line(problem: Problem) -> str:
    return str(problem.error())


def _read_ends(folder: Path, align: str) -> tuple[Stamps, tuple[str, ...]]:
    """Return the stamps where intervals end, one for each frame, and what is wrong with them.

    A frame is whatever the synced drive has a stamp or a packet of, so that a list that was cut
    off costs intervals and not lines of the output.
    """
    oxts = folder / "oxts"
    sync = read_stamps(oxts / "timestamps.txt")
    count = max(len(sync), 1 + max(packet_files(oxts / "data"), default=-1))
    path, stamps = oxts / "timestamps.txt", sync
    if align == "camera":
        path = _image_stamps_path(folder)
        stamps = read_stamps(path)
    problems = tuple(map(_line, stamps.problems))
    if len(stamps) != count:
        problems += (f"{path}: {len(stamps)} stamps, but there are {count} synced packets",)
    return stamps.resized(count), problems


def _image_stamps_path(folder: Path) -> Path:
    paths = [folder / camera / "timestamps.txt" for camera in _CAMERAS]
    existing = [path for path in paths if path.exists()]
    if not existing:
        raise FileNotFoundError(f"{paths[0]}: no such file, nor one of another camera")
    return existing[0]


def _details(
    drive: Drive, options: MatchOptions, matching: Matching, problems: tuple[str, ...]
) -> dict[str, object]:
    return {
        "drive": str(drive),
        "align": options.align,
        "max_drift_ms": options.max_drift_ms,
        "intervals": len(matching.imu),
        "valid": int(matching.imu.valid.sum()),
        "dropped": {
            dropped.reason.name: {
                "meaning": dropped.reason.value,
                "count": len(dropped.intervals),
                "intervals": dropped.intervals,
                "stamp": None if dropped.stamp_ns is None else format_stamp(dropped.stamp_ns),
            }
            for dropped in matching.dropped
        },
        "repairs": {"packets repeated exactly": matching.repeats},
        "problems": {"count": len(problems), "first": list(problems[:_SHOWN_PROBLEMS])},
    }


def drive_time_offset(drive: Drive, options: OffsetOptions) -> TimeOffset:
    """Estimate by how much the IMU's stamps are late against a drive's exposures."""
    folder = drive.sync(options.sync_path)
    stamps = read_stamps(_image_stamps_path(folder))
    if options.rotations is None:
        sync = read_oxts(folder / "oxts")
        frames = sync.frames[sync.frames < len(stamps)]
        R_w_b = so3.from_rpy(torch.from_numpy(sync.packets.rpy[: len(frames)])).numpy()
    else:
        R_c0_c = read_rotations(options.rotations)
        if len(R_c0_c) != len(stamps):
            raise DataError(
                f"{options.rotations}: {len(R_c0_c)} poses, but {drive} has {len(stamps)} images"
            )
        frames = np.arange(len(stamps))
        R_w_b = R_c0_c @ read_calibration(folder.parent)[2].T_c_b[:3, :3]
    usable = np.flatnonzero(stamps.present[frames])
    usable = usable[_increasing(stamps.ns[frames[usable]])]
    gyro_ns, gyro = _gyro(read_oxts(drive.extract(options.raw_path) / "oxts"))
    return estimate_time_offset(
        gyro_ns, gyro, stamps.ns[frames[usable]], R_w_b[usable], options.max_offset_ms / 1e3
    )


def report_time_offset(drive: Drive, options: OffsetOptions) -> DriveReport:
    """Estimate the time offset of one drive; a fault of its files becomes the report."""
    try:
        found = drive_time_offset(drive, options)
    except (DataError, OSError) as error:
        return DriveReport(drive, Outcome.FAILED, str(error))
    note = (
        f"{1e3 * found.offset_s:+.2f} ms +- {1e3 * found.std_s:.2f} ms, "
        f"correlation {found.correlation:.4f} over {found.intervals} intervals"
    )
    return DriveReport(drive, Outcome.ESTIMATED, note)


def _gyro(raw: Recording) -> tuple[np.ndarray, np.ndarray]:
    rows = _increasing(raw.packets.stamps_ns)
    return raw.packets.stamps_ns[rows], raw.packets.gyro[rows]


def _increasing(stamps_ns: np.ndarray) -> np.ndarray:
    """Return the places of the most stamps that go forward, without strays and repeats."""
    order = in_order(stamps_ns)
    return order[np.diff(stamps_ns[order], prepend=-1) > 0]
