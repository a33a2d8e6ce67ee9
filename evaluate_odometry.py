"""Evaluate odometry: trajectories of camera, IMU and filter over whole drives, and their errors."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from tqdm import tqdm

import options
from datasets.command import exit_code
from evaluation.odometry_result import mean_table, table
from evaluation.odometry_run import evaluate_odometry


def run(args: Namespace) -> int:
    """Evaluate drive after drive, print what was found of each and the mean; return the code."""
    results = []
    for result in evaluate_odometry(args):
        tqdm.write(table(result) + "\n")
        results.append(result)
    if len(results) > 1:
        print(mean_table(results))
    for path in (args.out, args.json):
        if path is not None:
            print(f"written: {path}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    return exit_code(
        "evaluate_odometry",
        lambda: run(options.evaluate_odometry(argv)),
        "files that were begun are not there",
    )


if __name__ == "__main__":
    sys.exit(main())
