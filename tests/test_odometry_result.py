"""What is printed and written of an evaluation of odometry."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from evaluation.odometry import Errors
from evaluation.odometry_result import DriveResult, as_json, mean_errors, mean_table, table
from metrics import ALIGNMENTS, TrajectoryErrors


def errors(t_rel=2.5, ate=1.25, segments=12):
    numbers = TrajectoryErrors(t_rel, 0.75, ate, 0.01, 0.02, 1.0, segments)
    aligned = {name: replace(numbers, scale=1 + i / 10) for i, name in enumerate(ALIGNMENTS)}
    return Errors(aligned, 0.0123, 0.0045)


def result(**changes):
    made = DriveResult(
        name="sequence 09",
        frames=(0, 1590),
        seconds=165.1,
        way_m=1705.05,
        truth="poses/09.txt",
        seen_in_training=True,
        training="SEEN IN TRAINING: 2011_09_30_drive_0033 is in the training list of eigen_zhou",
        start="recorded by the OXTS unit: 3.2 m/s",
        errors={"camera": errors(), "imu": errors(5.0), "filter": errors(1.5)},
        nis=5.9,
        gyro_bias=(1e-4, -2e-4, 3e-4),
        accel_bias=(0.01, 0.02, -0.03),
    )
    return replace(made, **changes)


def rows(text):
    return [line.split() for line in text.splitlines()]


def test_a_table_has_every_estimate_in_every_alignment():
    printed = table(result())
    lines = rows(printed)
    beginnings = [line[0] for line in lines]
    assert lines[0] == "sequence 09: images 0 to 1590, 165.1 s, 1705.0 m".split()
    at = beginnings.index("camera")
    numbers = "2.50 0.75 1.250 0.0100 0.0200".split()
    assert lines[at][:8] == ["camera", "unaligned", *numbers, "1.000"]
    assert lines[at][8:] == ["0.0123", "±", "0.0045"]
    assert lines[at + 1] == ["scale", *numbers, "1.100"]
    assert lines[at + 2][0] == "7dof" and lines[at + 3][0] == "imu"
    for said in ("poses/09.txt", "SEEN IN TRAINING", "recorded by", "NIS 5.90", "3.0e-04 rad/s"):
        assert said in printed
    assert "since" not in printed


def test_numbers_stand_below_their_names():
    lines = table(result()).splitlines()
    names = next(line for line in lines if "t_rel" in line)
    camera = next(line for line in lines if line.lstrip().startswith("camera"))
    end = names.index("t_rel") + len("t_rel")
    assert camera[:end].endswith("2.50") and camera[end] == " "
    assert max(map(len, lines)) <= 110


def test_a_short_drive_says_why_a_number_is_missing():
    printed = table(result(errors={"camera": errors(math.nan, segments=0)}))
    line = next(line for line in rows(printed) if line[0] == "camera")
    assert line[2] == "-"
    assert "no way is longer than 100 m" in printed


def test_an_estimate_that_is_absent_says_why():
    printed = table(result(errors={"camera": errors()}, absent={"imu": "no matched_oxts there"}))
    assert "imu      absent: no matched_oxts there" in printed
    printed = table(
        result(errors={}, way_m=None, truth="none, so there are no errors", nis=math.nan)
    )
    assert "none, so" in printed and "t_rel" not in printed


@pytest.mark.parametrize("number", [3e8, 3e-7, 0.0, math.inf])
def test_a_number_never_pushes_others_away(number):
    printed = table(result(errors={"camera": errors(number)})).splitlines()
    plain = table(result(errors={"camera": errors()})).splitlines()
    assert list(map(len, printed)) == list(map(len, plain))


def test_a_mean_is_over_the_drives_that_have_a_number():
    short = result(name="short", errors={"camera": errors(math.nan, 3.25, segments=0)})
    both = mean_errors([result(), short])
    assert list(both) == ["camera", "imu", "filter"]
    unaligned = both["camera"].aligned["unaligned"]
    assert unaligned.t_rel_percent == 2.5 and unaligned.ate_m == 2.25
    assert both["imu"].aligned["unaligned"].t_rel_percent == 5
    assert mean_table([result(), short]).startswith("mean of 2 drives: sequence 09, short")
    for seen, told in ((True, ["SEEN IN TRAINING are a, b"]), (None, []), (False, [])):
        both = [result(name=name, seen_in_training=seen) for name in "ab"]
        assert [x for x in mean_table(both).split("\n") if "SEEN" in x] == [
            f"  {line}: no mean to be compared" for line in told
        ]
    assert math.isnan(mean_errors([short])["camera"].aligned["7dof"].t_rel_percent)
    assert mean_errors([result(errors={})]) == {}


def test_json_has_all_numbers_and_no_nan():
    written = json.dumps(as_json([result(nis=math.nan)]), allow_nan=False)
    read = json.loads(written)
    (drive,) = read["drives"]
    assert drive["name"] == "sequence 09" and drive["seen_in_training"] is True
    assert drive["nis"] is None and drive["frames"] == [0, 1590]
    assert drive["errors"]["filter"]["aligned"]["scale"]["t_rel_percent"] == 1.5
    assert read["mean"]["imu"]["snippet_m"] == 0.0123
    assert np.allclose(drive["accel_bias"], (0.01, 0.02, -0.03))
