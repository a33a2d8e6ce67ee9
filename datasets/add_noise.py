"""Noisy variants of the matched IMU, for studies of robustness: m' = (I + E) m + n.

A variant stands beside the original, in `DRIVE_sync/matched_oxts`, and a `.json` of the same name
says how it was made. Its stamps are those of the original.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

import options
from datasets.command import exit_code
from datasets.drives import Drive, find_drives, split_drives
from datasets.files import write_bytes
from datasets.matched import (
    FOLDER,
    PACKETS_FILE,
    REPORT_FILE,
    STAMPS_FILE,
    MatchedImu,
    read_matched,
)
from datasets.oxts import LARGEST, columns
from datasets.processes import in_processes
from datasets.splits import split_folder
from datasets.text import DataError, shown

SENSORS = {
    "gyro": ("wx", "wy", "wz"),
    "accel": ("ax", "ay", "az"),
    "velocity": ("vf", "vl", "vu"),
}
"""What can become noisy, and the fields that it measures."""

MADE_BY = "datasets.add_noise"

_NUMBER = re.compile(r"(\S+)")
_PARAMETERS = ("type", "seed", "misalignment", "noise")


@dataclass(frozen=True)
class Noise:
    """Which noise to add, and where the result goes.

    Attributes:
        type: what the user calls this choice of sensors
        strengths: the deviation of n for each sensor that becomes noisy [rad/s, m/s^2, m/s]
        misalignment: the deviation of each entry of E
        seed: the same one gives the same noise to a sensor of a drive, whatever else is noisy
        output: the name of the file in `matched_oxts`
        overwrite: replace such a file
    """

    type: str
    strengths: Mapping[str, float]
    misalignment: float
    seed: int
    output: str
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_output(self.output)
        named = {f"{sensor}_noise": strength for sensor, strength in self.strengths.items()}
        for name, value in {"misalignment": self.misalignment, **named}.items():
            if not 0 <= value <= LARGEST:
                raise DataError(f"{name}: expected a number from 0 to {LARGEST:g}, got {value}")

    @property
    def parameters(self) -> dict[str, object]:
        """What makes two variants of a drive differ, as it stands in their `.json`."""
        values = (self.type, self.seed, self.misalignment, dict(self.strengths))
        return dict(zip(_PARAMETERS, values, strict=True))


class Outcome(Enum):
    """What became of a drive."""

    WRITTEN = "written"
    SKIPPED = "skipped"
    REMOVED = "removed"
    ABSENT = "nothing to remove"
    FAILED = "failed"


@dataclass(frozen=True)
class NoiseReport:
    """What became of a drive, and why if that needs a word; as text, one line."""

    drive: Drive
    outcome: Outcome
    note: str = ""

    def __str__(self) -> str:
        return f"{self.drive}  {self.outcome.value}{': ' * bool(self.note)}{self.note}"


def check_output(output: str) -> None:
    """Refuse a name that is no plain .txt, or whose .txt or .json belongs to the matching."""
    taken = {PACKETS_FILE, STAMPS_FILE, Path(REPORT_FILE).with_suffix(".txt").name}
    plain = output.isprintable() and not {"/", "\\"} & set(output)
    if not plain or Path(output).suffix != ".txt":
        raise DataError(f"output: expected the name of a .txt file, got {shown(output)}")
    if output.lower() in taken:  # some file systems do not tell A from a
        raise DataError(f"output: {output} would replace a file of match_kitti_imu.py")


def draw(
    noise: Noise, drive: Drive, sensor: str, stamps_ns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the errors of one sensor in one drive.

    Args:
        noise: strengths and seed
        drive: the same seed gives each drive other errors
        sensor: one of SENSORS
        stamps_ns: (M,) of its packets; those that two intervals share are one measurement

    Returns:
        E (3, 3), and n (M, 3), which is the same where the stamp is
    """
    # Not hash(), which Python salts anew for each process.
    digest = hashlib.sha256(f"{noise.seed} {drive} {sensor}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "little"))
    distinct, which = np.unique(stamps_ns, return_inverse=True)
    E = noise.misalignment * generator.standard_normal((3, 3))
    n = noise.strengths[sensor] * generator.standard_normal((len(distinct), 3))
    return E, n[which]


def add_noise(drive: Drive, data_path: Path, noise: Noise) -> NoiseReport:
    """Write the noisy variant of one drive; a fault of its files becomes the report."""
    try:
        text_path, details_path = _paths(drive, data_path, noise.output)
        existing = _read_details(text_path, details_path)
        if os.path.lexists(text_path) and not noise.overwrite:
            note = f"it has {noise.output} already, --overwrite replaces it"
            if any(existing.get(name) != value for name, value in noise.parameters.items()):
                note = f"it has {noise.output} of other options, --overwrite replaces it"
            return NoiseReport(drive, Outcome.SKIPPED, note)
        imu = read_matched(drive.sync(data_path))
        content, errors = _noisy(text_path.with_name(PACKETS_FILE), drive, imu, noise)
        details = {
            "made_by": MADE_BY,
            "drive": str(drive),
            "source": PACKETS_FILE,
            **noise.parameters,
            "fields": {sensor: SENSORS[sensor] for sensor in errors},
            "E": errors,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        _write_pair(text_path, content, details_path, details)
    except (DataError, OSError) as error:
        return NoiseReport(drive, Outcome.FAILED, str(error))
    return NoiseReport(drive, Outcome.WRITTEN, f"{imu.valid.sum()} of {len(imu)} intervals")


def remove_noise(drive: Drive, data_path: Path, output: str) -> NoiseReport:
    """Remove a variant that `add_noise` made, and nothing else; a fault becomes the report."""
    try:
        text_path, details_path = _paths(drive, data_path, output)
        if _read_details(text_path, details_path) is None:
            return NoiseReport(drive, Outcome.ABSENT)
        text_path.unlink(missing_ok=True)
        details_path.unlink()  # last: without it the other would be nobody's
    except (DataError, OSError) as error:
        return NoiseReport(drive, Outcome.FAILED, str(error))
    return NoiseReport(drive, Outcome.REMOVED)


def _paths(drive: Drive, data_path: Path, output: str) -> tuple[Path, Path]:
    path = drive.sync(data_path) / FOLDER / output
    return path, path.with_suffix(".json")


def _read_details(text_path: Path, details_path: Path) -> dict[str, object] | None:
    """Return how a variant was made, None if neither of its files is there.

    Raises:
        DataError: something has its name that is not as `add_noise` made it
    """
    present = [path for path in (text_path, details_path) if os.path.lexists(path)]
    if not present:
        return None
    try:
        details = json.loads(details_path.read_bytes())
    except (FileNotFoundError, ValueError):
        details = None
    ours = isinstance(details, dict) and details.get("made_by") == MADE_BY
    if ours and text_path in present:
        digest = hashlib.sha256(text_path.read_bytes()).hexdigest()
        ours = digest == details.get("sha256")
    if not ours:
        raise DataError(
            f"{present[0]}: not made by add_noise, or changed since, so it stays: "
            "choose another --output, or move it away"
        )
    return details


def _noisy(
    path: Path, drive: Drive, imu: MatchedImu, noise: Noise
) -> tuple[bytes, dict[str, list[list[float]]]]:
    """Return the file of a drive's packets with noise in it, and E of each sensor."""
    values, errors = imu.packets.values.copy(), {}
    for sensor in noise.strengths:
        E, n = draw(noise, drive, sensor, imu.packets.stamps_ns)
        fields = columns(*SENSORS[sensor])
        m = values[:, fields]
        # Not a matrix product: of equal rows, BLAS may round one differently from another.
        values[:, fields] = m + ((E * m[:, None, :]).sum(-1) + n)
        errors[sensor] = E.tolist()
        for name, column in zip(SENSORS[sensor], fields, strict=True):
            if np.abs(values[:, column]).max(initial=0) > LARGEST:
                raise DataError(f"{path}: this noise takes {name} out of any range, add less")
    data = path.read_bytes()
    encoding = "utf-8-sig" if data.startswith(codecs.BOM_UTF8) else "utf-8"
    changed = columns(*(name for sensor in noise.strengths for name in SENSORS[sensor]))
    return _rewritten(data.decode(encoding), imu, values, changed).encode(encoding), errors


def _rewritten(text: str, imu: MatchedImu, values: np.ndarray, changed: list[int]) -> str:
    """Put other values (M, 30) into the columns of a file's text, and leave all else as it is."""
    lines = text.split("\n")
    before, after = imu.packets.values[:, changed].tolist(), values[:, changed].tolist()
    for i in np.flatnonzero(imu.valid).tolist():
        packets = lines[i].split("|")
        rows = range(*imu.offsets[i : i + 2].tolist())
        for position, row in zip(range(len(packets)), rows, strict=True):
            parts = _NUMBER.split(packets[position])  # blanks at even places, numbers at odd ones
            for column, old, new in zip(changed, before[row], after[row], strict=True):
                if new != old:  # else it keeps its digits, like 0.10
                    parts[2 * column + 1] = repr(new)
            packets[position] = "".join(parts)
        lines[i] = "|".join(packets)
    return "\n".join(lines)


def _write_pair(
    text_path: Path, content: bytes, details_path: Path, details: Mapping[str, object]
) -> None:
    text_new, details_new = (
        path.with_name(f".{path.name}.tmp") for path in (text_path, details_path)
    )
    try:
        write_bytes(text_new, content)
        write_bytes(details_new, (json.dumps(details, indent=2) + "\n").encode())
        # At no time does a text stand beside details that are not its own.
        text_path.unlink(missing_ok=True)
        os.replace(details_new, details_path)
        os.replace(text_new, text_path)
    except BaseException:
        text_new.unlink(missing_ok=True)  # a full disk does not stay full
        details_new.unlink(missing_ok=True)
        raise


def choose_drives(
    data_path: Path, names: Sequence[str] | None, split: str | None
) -> tuple[tuple[Drive, ...], tuple[Drive, ...]]:
    """Return the drives named, those of a split, or all: with a matched IMU, and without.

    Raises:
        DataError: one that is named has none, or none of the others has
    """
    found = find_drives(data_path, data_path)
    synced = {*found.both, *found.only_sync}
    if names:
        wanted = {Drive.parse(name) for name in names}
    else:
        wanted = synced if split is None else split_drives(split_folder(split))
    matched = {drive for drive in wanted if (drive.sync(data_path) / FOLDER).is_dir()}
    unmatched = tuple(sorted(wanted - matched))
    if names and unmatched:
        what = FOLDER if unmatched[0] in synced else "_sync folder"
        raise DataError(f"{unmatched[0]}: no {what} of this drive in {data_path}")
    if not matched:
        of = "" if split is None else f" of {split}"
        raise DataError(
            f"{data_path}: no drive{of} here has {FOLDER}: match with match_kitti_imu.py first"
        )
    return tuple(sorted(matched)), unmatched


def summary(reports: Sequence[NoiseReport], unmatched: Sequence[Drive]) -> str:
    """Return what became of all drives, and how many have no matched IMU, as lines to print."""
    outcomes = [(outcome, [r.outcome for r in reports].count(outcome)) for outcome in Outcome]
    counts = [f"{count} {outcome.name.lower()}" for outcome, count in outcomes if count]
    lines = [f"{len(reports)} drive{'s' * (len(reports) != 1)}: {', '.join(counts)}"]
    if unmatched:
        lines.append(f"without {FOLDER}, left out: {len(unmatched)}, first {unmatched[0]}")
    return "\n".join(lines)


def run(args: Namespace) -> int:
    """Do the task for each drive and print its report; return the exit code."""
    check_output(args.output)
    if args.remove:
        task = partial(remove_noise, data_path=args.data_path, output=args.output)
    else:
        names = options.NOISE_OF_TYPE[args.type]
        noise = Noise(
            type=args.type,
            strengths={name.removesuffix("_noise"): getattr(args, name) for name in names},
            misalignment=args.misalignment,
            seed=args.seed,
            output=args.output,
            overwrite=args.overwrite,
        )
        task = partial(add_noise, data_path=args.data_path, noise=noise)
    chosen, unmatched = choose_drives(args.data_path, args.drives, args.split)
    reports = []
    results = in_processes(task, chosen, args.workers)
    for report in tqdm(results, total=len(chosen), unit="drive", disable=None):
        tqdm.write(str(report))
        reports.append(report)
    print(summary(reports, unmatched))
    return int(any(report.outcome is Outcome.FAILED for report in reports))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    return exit_code(
        "add_noise",
        lambda: run(options.add_noise(argv)),
        "drives that were printed are done: run it again for the others",
    )


if __name__ == "__main__":
    sys.exit(main())
