"""Build the cache of decoded, resized images: `python -m datasets.cache`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

import options
from datasets.command import exit_code
from datasets.data_options import DataOptions
from datasets.files import describe
from datasets.image_cache import CacheJob, build_all
from datasets.inventory import cache_job_of, take_inventory
from datasets.splits import parts_of, split_folder


def run(args: Namespace) -> int:
    """Cache every camera of every drive of a split and return the exit code."""
    asked = DataOptions(
        data_path=args.data_path,
        split=args.split,
        dataset=args.dataset,
        png=args.png,
        height=args.height,
        width=args.width,
        frame_ids=(0,),
        use_stereo=args.use_stereo,
        use_imu=False,
        cache_dir=args.cache_dir,
        skip_broken=True,
    )
    jobs: dict[Path, CacheJob] = {}
    faults: dict[str, None] = {}  # each once, in order
    for part in parts_of(split_folder(args.split)):
        inventory = take_inventory(asked, part)
        faults |= dict.fromkeys(map(describe, inventory.selection.faults))
        for camera in inventory.cameras.values():
            job = cache_job_of(camera, asked)
            jobs[job.file] = job
    for fault in faults:
        print(fault)
    broken = 0
    results = build_all(list(jobs.values()), args.workers, args.overwrite)
    for job, count in zip(
        jobs.values(), tqdm(results, total=len(jobs), unit="folder", disable=None), strict=True
    ):
        if count:
            tqdm.write(f"{job.images.folder}: {count} broken")
        broken += count
    images = sum(len(job.images.numbers) for job in jobs.values())
    folders = f"{len(jobs)} folder{'s' * (len(jobs) != 1)}"
    print(f"{folders}, {images} images, {broken} broken: {args.cache_dir}")
    return int(broken > 0 or bool(faults))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    return exit_code(
        "python -m datasets.cache",
        lambda: run(options.cache(argv)),
        "folders that were complete are there",
    )


if __name__ == "__main__":
    sys.exit(main())
