"""Export true depths: those of a list in one file, for evaluations without scans at hand."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

import options
from datasets.command import exit_code
from evaluation.depth_run import export_truth


def run(args: Namespace) -> int:
    """Write the file and say so; return the exit code."""
    count, lacking = export_truth(args)
    size_mb = args.output.stat().st_size / 1e6
    print(f"{args.output}: {count} true depths, {size_mb:.1f} MB")
    if lacking:
        print(f"{len(lacking)} images of the list have none, the first is {lacking[0]}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    return exit_code(
        "export_gt_depth",
        lambda: run(options.export_gt_depth(argv)),
        "the file is as before",
    )


if __name__ == "__main__":
    sys.exit(main())
