"""Time reading and matching the IMU of a long drive: `python -m benchmarks.imu_matching`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.timing import interleaved_medians
from datasets.imu_matching import match
from datasets.oxts import FIELDS, format_packet, format_stamp, parse_stamp, read_oxts

PACKETS_PER_FRAME = 10.06  # in the longest drive of KITTI: 45,700 for 4,544 frames
LIMITS_S = {
    "read both trees": 5.0,
    "match, packet": 1.0,
    "match, camera": 1.0,
}


def make_drive(folder: Path, frames: int) -> None:
    """Write a folder `oxts` at 100 Hz, `raw`, and one with a packet for each frame, `sync`."""
    count = round(PACKETS_PER_FRAME * frames)
    start_ns = parse_stamp("2011-10-03 12:55:34.997992704")
    stamps_ns = start_ns + 10_000_000 * np.arange(count)
    rows = np.linspace(0, count - 1, frames).round().astype(int)
    values = np.random.default_rng(0).standard_normal((count, len(FIELDS)))
    lines = [format_packet(packet) for packet in values.tolist()]
    for name, chosen in (("raw", np.arange(count)), ("sync", rows)):
        (folder / name / "data").mkdir(parents=True)
        stamps = [format_stamp(ns) + "\n" for ns in stamps_ns[chosen].tolist()]
        (folder / name / "timestamps.txt").write_text("".join(stamps))
        for i, row in enumerate(chosen.tolist()):
            (folder / name / "data" / f"{i:010d}.txt").write_text(lines[row] + "\n")


def measure(folder: Path, repeats: int) -> dict[str, float]:
    """Return the median time [s] of each part, for a drive in this folder."""
    raw, sync = (read_oxts(folder / name) for name in ("raw", "sync"))
    cases = {
        "read both trees": lambda: [read_oxts(folder / name) for name in ("raw", "sync")],
        "match, packet": lambda: match(sync.stamps, raw, align="packet"),
        "match, camera": lambda: match(sync.stamps, raw, align="camera"),
    }
    return interleaved_medians(cases, repeats)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=4544, help="images of the drive")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions, medians are shown")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        make_drive(Path(folder), args.frames)
        medians = measure(Path(folder), args.repeats)
    print(
        f"{args.frames} frames and {round(PACKETS_PER_FRAME * args.frames)} packets, "
        f"median of {args.repeats} interleaved runs"
    )
    print("case             seconds  limit for 4544 frames")
    for name, seconds in medians.items():
        print(f"{name:16} {seconds:7.2f}  {LIMITS_S[name]:.0f}")


if __name__ == "__main__":
    main()
