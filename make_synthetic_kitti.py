"""Make drives in KITTI's layout, with a truth that KITTI does not have."""

from __future__ import annotations

import os
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Sequence

from tqdm import tqdm

import options
from datasets.synthetic.writer import SyntheticOptions, parse_size, write_synthetic_kitti
from datasets.text import DataError


def run(args: Namespace) -> None:
    """Make all drives, and print what there is now and what to do with it."""
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


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    try:
        run(options.make_synthetic_kitti(argv))
        return 0
    except (DataError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of a pipe, like head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        print(f"make_synthetic_kitti: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "make_synthetic_kitti: interrupted, the drives are as before or all replaced",
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    sys.exit(main())
