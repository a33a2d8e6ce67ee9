"""The known troubles of KITTI's recordings, planted into a drive at random places far enough apart.

Only files are damaged, and only after all is made: the truth stays, and so does what the files
would say. Every fault lies in intervals between images of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from datasets.oxts import Packets
from datasets.text import DataError

STEP_BACK_NS = 50_000_000
STRAY_PACKETS = 3
GAP_PACKETS = 20
UNPAIRED_NS = 2_000_000
# So far behind an image's packet a fault begins, which keeps it off the packets of both images.
_BEHIND = 3


class Kind(Enum):
    """What can be planted, and how many intervals between images it touches."""

    GAP = "packets absent from the recording at 100 Hz, without a number", 3
    STEP_BACK = "raw stamps that step back by 50 ms, and forth again", 1
    REPEATED_STAMP = "a raw stamp that repeats the one before it", 1
    MISSING_PACKET = "the file of a raw packet is missing, its stamp is there", 1
    NO_TWIN = "a synced stamp 2 ms late, so that no raw packet has it", 2
    MISSING_SCAN = "the file of a velodyne scan is missing, its stamps are empty", 1

    def __init__(self, meaning: str, width: int) -> None:
        self.meaning, self.width = meaning, width


# An untouched interval before, between and behind all of them.
MIN_FRAMES = sum(kind.width for kind in Kind) + len(Kind) + 1 + 1


@dataclass(frozen=True, eq=False)
class OxtsFiles:
    """What the folders `oxts` of a drive hold.

    Attributes:
        raw_ns: (M,) stamps of the extract
        raw_lines: its M packets, None where the file is missing
        sync_ns: (N,) stamps of the synced drive
        sync_lines: its N packets
        missing_scans: frames without a velodyne scan
    """

    raw_ns: np.ndarray
    raw_lines: tuple[str | None, ...]
    sync_ns: np.ndarray
    sync_lines: tuple[str, ...]
    missing_scans: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    Attributes:
        kind: what it is
        first: the interval at which it begins; interval i is from image i to image i + 1
        packets: of the recording before anything was planted, which it touches
    """

    kind: Kind
    first: int
    packets: tuple[int, ...]

    @property
    def intervals(self) -> tuple[int, ...]:
        """The intervals that have no trustworthy IMU any more."""
        if self.kind is Kind.MISSING_SCAN:
            return ()
        return tuple(range(self.first, self.first + self.kind.width))

    @property
    def frame(self) -> int:
        """The image whose own files it touches, for the kinds that do."""
        return self.first + 1 if self.kind is Kind.NO_TWIN else self.first

    @property
    def frames(self) -> tuple[int, ...]:
        """The images that it hits: by their own files, or at an end of such an interval."""
        if self.kind is Kind.MISSING_SCAN:
            return (self.frame,)
        return tuple(range(self.first, self.first + self.kind.width + 1))


def check_frames(frames: int) -> None:
    """Refuse a drive that is too short to keep the faults apart."""
    if frames < MIN_FRAMES:
        raise DataError(f"faults: expected at least {MIN_FRAMES} frames, got {frames}")


def whole_files(packets: Packets, twins: np.ndarray) -> OxtsFiles:
    """Return the files of a drive without faults.

    Args:
        packets: M raw packets
        twins: (N,) which of them are the synced ones
    """
    synced = packets.select(twins)
    lines = packets.lines
    sync_lines = tuple(lines[i] for i in twins.tolist())
    return OxtsFiles(packets.stamps_ns, lines, synced.stamps_ns, sync_lines)


def draw_faults(rng: np.random.Generator, twins: np.ndarray) -> list[Fault]:
    """Choose where each kind of fault goes, in the order of time.

    Args:
        rng: decides
        twins: (N,) raw packets of the images
    """
    check_frames(len(twins))
    kinds = [list(Kind)[i] for i in rng.permutation(len(Kind))]
    spare = len(twins) - MIN_FRAMES
    room = 1 + rng.multinomial(spare, np.full(len(kinds) + 1, 1 / (len(kinds) + 1)))
    faults, interval = [], 0
    for kind, untouched in zip(kinds, room.tolist(), strict=False):
        interval += untouched
        faults.append(Fault(kind, interval, _packets(kind, interval, twins)))
        interval += kind.width
    return faults


def _packets(kind: Kind, interval: int, twins: np.ndarray) -> tuple[int, ...]:
    counts = {
        Kind.GAP: GAP_PACKETS,
        Kind.STEP_BACK: STRAY_PACKETS,
        Kind.REPEATED_STAMP: 1,
        Kind.MISSING_PACKET: 1,
    }
    first = int(twins[interval]) + _BEHIND
    return tuple(range(first, first + counts.get(kind, 0)))


def plant(files: OxtsFiles, faults: list[Fault]) -> OxtsFiles:
    """Return the files with these faults in them."""
    raw_ns, sync_ns = files.raw_ns.copy(), files.sync_ns.copy()
    lines = list(files.raw_lines)
    recorded = np.ones(len(raw_ns), bool)
    missing_scans = []
    for fault in faults:
        rows = list(fault.packets)
        match fault.kind:
            case Kind.GAP:
                recorded[rows] = False
            case Kind.STEP_BACK:
                raw_ns[rows] -= STEP_BACK_NS
            case Kind.REPEATED_STAMP:
                raw_ns[rows] = raw_ns[rows[0] - 1]
            case Kind.MISSING_PACKET:
                lines[rows[0]] = None
            case Kind.NO_TWIN:
                sync_ns[fault.frame] += UNPAIRED_NS
            case Kind.MISSING_SCAN:
                missing_scans.append(fault.frame)
    return replace(
        files,
        raw_ns=raw_ns[recorded],
        raw_lines=tuple(line for line, there in zip(lines, recorded, strict=True) if there),
        sync_ns=sync_ns,
        missing_scans=tuple(missing_scans),
    )


def describe(faults: list[Fault], drive: str) -> dict[str, object]:
    """Return what `faults.json` says: which files and lines, and what becomes invalid by it.

    Args:
        faults: in the order of time
        drive: its name, without `_sync` or `_extract`
    """
    absent = np.array([p for f in faults if f.kind is Kind.GAP for p in f.packets], np.int64)
    entries = []
    for fault in faults:
        # Files and lines are numbered without the packets that are absent.
        numbers = [packet - int((absent < packet).sum()) for packet in fault.packets]
        entries.append(
            {
                "kind": fault.kind.name.lower(),
                "meaning": fault.kind.meaning,
                **_places(fault, numbers, drive),
                "invalid_intervals": fault.intervals,
                "frames": fault.frames,
            }
        )
    invalid = sorted(i for fault in faults for i in fault.intervals)
    return {
        "drive": drive,
        "note": "Files are numbered from 0, lines from 1. Interval i is from image i to image "
        "i + 1; invalid are those that match_kitti_imu.py drops with --align packet. "
        "truth/imu_bias.txt has a row for the absent packets too.",
        "invalid_intervals": invalid,
        "faults": entries,
    }


def _places(fault: Fault, numbers: list[int], drive: str) -> dict[str, object]:
    """Return the files and lines of a fault; `numbers` are those of its raw packets."""
    raw, sync = f"{drive}_extract/oxts", f"{drive}_sync"
    lines = [number + 1 for number in numbers]
    match fault.kind:
        case Kind.GAP:
            places = {"stamps": f"{raw}/timestamps.txt", "lines": [numbers[0], numbers[0] + 1]}
            return places | {"absent_packets": len(numbers)}
        case Kind.STEP_BACK | Kind.REPEATED_STAMP:
            return {"stamps": f"{raw}/timestamps.txt", "lines": lines}
        case Kind.MISSING_PACKET:
            return {"files": [f"{raw}/data/{numbers[0]:010d}.txt"]}
        case Kind.NO_TWIN:
            return {"stamps": f"{sync}/oxts/timestamps.txt", "lines": [fault.frame + 1]}
        case Kind.MISSING_SCAN:
            scans = f"{sync}/velodyne_points"
            names = ("timestamps.txt", "timestamps_start.txt", "timestamps_end.txt")
            return {
                "files": [f"{scans}/data/{fault.frame:010d}.bin"],
                "stamps": [f"{scans}/{name}" for name in names],
                "lines": [fault.frame + 1],
            }
    raise AssertionError(fault.kind)
