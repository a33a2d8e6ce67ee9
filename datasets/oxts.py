"""The packets of an OXTS inertial and GPS unit, as KITTI stores them.

A folder `oxts` holds `timestamps.txt`, one stamp a line, and `data/%010d.txt`, one packet of 30
numbers a file: line i + 1 is the stamp of file i. Either may be missing or broken for some i; that
packet is then left out and listed as a problem, and all others keep their number.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum
from pathlib import Path

import numpy as np
import torch

from datasets.text import DataError, at_line, parse_numbers, read_lines, shown
from liegroups import so3

FIELDS = (
    *("lat", "lon", "alt"),  # [deg, deg, m]
    *("roll", "pitch", "yaw"),  # [rad], yaw 0 is east, counter-clockwise
    *("vn", "ve", "vf", "vl", "vu"),  # [m/s] north, east; forward, left, up
    *("ax", "ay", "az"),  # [m/s^2] body axes
    *("af", "al", "au"),  # [m/s^2] level frame
    *("wx", "wy", "wz"),  # [rad/s] body axes
    *("wf", "wl", "wu"),  # [rad/s] level frame
    *("pos_accuracy", "vel_accuracy"),  # [m, m/s]
    *("navstat", "numsats", "posmode", "velmode", "orimode"),
)
"""The numbers of a packet in the order of the file."""

ANGLES = ("roll", "pitch", "yaw")
STATES = ("navstat", "numsats", "posmode", "velmode", "orimode")
"""Integers, of which a mean is no state."""

LARGEST = 1e9
"""No field of a packet is ever near it; arithmetic on what passes stays finite."""

EARTH_RADIUS = 6378137.0  # [m]
DAY_NS = 86_400 * 10**9

_COLUMN = {name: i for i, name in enumerate(FIELDS)}
# Always with nine digits: fewer are a line that was cut off, and would be a plausible wrong time.
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T]([01]\d|2[0-3]):([0-5]\d):([0-5]\d)\.(\d{9})", re.ASCII)
_EPOCH = date(1970, 1, 1).toordinal()
_FILE = re.compile(r"(\d{10})\.txt", re.ASCII)
_YEARS = range(1678, 2262)  # whose nanoseconds since 1970 all fit into 64 bits


def parse_stamp(text: str) -> int:
    """Read `2011-09-26 13:02:25.964389445` as nanoseconds since 1970, UTC as written, exactly."""
    match = _STAMP.fullmatch(text.strip())
    if match is None:
        raise DataError(
            f"expected a stamp like 2011-09-26 13:02:25.964389445, got {shown(text.strip())}"
        )
    day, hours, minutes, seconds, ns = match.groups()
    seconds_of_day = 3600 * int(hours) + 60 * int(minutes) + int(seconds)
    return _days(day) * DAY_NS + seconds_of_day * 10**9 + int(ns)


def format_stamp(ns: int) -> str:
    """Write nanoseconds since 1970 with nine digits after the point: undo `parse_stamp`."""
    days, ns = divmod(int(ns), DAY_NS)
    seconds, ns = divmod(ns, 10**9)
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ns:09d}"
    return f"{_date_text(days)} {clock}"


@functools.lru_cache
def _days(text: str) -> int:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise DataError(f"{text} is not a day of the calendar") from None
    if day.year not in _YEARS:
        raise DataError(f"{text} is out of the years {_YEARS[0]} to {_YEARS[-1]}")
    return day.toordinal() - _EPOCH


@functools.lru_cache
def _date_text(days: int) -> str:
    return date.fromordinal(_EPOCH + days).isoformat()


class Fault(Enum):
    """What can be wrong with the packet of one number."""

    NO_STAMP = "no stamp"
    MISSING_FILE = "missing file"
    BROKEN_PACKET = "broken packet"


@dataclass(frozen=True)
class Problem:
    """A packet or stamp that was left out, and why."""

    fault: Fault
    frame: int
    path: Path
    line: int | None  # None where no line is at fault, but the file
    message: str

    def error(self) -> DataError:
        if self.line is None:
            return DataError(f"{self.path}: {self.message}")
        return at_line(self.path, self.line, self.message)


@dataclass(frozen=True, eq=False)
class Stamps:
    """The lines of a `timestamps.txt`, where some stamps may be missing.

    Attributes:
        ns: (N,) int64 nanoseconds since 1970, meaningless where not present
        present: (N,) bool
        problems: one for every stamp that is not present
    """

    ns: np.ndarray
    present: np.ndarray
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.ns)

    def resized(self, count: int) -> Stamps:
        """Return the first `count` stamps; those beyond the end are not present."""
        ns, present = np.zeros(count, np.int64), np.zeros(count, bool)
        common = min(count, len(self))
        ns[:common], present[:common] = self.ns[:common], self.present[:common]
        return Stamps(ns, present, self.problems)


@dataclass(frozen=True, eq=False)
class Packets:
    """OXTS packets with named fields, all of them whole.

    Attributes:
        values: (N, 30) float64 in the order of FIELDS: outside of this class, ask by name
        stamps_ns: (N,) int64 nanoseconds since 1970
        texts: N lines as they stand in the files, to be written unchanged; None if not kept
    """

    values: np.ndarray
    stamps_ns: np.ndarray
    texts: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return one field (N,) by its name in FIELDS."""
        return self.values[:, _COLUMN[name]]

    def fields(self, *names: str) -> np.ndarray:
        """Return several fields (N, len(names))."""
        return self.values[:, columns(*names)]

    @property
    def gyro(self) -> np.ndarray:
        """Angular rates (N, 3) about the body axes [rad/s]."""
        return self.fields("wx", "wy", "wz")

    @property
    def accel(self) -> np.ndarray:
        """Specific forces (N, 3) along the body axes [m/s^2]: +9.81 on z at rest."""
        return self.fields("ax", "ay", "az")

    @property
    def rpy(self) -> np.ndarray:
        """Roll, pitch, yaw (N, 3) [rad] of the body in the world (east, north, up)."""
        return self.fields(*ANGLES)

    @property
    def speed(self) -> np.ndarray:
        """Length (N,) of the velocity [m/s]."""
        return np.linalg.norm(self.fields("vf", "vl", "vu"), axis=1)

    @property
    def lines(self) -> tuple[str, ...]:
        """What to write for each packet: its text, or its numbers formatted."""
        return self.texts or tuple(map(format_packet, self.values.tolist()))

    def select(self, rows: np.ndarray | slice) -> Packets:
        """Return the packets of these rows (M,), which may repeat."""
        texts = self.texts
        if texts is not None:
            texts = tuple(texts[row] for row in np.arange(len(self))[rows].tolist())
        return Packets(self.values[rows], self.stamps_ns[rows], texts)


@dataclass(frozen=True, eq=False)
class Recording:
    """A folder `oxts`: its whole packets, and what is wrong with the others.

    Attributes:
        packets: N whole packets in the order of their files
        frames: (N,) the number of each packet's file
        stamps: of all files, whole or not
        problems: of all that is missing or broken, in the order of the files
    """

    packets: Packets
    frames: np.ndarray
    stamps: Stamps
    problems: tuple[Problem, ...]


def columns(*names: str) -> list[int]:
    """Return where fields stand in `Packets.values`, for the few that compute on all of them."""
    return [_COLUMN[name] for name in names]


def parse_packet(text: str) -> list[float]:
    """Read one packet, 30 finite numbers on one line."""
    if "\n" in text or "\r" in text:
        raise DataError("expected one packet, got more than one line")
    numbers = parse_numbers(text, len(FIELDS), FIELDS)
    if max(map(abs, numbers)) > LARGEST:
        name = next(n for n, x in zip(FIELDS, numbers, strict=True) if abs(x) > LARGEST)
        raise DataError(f"{name} is out of any range")
    return numbers


def format_packet(numbers: Sequence[float]) -> str:
    """Write 30 numbers as one line that reads back the same."""
    fields = []
    for name, number in zip(FIELDS, numbers, strict=True):
        whole = name in STATES and float(number).is_integer()
        fields.append(repr(int(number)) if whole else repr(float(number)))
    return " ".join(fields)


def read_stamps(path: Path) -> Stamps:
    """Read a `timestamps.txt`; a line that is empty or not a stamp becomes a problem."""
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path}: no stamps in it")
    ns, present = np.zeros(len(lines), np.int64), np.ones(len(lines), bool)
    problems = []
    for i, line in enumerate(lines):
        try:
            ns[i] = parse_stamp(line)
        except DataError as error:
            present[i] = False
            message = str(error) if line.strip() else "empty stamp"
            problems.append(Problem(Fault.NO_STAMP, i, path, i + 1, message))
    if not present.any():
        raise problems[0].error()
    return Stamps(ns, present, tuple(problems))


def read_oxts(folder: Path, *, strict: bool = False) -> Recording:
    """Read the folder `oxts` of a drive, synced or extract.

    Args:
        folder: holds `timestamps.txt` and `data`
        strict: refuse the folder if anything in it is missing or broken

    Raises:
        FileNotFoundError: there is no `timestamps.txt` or no `data`
        DataError: names file and line
    """
    stamps = read_stamps(folder / "timestamps.txt")
    if not (folder / "data").is_dir():
        raise FileNotFoundError(f"{folder / 'data'}: no such folder")
    values, texts, frames = [], [], []
    problems = [*stamps.problems, *_files_without_line(folder / "data", len(stamps))]
    for frame in np.flatnonzero(stamps.present).tolist():
        packet = _read_packet(folder / "data", frame)
        if isinstance(packet, Problem):
            problems.append(packet)
            continue
        texts.append(packet[0])
        values.append(packet[1])
        frames.append(frame)
    problems.sort(key=lambda problem: problem.frame)
    if strict and problems:
        raise problems[0].error()
    numbers = np.array(values, np.float64).reshape(-1, len(FIELDS))
    rows = np.array(frames, np.int64)
    return Recording(Packets(numbers, stamps.ns[rows], tuple(texts)), rows, stamps, tuple(problems))


def _read_packet(folder: Path, frame: int) -> tuple[str, list[float]] | Problem:
    # A drive has 50,000 of these files: no Path, no text layer, no buffer.
    name = f"{folder}/{frame:010d}.txt"
    try:
        with open(name, "rb", buffering=0) as file:
            text = file.read().decode("ascii").strip()
        return text, parse_packet(text)
    except FileNotFoundError:
        return Problem(Fault.MISSING_FILE, frame, Path(name), None, "no such file")
    except OSError as error:
        return Problem(Fault.BROKEN_PACKET, frame, Path(name), None, str(error.strerror))
    except UnicodeDecodeError:
        return Problem(Fault.BROKEN_PACKET, frame, Path(name), 1, "not text in ASCII")
    except DataError as error:
        return Problem(Fault.BROKEN_PACKET, frame, Path(name), 1, str(error))


def packet_files(folder: Path) -> list[int]:
    """Return the numbers of the packets that have a file in a folder `data`."""
    matches = (_FILE.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def _files_without_line(folder: Path, count: int) -> list[Problem]:
    frames = [frame for frame in packet_files(folder) if frame >= count]
    message = f"packet without a stamp: timestamps.txt has {count} lines"
    return [
        Problem(Fault.NO_STAMP, frame, folder / f"{frame:010d}.txt", None, message)
        for frame in frames
    ]


def poses_w_b(packets: Packets, origin: Sequence[float] | None = None) -> np.ndarray:
    """Return the body's poses (N, 4, 4) in a flat world: x east, y north, z up [m].

    The Mercator projection of KITTI's development kit, true to scale at the origin's latitude.

    Args:
        packets: N packets
        origin: latitude [deg], longitude [deg], altitude [m] of the world's origin, the first
            packet's by default. Only drives with the same one can be compared.
    """
    if len(packets) == 0:
        return np.zeros((0, 4, 4))
    lat_lon_alt = packets.fields("lat", "lon", "alt")
    origin = lat_lon_alt[0] if origin is None else np.asarray(origin, np.float64)
    scale = np.cos(np.deg2rad(origin[0]))
    T_w_b = np.zeros((len(packets), 4, 4))
    T_w_b[:, :3, :3] = so3.from_rpy(torch.from_numpy(packets.rpy)).numpy()
    T_w_b[:, :3, 3] = _mercator(lat_lon_alt, scale) - _mercator(origin, scale)
    T_w_b[:, 3, 3] = 1
    return T_w_b


def _mercator(lat_lon_alt: np.ndarray, scale: float) -> np.ndarray:
    lat, lon, alt = np.moveaxis(lat_lon_alt, -1, 0)
    x = scale * EARTH_RADIUS * np.deg2rad(lon)
    y = scale * EARTH_RADIUS * np.log(np.tan(np.deg2rad(90 + lat) / 2))
    return np.stack([x, y, alt], -1)
