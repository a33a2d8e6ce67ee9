"""Make drives in KITTI's layout, with a truth that KITTI does not have."""

from __future__ import annotations

import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Sequence

from tqdm import tqdm

import options
from datasets.command import exit_code
from datasets.synthetic.writer import SyntheticOptions, parse_size, write_synthetic_kitti


def run(args: Namespace) -> int:
    """Make all drives, print what there is now and what to do with it; return the exit code."""
    settings = SyntheticOptions(**{**vars(args), "size": parse_size(args.size)})
    frames = settings.drives * settings.frames
    began = time.monotonic()
    with tqdm(total=frames, unit="frame", disable=None) as bar:
        made = write_synthetic_kitti(settings, bar.update)
    seconds = time.monotonic() - began
    lines = ", ".join(f"{split} {count}" for split, count in made.split_lines.items())
    print(f"{settings.out}: {_count(settings.drives, 'drive')}, {frames} stereo frames")
    print(f"driven: {made.metres:.0f} m, made in {seconds:.1f} s ({frames / seconds:.2f} frames/s)")
    print(f"splits: {lines}")
    if not made.split_lines["test"]:
        print("  nothing is held out for tests: that takes 2 drives or more")
    if not made.split_lines["val"]:
        print("  nothing is held out for validation: that takes 6 frames or more")
    folder = shlex.quote(str(settings.out))
    print(f"next:   python match_kitti_imu.py --raw_path {folder} --sync_path {folder}")
    return 0


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    return exit_code(
        "make_synthetic_kitti",
        lambda: run(options.make_synthetic_kitti(argv)),
        "the drives are as before or all replaced",
    )


if __name__ == "__main__":
    sys.exit(main())
