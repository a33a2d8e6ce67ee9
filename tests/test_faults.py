"""Planted faults: exactly the intervals that are said to become invalid do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.imu_matching import match
from datasets.matched import Reason
from datasets.oxts import Fault, Packets, Problem, Recording, Stamps, parse_packet
from datasets.synthetic import faults, sensors
from datasets.synthetic.faults import Kind
from datasets.text import DataError
from tests.kitti_tree import START_NS, packets

DRIVE = "2011_01_01_drive_0001"
REASONS = {
    Kind.GAP: {Reason.NO_TWIN},
    Kind.STEP_BACK: {Reason.STEP_BACK},
    Kind.REPEATED_STAMP: {Reason.REPEATED_STAMP},
    Kind.MISSING_PACKET: {Reason.MISSING_PACKET},
    Kind.NO_TWIN: {Reason.NO_TWIN},
    Kind.MISSING_SCAN: set(),
}
drives = given(seed=st.integers(0, 10_000), frames=st.integers(faults.MIN_FRAMES, 60))


def planted(seed, frames):
    """Return the files before and after, and the faults."""
    clock = sensors.make_clock(sensors.Source(seed, 1), frames, START_NS)
    recorded = Packets(packets(clock.seconds(clock.raw_ns)), clock.raw_ns)
    before = faults.whole_files(recorded, clock.twins)
    drawn = faults.draw_faults(np.random.default_rng(seed), clock.twins)
    return before, faults.plant(before, drawn), drawn


def matched(files):
    """Return the matching of files, as if they were written and read."""
    there = [i for i, line in enumerate(files.raw_lines) if line is not None]
    absent = [i for i, line in enumerate(files.raw_lines) if line is None]
    lines = tuple(files.raw_lines[i] for i in there)
    values = np.array([parse_packet(line) for line in lines])
    problems = tuple(Problem(Fault.MISSING_FILE, i, Path("x"), None, "x") for i in absent)
    raw = Recording(
        Packets(values, files.raw_ns[there], lines),
        np.array(there),
        Stamps(files.raw_ns, np.ones(len(files.raw_ns), bool)),
        problems,
    )
    return match(Stamps(files.sync_ns, np.ones(len(files.sync_ns), bool)), raw)


@drives
def test_exactly_the_planted_intervals_are_invalid(seed, frames):
    before, after, drawn = planted(seed, frames)
    assert matched(before).imu.valid.all()
    expected = [i for fault in drawn for i in fault.intervals]
    matching = matched(after)
    assert np.flatnonzero(~matching.imu.valid).tolist() == expected
    for fault in drawn:
        assert {matching.imu.reasons[i] for i in fault.intervals} == REASONS[fault.kind]


@drives
def test_each_kind_is_there_once_with_an_untouched_interval_on_both_sides(seed, frames):
    _, _, drawn = planted(seed, frames)
    assert sorted(fault.kind.name for fault in drawn) == sorted(kind.name for kind in Kind)
    touched = [range(fault.first, fault.first + fault.kind.width) for fault in drawn]
    assert touched[0].start >= 1 and touched[-1].stop <= frames - 2
    for one, next_one in zip(touched, touched[1:], strict=False):
        assert one.stop < next_one.start


@drives
def test_files_and_lines_are_where_the_report_says(seed, frames):
    before, after, drawn = planted(seed, frames)
    report = json.loads(json.dumps(faults.describe(drawn, DRIVE)))
    assert report["invalid_intervals"] == [i for fault in drawn for i in fault.intervals]
    by_kind = {entry["kind"]: entry for entry in report["faults"]}
    steps = np.diff(after.raw_ns)
    (gap,) = np.flatnonzero(steps > 100e6)
    assert by_kind["gap"]["lines"] == [gap + 1, gap + 2]
    assert len(before.raw_ns) - len(after.raw_ns) == by_kind["gap"]["absent_packets"] == 20
    (back,) = np.flatnonzero(steps < 0)
    assert by_kind["step_back"]["lines"] == [back + 2, back + 3, back + 4]
    assert -41e6 < steps[back] < -39e6
    (repeat,) = np.flatnonzero(steps == 0)
    assert by_kind["repeated_stamp"]["lines"] == [repeat + 2]
    (file,) = by_kind["missing_packet"]["files"]
    assert after.raw_lines.index(None) == int(Path(file).stem)
    (unpaired,) = np.flatnonzero(after.sync_ns != before.sync_ns)
    assert by_kind["no_twin"]["lines"] == [unpaired + 1]
    (scan,) = after.missing_scans
    assert by_kind["missing_scan"]["frames"] == [scan]
    assert by_kind["missing_scan"]["files"][0].endswith(
        f"{DRIVE}_sync/velodyne_points/data/{scan:010d}.bin"
    )


def test_what_was_recorded_stays_as_it_is():
    before, after, _ = planted(1, 30)
    assert before.sync_lines == after.sync_lines
    kept = [line for line in after.raw_lines if line is not None]
    assert len(kept) == len(before.raw_lines) - 21 and set(kept) < set(before.raw_lines)
    assert before.missing_scans == () and (np.diff(before.raw_ns) > 0).all()


def test_frames_hit_are_the_ends_of_invalid_intervals():
    _, _, drawn = planted(2, 40)
    for fault in drawn:
        if fault.kind is Kind.MISSING_SCAN:
            assert fault.frames == (fault.first,)
        else:
            assert set(fault.frames) == {i + k for i in fault.intervals for k in (0, 1)}


def test_a_drive_too_short_to_keep_them_apart_is_refused():
    faults.check_frames(faults.MIN_FRAMES)
    with pytest.raises(DataError, match=r"faults: expected at least 17 frames, got 16"):
        faults.check_frames(faults.MIN_FRAMES - 1)
