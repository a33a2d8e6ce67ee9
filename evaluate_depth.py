"""Evaluate depth: errors in metres and after median scaling, under a named protocol."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from itertools import chain

import options
from datasets.command import exit_code
from evaluation.depth_run import depth_task, run_depth
from evaluation.publish import make_folders, told, write_files
from evaluation.summary import summarise


def run(args: Namespace) -> int:
    """Evaluate, print what was found and write what was asked for; return the exit code."""
    make_folders(args)
    task = depth_task(args)
    outcome = run_depth(args, task)
    written = iter(outcome.written)
    if outcome.result is not None:
        summary = summarise(outcome.result)
        print(told(args, outcome.result, summary), end="\n\n")
        written = chain(written, write_files(args, task, outcome.result, summary))
    for path in written:
        print(f"written: {path}")
    rate = outcome.images / max(outcome.seconds, 1e-9)
    print(f"{outcome.images} images in {outcome.seconds:.1f} s ({rate:.1f} images/s)")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    return exit_code(
        "evaluate_depth",
        lambda: run(options.evaluate_depth(argv)),
        "files that were begun are not there",
    )


if __name__ == "__main__":
    sys.exit(main())
