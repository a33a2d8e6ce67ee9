"""The lists of frames: their sizes and what they may share, and that the script makes just these.

They are read here by a few lines of the test's own.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from datasets.splits import ODOMETRY
from splits import make_splits

SPLITS = Path(__file__).parent.parent / "splits"
FACTS = json.loads((SPLITS / "frames.json").read_text(encoding="utf-8"))
FRACTIONS = ("eigen_quater", "eigen_half", "eigen_three_quater")
DRAWN = ("eigen_zhou", "eigen_full", "benchmark", "odom")
SIZES = {  # train, val, test; the customary ones, and those of `test`
    "eigen_zhou": (39810, 4424, 697),
    "eigen_full": (45200, 1776, 697),
    "eigen_quater": (9952, 4424, 697),
    "eigen_half": (19905, 4424, 697),
    "eigen_three_quater": (29857, 4424, 697),
    "eigen": (None, None, 697),
    "eigen_benchmark": (None, None, 652),
    "odom": (36671, 4075, 2790),
    "benchmark": (72084, 6060, 500),
    "test": (182, 20, 10),
}


def read(split, part):
    return (SPLITS / split / f"{part}_files.txt").read_text().splitlines()


def parsed(lines):
    """Return drive, frame and side of each line."""
    rows = [line.split(" ") for line in lines]
    return [
        (folder.split("/")[-1].removesuffix("_sync"), int(frame), side)
        for folder, frame, side in rows
    ]


def expanded(ranges_of):
    return {
        (drive, frame)
        for drive, ranges in ranges_of.items()
        for first, last in ranges
        for frame in range(first, last + 1)
    }


@pytest.mark.parametrize("split", SIZES)
def test_lists_have_their_customary_sizes(split):
    for part, size in zip(("train", "val", "test"), SIZES[split], strict=True):
        path = SPLITS / split / f"{part}_files.txt"
        assert (path.read_bytes().count(b"\n") if path.exists() else None) == size


def test_there_are_no_other_lists():
    assert {path.parent.name for path in SPLITS.glob("*/*.txt")} == set(SIZES)
    extra = {path.name for path in SPLITS.glob("*/*.txt")}
    assert extra - {f"{part}_files.txt" for part in ("train", "val", "test")} == {
        "test_files_09.txt",
        "test_files_10.txt",
    }


@pytest.mark.parametrize("split", DRAWN)
def test_train_and_val_are_the_frames_of_the_facts_seen_from_both_sides(split):
    train, val = parsed(read(split, "train")), parsed(read(split, "val"))
    frames = expanded(FACTS[f"{split}_train_and_val"])
    assert set(train) | set(val) == {(*frame, side) for frame in frames for side in "lr"}
    assert len(train) + len(val) == 2 * len(frames)  # disjoint, and nothing is in a list twice


@pytest.mark.parametrize("split", DRAWN)
def test_the_draw_is_fair_and_the_order_mixes_drives(split):
    train, val = parsed(read(split, "train")), parsed(read(split, "val"))
    drives = Counter(drive for drive, _, _ in train + val)
    longest, count = drives.most_common(1)[0]
    share = count / drives.total()
    for rows in (val, train[: len(train) // 4], train[-len(train) // 4 :]):
        found = Counter(drive for drive, _, _ in rows), Counter(side for _, _, side in rows)
        for number, chance in ((found[0][longest], share), (found[1]["l"], 0.5)):
            deviation = math.sqrt(len(rows) * chance * (1 - chance))
            assert abs(number - len(rows) * chance) < 5 * deviation


def test_a_smaller_validation_lies_within_a_larger_one():
    zhou, small = set(read("eigen_zhou", "val")), set(read("eigen_full", "val"))
    assert not small & set(read("eigen_zhou", "train"))
    assert len(small & zhou) > 0.8 * len(small)


@pytest.mark.parametrize("split", FRACTIONS)
def test_fractions_are_the_first_lines_of_eigen_zhou(split):
    train = read(split, "train")
    assert train == read("eigen_zhou", "train")[: len(train)]
    assert read(split, "val") == read("eigen_zhou", "val")


# Tests


def test_the_697_frames_of_eigen_are_in_customary_order():
    lines = read("eigen", "test")
    assert lines[:2] == [
        "2011_09_26/2011_09_26_drive_0002_sync 69 l",
        "2011_09_26/2011_09_26_drive_0002_sync 54 l",
    ]
    wanted = [(d, frame, "l") for d, frames in FACTS["eigen_test"].items() for frame in frames]
    assert parsed(lines) == wanted and len(set(lines)) == 697
    for split in ("eigen_zhou", "eigen_full", *FRACTIONS):
        assert read(split, "test") == lines


def test_the_652_are_the_697_without_45():
    lines, all_lines = read("eigen_benchmark", "test"), read("eigen", "test")
    lacking = FACTS["eigen_test_without_improved_ground_truth"]
    without = {(drive, frame) for drive, frames in lacking.items() for frame in frames}
    left_out = [line for line in all_lines if parsed([line])[0][:2] in without]
    assert len(left_out) == len(without) == 45
    assert lines == [line for line in all_lines if line not in left_out]


@pytest.mark.parametrize("split", ["eigen_zhou", "eigen_full", *FRACTIONS])
def test_no_drive_of_the_eigen_test_is_trained_on(split):
    tested = {drive for drive, _, _ in parsed(read("eigen", "test"))}
    assert len(tested) == 28
    for part in ("train", "val"):
        assert not tested & {drive for drive, _, _ in parsed(read(split, part))}


def test_odometry_is_tested_on_two_sequences_one_after_the_other():
    nine = [f"09 {frame} l" for frame in range(1590)]
    ten = [f"10 {frame} l" for frame in range(1200)]
    assert read("odom", "test") == nine + ten
    for sequence, lines in (("09", nine), ("10", ten)):
        assert (SPLITS / "odom" / f"test_files_{sequence}.txt").read_text().splitlines() == lines
    trained = {sequence for sequence, _, _ in parsed(read("odom", "train"))}
    assert trained == {f"{i:02d}" for i in range(9)}


def test_sequences_have_frames_on_both_sides_of_those_trained_on():
    assert FACTS["odom_drives"] == {name: run.drive for name, run in ODOMETRY.items()}
    for sequence, ranges in FACTS["odom_train_and_val"].items():
        run = ODOMETRY[sequence]
        assert ranges == [[2, run.last - run.first - 2]]


def test_the_benchmark_is_tested_on_single_images():
    folder = "depth_selection/test_depth_prediction_anonymous"
    assert read("benchmark", "test") == [f"{folder} {i} l" for i in range(500)]


def test_the_small_split_shares_no_image_between_its_parts():
    parts = {part: parsed(read("test", part)) for part in ("train", "val", "test")}
    assert {drive for rows in parts.values() for drive, _, _ in rows} == {"2011_09_26_drive_0001"}
    frames = {part: {frame for _, frame, _ in rows} for part, rows in parts.items()}
    assert frames["test"] == frames["val"] == set(range(97, 107))
    assert frames["train"] == set(range(1, 92))
    used = {part: {f + step for f in frames[part] for step in (-1, 0, 1)} for part in frames}
    assert not used["train"] & (used["val"] | used["test"])
    assert max(used["val"]) == 107  # the last image of the drive
    for part in ("train", "val"):
        both = {(frame, side) for _, frame, side in parts[part]}
        assert len(parts[part]) == len(both) == 2 * len(frames[part])
    assert {side for _, _, side in parts["test"]} == {"l"}


# Archives


def archives():
    return (SPLITS / "kitti_archives_to_download.txt").read_text().splitlines()


def test_every_drive_of_every_split_has_its_archive():
    urls, drives = archives(), set()
    for path in SPLITS.glob("*/*.txt"):
        names = {drive for drive, _, _ in parsed(path.read_text().splitlines())}
        drives |= {FACTS["odom_drives"].get(name, name) for name in names}
    drives -= {"test_depth_prediction_anonymous", "2011_09_26_drive_0067"}
    base = "https://s3.eu-central-1.amazonaws.com/avg-kitti"
    synced = {f"{base}/raw_data/{drive}/{drive}_sync.zip" for drive in drives}
    assert synced == {url for url in urls if url.endswith("_sync.zip")} and len(synced) == 61
    dates = {drive[:10] for drive in drives}
    calibrations = {f"{base}/raw_data/{date}_calib.zip" for date in dates}
    assert calibrations == {url for url in urls if url.endswith("_calib.zip")}
    others = [f"{base}/data_{n}.zip" for n in ("depth_annotated", "depth_selection")]
    assert urls[-3:] == [*others, f"{base}/data_odometry_poses.zip"]
    assert len(set(urls)) == len(urls) and not any("_0067" in url for url in urls)
    assert all(url.startswith(base) and url.endswith(".zip") for url in urls)


def test_the_unsynced_recordings_are_those_whose_imu_is_used():
    wanted = {run.drive for run in ODOMETRY.values() if run.public}
    for split in ("eigen_zhou", "eigen_full", "test"):
        wanted |= {drive for part in ("train", "val") for drive, _, _ in parsed(read(split, part))}
    extracts = [url.split("/")[-1] for url in archives() if url.endswith("_extract.zip")]
    assert sorted(extracts) == sorted(f"{drive}_extract.zip" for drive in wanted)


# The script


def run(folder, *arguments, hash_seed="0"):
    return subprocess.run(
        [sys.executable, str(folder / "make_splits.py"), *arguments],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copied(tmp_path):
    """The script and its facts, and nothing else."""
    for name in ("make_splits.py", "frames.json"):
        shutil.copy(SPLITS / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_files_here_are_what_the_script_writes(hash_seed):
    checked = run(SPLITS, "--check", hash_seed=hash_seed)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout == f"{SPLITS}: all lists are as they should be\n"


def test_the_script_writes_all_and_a_check_says_what_differs(copied):
    assert run(copied, "--check").returncode == 1
    assert len([*copied.iterdir()]) == 2  # nothing was written
    assert run(copied).returncode == 0
    names = {path.relative_to(copied) for path in copied.rglob("*.txt")}
    assert names == {path.relative_to(SPLITS) for path in SPLITS.rglob("*.txt")}
    assert all((copied / name).read_bytes() == (SPLITS / name).read_bytes() for name in names)
    assert not [*copied.rglob("*.tmp")]
    val, test = copied / "odom" / "val_files.txt", copied / "eigen" / "test_files.txt"
    val.write_bytes(val.read_bytes().replace(b"\n", b"\r\n"))
    test.unlink()
    checked = run(copied, "--check")
    assert checked.returncode == 1
    assert checked.stdout.splitlines() == [f"{path}: would change" for path in (test, val)]
    assert b"\r" in val.read_bytes() and not test.exists()
    assert run(copied).stdout.splitlines() == [f"{path}: written" for path in (test, val)]
    assert run(copied, "--check").returncode == 0


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x" / "val_files.txt"
    make_splits.write(path, b"before")

    def failing(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="disk full"):
        make_splits.write(path, b"after")
    assert path.read_bytes() == b"before" and [*path.parent.iterdir()] == [path]


def test_facts_that_are_missing_are_named_in_one_line(copied):
    (copied / "frames.json").unlink()
    failed = run(copied)
    assert failed.returncode == 2 and failed.stderr.startswith("make_splits: ")
    assert "frames.json" in failed.stderr and failed.stderr.count("\n") == 1


def test_the_order_of_the_facts_does_not_matter():
    turned = {
        key: dict(reversed(value.items())) if key.endswith("train_and_val") else value
        for key, value in FACTS.items()
    } | {"all_drives": FACTS["all_drives"][::-1]}
    assert make_splits.all_files(turned) == make_splits.all_files(FACTS)
