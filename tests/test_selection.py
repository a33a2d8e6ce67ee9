"""Which samples are left out: each once, for its first reason, and for no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.layouts import MissingError, NumberedFiles
from datasets.matched import MatchedImu, Reason, offsets_of
from datasets.oxts import Packets
from datasets.selection import (
    BEYOND,
    NO_DEPTH,
    NO_IMAGE,
    Rows,
    Selection,
    need_depth,
    need_images,
    need_imu,
)
from datasets.text import DataError
from tests.kitti_tree import START_NS, packets

LIST, FOLDER, IMU = Path("train_files.txt"), Path("images"), Path("matched_oxts.txt")
ARCHIVE = "images.zip"
AROUND = np.array([0, -1, 1])


def files(numbers):
    return NumberedFiles(FOLDER, ".png", 10, np.array(sorted(numbers), np.int64))


def all_of(frames):
    """Return a list of these frames whose samples are all in, and its rows."""
    frames = np.array(frames)
    return Selection(LIST, np.ones(len(frames), bool)), Rows(np.arange(len(frames)), frames)


def imu(reasons):
    lengths = [0 if reason else 2 for reason in reasons]
    stamps_ns = START_NS + 10_000_000 * np.arange(sum(lengths))
    values = packets((stamps_ns - START_NS) / 1e9)
    return MatchedImu(Packets(values, stamps_ns), offsets_of(lengths), tuple(reasons))


def kept(selection, rows):
    return rows.frames[selection.kept[rows.places]].tolist()


@pytest.mark.parametrize("first, last", [(-1, 1), (-4, 4), (0, 1), (-2, 0)])
def test_a_window_beyond_the_drive_is_nobodys_fault(first, last):
    selection, rows = all_of(range(10, 20))
    numbers = rows.frames[:, None] + [0, *(k for k in range(first, last + 1) if k)]
    need_images(selection, rows, numbers, files(range(10, 20)), ARCHIVE, False)
    inside = [f for f in range(10, 20) if f + first >= 10 and f + last <= 19]
    assert kept(selection, rows) == inside
    assert selection.left_out == {BEYOND: 10 - len(inside)}


def test_a_hole_is_named_with_how_many_others():
    selection, rows = all_of(range(1, 9))
    numbers = rows.frames[:, None] + AROUND
    with pytest.raises(MissingError) as error:
        need_images(selection, rows, numbers, files({*range(10)} - {4}), ARCHIVE, False)
    assert str(error.value) == f"{FOLDER / '0000000004.png'}: no such image; {ARCHIVE} brings it"
    with pytest.raises(MissingError, match=r"0000000004\.png.* with 2 more of this folder"):
        need_images(selection, rows, numbers, files({*range(10)} - {4, 5, 7}), ARCHIVE, False)
    assert selection.kept.all()  # nothing was changed on the way


def test_a_hole_that_is_skipped_costs_exactly_the_windows_that_have_it():
    selection, rows = all_of(range(10))
    need_images(
        selection, rows, rows.frames[:, None] + AROUND, files({*range(10)} - {4}), ARCHIVE, True
    )
    assert kept(selection, rows) == [1, 2, 6, 7, 8]
    assert selection.left_out == {BEYOND: 2, NO_IMAGE: 3}
    assert [fault.archive for fault in selection.faults] == [ARCHIVE]


def test_a_target_that_is_missing_is_a_fault_even_beyond_the_drive():
    selection, rows = all_of([3, 12])
    numbers = rows.frames[:, None] + AROUND  # all of the second are beyond
    with pytest.raises(MissingError, match=r"0000000011\.png.* with 2 more"):
        need_images(selection, rows, numbers, files(range(10)), ARCHIVE, False)
    need_images(selection, rows, numbers, files(range(10)), ARCHIVE, True)
    assert kept(selection, rows) == [3] and selection.left_out == {NO_IMAGE: 1}


def test_a_hole_between_samples_that_are_out_already_is_no_fault():
    selection, rows = all_of([1, 4, 7])
    selection.leave_out(rows.places, rows.frames == 4, "before")
    need_images(
        selection, rows, rows.frames[:, None] + AROUND, files({*range(9)} - {4}), ARCHIVE, False
    )
    assert kept(selection, rows) == [1, 7] and selection.left_out == {"before": 1}


@pytest.mark.parametrize("broken", range(9))
@pytest.mark.parametrize("first, last", [(-1, 1), (-4, 4), (0, 1), (-1, 0)])
def test_an_interval_without_imu_costs_exactly_the_windows_that_have_it(broken, first, last):
    frames = range(-first, 10 - last)
    selection, rows = all_of(frames)
    reasons = [Reason.GAP if i == broken else None for i in range(9)]
    intervals = rows.frames[:, None] + np.arange(first, last)
    need_imu(selection, rows, intervals, imu(reasons), IMU)
    expected = [f for f in frames if broken not in range(f + first, f + last)]
    assert kept(selection, rows) == expected
    assert selection.left_out.total() == len(frames) - len(expected)
    assert set(selection.left_out) <= {f"IMU: {Reason.GAP.value}"}


def test_a_window_with_two_bad_intervals_is_counted_once():
    selection, rows = all_of([1, 2, 3])
    reasons = [None, Reason.GAP, Reason.TOO_LONG, None]
    need_imu(selection, rows, rows.frames[:, None] + [-1, 0], imu(reasons), IMU)
    assert kept(selection, rows) == []
    gap, long = f"IMU: {Reason.GAP.value}", f"IMU: {Reason.TOO_LONG.value}"
    assert selection.left_out == {gap: 2, long: 1}


def test_fewer_intervals_than_images_need_is_an_error_unless_only_the_left_out_need_them():
    selection, rows = all_of([1, 4])
    intervals = rows.frames[:, None] + [-1, 0]
    with pytest.raises(DataError, match=r"^matched_oxts\.txt: 4 intervals.* match the drive again"):
        need_imu(selection, rows, intervals, imu([None] * 4), IMU)
    need_imu(selection, rows, intervals, imu([None] * 5), IMU)
    assert selection.kept.all()
    selection.leave_out(rows.places, rows.frames == 4, "before")
    need_imu(selection, rows, intervals, imu([None] * 4), IMU)
    assert kept(selection, rows) == [1]


def test_a_target_without_ground_truth_is_left_out():
    selection, rows = all_of([1, 2, 3])
    need_depth(selection, rows, rows.frames + 10, files([11, 13]))
    assert kept(selection, rows) == [1, 3] and selection.left_out == {NO_DEPTH: 1}


def test_only_the_rows_given_are_judged_and_each_is_counted_once():
    selection = Selection(LIST, np.ones(6, bool))
    rows = np.array([4, 1, 3])
    selection.leave_out(rows, np.array([True, False, True]), "one")
    assert selection.kept.tolist() == [True, True, True, False, False, True]
    selection.leave_out(rows, np.array([True, True, True]), "two")
    selection.leave_out(rows, np.array([True, True, True]), "three")
    assert selection.kept.tolist() == [True, False, True, False, False, True]
    assert dict(selection.left_out) == {"one": 2, "two": 1}


def test_the_report_says_how_many_and_why_the_most_frequent_first():
    selection = Selection(LIST, np.ones(6, bool))
    selection.leave_out(np.arange(6), np.arange(6) == 0, "rare")
    selection.leave_out(np.arange(6), np.arange(6) > 3, "frequent")
    head, *reasons = str(selection).splitlines()
    assert head == "train_files.txt: 3 of 6 samples can be used"
    assert [line.split() for line in reasons] == [["2", "frequent"], ["1", "rare"]]
