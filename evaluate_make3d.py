"""Evaluate depth on the test images of Make3D, which no network here was trained on."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from itertools import chain

import options
from datasets.command import exit_code
from evaluation.depth_run import make3d_task, run_make3d
from evaluation.publish import make_folders, told, write_files
from evaluation.summary import summarise


def run(args: Namespace) -> int:
    """Evaluate, print what was found and write what was asked for; return the exit code."""
    make_folders(args)
    task = make3d_task(args)
    outcome = run_make3d(args, task)
    summary = summarise(outcome.result)
    print(told(args, outcome.result, summary), end="\n\n")
    for path in chain(outcome.written, write_files(args, task, outcome.result, summary)):
        print(f"written: {path}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    return exit_code(
        "evaluate_make3d",
        lambda: run(options.evaluate_make3d(argv)),
        "files that were begun are not there",
    )


if __name__ == "__main__":
    sys.exit(main())
