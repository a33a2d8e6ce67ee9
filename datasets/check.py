"""Say what is there of a KITTI tree, and what can be trained on: `python -m datasets.check`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

import options
from datasets.command import exit_code
from datasets.data_options import DataOptions
from datasets.files import describe
from datasets.inventory import take_inventory
from datasets.layouts import LEFT, RIGHT, SINGLE_IMAGES, MissingError, address
from datasets.processes import in_processes
from datasets.selection import NO_DEPTH
from datasets.splits import DEPTH_SELECTION, parts_of, read_split, split_folder
from datasets.survey import STANDING_M, DriveSurvey, SurveyJob, survey
from datasets.text import DataError

_SHOWN = 12  # of a list
_DEFAULT_SPLITS = {"kitti_odom": ("odom",), SINGLE_IMAGES: ("benchmark",)}


def run(args: Namespace) -> int:
    """Survey the drives of the splits, print what was found, and return the exit code."""
    single = args.dataset == SINGLE_IMAGES
    asked = DataOptions(
        data_path=args.data_path,
        dataset=args.dataset,
        png=args.png,
        frame_ids=(0,) if single else tuple(args.frame_ids),
        use_stereo=args.use_stereo,
        use_imu=not (args.no_imu or single),
        imu_filename=args.imu_filename,
        use_depth=args.dataset in ("kitti", "kitti_depth"),
        skip_broken=True,
    )
    splits = args.split or _default_splits(asked)
    lists = _lists(splits, asked)
    if not lists:
        named = ", ".join(map(str, splits))
        raise DataError(f"--dataset {args.dataset}: no list of {named} is of this data")
    selections = [take_inventory(_asked_of(p, folder, asked), p).selection for folder, p in lists]
    jobs = _jobs(lists, asked, args.deep)
    results = in_processes(survey, jobs, args.workers)
    surveys = list(tqdm(results, "drives", len(jobs), unit="drive", disable=None, leave=False))
    lines = [*_drives(surveys), ""]
    lines += [*facts, ""] if (facts := [*_intrinsics(surveys), *_motion(surveys)]) else []
    faults = [fault for found in surveys for fault in found.faults]
    archives = set().union(*(found.archives for found in surveys))
    for selection in selections:
        lines.append(str(selection))
        faults += map(describe, selection.faults)
        if count := selection.left_out[NO_DEPTH]:
            faults.append(f"{selection.file}: {count} of the images have no ground-truth depth")
        archives |= {fault.archive for fault in selection.faults if isinstance(fault, MissingError)}
    faults = list(dict.fromkeys(faults))  # a day's calibration is missing for all its drives
    lines += ["", *_missing(faults, archives - {""})]
    print("\n".join(lines))
    return int(bool(faults))


def _default_splits(asked: DataOptions) -> Sequence[str | Path]:
    own = asked.data_path / "splits"
    if own.is_dir():
        return (own,)
    return _DEFAULT_SPLITS.get(asked.dataset, ("eigen_zhou",))


def _lists(splits: Sequence[str | Path], asked: DataOptions) -> list[tuple[Path, str]]:
    """Return the lists of these splits that are of this kind of data: folder and part."""
    found: dict[Path, tuple[Path, str]] = {}
    for split in splits:
        folder = split_folder(split)
        for part in parts_of(folder):
            file = folder / f"{part}_files.txt"
            single = read_split(file).folders[0].startswith(DEPTH_SELECTION)
            if single == (asked.dataset == SINGLE_IMAGES):
                found[file] = folder, part
    return list(found.values())


def _asked_of(part: str, folder: Path, asked: DataOptions) -> DataOptions:
    """Return what a list has to have; only those of tests need ground truth."""
    if part == "test":
        return replace(asked.of_tests(), split=folder)
    return replace(asked, split=folder, use_depth=False)


def _jobs(lists: Sequence[tuple[Path, str]], asked: DataOptions, deep: bool) -> list[SurveyJob]:
    cameras: dict[str, set[int]] = defaultdict(set)
    trained, tested = set(), set()
    for folder, part in lists:
        split = read_split(folder / f"{part}_files.txt")
        for drive, name in enumerate(split.folders):
            cameras[name] |= set(split.camera[split.drive == drive].tolist())
            (tested if part == "test" else trained).add(name)
    return [
        SurveyJob(
            folder,
            (LEFT, RIGHT) if asked.use_stereo else tuple(sorted(cameras[folder])),
            replace(
                asked,
                use_imu=asked.use_imu and folder in trained,
                use_depth=asked.use_depth and folder in tested,
            ),
            deep,
        )
        for folder in sorted(cameras)
    ]


def _drives(surveys: Sequence[DriveSurvey]) -> list[str]:
    width = max(len(found.name) for found in surveys)
    lines = [f"{'drive':{width}}   left  right  truth  intervals with IMU"]
    for found in surveys:
        left, right = (str(found.images.get(camera, "-")) for camera in (LEFT, RIGHT))
        truth = str(max(found.depth.values(), default="-"))
        imu = "-" if found.intervals is None else "{} of {}".format(*found.intervals)
        lines.append(f"{found.name:{width}} {left:>6} {right:>6} {truth:>6}  {imu}")
    return lines


def _intrinsics(surveys: Sequence[DriveSurvey]) -> list[str]:
    """Return each set of intrinsics with the recording days that have it."""
    days: dict[str, set[str]] = defaultdict(set)
    for found in surveys:
        for camera, text in found.intrinsics.items():
            days[f"{'left ' if camera == LEFT else 'right'} {text}"].add(found.group)
    return [f"{text}: {', '.join(sorted(names))}" for text, names in sorted(days.items())]


def _motion(surveys: Sequence[DriveSurvey]) -> list[str]:
    steps_m = np.concatenate([found.steps_m for found in surveys])
    if not len(steps_m):
        return []
    standing = steps_m < STANDING_M
    moving = steps_m[~standing]
    lines = [f"standing (less than {STANDING_M:g} m between images): {standing.mean():.1%}"]
    if len(moving):
        low, median, high = np.percentile(moving, (10, 50, 90))
        lines.append(
            f"moving, from an image to the next: {median:.2f} m, from {low:.2f} to {high:.2f} m "
            "for 80 % of them"
        )
    idle = [s.name for s in surveys if len(s.steps_m) and (s.steps_m < STANDING_M).mean() > 0.5]
    if idle:
        lines.append(f"drives that mostly stand: {_some(idle)}")
    return lines


def _missing(faults: Sequence[str], archives: Set[str]) -> list[str]:
    """Return what is missing or broken, and what to fetch."""
    if not faults:
        return ["nothing is missing or broken"]
    lines = [f"missing or broken: {len(faults)}", *(f"  {fault}" for fault in faults[:_SHOWN])]
    if len(faults) > _SHOWN:
        lines.append(f"  and {len(faults) - _SHOWN} more")
    if archives:
        addresses = (f"  {address(name)}" for name in sorted(archives))
        lines += [f"to fetch: {len(archives)}", *addresses]
    return lines


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    return exit_code(
        "python -m datasets.check", lambda: run(options.check(argv)), "nothing was changed"
    )


if __name__ == "__main__":
    sys.exit(main())
