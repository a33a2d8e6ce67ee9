"""Write the lists of frames for training, validation and tests, from the facts in frames.json.

`python splits/make_splits.py` writes them beside itself, the same bytes wherever it runs; `--check`
says which would change. The lines of a list are `folder frame side`. Which of them are for
validation was drawn once at random by the authors of each split; here a hash of the line draws, and
puts the lists in a shuffled order, so that the fractions of eigen_zhou are its first lines.

`test` is a small split for a first try with one drive, 2011_09_26_drive_0001: the last tenth of its
frames for validation, the others for training but for five between them, so that no image is seen
in both. Its tests are the left frames of validation: their numbers say that things work, and
nothing of how well.

kitti_archives_to_download.txt is for `wget -i`. Of the large unsynced recordings (extract), the
only ones with all IMU packets, it has those of eigen_zhou, eigen_full and odom.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ARCHIVES = "kitti_archives_to_download.txt"
SEED = 0
VAL_LINES = {"eigen_zhou": 4424, "eigen_full": 1776, "benchmark": 6060, "odom": 4075}
FRACTIONS = {"eigen_quater": 9952, "eigen_half": 19905, "eigen_three_quater": 29857}
EIGEN = ("eigen", "eigen_zhou", "eigen_full", *FRACTIONS)  # with the 697 test frames
TRY_DRIVE = "2011_09_26_drive_0001"
TRY_GAP = 5  # frames; two would do for neighbours at one frame's distance
BENCHMARK_TEST = ("depth_selection/test_depth_prediction_anonymous", 500)
URL = "https://s3.eu-central-1.amazonaws.com/avg-kitti"
OTHER_ARCHIVES = ("data_depth_annotated", "data_depth_selection", "data_odometry_poses")
WITH_IMU = ("eigen_zhou", "eigen_full", "odom")

Facts = dict[str, Any]  # what frames.json holds
Ranges = Iterable[Sequence[int]]  # first and last, both included


def read_facts() -> Facts:
    """Read frames.json."""
    return json.loads((FOLDER / "frames.json").read_text(encoding="utf-8"))


def all_files(facts: Facts) -> dict[str, list[str]]:
    """Return the lines of every file to write, by its path from the folder of splits."""
    files = {ARCHIVES: archives(facts)}
    for name, count in VAL_LINES.items():
        train, val = train_and_val(facts[f"{name}_train_and_val"], count)
        files |= {f"{name}/train_files.txt": train, f"{name}/val_files.txt": val}
    for name, count in FRACTIONS.items():
        files[f"{name}/train_files.txt"] = files["eigen_zhou/train_files.txt"][:count]
        files[f"{name}/val_files.txt"] = files["eigen_zhou/val_files.txt"]
    return files | test_files(facts) | try_files(facts)


def train_and_val(union: dict[str, Ranges], val_count: int) -> tuple[list[str], list[str]]:
    """Return the lines for training and for validation, both sides of every frame, shuffled.

    One hash orders the lines of all splits. What one split validates on is then hardly ever trained
    on in another that holds out a larger part.
    """
    lines = shuffled(
        line(folder, frame, side)
        for folder, ranges in union.items()
        for frame in expand(ranges)
        for side in "lr"
    )
    return lines[val_count:], lines[:val_count]


def test_files(facts: Facts) -> dict[str, list[str]]:
    """Return the lists of frames for tests, in their customary order."""
    without = facts["eigen_test_without_improved_ground_truth"]
    eigen, improved = [], []
    for drive, frames in facts["eigen_test"].items():
        eigen += [line(drive, frame) for frame in frames]
        known = (frame for frame in frames if frame not in without.get(drive, ()))
        improved += [line(drive, frame) for frame in known]
    files = {f"{name}/test_files.txt": eigen for name in EIGEN}
    files["eigen_benchmark/test_files.txt"] = improved
    files["odom/test_files.txt"] = []
    for sequence, ranges in facts["odom_test"].items():
        lines = [line(sequence, frame) for frame in expand(ranges)]
        files[f"odom/test_files_{sequence}.txt"] = lines
        files["odom/test_files.txt"] += lines
    folder, count = BENCHMARK_TEST
    files["benchmark/test_files.txt"] = [f"{folder} {image} l" for image in range(count)]
    return files


def try_files(facts: Facts) -> dict[str, list[str]]:
    """Return the lists of the small split `test`."""
    frames = expand(facts["eigen_zhou_train_and_val"][TRY_DRIVE])
    held_out = len(frames) // 10
    parts = {"train": frames[: -held_out - TRY_GAP], "val": frames[-held_out:]}
    files = {
        f"test/{part}_files.txt": shuffled(
            line(TRY_DRIVE, frame, side) for frame in kept for side in "lr"
        )
        for part, kept in parts.items()
    }
    return files | {"test/test_files.txt": [line(TRY_DRIVE, frame) for frame in parts["val"]]}


def archives(facts: Facts) -> list[str]:
    """Return the addresses of KITTI's archives, one a line."""
    drives = sorted(facts["all_drives"])
    names = [*facts["odom_test"]]
    names += (folder for split in WITH_IMU for folder in facts[f"{split}_train_and_val"])
    imu = {facts["odom_drives"].get(name, name) for name in names}
    dates = sorted({drive[:10] for drive in drives})
    urls = [f"{URL}/raw_data/{date}_calib.zip" for date in dates]
    urls += [f"{URL}/raw_data/{drive}/{drive}_sync.zip" for drive in drives]
    # Sequence 03 drops out here: its raw drive is not public.
    urls += [f"{URL}/raw_data/{drive}/{drive}_extract.zip" for drive in drives if drive in imu]
    return urls + [f"{URL}/{name}.zip" for name in OTHER_ARCHIVES]


def expand(ranges: Ranges) -> list[int]:
    """Return the numbers of ranges that include both their ends."""
    return [frame for first, last in ranges for frame in range(first, last + 1)]


def line(folder: str, frame: int, side: str = "l") -> str:
    """Return a line of a list; the folder is that of a drive, or an odometry sequence."""
    place = f"{folder[:10]}/{folder}_sync" if "_drive_" in folder else folder
    return f"{place} {frame} {side}"


def shuffled(lines: Iterable[str]) -> list[str]:
    """Order lines by a hash of each, which no version of Python changes, unlike `random`."""
    return sorted(lines, key=lambda text: hashlib.sha256(f"{SEED} {text}".encode()).digest())


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def update(check: bool) -> list[Path]:
    """Write the files that are not on disk as they should be, or none of them; return which."""
    changed = []
    for name, lines in sorted(all_files(read_facts()).items()):
        path, content = FOLDER / name, "".join(text + "\n" for text in lines).encode()
        if not path.exists() or path.read_bytes() != content:
            changed.append(path)
            if not check:
                write(path, content)
    return changed


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files that are not as they should be, or only name them; return the exit code."""
    parser = argparse.ArgumentParser(
        description="Write the lists of frames for training, validation and tests.",
        epilog="exit code: 0 all is as it should be; 1 --check found files that would change;\n"
        "2 a file cannot be read or written",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--check", action="store_true", help="only say which files would change")
    args = parser.parse_args(argv)
    try:
        changed = update(check=args.check)
    except OSError as error:
        print(f"make_splits: {error}", file=sys.stderr)
        return 2
    if not changed:
        print(f"{FOLDER}: all lists are as they should be")
    for path in changed:
        print(f"{path}: {'would change' if args.check else 'written'}")
    return int(args.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
