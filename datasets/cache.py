"""Build the cache of decoded, resized images: `python -m datasets.cache`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from tqdm import tqdm

import options
from datasets.command import exit_code
from datasets.data_options import DataOptions
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
    )
    jobs: dict[str, CacheJob] = {}
    for part in parts_of(split_folder(args.split)):
        for camera in take_inventory(asked, part).cameras.values():
            job = cache_job_of(camera, asked)
            jobs[str(job.file)] = job
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
    return int(broken > 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    return exit_code(
        "python -m datasets.cache",
        lambda: run(options.cache(argv)),
        "folders that were complete are there",
    )


if __name__ == "__main__":
    sys.exit(main())
