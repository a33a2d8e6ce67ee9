"""Match raw IMU packets to the images of KITTI drives, or estimate the offset of their clocks."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial

from tqdm import tqdm

import options
from datasets import drives
from datasets.command import exit_code
from datasets.processes import in_processes
from datasets.splits import split_folder
from datasets.text import DataError


def run(args: Namespace) -> int:
    """Do the task for each drive and print its report; return the exit code."""
    split = None if args.split is None else split_folder(args.split)
    chosen = drives.choose_drives(args.raw_path, args.sync_path, args.drives, split)
    folders = (args.raw_path, args.sync_path)
    if args.estimate_time_offset:
        if args.rotations and len(chosen.both) > 1:
            raise DataError("--rotations is of one drive: name it with --drives")
        task = partial(
            drives.report_time_offset,
            options=drives.OffsetOptions(
                *folders, max_offset_ms=args.max_offset_ms, rotations=args.rotations
            ),
        )
    else:
        task = partial(
            drives.match_drive,
            options=drives.MatchOptions(
                *folders,
                max_drift_ms=args.max_drift_ms,
                align=args.align,
                check=args.check,
                overwrite=args.overwrite,
            ),
        )
    reports = []
    results = in_processes(task, chosen.both, args.workers)
    for report in tqdm(results, total=len(chosen.both), unit="drive", disable=None):
        tqdm.write(report.table())
        reports.append(report)
    print(drives.summary(reports, chosen))
    return int(any(report.outcome is drives.Outcome.FAILED for report in reports))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    return exit_code(
        "match_kitti_imu",
        lambda: run(options.match_kitti_imu(argv)),
        "drives that were begun are as before",
    )


if __name__ == "__main__":
    sys.exit(main())
