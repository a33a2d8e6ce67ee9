"""Which drives weights have seen, and what is said of it."""

from __future__ import annotations

from argparse import Namespace

import pytest

from datasets.drives import Drive
from datasets.splits import ODOMETRY
from evaluation.training_drives import drives_of, leakage
from tests.image_tree import write_list


def of(split):
    return Namespace(split=split if split is None else str(split))


def sequences_seen(split):
    seen = drives_of(of(split))
    return [n for n, run in ODOMETRY.items() if Drive.parse(run.drive) in seen]


def test_eigen_zhou_has_the_raw_drives_of_these_sequences():
    assert sequences_seen("eigen_zhou") == ["01", "02", "06", "08", "09", "10"]


def test_the_odometry_split_has_the_first_nine_sequences():
    assert sequences_seen("odom") == [f"{i:02d}" for i in range(9)]


def test_it_is_said_in_words():
    drive = Drive.parse(ODOMETRY["09"].drive)
    assert leakage(drive, of("eigen_zhou")) == (
        True,
        f"SEEN IN TRAINING: {drive} is in the training list of eigen_zhou",
    )
    assert leakage(drive, of("odom")) == (
        False,
        f"not trained on: {drive} is not in the training list of odom",
    )
    seen, words = leakage(None, of("odom"))
    assert seen is None and "unknown: nobody knows" in words


def test_only_the_list_of_the_training_counts(tmp_path):
    names = [f"2011_09_26/2011_09_26_drive_{i:04d}_sync 5 l" for i in (1, 2)]
    folder = tmp_path / "splits"
    write_list(folder / "train_files.txt", [*names[:1], "4 7 l", "depth_selection/x 3 l"])
    write_list(folder / "val_files.txt", names)
    expected = ("2011_09_26_drive_0001", ODOMETRY["04"].drive)
    assert drives_of(of(folder)) == set(map(Drive.parse, expected))


def test_a_drive_that_weights_were_chosen_by_is_called_one(tmp_path):
    names = [f"2011_09_26/2011_09_26_drive_{i:04d}_sync 5 l" for i in (1, 2)]
    write_list(tmp_path / "train_files.txt", names[:1])
    said = {}
    for lists in ("train", "train and val"):
        if "val" in lists:
            write_list(tmp_path / "val_files.txt", names)
        for i in (1, 2, 3):
            said[lists, i] = leakage(Drive("2011_09_26", f"{i:04d}"), of(tmp_path))
    chosen_by = {key for key, (_, words) in said.items() if "in its validation list" in words}
    assert chosen_by == {("train and val", 2)}
    assert [said["train and val", i][0] for i in (1, 2, 3)] == [True, False, False]


@pytest.mark.parametrize("broken", ["none", "gone", "empty", "line"])
def test_what_cannot_be_known_is_unknown(broken, tmp_path):
    folder = tmp_path / "splits"
    if broken in ("empty", "line"):
        write_list(folder / "train_files.txt", ["nonsense 3 l"] * (broken == "line"))
    seen, words = leakage(Drive("2011_09_26", "0001"), of(None if broken == "none" else folder))
    assert seen is None and words.startswith("unknown: ")
    said = {"none": "opt.json", "gone": "no such split", "empty": "empty", "line": "line 1"}
    assert said[broken] in words
