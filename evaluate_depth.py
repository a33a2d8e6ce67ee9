"""Evaluate depth: errors in metres and after median scaling, under a named protocol."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

import options
from datasets.command import exit_code
from evaluation.depth_run import depth_task, run_depth
from evaluation.publish import make_folders, publish


def run(args: Namespace) -> int:
    """Evaluate, print what was found and write what was asked for; return the exit code."""
    make_folders(args)
    task = depth_task(args)
    outcome = run_depth(args, task)
    for path in outcome.written:
        print(f"written: {path}")
    if outcome.result is not None:
        print(publish(args, task, outcome.result))
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
