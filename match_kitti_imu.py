"""Match raw IMU packets to the images of KITTI drives, or estimate the offset of their clocks.

Exit code 0: all drives are done. 1: a drive failed, the others are done. 2: nothing was begun.
"""

from __future__ import annotations

import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

from tqdm import tqdm

from datasets import drives
from datasets.imu_matching import ALIGNMENTS
from datasets.text import DataError

SPLITS = Path(__file__).parent / "splits"


def parse_args(argv: Sequence[str] | None) -> Namespace:
    """Read the options; those of which only one of the two tasks knows are absent if not given."""
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--raw_path", type=Path, required=True, help="has DATE/DRIVE_extract: IMU at 100 Hz")
    add("--sync_path", type=Path, required=True, help="has DATE/DRIVE_sync: images; output here")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--drives", nargs="+", metavar="DRIVE", help="like 2011_09_26_drive_0001")
    which.add_argument("--split", help="the drives of splits/SPLIT; default: all that are in both")
    add("--align", choices=ALIGNMENTS, default=SUPPRESS, help="where intervals end (packet)")
    add("--max_drift_ms", type=float, default=SUPPRESS, help="of a raw step from 10 ms (5)")
    add("--workers", type=int, default=1, help="processes (default: 1)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="report only, write nothing")
    mode.add_argument("--overwrite", action="store_true", help="replace matched_oxts, all of it")
    mode.add_argument("--estimate_time_offset", action="store_true", help="print t_imu - t_camera")
    add("--rotations", type=Path, default=SUPPRESS, help="a KITTI trajectory to estimate it from")
    add("--max_offset_ms", type=float, default=SUPPRESS, help="search up to this (500)")
    args = parser.parse_args(argv)
    estimate = args.estimate_time_offset
    idle = ("align", "max_drift_ms") if estimate else ("rotations", "max_offset_ms")
    for name in filter(args.__contains__, idle):
        parser.error(f"--{name} has no use with{'out' * (not estimate)} --estimate_time_offset")
    return args


def run(args: Namespace) -> int:
    """Do the task for each drive and print its report; return the exit code."""
    split = args.split and SPLITS / args.split
    chosen = drives.choose_drives(args.raw_path, args.sync_path, args.drives, split)
    task, kind = drives.match_drive, drives.MatchOptions
    if args.estimate_time_offset:
        task, kind = drives.report_time_offset, drives.OffsetOptions
        if "rotations" in args and len(chosen.both) > 1:
            raise DataError("--rotations is of one drive: name it with --drives")
    options = kind(**{f.name: getattr(args, f.name) for f in fields(kind) if f.name in args})
    reports = []
    results = drives.in_processes(partial(task, options=options), chosen.both, args.workers)
    for report in tqdm(results, total=len(chosen.both), unit="drive", disable=None):
        tqdm.write(report.table())
        reports.append(report)
    print(drives.summary(reports, chosen))
    return int(any(report.outcome is drives.Outcome.FAILED for report in reports))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    try:
        return run(parse_args(argv))
    except (DataError, OSError) as error:
        print(f"match_kitti_imu: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
