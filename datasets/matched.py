"""The IMU between consecutive images: in memory, and as the folder `matched_oxts` of a drive.

Line i of `matched_oxts.txt` is the interval from image i to image i + 1: its packets, joined by
` | `, or `nan`. `matched_timestamps.txt` has their stamps alike, and `data/%010d.txt` holds the
lines of `matched_oxts.txt` one by one. Published files and their noisy variants read as they are.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from datasets.files import write_bytes
from datasets.oxts import FIELDS, Packets, format_stamp, parse_packet, parse_stamp
from datasets.text import DataError, at_line, read_lines

FOLDER = "matched_oxts"
PACKETS_FILE = "matched_oxts.txt"
STAMPS_FILE = "matched_timestamps.txt"
REPORT_FILE = "report.json"
NONE = "nan"  # an interval without packets, in the files only

_log = logging.getLogger(__name__)
_NEW, _OLD = f".{FOLDER}.new.tmp", f".{FOLDER}.old.tmp"
_SEPARATOR = " | "
_MIN_PACKETS = 2  # one step; the matching asks for more, files of others may have fewer
_T = TypeVar("_T")


class Reason(Enum):
    """Why an interval has no packets. The first that holds, in this order, is given."""

    NO_STAMP = "an end without a stamp"
    NO_TWIN = "an end without a raw packet"
    STEP_BACK = "a stamp before its predecessor's"
    REPEATED_STAMP = "a stamp twice, with different packets"
    MISSING_PACKET = "the file of a raw packet is missing"
    BROKEN_PACKET = "a raw packet that cannot be read"
    UNSTAMPED_PACKET = "a raw packet without a stamp"
    GAP = "a step that is too long"
    SHORT_STEP = "a step that is too short"
    TOO_FEW_PACKETS = "fewer than 11 packets"
    NAN_IN_FILE = "nan in the file read"
    TOO_LONG = "an interval that is too long"


class ImuSamples(NamedTuple):
    """The intervals of a drive at one length, as the preintegration takes them.

    Shorter intervals are filled up with steps of zero length and their last sample.
    """

    dt: np.ndarray  # (N, S) float64 [s]
    gyro: np.ndarray  # (N, S + 1, 3) float64 [rad/s]
    accel: np.ndarray  # (N, S + 1, 3) float64 [m/s^2]
    speed: np.ndarray  # (N,) float64 of the first packet [m/s]
    valid: np.ndarray  # (N,) bool; all else is zero where not


@dataclass(frozen=True, eq=False)
class MatchedImu:
    """The packets of each interval between consecutive images, one interval after the other.

    Attributes:
        packets: M packets
        offsets: (N + 1,) int64: interval i has the packets offsets[i] to offsets[i + 1] - 1, and
            none if it is not valid
        reasons: N, None for a valid interval
    """

    packets: Packets
    offsets: np.ndarray
    reasons: tuple[Reason | None, ...]

    def __len__(self) -> int:
        return len(self.reasons)

    @property
    def valid(self) -> np.ndarray:
        """Which intervals have packets (N,) bool."""
        return np.diff(self.offsets) > 0

    def interval(self, i: int) -> Packets:
        """Return the packets of one interval, none if it is not valid."""
        return self.packets.select(slice(*self.offsets[i : i + 2].tolist()))

    @property
    def durations_s(self) -> np.ndarray:
        """How long each interval is (N,) [s], zero where it is not valid."""
        durations_s, valid = np.zeros(len(self)), self.valid
        first, last = self.offsets[:-1][valid], self.offsets[1:][valid] - 1
        durations_s[valid] = (self.packets.stamps_ns[last] - self.packets.stamps_ns[first]) / 1e9
        return durations_s

    @property
    def steps(self) -> int:
        """How many steps the longest interval has, at least one."""
        return max(int(np.diff(self.offsets).max(initial=0)) - 1, 1)

    def without(self, dropped: np.ndarray, reason: Reason) -> MatchedImu:
        """Return the same without the packets of some intervals (N,) bool, for this reason."""
        dropped = dropped & self.valid
        lengths = np.diff(self.offsets)
        packets = self.packets.select(np.repeat(~dropped, lengths))
        reasons = tuple(
            reason if drop else other for drop, other in zip(dropped, self.reasons, strict=True)
        )
        return MatchedImu(packets, offsets_of(np.where(dropped, 0, lengths)), reasons)

    def padded(self, steps: int | None = None) -> ImuSamples:
        """Return all intervals at one length.

        Args:
            steps: S, that of the longest interval if not given; drives of one batch need the same
        """
        lengths = np.diff(self.offsets)
        steps = self.steps if steps is None else steps
        if steps < self.steps:
            raise ValueError(
                f"steps: expected at least {self.steps}, the longest interval, got {steps}"
            )
        within = np.minimum(np.arange(steps + 1), lengths[:, None] - 1)  # (N, S + 1)
        # One sample of zeros behind all others is what intervals without packets point at.
        rows = np.where(self.valid[:, None], self.offsets[:-1, None] + within, len(self.packets))
        sources = (
            self.packets.stamps_ns,
            self.packets.gyro,
            self.packets.accel,
            self.packets.speed,
        )
        stamps_ns, gyro, accel, speed = (
            np.concatenate([samples, np.zeros_like(samples, shape=(1, *samples.shape[1:]))])[rows]
            for samples in sources
        )
        dt = np.diff(stamps_ns, axis=1) / 1e9
        return ImuSamples(dt, gyro, accel, speed[:, 0], self.valid)


def read_matched(
    drive_folder: Path, imu_filename: str = PACKETS_FILE, frames: int | None = None
) -> MatchedImu:
    """Read the matched IMU of a synced drive.

    An interval that is `nan` in the packets or in the stamps is not valid. Why, `report.json` says
    if there is one.

    Args:
        drive_folder: the synced drive, which holds `matched_oxts`
        imu_filename: the packets, perhaps those of a noisy variant; the stamps are the same
        frames: how many images the drive has, to be checked if given

    Raises:
        FileNotFoundError: one of the two files is missing
        DataError: names file and line
    """
    packets_path = drive_folder / FOLDER / imu_filename
    stamps_path = drive_folder / FOLDER / STAMPS_FILE
    packet_lines, stamp_lines = read_lines(packets_path), read_lines(stamps_path)
    if len(packet_lines) != len(stamp_lines):
        raise DataError(
            f"{packets_path}: {len(packet_lines)} lines, but {stamps_path.name} "
            f"has {len(stamp_lines)}: both need one for every interval"
        )
    if frames is not None and len(packet_lines) != frames - 1:
        raise DataError(
            f"{packets_path}: {len(packet_lines)} lines, but {frames} images have {frames - 1} "
            "intervals between them: match the drive again"
        )
    values, stamps_ns, lengths = [], [], []
    for line, (packet_line, stamp_line) in enumerate(
        zip(packet_lines, stamp_lines, strict=True), start=1
    ):
        numbers = _parse_line(packet_line, parse_packet, packets_path, line)
        ns = _parse_line(stamp_line, parse_stamp, stamps_path, line)
        if not numbers or not ns:
            lengths.append(0)
            continue
        if len(numbers) != len(ns):
            message = f"{len(numbers)} packets, but {len(ns)} stamps in {stamps_path.name}"
            raise at_line(packets_path, line, message)
        _check_order(ns, stamps_path, line)
        values += numbers
        stamps_ns += ns
        lengths.append(len(ns))
    numbers = np.array(values, np.float64).reshape(-1, len(FIELDS))
    packets = Packets(numbers, np.array(stamps_ns, np.int64))
    known = _read_reasons(drive_folder / FOLDER / REPORT_FILE)
    reasons = tuple(
        None if length else known.get(i, Reason.NAN_IN_FILE) for i, length in enumerate(lengths)
    )
    return MatchedImu(packets, offsets_of(lengths), reasons)


def _read_reasons(path: Path) -> dict[int, Reason]:
    """Return the reasons that a report of ours gives for intervals without packets."""
    if not path.exists():
        return {}
    try:
        dropped = json.loads(path.read_text(encoding="utf-8"))["dropped"]
        return {int(i): Reason[name] for name, d in dropped.items() for i in d["intervals"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        _log.warning("%s: not a report of match_kitti_imu.py, no reasons are taken from it", path)
        return {}


def offsets_of(lengths: list[int] | np.ndarray) -> np.ndarray:
    """Return where each run of packets begins, and where the last ends (N + 1,) int64."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _parse_line(line: str, parse: Callable[[str], _T], path: Path, number: int) -> list[_T]:
    """Return the entries of a line, none for `nan`."""
    if line.strip().lower() == NONE:
        return []
    entries = []
    for position, text in enumerate(line.split("|"), start=1):
        try:
            entries.append(parse(text.strip()))
        except DataError as error:
            raise at_line(path, number, f"entry {position}: {error}") from None
    if len(entries) < _MIN_PACKETS:
        raise at_line(path, number, f"expected at least {_MIN_PACKETS} entries or {NONE}")
    return entries


def _check_order(stamps_ns: list[int], path: Path, line: int) -> None:
    for before, after in zip(stamps_ns, stamps_ns[1:], strict=False):
        if after <= before:
            message = f"stamp {format_stamp(after)} is not after {format_stamp(before)}"
            raise at_line(path, line, message)


def write_matched(drive_folder: Path, matched: MatchedImu, report: Mapping[str, object]) -> None:
    """Write the folder `matched_oxts` of a synced drive, whole or not at all.

    An older one stays until the new one is complete, and is then replaced with all that is in it.

    Args:
        drive_folder: the synced drive
        matched: what to write
        report: how it came about, for `report.json`
    """
    tidy(drive_folder)
    new, old, final = (drive_folder / name for name in (_NEW, _OLD, FOLDER))
    if final.is_symlink() or (final.exists() and not final.is_dir()):
        raise DataError(f"{final}: not a folder but a link or a file, remove it")
    try:
        _write_folder(new, matched, report)
        if final.exists():
            final.rename(old)
        new.rename(final)
    except BaseException:
        tidy(drive_folder)  # the old one comes back, and a full disk does not stay full
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_folder(folder: Path, matched: MatchedImu, report: Mapping[str, object]) -> None:
    (folder / "data").mkdir(parents=True)
    packet_lines = _lines(matched, matched.packets.lines)
    stamp_lines = _lines(matched, tuple(map(format_stamp, matched.packets.stamps_ns.tolist())))
    write_bytes(folder / PACKETS_FILE, "".join(packet_lines).encode())
    write_bytes(folder / STAMPS_FILE, "".join(stamp_lines).encode())
    for i, line in enumerate(packet_lines):
        write_bytes(folder / "data" / f"{i:010d}.txt", line.encode())
    write_bytes(folder / REPORT_FILE, (json.dumps(report, indent=2) + "\n").encode())


def tidy(drive_folder: Path) -> None:
    """Clear what a killed `write_matched` left behind; an old folder it had moved comes back."""
    new, old, final = (drive_folder / name for name in (_NEW, _OLD, FOLDER))
    if old.exists() and not final.exists():
        old.rename(final)
    for leftover in (new, old):
        if leftover.exists():
            shutil.rmtree(leftover)


def _lines(matched: MatchedImu, texts: tuple[str, ...]) -> list[str]:
    bounds = matched.offsets.tolist()
    intervals = zip(bounds, bounds[1:], strict=False)
    return [(_SEPARATOR.join(texts[begin:end]) or NONE) + "\n" for begin, end in intervals]
